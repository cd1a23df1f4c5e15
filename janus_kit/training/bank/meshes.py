"""3-D files as plain numbers: Wavefront OBJ with its materials, and the PMD of 0 A.D."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from janus_kit.errors import JanusKitError

__all__ = ["Mesh", "Surface", "read_obj", "read_pmd", "smooth", "triangles"]

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

CREASE = 50.0  # degrees; a sharper edge between two faces stays an edge


@dataclass(frozen=True, kw_only=True)
class Surface:
    """How a mesh takes the light."""

    color: tuple[float, float, float] = (0.8, 0.8, 0.8)  # of 1, as the file has it
    alpha: float = 1.0
    shine: float = 0.1  # strength of the highlight, of 1
    gloss: float = 20.0  # its sharpness, an exponent
    skin: Image.Image | None = None  # what is painted on it, instead of the color


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Triangles whose corners are all their own; y is up, z comes to the viewer."""

    points: Floats  # [3n, 3]
    normals: Floats  # [3n, 3]
    uv: Floats | None = None  # [3n, 2], v from the bottom
    surface: Surface = field(default_factory=Surface)


def read_pmd(data: bytes, skin: Image.Image) -> Mesh:
    """An animal in the pose that it was modelled in, dressed in its skin."""
    try:
        magic, version, _, count = struct.unpack_from("<4sIII", data)
        if magic != b"PSMD":
            raise JanusKitError("PMD: the file does not begin with PSMD; is it damaged?")
        place, sets = 16, 1
        if version >= 4:  # before, each point had one texture coordinate
            (sets,) = struct.unpack_from("<I", data, place)
            place += 4
        layout = [
            ("at", "<f4", 3),
            ("normal", "<f4", 3),
            ("uv", "<f4", (sets, 2)),
            ("bones", "V20"),
        ]
        rows = np.frombuffer(data, np.dtype(layout), count, place)
        place += rows.nbytes
        (triangles,) = struct.unpack_from("<I", data, place)
        corners = np.frombuffer(data, "<u2", triangles * 3, place + 4)
        found = rows[corners]
    except (struct.error, ValueError, IndexError) as error:
        raise JanusKitError(f"PMD: the file is torn ({error}); fetch it again") from None
    # The game's z points away from the viewer.
    return Mesh(
        points=found["at"] * np.array([1.0, 1.0, -1.0]),
        normals=found["normal"] * np.array([1.0, 1.0, -1.0]),
        uv=np.asarray(found["uv"][:, 0], np.float64),
        surface=Surface(skin=skin),
    )


def read_obj(path: Path) -> list[Mesh]:
    """The file's triangles, one mesh for each material."""
    points: list[list[float]] = []
    coordinates: list[list[float]] = []
    corners: dict[str, list[tuple[int, int]]] = {}  # place, texture place (-1 for none)
    looks: dict[str, Surface] = {}
    material = ""
    try:
        for word, rest in _lines(path):
            if word == "v":
                points.append([float(x) for x in rest.split()[:3]])
            elif word == "vt":
                coordinates.append([float(x) for x in rest.split()[:2]])
            elif word == "f":
                ring = [_corner(text, len(points), len(coordinates)) for text in rest.split()]
                rows = corners.setdefault(material, [])
                outline = [points[place] for place, _ in ring]
                rows += [ring[k] for three in triangles(outline) for k in three]
            elif word == "usemtl":
                material = rest
            elif word == "mtllib":
                looks.update(_materials(path.parent / rest))
    except (ValueError, IndexError) as error:
        raise JanusKitError(f"{path.name}: cannot be read ({error}); is it damaged?") from None
    if not corners:
        raise JanusKitError(f"{path.name}: has no faces; is it damaged?")
    places = np.array(points)
    drawn = np.array(coordinates or [[0.0, 0.0]])
    names = [name for name in corners if looks.get(name, Surface()).alpha > 0.02]
    index = {name: np.array(corners[name]) for name in names}
    try:
        normals = smooth(places, np.concatenate([index[name][:, 0] for name in names]))
        meshes = []
        for name in names:
            at, painted = index[name].T
            shade, normals = normals[: len(at)], normals[len(at) :]
            uv = drawn[painted] if (painted >= 0).all() else None
            look = looks.get(name, Surface())
            meshes.append(Mesh(points=places[at], normals=shade, uv=uv, surface=look))
    except IndexError as error:
        raise JanusKitError(f"{path.name}: cannot be read ({error}); is it damaged?") from None
    return meshes


def triangles(outline: Sequence[Sequence[float]]) -> list[tuple[int, int, int]]:
    """A polygon in space cut into triangles of its corners; it may have bays, but no holes."""
    left = list(range(len(outline)))
    if len(left) < 4:
        return [(0, 1, 2)] if len(left) == 3 else []
    # In plain Python: for a few corners arrays take longer to make than to use.
    normal = [0.0, 0.0, 0.0]
    for (ax, ay, az), (bx, by, bz) in pairwise([*outline, outline[0]]):
        normal[0] += (ay - by) * (az + bz)
        normal[1] += (az - bz) * (ax + bx)
        normal[2] += (ax - bx) * (ay + by)
    # Looked at along the axis that it faces most, the polygon keeps its shape.
    axis = max(range(3), key=lambda k: abs(normal[k]))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    side = -1.0 if normal[axis] < 0 else 1.0
    flat = [(point[i], point[j] * side) for point in outline]

    def turn(i: int, j: int, k: int) -> float:
        (ax, ay), (bx, by), (cx, cy) = flat[i], flat[j], flat[k]
        return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)

    found = []
    while len(left) > 3:
        for place, j in enumerate(left):
            i, k = left[place - 1], left[(place + 1) % len(left)]
            if turn(i, j, k) > 0 and not any(
                turn(i, j, p) >= 0 and turn(j, k, p) >= 0 and turn(k, i, p) >= 0
                for p in left
                if p not in (i, j, k) and flat[p] not in (flat[i], flat[k])
            ):
                break
        else:  # a line, or crossed by itself: any cut is as good as another
            place = 1
            i, j, k = left[:3]
        found.append((i, j, k))
        del left[place]
    return [*found, (left[0], left[1], left[2])]


def smooth(points: Floats, corners: Whole) -> Floats:
    """Normals of the triangles' corners [3n, 3]: round where the faces meet at a flat angle.

    The files' own normals are not used: some have none, some have one for each facet.
    """
    flat = points[corners].reshape(-1, 3, 3)
    face = np.cross(flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0])  # as long as twice its area
    unit = face / np.maximum(np.linalg.norm(face, axis=1, keepdims=True), 1e-30)
    face, unit = np.repeat(face, 3, axis=0), np.repeat(unit, 3, axis=0)
    # Points that differ only by a seam of the texture are one.
    grain = max(float(np.ptp(points, axis=0).max()), 1e-9) * 1e-5
    _, same = np.unique(np.round(points / grain), axis=0, return_inverse=True)
    same = same.reshape(-1)[corners]
    order = np.argsort(same, kind="stable")
    _, start, size = np.unique(same[order], return_index=True, return_counts=True)
    # Every pair of corners at one point: a corner adds up those faces that go on smoothly.
    first = np.repeat(order, np.repeat(size, size))
    span = np.repeat(size, size)
    begin = np.repeat(np.repeat(start, size), span)
    within = np.arange(len(first)) - np.repeat(np.cumsum(span) - span, span)
    second = order[begin + within]
    near = np.einsum("ij,ij->i", unit[first], unit[second]) > np.cos(np.radians(CREASE))
    total = np.stack(
        [
            np.bincount(first[near], face[second[near], axis], minlength=len(corners))
            for axis in range(3)
        ],
        axis=1,
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.asarray(total / np.maximum(length, 1e-30), np.float64)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The first word and the rest of each line; a backslash at its end goes on."""
    text = path.read_text(encoding="latin-1").replace("\\\n", " ")
    for line in text.splitlines():
        word, _, rest = line.strip().replace("\t", " ").partition(" ")
        if word and not word.startswith("#"):
            yield word, rest.strip()


def _corner(text: str, points: int, coordinates: int) -> tuple[int, int]:
    """'7/3/1' -> places counted from 0; a negative number counts from the last one."""
    at, _, rest = text.partition("/")
    painted = rest.partition("/")[0]
    place = int(at)
    place = place - 1 if place > 0 else points + place
    if not painted:
        return place, -1
    drawn = int(painted)
    return place, drawn - 1 if drawn > 0 else coordinates + drawn


def _materials(path: Path) -> dict[str, Surface]:
    """Name -> how it looks; a missing file leaves all grey, as other readers do."""
    if not path.exists():
        return {}
    found: dict[str, dict[str, str]] = {}
    name = ""
    for word, rest in _lines(path):
        if word == "newmtl":
            name = rest
            found[name] = {}
        elif name:
            found[name][word] = rest
    return {name: _surface(path.parent, words) for name, words in found.items()}


def _surface(folder: Path, words: dict[str, str]) -> Surface:
    skin = None
    if "map_Kd" in words:
        file = folder / words["map_Kd"].split(" -")[-1].strip()
        if file.exists():
            with Image.open(file) as image:
                skin = image.convert("RGBA" if "A" in image.getbands() else "RGB")
    red, green, blue = (min(float(x), 1.0) for x in words.get("Kd", "0.8 0.8 0.8").split()[:3])
    return Surface(
        color=(red, green, blue),
        alpha=float(words.get("d", "1").split()[-1]),
        shine=min(sum(float(x) for x in words.get("Ks", "0 0 0").split()[:3]) / 3, 0.3),
        gloss=min(max(float(words.get("Ns", "20").split()[0]), 5.0), 100.0),
        skin=skin,
    )
