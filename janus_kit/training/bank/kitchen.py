"""Things of the kitchen, built from solids where free models are few."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from janus_kit.training.bank.forms import box, lathe, oval, place, rounded, slab, tube
from janus_kit.training.bank.meshes import Mesh

__all__ = ["KITCHEN"]

Thing = Callable[[], list[Mesh]]
STEEL = "#c4c8cc"


def _wine_glass(wine: str = "#7a1424", full: float = 0.55) -> list[Mesh]:
    bowl = [(0.1, -0.02), (0.45, 0.12), (0.7, 0.45), (0.78, 0.85), (0.72, 1.3), (0.58, 1.75)]
    stem = [(0.0, -2.0), (0.7, -1.98), (0.68, -1.93), (0.2, -1.86), (0.07, -1.7), (0.06, -0.2),
            (0.1, -0.02)]  # fmt: skip
    drink = [(0.0, 0.0), *[(0.94 * r, y) for r, y in bowl if y <= full + 0.4]]
    drink.append((0.0, drink[-1][1]))
    return [
        lathe(drink, wine, shine=0.3),
        lathe(stem, "#dfe8ec", alpha=0.75, shine=0.3),
        lathe(bowl, "#dfe8ec", alpha=0.35, shine=0.3),
    ]


def _bottle(glass: str = "#1f4a2a", label: str = "#f2e8cc") -> list[Mesh]:
    body = [(0.0, -2.0), (0.55, -2.0), (0.6, -1.9), (0.6, 0.4), (0.5, 0.8), (0.24, 1.25),
            (0.2, 2.0), (0.25, 2.02), (0.25, 2.15), (0.0, 2.15)]  # fmt: skip
    return [
        lathe(body, glass, shine=0.3, gloss=60.0),
        lathe([(0.61, -1.3), (0.61, 0.0)], label),
        lathe([(0.615, -0.9), (0.615, -0.45)], "#a8242c"),
        lathe([(0.215, 1.6), (0.265, 2.0), (0.265, 2.18), (0.0, 2.18)], "#7a1f28"),
    ]


def _spoon(color: str = STEEL) -> list[Mesh]:
    curve = [(math.sin(t), -math.cos(t)) for t in np.linspace(0, math.pi / 2, 12).tolist()]
    bowl = place(lathe(curve, color, shine=0.3), scale=(0.5, 0.2, 0.75))
    stem = [(0, 0, 0.72), (0, 0.1, 1.0), (0, 0.06, 1.8), (0, 0, 3.2), (0, 0.02, 3.4)]
    handle = place(tube(stem, [0.09, 0.09, 0.1, 0.17, 0.1], color, shine=0.3), scale=(1, 0.45, 1))
    return [place(part, turn=(0, 20, 0)) for part in (bowl, handle)]


def _fork(color: str = STEEL) -> list[Mesh]:
    stem = [(0, 0, 0.4), (0, 0.08, 0.8), (0, 0.05, 1.8), (0, 0, 3.2), (0, 0, 3.4)]
    parts = [place(tube(stem, [0.2, 0.1, 0.1, 0.17, 0.1], color, shine=0.3), scale=(1, 0.5, 1))]
    palm = [(0.36, -0.35), (0.34, 0.05), (0.12, 0.55), (-0.12, 0.55), (-0.34, 0.05), (-0.36, -0.35)]
    parts.append(place(slab(palm, 0.07, color, shine=0.3), turn=(90, 0, 0)))
    for k in range(4):
        x = -0.31 + 0.207 * k
        tine = tube([(x, 0, -0.3), (x, 0.03, -0.9), (x, 0.1, -1.35)], [0.06, 0.055, 0.02], color)
        parts.append(tine)
    return [place(part, turn=(0, 20, 0)) for part in parts]


def _knife(blade: str = STEEL, handle: str = "#2a2422") -> list[Mesh]:
    edge = [(0.0, 0.22), (0.0, -0.28), (2.2, -0.28), (2.75, -0.12), (3.0, 0.2), (2.9, 0.22)]
    grip = rounded(1.9, 0.42, 0.14)
    rivets = [
        place(slab(oval(0.12, 0.12), 0.24, "#d8dade"), (x, 0, 0)) for x in (-1.5, -0.95, -0.4)
    ]
    parts = [
        slab(edge, 0.05, blade, shine=0.3),
        place(slab(grip, 0.2, handle), (-0.95, 0, 0)),
        *rivets,
    ]
    return [place(part, turn=(-90, 25, 0)) for part in parts]


def _toaster(body: str = "#c4c8cc", ends: str = "#26282c") -> list[Mesh]:
    toast = rounded(0.95, 0.9, 0.2)
    parts = [
        place(slab(rounded(1.3, 1.4, 0.35), 2.2, body, shine=0.3), turn=(0, 90, 0)),
        place(slab(rounded(1.34, 1.44, 0.35), 0.12, ends), (-1.1, 0, 0), turn=(0, 90, 0)),
        place(slab(rounded(1.34, 1.44, 0.35), 0.12, ends), (1.1, 0, 0), turn=(0, 90, 0)),
        place(box((0.12, 0.14, 0.36), ends), (1.26, 0.25, 0)),
        place(slab(oval(0.3, 0.3), 0.08, ends), (1.18, -0.3, 0.0), turn=(0, 90, 0)),
    ]
    for z in (-0.26, 0.26):
        parts.append(place(box((1.5, 0.04, 0.22), "#141518"), (0, 0.7, z)))
        parts.append(place(slab(toast, 0.16, "#c98f4a"), (0, 0.62, z), scale=(1.35, 1, 1)))
        parts.append(place(slab(toast, 0.17, "#e8c488"), (0, 0.6, z), scale=(1.2, 0.9, 1)))
    for x in (-0.8, 0.8):
        for z in (-0.4, 0.4):
            parts.append(place(box((0.2, 0.14, 0.2), ends), (x, -0.75, z)))
    return parts


def _microwave(body: str = "#2c2e32", panel: str = "#1c1d20") -> list[Mesh]:
    parts = [
        box((3.6, 2.0, 2.4), body),
        place(slab(rounded(2.5, 1.7, 0.08), 0.08, panel, shine=0.3), (-0.45, 0, 1.22)),
        place(slab(rounded(1.9, 1.15, 0.1), 0.05, "#4a5258", shine=0.3), (-0.55, 0, 1.26)),
        place(tube([(0, -0.6, 0), (0, 0.6, 0)], [0.06, 0.06], STEEL), (0.72, 0, 1.36)),
        place(box((0.6, 0.26, 0.04), "#2fd8a0"), (1.35, 0.7, 1.22)),
    ]
    for k in range(12):
        at = (1.15 + 0.2 * (k % 3), 0.35 - 0.2 * (k // 3), 1.22)
        parts.append(place(box((0.14, 0.12, 0.05), "#c4c8cc"), at))
    parts.append(place(slab(rounded(0.54, 0.2, 0.05), 0.05, "#8a9096"), (1.35, -0.65, 1.22)))
    return parts


KITCHEN: Mapping[str, Mapping[str, Thing]] = {
    "wine glass": {
        "red": _wine_glass,
        "white": lambda: _wine_glass("#e8d888", 0.4),
        "rose": lambda: _wine_glass("#e08a8a", 0.7),
    },
    "bottle": {"green": _bottle, "brown": lambda: _bottle("#4a2a14", "#e8d098")},
    "spoon": {"steel": _spoon, "wood": lambda: _spoon("#b07c48")},
    "fork": {"steel": _fork, "gold": lambda: _fork("#d0ac5c")},
    "knife": {"black": _knife, "wood": lambda: _knife(handle="#8a5430")},
    "microwave": {"black": _microwave, "white": lambda: _microwave("#ececea", "#3a3e44")},
    "toaster": {
        "steel": _toaster,
        "red": lambda: _toaster("#c8302a"),
        "cream": lambda: _toaster("#ece2c8", "#8a8e94"),
    },
}
