"""Things that people wear, carry and play with, built from solids."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw

from janus_kit.training.bank.forms import (
    arc,
    ball,
    box,
    lathe,
    loose,
    oval,
    place,
    rounded,
    slab,
    tube,
)
from janus_kit.training.bank.meshes import Mesh

__all__ = ["PERSONAL"]

Thing = Callable[[], list[Mesh]]
STEEL = "#c4c8cc"


def _hair_drier(body: str = "#d8447a", dark: str = "#2a2c30") -> list[Mesh]:
    profile = [(0.0, -1.0), (0.35, -0.98), (0.52, -0.7), (0.55, -0.2), (0.46, 0.5), (0.38, 1.05)]
    barrel = lathe(profile, body, shine=0.3)
    nozzle = lathe(
        [(0.38, 1.0), (0.34, 1.35), (0.3, 1.45), (0.26, 1.45), (0.26, 1.1), (0, 1.1)], dark
    )
    grill = lathe([(0.0, -1.04), (0.3, -1.02), (0.34, -0.96)], dark)
    parts = [place(part, turn=(0, 0, 90)) for part in (barrel, nozzle, grill)]
    handle = tube([(0.35, -0.3, 0), (0.42, -1.0, 0), (0.55, -1.9, 0)], [0.24, 0.22, 0.2], body)
    cord = [(0.57, -1.95, 0), (0.65, -2.3, 0), (0.9, -2.5, 0), (1.3, -2.45, 0), (1.6, -2.6, 0)]
    return [
        *parts,
        handle,
        place(box((0.1, 0.4, 0.12), "#f2f2f0"), (0.19, -0.95, 0)),
        tube(cord, [0.06] * 5, dark),
    ]


def _toothbrush(color: str = "#2a8ad8", second: str = "#f4f6f8") -> list[Mesh]:
    stem = [(-3.0, 0, 0), (-2.6, 0.03, 0), (-1.6, 0.1, 0), (-0.6, 0.02, 0), (0.4, -0.03, 0),
            (1.4, 0, 0), (1.9, 0, 0), (2.9, 0, 0), (3.0, 0, 0)]  # fmt: skip
    handle = tube(stem, [0.16, 0.24, 0.26, 0.2, 0.13, 0.11, 0.2, 0.2, 0.12], color, shine=0.3)
    parts = [place(handle, scale=(1, 0.7, 1)), place(box((1.2, 0.06, 0.2), second), (-1.7, 0.2, 0))]
    for k in range(8):
        for z in (-0.12, 0.0, 0.12):
            tone = color if k in (0, 7) else second
            tuft = lathe([(0.055, 0), (0.065, 0.5), (0.0, 0.52)], tone)
            parts.append(place(tuft, (1.85 + 0.15 * k, 0.1, z)))
    return [place(part, turn=(0, 0, 24)) for part in parts]


def _tie(color: str = "#a8202c", stripe: str = "#e8c24a") -> list[Mesh]:
    skin = Image.new("RGB", (256, 768), color)
    pen = ImageDraw.Draw(skin)
    for k in range(-4, 12):
        pen.line((-40, 120 * k, 300, 120 * k + 170), fill=stripe, width=22)
    blade = [(-0.26, 2.1), (-0.62, -1.7), (0.0, -2.3), (0.62, -1.7), (0.26, 2.1)]
    knot = [(-0.42, 0.42), (-0.22, -0.42), (0.22, -0.42), (0.42, 0.42)]
    loop = [(1.25 * x, 1.5 * y, 0.0) for x, y, _ in arc(-65, 245, 0.75, count=30)]
    return [
        slab(blade, 0.06, color, skin=skin),
        place(slab(knot, 0.3, color, skin=skin.crop((0, 0, 256, 256))), (0, 2.3, 0.08)),
        place(tube(loop, [0.11] * 30, color), (0, 3.6, -0.1), scale=(1, 1, 0.5)),
    ]


def _umbrella(color: str = "#d8262c", second: str = "#d8262c") -> list[Mesh]:
    """An open umbrella with its crook."""
    parts = []
    ribs = 8
    for k in range(ribs):
        turn = np.linspace(2 * math.pi * k / ribs, 2 * math.pi * (k + 1) / ribs, 7)
        rise = np.linspace(0, 1, 10)
        net = []
        for up in rise.tolist():
            sag = 0.10 * np.sin(np.linspace(0, math.pi, 7)) * up**2
            radius = 2.0 * math.sin(up * 1.32) * (1 - sag)
            high = 2.0 * math.cos(up * 1.32) + sag
            net.append(np.column_stack([radius * np.sin(turn), high, radius * np.cos(turn)]))
        sheet = np.stack(net)
        a, b, c, d = sheet[:-1, :-1], sheet[1:, :-1], sheet[1:, 1:], sheet[:-1, 1:]
        points = np.stack([a, b, c, a, c, d], axis=2).reshape(-1, 3)
        parts.append(loose(points, color if k % 2 else second))
    crook = [(0, 2.25, 0), (0, 0, 0), (0, -1.6, 0), *[(0.3 + x, -1.6 + y, 0)
             for x, y, _ in arc(180, 350, 0.3, count=10)]]  # fmt: skip
    parts.append(tube(crook, [0.05] * len(crook), "#4a3222"))
    return [place(part, turn=(8, 0, -18)) for part in parts]


def _teddy(fur: str = "#a8703c", muzzle: str = "#d8b078") -> list[Mesh]:
    """A bear of balls that sits, its arms and legs to the viewer."""
    parts = [
        place(ball(1, fur), (0, 0, 0), scale=(0.85, 0.95, 0.75)),
        place(ball(1, muzzle), (0, 0, 0.2), scale=(0.55, 0.65, 0.6)),
        place(ball(0.78, fur), (0, 1.4, 0.05)),
        place(ball(0.36, muzzle), (0, 1.22, 0.66), scale=(1, 0.8, 0.7)),
        place(ball(0.12, "#1c1410"), (0, 1.34, 0.92), scale=(1.2, 0.8, 0.7)),
    ]
    for side in (-1, 1):
        parts += [
            place(ball(0.09, "#120c08", shine=0.3), (0.28 * side, 1.55, 0.7)),
            place(ball(0.3, fur), (0.6 * side, 2.0, 0.0), scale=(1, 1, 0.6)),
            place(ball(0.18, muzzle), (0.6 * side, 2.0, 0.14), scale=(1, 1, 0.5)),
            place(ball(1, fur), (0.92 * side, 0.3, 0.3), scale=(0.3, 0.62, 0.32),
                  turn=(-35, 0, 28 * side)),
            place(ball(1, fur), (0.6 * side, -0.7, 0.65), scale=(0.36, 0.38, 0.72),
                  turn=(0, 22 * side, 0)),
            place(ball(0.3, muzzle), (0.86 * side, -0.7, 1.25), scale=(0.9, 1, 0.35)),
        ]  # fmt: skip
    return parts


def _scissors(grip: str = "#c8262c") -> list[Mesh]:
    """Half open, on the table."""
    parts = []
    for side in (-1, 1):
        edge = [(-0.1, 0.0), (0.14, 0.0), (0.2, 1.4), (0.02, 2.6), (-0.06, 1.4)]
        half = [
            slab([(x * side, y) for x, y in edge][:: side], 0.05, STEEL, shine=0.3),
            tube([(0.02 * side, 0.1, 0), (-0.12 * side, -0.5, 0), (-0.22 * side, -0.8, 0)],
                 [0.1, 0.12, 0.1], grip),
            place(tube([(0.34 * x, 0.52 * y, 0) for x, y, _ in arc(0, 360, 1.0, count=30)],
                       [0.1] * 30, grip), (-0.42 * side, -1.2, 0)),
        ]  # fmt: skip
        parts += [place(part, (0, 0, 0.03 * side), turn=(0, 0, -14 * side)) for part in half]
    parts.append(place(slab(oval(0.2, 0.2), 0.16, "#8a8f96"), (0, 0.05, 0)))
    return [place(part, turn=(-90, 0, 0)) for part in parts]


def _backpack(color: str = "#2a5a9a", second: str = "#1c3f70") -> list[Mesh]:
    front = rounded(1.4, 0.95, 0.25)
    parts = [
        slab(rounded(2.0, 2.7, 0.75), 1.0, color),
        place(slab(rounded(1.9, 2.5, 0.7), 0.14, color), (0, -0.02, 0.54)),
        place(slab(front, 0.5, second), (0, -0.7, 0.7)),
        place(slab(rounded(1.3, 0.34, 0.15), 0.2, color), (0, -0.36, 0.9)),
        place(tube([(1.02 * x, 0.95 * y + 0.15, 0.52) for x, y, _ in arc(-10, 190, 0.9, count=30)],
                   [0.035] * 30, "#e8e8e4")),
        place(box((0.14, 0.22, 0.06), "#e8e8e4"), (0.35, -0.5, 1.0)),
        place(tube([(0.26 * x, 0.3 * y, 0) for x, y, _ in arc(0, 180, 1, count=14)], [0.07] * 14,
                   second), (0, 1.32, -0.1)),
    ]  # fmt: skip
    for side in (-1, 1):
        strap = [(0.5 * side, 1.2, -0.4), (0.72 * side, 1.1, -0.85), (0.8 * side, 0.2, -1.05),
                 (0.85 * side, -0.8, -0.8), (0.8 * side, -1.15, -0.4)]  # fmt: skip
        parts.append(tube(strap, [0.14] * 5, second))
        parts.append(place(slab(rounded(0.7, 1.0, 0.2), 0.3, second), (1.05 * side, -0.75, 0.0),
                           turn=(0, 90, 0)))  # fmt: skip
    return parts


def _handbag(color: str = "#a8283c", trim: str = "#d8b45a") -> list[Mesh]:
    body = [(-1.3, -0.9), (1.3, -0.9), (1.05, 0.7), (-1.05, 0.7)]
    flap = [(-1.06, 0.72), (-1.12, 0.2), (0.0, -0.25), (1.12, 0.2), (1.06, 0.72)]
    bow = [(0.72 * x, 1.1 * y + 0.68, 0.0) for x, y, _ in arc(0, 180, 1.0, count=30)]
    return [
        slab(body, 0.8, color),
        place(slab(flap, 0.08, color), (0, 0, 0.44)),
        place(slab(oval(0.3, 0.22), 0.1, trim, shine=0.3), (0, -0.12, 0.48)),
        place(tube(bow, [0.09] * 30, color), (0, 0, 0.22)),
        place(tube(bow, [0.09] * 30, color), (0, 0, -0.22)),
        *(
            place(slab(oval(0.26, 0.26), 0.07, trim, shine=0.3), (x, 0.58, 0.46))
            for x in (-0.72, 0.72)
        ),
        place(box((2.56, 0.08, 0.84), trim), (0, -0.86, 0)),
    ]


PERSONAL: Mapping[str, Mapping[str, Thing]] = {
    "hair drier": {
        "pink": _hair_drier,
        "black": lambda: _hair_drier("#303338", "#8a9096"),
        "blue": lambda: _hair_drier("#3a78c8"),
    },
    "toothbrush": {
        "blue": _toothbrush,
        "green": lambda: _toothbrush("#3aa858"),
        "pink": lambda: _toothbrush("#e0508a"),
    },
    "tie": {
        "red": _tie,
        "blue": lambda: _tie("#1f3f7a", "#c4ccd8"),
        "plain": lambda: _tie("#2a2c34", "#2a2c34"),
    },
    "umbrella": {
        "red": _umbrella,
        "blue": lambda: _umbrella("#2a58b0", "#f2f2ee"),
        "yellow": lambda: _umbrella("#f0c42a"),
    },
    "teddy bear": {"brown": _teddy, "cream": lambda: _teddy("#d8c09a", "#f2e6cc")},
    "scissors": {"red": _scissors, "blue": lambda: _scissors("#2a58a8")},
    "backpack": {
        "blue": _backpack,
        "red": lambda: _backpack("#c43a2e", "#7a241c"),
        "green": lambda: _backpack("#4a6a3a", "#32482a"),
    },
    "handbag": {
        "red": _handbag,
        "brown": lambda: _handbag("#7a4a2a", "#c8a45a"),
        "black": lambda: _handbag("#26282c", "#c8ccd0"),
    },
}
