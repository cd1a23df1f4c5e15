"""The solids that things drawn by code are made of: turned, bent, cut out, and put in place."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor

from janus_kit.training.bank.meshes import Mesh, Surface, smooth

__all__ = [
    "arc",
    "ball",
    "box",
    "lathe",
    "loose",
    "oval",
    "place",
    "press",
    "rounded",
    "slab",
    "tube",
]

Point = tuple[float, float]
Floats = npt.NDArray[np.float64]

AROUND = 32  # corners of a turned solid's circle


def _surface(color: str, skin: Image.Image | None = None, **more: Any) -> Surface:
    red, green, blue = (value / 255 for value in ImageColor.getrgb(color)[:3])
    return Surface(color=(red, green, blue), skin=skin, **more)


def _mesh(points: Floats, faces: npt.ArrayLike, uv: Floats | None, surface: Surface) -> Mesh:
    """Separate corners, the edges between them rounded; what has no area is left out."""
    corners = np.asarray(faces, np.int64).reshape(-1, 3)
    flat = points[corners]
    area = np.linalg.norm(np.cross(flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]), axis=1)
    corners = corners[area > 1e-12].reshape(-1)
    drawn = None if uv is None else uv[corners]
    return Mesh(points=points[corners], normals=smooth(points, corners), uv=drawn, surface=surface)


def _grid(rows: int, columns: int) -> Floats:
    """The triangles [f, 3] of a net of rows × columns points."""
    at = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]
    halves = [np.stack([a, b, c], axis=-1), np.stack([a, c, d], axis=-1)]
    return np.concatenate([half.reshape(-1, 3) for half in halves]).astype(np.float64)


def lathe(profile: Sequence[Point], color: str, around: int = AROUND, **more: Any) -> Mesh:
    """A solid turned about y; the profile is (radius, height), from the bottom to the top."""
    radius, height = np.array(profile).T
    turn = np.linspace(0, 2 * math.pi, around + 1)
    net = [np.outer(radius, np.sin(turn)), np.outer(height, np.ones_like(turn)),
           np.outer(radius, np.cos(turn))]  # fmt: skip
    points = np.stack(net, axis=-1).reshape(-1, 3)
    along = np.linspace(0, 1, len(radius))
    across = np.linspace(0, 1, around + 1)
    uv = np.stack(np.meshgrid(across, along), axis=-1).reshape(-1, 2)
    return _mesh(points, _grid(len(radius), around + 1), uv, _surface(color, **more))


def ball(radius: float, color: str, around: int = AROUND, **more: Any) -> Mesh:
    """A sphere; a skin is wrapped about it as a map of the world is."""
    tilt = np.linspace(-math.pi / 2, math.pi / 2, around // 2 + 1)
    profile = zip(radius * np.cos(tilt), radius * np.sin(tilt), strict=True)
    return lathe([(float(r), float(y)) for r, y in profile], color, around, **more)


def tube(path: Sequence[Sequence[float]], radii: Sequence[float], color: str, **more: Any) -> Mesh:
    """A round bar along the path, as thick at each point as the radii say, closed at both ends."""
    middle = np.array(path, np.float64)
    middle = np.concatenate([middle[:1], middle, middle[-1:]])
    thick = np.array([0.0, *radii, 0.0])
    ahead = np.gradient(np.array(path, np.float64), axis=0)
    ahead = np.concatenate([ahead[:1], ahead, ahead[-1:]])
    ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-12)
    side = np.cross(ahead[0], [0.31, 0.87, 0.38])
    rings = []
    turn = np.linspace(0, 2 * math.pi, 25)[:, None]
    for at, along, radius in zip(middle, ahead, thick, strict=True):
        side = side - along * (side @ along)  # carried along, so that the bar does not twist
        side /= np.linalg.norm(side)
        up = np.cross(along, side)
        rings.append(at + radius * (np.cos(turn) * side + np.sin(turn) * up))
    points = np.concatenate(rings)
    return _mesh(points, _grid(len(rings), 25), None, _surface(color, **more))


def slab(outline: Sequence[Point], depth: float, color: str, **more: Any) -> Mesh:
    """A plate cut along the outline, its front to z; a skin is laid over the outline's box.

    Every point of the outline must be seen from its middle.
    """
    edge = np.array(outline)
    middle = (edge.min(axis=0) + edge.max(axis=0)) / 2
    flat = np.concatenate([middle[None], edge])
    count = len(edge)
    front = np.column_stack([flat, np.full(count + 1, depth / 2)])
    back = np.column_stack([flat, np.full(count + 1, -depth / 2)])
    a = np.arange(count) + 1
    b = np.roll(a, -1)
    other = count + 1
    faces = np.concatenate(
        [
            np.column_stack([np.zeros(count), a, b]),
            np.column_stack([np.full(count, other), b + other, a + other]),
            np.column_stack([a, a + other, b + other]),
            np.column_stack([a, b + other, b]),
        ]
    )
    size = np.maximum(np.ptp(edge, axis=0), 1e-9)
    uv = np.tile((flat - edge.min(axis=0)) / size, (2, 1))
    return _mesh(np.concatenate([front, back]), faces, uv, _surface(color, **more))


def box(size: tuple[float, float, float], color: str, **more: Any) -> Mesh:
    """A block: width, height, depth."""
    w, h = size[0] / 2, size[1] / 2
    return slab([(-w, -h), (w, -h), (w, h), (-w, h)], size[2], color, **more)


def oval(width: float, height: float, count: int = 48) -> list[Point]:
    """The outline of an ellipse."""
    turns = [2 * math.pi * i / count for i in range(count)]
    return [(width / 2 * math.cos(t), height / 2 * math.sin(t)) for t in turns]


def rounded(width: float, height: float, radius: float) -> list[Point]:
    """The outline of a rectangle with round corners."""
    w, h = width / 2 - radius, height / 2 - radius
    found = []
    for corner, (x, y) in enumerate([(w, h), (-w, h), (-w, -h), (w, -h)]):
        for step in range(7):
            t = math.pi / 2 * (corner + step / 6)
            found.append((x + radius * math.cos(t), y + radius * math.sin(t)))
    return found


def arc(
    start: float, end: float, radius: float, middle: Point = (0.0, 0.0), count: int = 24
) -> list[tuple[float, float, float]]:
    """Points in the plane of the picture, from one angle to another in degrees."""
    turns = np.radians(np.linspace(start, end, count)).tolist()
    x, y = middle
    return [(x + radius * math.cos(t), y + radius * math.sin(t), 0.0) for t in turns]


def loose(points: Floats, color: str, uv: Floats | None = None, **more: Any) -> Mesh:
    """Any triangles, three points [3n, 3] each."""
    return _mesh(points, np.arange(len(points)), uv, _surface(color, **more))


def press(mesh: Mesh, low: float = -math.inf, high: float = math.inf) -> Mesh:
    """The solid with all that is lower or higher pressed flat."""
    points = mesh.points.copy()
    points[:, 1] = points[:, 1].clip(low, high)
    return replace(mesh, points=points, normals=smooth(points, np.arange(len(points))))


def place(
    mesh: Mesh,
    at: Sequence[float] = (0, 0, 0),
    *,
    scale: Sequence[float] = (1, 1, 1),
    turn: Sequence[float] = (0, 0, 0),
) -> Mesh:
    """The solid scaled, then turned about x, y and z in degrees, then moved."""
    x, y, z = (_turned(axis, degrees) for axis, degrees in enumerate(turn))
    whole = z @ y @ x
    size = np.array(scale, np.float64)
    normals = mesh.normals / size
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    points = (mesh.points * size) @ whole.T + np.array(at, np.float64)
    return replace(mesh, points=points, normals=normals @ whole.T)


def _turned(axis: int, degrees: float) -> Floats:
    """The matrix of a turn about x, y or z."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return matrix
