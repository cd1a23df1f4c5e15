"""Signs and vehicles that no free model shows, built from solids."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from janus_kit.training.bank.forms import (
    arc,
    ball,
    box,
    lathe,
    oval,
    place,
    press,
    rounded,
    slab,
    tube,
)
from janus_kit.training.bank.meshes import Mesh

__all__ = ["STREET"]

Thing = Callable[[], list[Mesh]]
STEEL = "#9aa0a6"


def _traffic_light(case: str = "#e0b020", pole: bool = True) -> list[Mesh]:
    parts = [slab(rounded(1.0, 2.7, 0.16), 0.7, case)]
    for y, color in ((0.84, "#ff2a1e"), (0.0, "#ffc21a"), (-0.84, "#25d04e")):
        lamp = lathe([(0.0, 0.12), (0.2, 0.1), (0.33, 0.0)][::-1], color, shine=0.3)
        parts.append(place(lamp, (0, y, 0.36), turn=(90, 0, 0)))
        turns = np.linspace(-0.2, 3.34, 24).tolist()
        rim = [(0.4 * math.cos(t), 0.4 * math.sin(t), 0.0) for t in turns]
        hood = tube(rim, [0.05] * 24, "#1c1c1e")
        parts.append(place(hood, (0, y, 0.55), scale=(1, 1, 5)))
        parts.append(place(slab(oval(0.86, 0.86), 0.04, "#141416"), (0, y, 0.34)))
    if pole:
        parts.append(lathe([(0.1, -3.2), (0.1, 1.0)], "#4a4e52"))
        parts[-1] = place(parts[-1], (0, -0.4, -0.35))
    return parts


def _sign(pole: bool = True) -> list[Mesh]:
    """A stop sign: the word, the eight sides, the white rim."""
    corners = [(math.cos(t), math.sin(t)) for t in np.radians(np.arange(22.5, 360, 45)).tolist()]
    skin = Image.new("RGB", (512, 512), "#f5f5f2")
    pen = ImageDraw.Draw(skin)
    half = math.cos(math.radians(22.5))
    pen.polygon([(256 + 238 * x / half, 256 - 238 * y / half) for x, y in corners], fill="#c4161c")
    font = ImageFont.load_default(168)
    pen.text((256, 256), "STOP", "#f8f8f5", font, anchor="mm", stroke_width=5)
    parts = [slab(corners, 0.05, "#ffffff", skin=skin)]
    if pole:
        parts.append(place(lathe([(0.06, -2.6), (0.06, 0.7)], STEEL), (0, 0, -0.1)))
    return parts


def _parking_meter(color: str = "#5a646e") -> list[Mesh]:
    dome = [*arc(0, 180, 0.5, (0, 0.35)), (-0.42, -0.75, 0), (0.42, -0.75, 0)]
    outline = [(x, y) for x, y, _ in dome]
    glass = [(0.82 * x, 0.8 * y + 0.12) for x, y in outline if y >= 0.2]
    coin = lathe([(0.12, -0.04), (0.12, 0.04), (0, 0.04)], "#d8dadd")
    return [
        slab(outline, 0.5, color),
        place(slab(glass, 0.03, "#dfe8ea", shine=0.3), (0, 0, 0.26)),
        place(box((0.5, 0.05, 0.02), "#c4161c"), (0, 0.42, 0.29)),
        place(box((0.03, 0.3, 0.02), "#202020"), (0.08, 0.5, 0.3), turn=(0, 0, -30)),
        place(box((0.5, 0.2, 0.04), "#c9ccd0"), (0, -0.1, 0.26)),
        place(box((0.05, 0.14, 0.05), "#202020"), (0.15, -0.1, 0.28)),
        place(coin, (0, -0.45, 0.27), turn=(90, 0, 0)),
        place(box((0.26, 0.05, 0.06), "#b0b4b8"), (0, -0.45, 0.34)),
        lathe([(0.28, -3.0), (0.28, -2.9), (0.11, -2.8), (0.11, -0.9), (0.2, -0.7)], "#6a7076"),
    ]


def _airliner(body: str = "#eef0f2", tail: str = "#1f5fb4") -> list[Mesh]:
    path = [(0.0, 0.0, z) for z in (4.0, 3.8, 3.4, 2.8, 2.0, 0.0, -2.0, -3.0, -3.8, -4.4)]
    hull = tube(path, [0.06, 0.22, 0.38, 0.47, 0.5, 0.5, 0.48, 0.38, 0.22, 0.06], body)
    parts = [hull]
    for side in (-1, 1):
        wing = [(0.3 * side, 1.3), (4.3 * side, -0.9), (4.3 * side, -1.4), (0.3 * side, -0.7)]
        fin = [(0.1 * side, -3.3), (1.6 * side, -4.1), (1.6 * side, -4.5), (0.1 * side, -4.2)]
        parts += [
            place(slab(wing, 0.1, "#cfd4d9"), (0, -0.2, 0), turn=(90, 0, 4 * side)),
            place(slab(fin, 0.07, "#cfd4d9"), (0, 0.2, 0), turn=(90, 0, 0)),
            place(lathe([(0.2, 0), (0.25, 0.5), (0.2, 1.0)], "#b4bac0"), (1.5 * side, -0.5, 0.1),
                  turn=(90, 0, 0)),
            place(lathe([(0.0, 0.42), (0.19, 0.42), (0.19, 0.5)], "#2a2c30"),
                  (1.5 * side, -0.5, 0.62), turn=(90, 0, 0)),
        ]  # fmt: skip
        parts += [
            place(box((0.05, 0.13, 0.11), "#2c3440"), (0.485 * side, 0.12, z))
            for z in np.arange(-2.2, 2.7, 0.28).tolist()
        ]
    rudder = [(-4.5, 1.75), (-4.0, 1.75), (-2.9, 0.35), (-4.2, 0.2)]
    parts.append(place(slab(rudder, 0.09, tail), turn=(0, -90, 0)))
    parts.append(place(box((0.62, 0.14, 0.16), "#2c3440"), (0, 0.26, 3.3), turn=(-40, 0, 0)))
    return parts


def _railcar(body: str = "#d8dde2", stripe: str = "#c4202a") -> list[Mesh]:
    """A commuter train of two cars."""
    parts: list[Mesh] = []
    for car in (0, 1):
        z = -car * 6.3
        parts += [
            place(slab(rounded(1.7, 2.0, 0.28), 6.0, body), (0, 0, z)),
            place(box((1.72, 0.26, 5.9), stripe), (0, -0.5, z)),
            place(box((1.5, 0.35, 5.4), "#2a2c30"), (0, -1.1, z)),
        ]
        for k in (-2.4, -1.3, -0.2, 0.9, 2.0):
            parts.append(place(box((1.73, 0.62, 0.75), "#20262e", shine=0.3), (0, 0.3, z + k)))
        for end in (-2.0, 2.0):
            for wheel in (-0.4, 0.4):
                disc = lathe([(0, -0.8), (0.3, -0.8), (0.3, 0.8), (0, 0.8)], "#3a3c40")
                parts.append(place(disc, (0, -1.3, z + end + wheel), turn=(0, 0, 90)))
    parts += [
        place(slab(rounded(1.35, 0.8, 0.12), 0.05, "#161a20", shine=0.3), (0, 0.35, 3.0)),
        place(slab(oval(0.24, 0.24), 0.08, "#fff6c8"), (-0.55, -0.5, 3.0)),
        place(slab(oval(0.24, 0.24), 0.08, "#fff6c8"), (0.55, -0.5, 3.0)),
        place(box((1.5, 0.3, 0.3), "#3a3c40"), (0, -0.98, 3.0)),
    ]
    return parts


def _steam_engine(color: str = "#262a2e", trim: str = "#b02a22") -> list[Mesh]:
    boiler = lathe([(0, -2.2), (0.72, -2.2), (0.72, 2.0), (0.62, 2.12), (0, 2.15)], color)
    parts = [
        place(boiler, (0, 0.35, 0.6), turn=(90, 0, 0)),
        place(lathe([(0.25, 0), (0.22, 0.5), (0.36, 0.95), (0.36, 1.05), (0.2, 1.05)], color),
              (0, 1.0, 2.2)),
        place(ball(0.32, "#c8a24a"), (0, 1.05, 0.8)),
        place(box((1.9, 1.9, 1.5), color), (0, 0.6, -2.2)),
        place(box((1.92, 0.6, 0.8), "#8fb4c8"), (0, 1.0, -2.2)),
        place(box((2.2, 0.14, 2.0), trim), (0, 1.62, -2.2)),
        place(box((1.8, 0.25, 5.6), trim), (0, -0.5, -0.1)),
        place(slab([(-0.9, 0), (0.9, 0), (0.5, -0.55), (-0.5, -0.55)], 0.4, trim), (0, -0.55, 2.8)),
        place(slab(oval(0.4, 0.4), 0.2, "#fff0b0"), (0, 0.85, 2.75)),
    ]  # fmt: skip
    for z, radius in ((-2.2, 0.62), (-0.8, 0.62), (0.6, 0.62), (2.0, 0.4)):
        wheel = [(0, -1.0), (radius, -1.0), (radius, -0.82), (0, -0.82)]
        for x in (0.0, 1.82):
            disc = place(lathe(wheel, trim), (x, -1.35 + radius, z), turn=(0, 0, -90))
            parts.append(place(disc, (0, 0, 0)))
    return parts


def _sailboat(hull: str = "#f2f2ee", sail: str = "#fbfaf4") -> list[Mesh]:
    rows = [(-2.2, 0.75), (-1.2, 0.9), (0.0, 0.95), (1.2, 0.7), (2.0, 0.35), (2.6, 0.04)]
    keel = tube([(x, 0, 0) for x, _ in rows], [w for _, w in rows], hull)
    deck = [(x, w * 0.98) for x, w in rows] + [(x, -w * 0.98) for x, w in rows[::-1]]
    bottom = press(place(keel, scale=(1, 0.75, 1)), high=0.0)
    main = [(0.05, 0.5), (0.05, 5.0), (-2.2, 0.6)]
    jib = [(0.45, 4.3), (0.35, 0.5), (2.45, 0.2)]
    return [
        bottom,
        place(slab(deck, 0.06, "#b88a52"), turn=(90, 0, 0)),
        place(box((1.1, 0.35, 0.7), hull), (-0.6, 0.2, 0)),
        lathe([(0.07, 0), (0.05, 5.2)], "#8a6a42"),
        place(lathe([(0.04, 0), (0.04, 2.4)], "#8a6a42"), (0.1, 0.5, 0), turn=(0, 0, 88)),
        slab(main, 0.03, sail),
        slab(jib, 0.03, sail),
        place(box((4.4, 0.12, 1.93), "#1f4f96"), (-0.1, -0.1, 0), scale=(0.9, 1, 0.92)),
    ]


def _hydrant(color: str = "#e8b820", cap: str = "#d8d8d4") -> list[Mesh]:
    barrel = [(0.0, -1.9), (0.62, -1.9), (0.62, -1.75), (0.42, -1.7), (0.42, -0.2), (0.5, -0.15),
              (0.5, 0.35), (0.6, 0.4), (0.6, 0.52), (0.5, 0.56), (0.42, 0.85), (0.22, 1.05),
              (0.12, 1.1), (0.12, 1.3), (0.0, 1.3)]  # fmt: skip
    nozzle = [(0.0, 0.0), (0.27, 0.0), (0.27, 0.5), (0.34, 0.5), (0.34, 0.68), (0.0, 0.68)]
    bolt = [(0.0, 0.66), (0.1, 0.66), (0.1, 0.84), (0.0, 0.84)]
    parts = [lathe(barrel, color, shine=0.2)]
    for turn in ((90, 0, 0), (0, 0, 90), (0, 0, -90)):
        tone = color if turn[0] else cap
        parts += [place(lathe(line, tone), (0, 0.1, 0), turn=turn) for line in (nozzle, bolt)]
    for k in range(8):
        t = math.pi * k / 4
        at = (0.54 * math.cos(t), -1.72, 0.54 * math.sin(t))
        parts.append(place(ball(0.06, cap), at))
    return parts


STREET: Mapping[str, Mapping[str, Thing]] = {
    "fire hydrant": {"yellow": _hydrant, "red": lambda: _hydrant("#b8241e", "#e8e6e0")},
    "traffic light": {
        "yellow": _traffic_light,
        "black": lambda: _traffic_light("#2a2e32"),
        "green": lambda: _traffic_light("#2c4a36", pole=False),
        "head": lambda: _traffic_light("#caa018", pole=False),
    },
    "stop sign": {"pole": _sign, "plate": lambda: _sign(pole=False)},
    "parking meter": {
        "grey": _parking_meter,
        "blue": lambda: _parking_meter("#2f5688"),
        "green": lambda: _parking_meter("#3f5a48"),
    },
    "airplane": {"blue": _airliner, "red": lambda: _airliner("#f4f4f2", "#c8242c")},
    "train": {
        "railcar": _railcar,
        "yellow": lambda: _railcar("#e8c23a", "#2a4a8a"),
        "steam": _steam_engine,
        "green steam": lambda: _steam_engine("#2c5a3a", "#a8281e"),
    },
    "boat": {"sail": _sailboat, "blue sail": lambda: _sailboat("#2a5a9a", "#f4efe0")},
}
