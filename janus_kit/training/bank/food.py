"""Food that no free model shows, built from solids."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from janus_kit.training.bank.forms import arc, ball, lathe, oval, place, slab, tube
from janus_kit.training.bank.meshes import Mesh

__all__ = ["FOOD"]

Thing = Callable[[], list[Mesh]]


def _speckled(color: str, dots: str, count: int, size: int, seed: int = 0) -> Image.Image:
    """A skin with dots of another colour: peel, crumb, crust."""
    image = Image.new("RGB", (512, 256), color)
    pen = ImageDraw.Draw(image)
    rng = np.random.default_rng(seed)
    for x, y in rng.integers(0, (512, 256), size=(count, 2)).tolist():
        pen.ellipse((x, y, x + size, y + size), fill=dots)
    return image


def _banana(color: str = "#f2cb27") -> list[Mesh]:
    path = arc(200, 345, 1.0)
    steps = np.linspace(0, 1, len(path)).tolist()
    radii = [0.24 * min(1.0, 0.28 + 2.6 * t, 0.2 + 3.4 * (1 - t)) for t in steps]
    stem = arc(187, 201, 1.01, count=5)
    tip = arc(344, 349, 1.0, count=4)
    return [
        tube(path, radii, color),
        tube(stem, [0.055, 0.06, 0.065, 0.07, 0.075], "#a8922a"),
        tube(tip, [0.05, 0.05, 0.045, 0.04], "#4a3a1c"),
    ]


def _apple(color: str = "#c4242a", second: str = "#d8492f") -> list[Mesh]:
    profile = []
    for t in np.linspace(-math.pi / 2, math.pi / 2, 32).tolist():
        wide = math.cos(t) ** 0.85
        high = 0.92 * math.sin(t) - 0.30 * math.exp(-((wide / 0.30) ** 2)) * math.sin(t)
        profile.append((wide * (1 + 0.10 * math.sin(t)), high))
    stem = [(0.0, 0.55, 0.0), (0.02, 0.8, 0.0), (0.08, 1.05, 0.0), (0.16, 1.2, 0.0)]
    leaf = slab(oval(0.6, 0.26), 0.02, "#4a8a2c")
    return [
        lathe(profile, color, skin=_speckled(color, second, 900, 6), shine=0.3, gloss=40.0),
        tube(stem, [0.04, 0.035, 0.035, 0.05], "#5a3c1e"),
        place(leaf, (0.42, 1.08, 0.05), turn=(-40, 20, 15)),
    ]


def _orange(color: str = "#f08414", pores: str = "#e67808", leafy: bool = False) -> list[Mesh]:
    skin = _speckled(color, pores, 2600, 3)
    parts = [
        place(ball(1, color, skin=skin, shine=0.25, gloss=15.0), scale=(1, 0.95, 1)),
        place(ball(0.09, "#5c7a28"), (0, 0.94, 0), scale=(1, 0.4, 1)),
    ]
    if leafy:
        stalk = [(0.0, 0.9, 0.0), (0.02, 1.05, 0.0), (0.06, 1.2, 0.0)]
        parts.append(tube(stalk, [0.05, 0.04, 0.05], "#6a4a24"))
        leaf = slab(oval(0.85, 0.36), 0.02, "#3f8a2c")
        parts.append(place(leaf, (0.45, 1.1, 0.1), turn=(-50, 20, 10)))
    return parts


def _broccoli(seed: int = 3) -> list[Mesh]:
    rng = np.random.default_rng(seed)
    parts = [
        tube([(0, -1.2, 0), (0, -0.6, 0), (0, 0.1, 0)], [0.30, 0.27, 0.38], "#a9c46c"),
        *(
            tube([(0, -0.5, 0), (x, 0.1, z), (1.4 * x, 0.4, 1.4 * z)], [0.2, 0.18, 0.2], "#9dbb60")
            for x, z in ((0.5, 0), (-0.5, 0.1), (0.1, 0.5), (0, -0.5))
        ),
    ]
    for _ in range(150):
        turn, rise = rng.uniform(0, 2 * math.pi), math.asin(rng.uniform(-0.15, 1))
        reach = rng.uniform(0.86, 1.0)
        at = np.array(
            [
                math.cos(rise) * math.cos(turn) * 1.05,
                0.75 * math.sin(rise) + 0.35,
                math.cos(rise) * math.sin(turn) * 1.05,
            ]
        )
        shade = ("#2f6b24", "#3a7a2b", "#28601f", "#44862f")[int(rng.integers(4))]
        bud = ball(rng.uniform(0.13, 0.24), shade, 12, shine=0.02)
        parts.append(place(bud, (at * reach).tolist()))
    return [*parts, place(ball(0.92, "#2a5c20"), (0, 0.3, 0), scale=(1, 0.72, 1))]


def _carrot(leaves: int = 9) -> list[Mesh]:
    profile = [(0.0, -2.0), (0.05, -1.95), (0.12, -1.6), (0.22, -1.0), (0.31, -0.3), (0.36, 0.2),
               (0.33, 0.38), (0.18, 0.46), (0.0, 0.44)]  # fmt: skip
    skin = Image.new("RGB", (256, 256), "#ee7a1c")
    pen = ImageDraw.Draw(skin)
    rng = np.random.default_rng(5)
    for x, y in rng.integers(0, 256, size=(50, 2)).tolist():
        pen.line((x, y, x + 24, y), fill="#d2640f", width=2)
    parts = [lathe(profile, "#ee7a1c", skin=skin)]
    for k in range(leaves):
        turn = 2 * math.pi * k / leaves
        x, z = 0.35 * math.cos(turn), 0.35 * math.sin(turn)
        high = 1.2 + 0.25 * math.cos(3 * turn)
        path = [
            (0, 0.35, 0),
            (0.3 * x, 0.75, 0.3 * z),
            (x, high, z),
            (1.7 * x, high + 0.2, 1.7 * z),
        ]
        parts.append(tube(path, [0.05, 0.06, 0.13, 0.02], ("#3f8a2a", "#56a336")[k % 2]))
    return [place(part, turn=(0, 0, -62)) for part in parts]


def _donut(glaze: str = "#e06aa0", sprinkled: bool = True) -> list[Mesh]:
    def ring(start: float, end: float, radius: float, color: str, **more: Any) -> Mesh:
        turns = np.radians(np.linspace(start, end, 24)).tolist()
        outline = [(1 + radius * math.cos(t), 0.82 * radius * math.sin(t)) for t in turns]
        return lathe(outline, color, **more)

    parts = [ring(-180, 180, 0.5, "#c98a45"), ring(-12, 192, 0.53, glaze, shine=0.3, gloss=40.0)]
    rng = np.random.default_rng(1)
    for _ in range(70 if sprinkled else 0):
        turn, tilt = rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 2.6)
        out = 1 + 0.55 * math.cos(tilt)
        at = (out * math.cos(turn), 0.45 * math.sin(tilt), out * math.sin(turn))
        color = ("#ffe14a", "#4ab4ff", "#ffffff", "#63d26a")[int(rng.integers(4))]
        grain = tube([(-0.06, 0, 0), (0, 0, 0), (0.06, 0, 0)], [0.02, 0.02, 0.02], color)
        parts.append(place(grain, at, turn=(0, rng.uniform(0, 360), 0)))
    return parts


def _pizza(slices: int = 8) -> list[Mesh]:
    """A pizza, or the first slices of its eight."""
    image = Image.new("RGB", (768, 768), "#d9993f")
    pen = ImageDraw.Draw(image)
    rng = np.random.default_rng(7)
    pen.ellipse((50, 50, 718, 718), fill="#b8341c")
    pen.ellipse((66, 66, 702, 702), fill="#f0c050")
    for x, y in (384 + rng.normal(0, 150, size=(260, 2))).astype(int).tolist():
        if math.hypot(x - 384, y - 384) < 300:
            tone = ("#f7d98a", "#e8a838", "#dd8f2e")[int(rng.integers(3))]
            pen.ellipse((x - 16, y - 12, x + 16, y + 12), fill=tone)
    for k in range(17):
        far, turn = (0.0 if k == 0 else 130 if k < 6 else 252), k * 2.4
        x, y = 384 + far * math.cos(turn), 384 + far * math.sin(turn)
        pen.ellipse((x - 44, y - 44, x + 44, y + 44), fill="#8e1f17")
        pen.ellipse((x - 39, y - 39, x + 39, y + 39), fill="#b93426")
        pen.ellipse((x - 20, y - 24, x - 8, y - 14), fill="#d15a45")
    for x, y in (384 + rng.uniform(-210, 210, size=(26, 2))).tolist():
        pen.ellipse((x - 13, y - 6, x + 13, y + 6), fill="#3f7a2c")
    whole = slices >= 8
    share = 360 if whole else 45 * slices
    start = 90 - share / 2
    rim = [(2 * math.cos(t), 2 * math.sin(t))
           for t in np.radians(np.linspace(start, start + share, 49)).tolist()]  # fmt: skip
    crust = tube([(1.94 * x / 2, 1.94 * y / 2, 0.05) for x, y in rim], [0.15] * 49, "#c98436")
    cheese = slab(rim[:-1], 0.12, "#ffffff", skin=image)
    if not whole:
        cheese = slab([(0, 0), *rim], 0.12, "#ffffff", skin=_part(image, [(0, 0), *rim]))
    return [place(part, turn=(-90, 0, 0)) for part in (cheese, crust)]


def _part(image: Image.Image, outline: list[tuple[float, float]]) -> Image.Image:
    """The part of a skin for a disc of radius 2 that lies over the outline's box."""
    edge = (np.array(outline) / 4 + 0.5) * image.width
    (x0, y0), (x1, y1) = edge.min(axis=0), edge.max(axis=0)
    return image.crop((int(x0), int(image.width - y1), int(x1), int(image.width - y0)))


def _sandwich(bread: str = "#e6c48c") -> list[Mesh]:
    """Half a sandwich, cut across the corner, its cut face to the viewer."""

    def layer(y: float, high: float, color: str, grow: float = 1.0, **more: Image.Image) -> Mesh:
        edge = [(-1.4 * grow, 0.0), (1.4 * grow, 0.0), (0.0, -1.4 * grow)]
        return place(slab(edge, high, color, **more), (0, y, 0), turn=(90, 0, 0))

    crumb = _speckled(bread, "#d9b274", 400, 5)
    return [
        layer(0, 0.30, bread, skin=crumb),
        layer(0.2, 0.09, "#5fa036", 1.08),
        layer(0.29, 0.10, "#e08a86", 1.0),
        layer(0.39, 0.07, "#f6cf4a", 1.05),
        layer(0.47, 0.09, "#c93a2c", 0.97),
        layer(0.55, 0.07, "#6fb03f", 1.06),
        layer(0.74, 0.30, bread, skin=crumb),
    ]


def _hot_dog() -> list[Mesh]:
    def sausage(length: float, radius: float, color: str, **more: float) -> Mesh:
        path = [(x, 0.06 * x * x, 0.0) for x in np.linspace(-length, length, 21).tolist()]
        radii = [radius * (1 - (abs(k - 10) / 10.6) ** 6) ** 0.5 for k in range(21)]
        return tube(path, radii, color, **more)

    wave = [(x, 0.42 + 0.06 * x * x, 0.11 * math.sin(9 * x))
            for x in np.linspace(-1.35, 1.35, 60).tolist()]  # fmt: skip
    bun = sausage(1.45, 0.34, "#d39a4c")
    return [
        place(bun, (0, 0, 0.27), turn=(18, 0, 0)),
        place(bun, (0, 0, -0.27), turn=(-18, 0, 0)),
        place(sausage(1.75, 0.24, "#a8442a", shine=0.3, gloss=40.0), (0, 0.2, 0)),
        tube(wave, [0.05] * 60, "#f2c21c"),
    ]


FOOD: Mapping[str, Mapping[str, Thing]] = {
    "banana": {
        "one": _banana,
        "ripe": lambda: _banana("#f7d94a"),
        "green": lambda: _banana("#c8c83c"),
    },
    "apple": {
        "red": _apple,
        "green": lambda: _apple("#86b438", "#9cc64e"),
        "yellow": lambda: _apple("#e3c244", "#e2a23e"),
    },
    "orange": {
        "whole": _orange,
        "leafy": lambda: _orange("#f28c1c", "#e67c10", leafy=True),
        "deep": lambda: _orange("#e87410", "#d86408", leafy=True),
    },
    "broccoli": {"head": _broccoli, "second head": lambda: _broccoli(8)},
    "carrot": {"leafy": _carrot, "bare": lambda: _carrot(4)},
    "donut": {
        "pink": _donut,
        "chocolate": lambda: _donut("#4e2a17"),
        "plain": lambda: _donut("#d9a860", sprinkled=False),
    },
    "pizza": {"whole": _pizza, "slice": lambda: _pizza(1), "half": lambda: _pizza(5)},
    "sandwich": {"white": _sandwich, "brown": lambda: _sandwich("#b98a52")},
    "hot dog": {"mustard": _hot_dog},
}
