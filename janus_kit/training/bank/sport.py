"""Sports gear that no free model shows, built from solids."""

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

__all__ = ["SPORT"]

Thing = Callable[[], list[Mesh]]
STEEL = "#9aa0a6"


def _frisbee(color: str = "#e8402a") -> list[Mesh]:
    outer = [(1.38, -0.30), (1.44, -0.2), (1.42, -0.05), (1.30, 0.06), (1.0, 0.12), (0.0, 0.14)]
    inner = [(0.0, 0.06), (1.2, 0.02), (1.34, -0.1), (1.38, -0.30)]
    rings = [lathe([(r, 0.125 + 0.012 * k) for r, k in ((r0, 0), (r0 - 0.03, 1), (r0 - 0.06, 0))],
                   "#ffffff") for r0 in (0.95, 0.62)]  # fmt: skip
    return [lathe(outer, color, shine=0.25), lathe(inner, color), *rings]


def _plank(width: float, length: float, bend: float, depth: float, color: str, skin: Image.Image,
           tip: float = 1.0) -> Mesh:  # fmt: skip
    """A long board on its back, both ends bent up."""
    outline = rounded(width, length, width / 2 * 0.98)
    # Points all along, so that the bend is smooth.
    dense = []
    for (x0, y0), (x1, y1) in zip(outline, outline[1:] + outline[:1], strict=True):
        steps = max(1, int(math.hypot(x1 - x0, y1 - y0) / (length / 40)))
        dense += [(x0 + (x1 - x0) * k / steps, y0 + (y1 - y0) * k / steps) for k in range(steps)]
    half = [(x, y) for x, y in dense if x >= 0]
    rows = sorted({round(y, 4): x for x, y in half}.items())
    net, faces = [], []
    for y, x in rows:
        rise = bend * max(0.0, abs(y) / (length / 2) - 0.72) ** 2 / 0.0784
        rise *= tip if y < 0 else 1.0
        net += [(-x, y, rise + depth), (x, y, rise + depth), (x, y, rise), (-x, y, rise)]
    for k in range(len(rows) - 1):
        a, b = 4 * k, 4 * k + 4
        for i in range(4):
            j = (i + 1) % 4
            faces += [(a + i, a + j, b + j), (a + i, b + j, b + i)]
    points = np.array(net)
    uv = (points[:, :2] - points[:, :2].min(axis=0)) / np.ptp(points[:, :2], axis=0)
    corners = np.array(faces).reshape(-1)
    board = loose(points[corners], color, uv[corners], skin=skin)
    return place(board, turn=(-90, 0, 0))


def _striped(base: str, *bands: tuple[float, float, str]) -> Image.Image:
    """A skin with bands across, from and to in shares of its height from the tail."""
    image = Image.new("RGB", (64, 512), base)
    pen = ImageDraw.Draw(image)
    for low, high, color in bands:
        pen.rectangle((0, 511 - 511 * high, 64, 511 - 511 * low), fill=color)
    return image


def _skis(color: str = "#d8262c", second: str = "#f4f4f0") -> list[Mesh]:
    skin = _striped(color, (0.1, 0.16, second), (0.62, 0.82, second), (0.88, 0.9, "#202428"))
    parts = []
    for x in (-0.32, 0.32):
        ski = _plank(0.34, 6.4, 0.55, 0.06, color, skin, tip=0.2)
        parts += [
            place(ski, (x, 0, 0)),
            place(box((0.26, 0.22, 0.5), "#26282c"), (x, 0.17, -0.25)),
            place(box((0.26, 0.3, 0.4), "#26282c"), (x, 0.2, 0.75)),
        ]
    for x in (-1.0, 1.0):
        pole = tube([(x, 0.1, 2.2), (x, 0.1, -2.2)], [0.04, 0.04], "#c9ccd0")
        parts += [
            pole,
            tube([(x, 0.1, 2.3), (x, 0.1, 1.7)], [0.08, 0.07], "#202428"),
            place(lathe([(0.0, 0), (0.22, 0.02), (0.0, 0.05)], "#202428"), (x, 0.1, -1.9),
                  turn=(90, 0, 0)),
        ]  # fmt: skip
    return [place(part, turn=(55, 0, 0)) for part in parts]


def _snowboard(color: str = "#2a6fd0", second: str = "#f2c230") -> list[Mesh]:
    skin = _striped(color, (0.0, 0.12, second), (0.2, 0.28, "#ffffff"), (0.45, 0.55, second),
                    (0.72, 0.8, "#ffffff"), (0.88, 1.0, second))  # fmt: skip
    parts = [_plank(1.15, 5.2, 0.5, 0.07, color, skin)]
    for z, angle in ((-0.95, 15), (0.95, -15)):
        binding = [
            box((0.95, 0.1, 0.5), "#202428"),
            place(tube(arc(0, 180, 0.3, count=12), [0.07] * 12, "#303438"), (-0.2, 0.05, 0),
                  turn=(0, 90, 0)),
            place(tube(arc(0, 180, 0.3, count=12), [0.07] * 12, "#303438"), (0.2, 0.05, 0),
                  turn=(0, 90, 0)),
            place(slab(oval(0.5, 1.0), 0.08, "#202428"), (-0.45, 0.3, 0), turn=(0, 90, 0)),
        ]  # fmt: skip
        parts += [place(part, (0, 0.12, z), turn=(0, angle, 0)) for part in binding]
    return [place(part, turn=(55, 0, 0)) for part in parts]


def _surfboard(color: str = "#f6f1e2", band: str = "#e2572b") -> list[Mesh]:
    skin = Image.new("RGB", (256, 512), color)
    pen = ImageDraw.Draw(skin)
    pen.rectangle((0, 150, 256, 190), fill=band)
    pen.rectangle((0, 200, 256, 215), fill="#2a6fb0")
    pen.rectangle((0, 330, 256, 370), fill=band)
    pen.line((128, 0, 128, 512), fill="#8a6a42", width=5)
    outline = [(0.62 * math.sin(t) * (1 - 0.16 * math.cos(t)), -3.0 * math.cos(t))
               for t in np.linspace(0, 2 * math.pi, 60, endpoint=False).tolist()]  # fmt: skip
    board = slab([(x, y) for x, y in outline], 0.12, color, skin=skin, shine=0.3)
    fin = slab([(0, 0), (0.5, 0.1), (0.5, -0.55)], 0.04, "#30343a")
    return [board, place(fin, (0, -2.5, -0.3), turn=(0, 90, 0))]


def _kite(first: str = "#e23a2e", second: str = "#f7c826") -> list[Mesh]:
    top, right, low, left = (0.0, 1.5), (1.15, 0.5), (0.0, -1.7), (-1.15, 0.5)
    middle = (0.0, 0.5)
    parts = [
        slab([middle, right, top], 0.03, first),
        slab([middle, top, left], 0.03, second),
        slab([middle, left, low], 0.03, first),
        slab([middle, low, right], 0.03, second),
    ]
    steps = np.linspace(0, 1, 40).tolist()
    tail = [(0.3 * math.sin(7 * t), -1.7 - 2.0 * t, 0.0) for t in steps]
    parts.append(tube(tail, [0.025] * 40, "#5a5a5a"))
    for k in (8, 18, 28, 38):
        x, y, _ = tail[k]
        bow = slab([(-0.28, -0.13), (0, 0), (0.28, -0.13), (0.28, 0.13), (0, 0), (-0.28, 0.13)],
                   0.03, (first, second)[k % 4 // 2])  # fmt: skip
        parts.append(place(bow, (x, y, 0)))
    return [place(part, turn=(0, 0, -20)) for part in parts]


def _bat(color: str = "#c89556", grip: str = "#2a2420") -> list[Mesh]:
    wood = [(0.0, -2.0), (0.19, -2.0), (0.2, -1.92), (0.1, -1.85), (0.09, -1.0), (0.11, -0.3),
            (0.2, 0.7), (0.26, 1.4), (0.27, 2.0), (0.22, 2.2), (0.0, 2.26)]  # fmt: skip
    tape = [(0.1, -1.84), (0.115, -1.8), (0.105, -1.0), (0.09, -0.98)]
    parts = [lathe(wood, color, shine=0.25), lathe(tape, grip)]
    return [place(part, turn=(0, 0, -42)) for part in parts]


def _glove(color: str = "#9a5a2a", second: str = "#7c4520") -> list[Mesh]:
    """A baseball glove: five fat fingers, a web between thumb and first finger, a pocket."""

    def finger(path: list[tuple[float, float, float]], radius: float, tone: str) -> Mesh:
        smooth_path = np.array(path)
        along = np.linspace(0, len(path) - 1, 14)
        dense = np.column_stack([np.interp(along, range(len(path)), smooth_path[:, k])
                                 for k in range(3)])  # fmt: skip
        radii = [radius * min(1.0, 0.75 + 0.1 * k, 0.45 + 0.22 * (13 - k)) for k in range(14)]
        return tube(dense.tolist(), radii, tone)

    parts = [
        finger([(-0.35, -0.3, 0.1), (-0.42, 0.5, 0.05), (-0.45, 1.2, 0.25)], 0.25, color),
        finger([(0.02, -0.3, 0.05), (0.02, 0.6, 0.0), (0.05, 1.4, 0.25)], 0.26, second),
        finger([(0.4, -0.3, 0.1), (0.46, 0.55, 0.05), (0.52, 1.25, 0.3)], 0.25, color),
        finger([(0.72, -0.4, 0.15), (0.85, 0.3, 0.15), (0.95, 0.95, 0.4)], 0.25, second),
        finger([(-0.5, -0.8, 0.15), (-1.05, -0.2, 0.3), (-1.2, 0.55, 0.5)], 0.27, second),
        place(ball(0.85, color), (0.12, -0.6, 0.05), scale=(1, 0.85, 0.42)),
        place(ball(0.5, second), (0.1, -0.45, 0.25), scale=(1, 0.9, 0.5)),
        place(slab(oval(1.1, 0.5), 0.3, second), (0.15, -1.25, 0)),
    ]
    for k in range(5):
        y = 0.05 + 0.22 * k
        lace = [(-1.15 + 0.02 * k, y - 0.25, 0.42), (-0.8, y - 0.1, 0.3), (-0.45, y, 0.22)]
        parts.append(tube(lace, [0.06] * 3, "#c48a4c"))
    for x in (-0.98, -0.8, -0.62):
        parts.append(tube([(x, -0.25, 0.35), (x, 1.0, 0.36)], [0.06, 0.06], "#c48a4c"))
    return parts


def _seamed(color: str, seam: str, width: float) -> list[Mesh]:
    """A ball with the one closed seam that tennis balls and baseballs share."""
    turns = np.linspace(0, 2 * math.pi, 90)
    x = 0.62 * np.cos(turns) + 0.26 * np.cos(3 * turns)
    y = 0.62 * np.sin(turns) - 0.26 * np.sin(3 * turns)
    path = np.column_stack([x, y, 0.75 * np.sin(2 * turns)])
    path /= np.linalg.norm(path, axis=1, keepdims=True)
    return [ball(1, color, shine=0.02), tube(path.tolist(), [width] * 90, seam)]


def _beach_ball() -> list[Mesh]:
    skin = Image.new("RGB", (600, 300))
    pen = ImageDraw.Draw(skin)
    for k, color in enumerate(("#e8302a", "#f8f8f4", "#2a6fe0", "#f8f8f4", "#f7cc26", "#f8f8f4")):
        pen.rectangle((100 * k, 0, 100 * k + 100, 300), fill=color)
    return [place(ball(1, "#ffffff", skin=skin, shine=0.3), turn=(35, 0, 20))]


def _skateboard(color: str = "#c4432a") -> list[Mesh]:
    skin = _striped("#26282c", (0.0, 0.02, color), (0.98, 1.0, color), (0.46, 0.54, color))
    parts = [_plank(1.0, 4.0, 0.4, 0.09, color, skin)]
    for z in (-1.15, 1.15):
        parts.append(place(box((0.7, 0.14, 0.2), STEEL), (0, -0.15, z)))
        for x in (-0.42, 0.42):
            wheel = lathe([(0, -0.12), (0.2, -0.12), (0.2, 0.12), (0, 0.12)], "#f2e6b8")
            parts.append(place(wheel, (x, -0.28, z), turn=(0, 0, 90)))
    return parts


def _racket(frame: str = "#c8262c", grip: str = "#2a2422") -> list[Mesh]:
    """Flat on the ground, its handle to the viewer."""
    rim = [(0.85 * x, 1.12 * y + 1.6, 0.0) for x, y, _ in arc(0, 360, 1.0, count=50)]
    parts = [
        tube(rim, [0.075] * 50, frame, shine=0.3),
        tube([(-0.34, 0.6, 0), (-0.1, 0.0, 0), (0, -0.3, 0)], [0.06, 0.06, 0.07], frame),
        tube([(0.34, 0.6, 0), (0.1, 0.0, 0), (0, -0.3, 0)], [0.06, 0.06, 0.07], frame),
        tube([(0, -0.25, 0), (0, -0.5, 0), (0, -2.0, 0)], [0.08, 0.11, 0.12], grip),
    ]
    for k in range(-6, 7):
        share = math.sqrt(1 - (k / 7) ** 2)
        x, y = 0.85 * k / 7, 1.12 * share
        parts.append(tube([(x, 1.6 - y, 0), (x, 1.6 + y, 0)], [0.014, 0.014], "#f2f2ec"))
        x, y = 0.85 * share, 1.6 + 1.12 * k / 7
        parts.append(tube([(-x, y, 0), (x, y, 0)], [0.014, 0.014], "#f2f2ec"))
    return [place(part, turn=(-90, 0, 0)) for part in parts]


SPORT: Mapping[str, Mapping[str, Thing]] = {
    "tennis racket": {"red": _racket, "blue": lambda: _racket("#2a5ab8", "#e8e4d8")},
    "frisbee": {
        "red": _frisbee,
        "blue": lambda: _frisbee("#2a68d8"),
        "yellow": lambda: _frisbee("#f2cc2a"),
    },
    "skis": {"red": _skis, "blue": lambda: _skis("#2a58b8", "#f2d03a")},
    "snowboard": {"blue": _snowboard, "black": lambda: _snowboard("#2a2c32", "#d83a6a")},
    "surfboard": {"cream": _surfboard, "blue": lambda: _surfboard("#4aa8d8", "#f7f4e8")},
    "kite": {
        "red": _kite,
        "blue": lambda: _kite("#2a6fd8", "#f2f2f0"),
        "green": lambda: _kite("#3aa24a", "#f08a2a"),
    },
    "baseball bat": {
        "wood": _bat,
        "dark": lambda: _bat("#6a3c22"),
        "metal": lambda: _bat("#a8b0b8", "#b8262a"),
    },
    "baseball glove": {"brown": _glove, "dark": lambda: _glove("#6a3a1e", "#522c16")},
    "sports ball": {
        "tennis": lambda: _seamed("#cfe03a", "#f4f6ea", 0.03),
        "baseball": lambda: _seamed("#f4f1e8", "#c4242a", 0.02),
        "beach": _beach_ball,
    },
    "skateboard": {"red": _skateboard, "teal": lambda: _skateboard("#2a9a8a")},
}
