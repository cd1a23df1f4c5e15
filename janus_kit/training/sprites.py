"""The things of the drawing world as RGBA cut-outs: six drawn here, six from Fluent emoji (MIT).

Fluent 3D emoji are Microsoft's, under the MIT licence; `fetch` gets them once with npm's own
client, checks the archive's digest, and keeps only the six that the world uses.
"""

import hashlib
import math
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from functools import cache as remember
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from janus_kit.errors import JanusKitError

__all__ = ["DRAWN", "FLUENT", "NAMES", "bank", "fetch", "home", "recolor", "rgb_to_lab"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SIDE = 224  # pixels of a cut-out's longer side: no scene draws a thing larger
FINE = 4  # supersampling of the drawn things

PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"
SHA256 = "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
FLUENT: Mapping[str, str] = {  # name -> the emoji's code point
    "apple": "1f34e",
    "car": "1f697",
    "cat": "1f408",
    "fish": "1f41f",
    "house": "1f3e0",
    "umbrella": "2602-fe0f",
}


def _polygon(points: list[tuple[float, float]]) -> Callable[[ImageDraw.ImageDraw, int], None]:
    """A filled polygon; the points lie in the unit square, y down."""

    def draw(pen: ImageDraw.ImageDraw, side: int) -> None:
        pen.polygon([(x * side, y * side) for x, y in points], fill=255)

    return draw


def _star() -> list[tuple[float, float]]:
    """Five points, the inner ones at 0.44 of the radius: a little fat, so that it reads small."""
    corners = []
    for i in range(10):
        angle = math.pi * i / 5
        radius = 0.5 if i % 2 == 0 else 0.22
        corners.append((0.5 + radius * math.sin(angle), 0.5 - radius * math.cos(angle)))
    return corners


def _heart() -> list[tuple[float, float]]:
    """The classic curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t."""
    curve = []
    for t in np.linspace(0, 2 * math.pi, 240, endpoint=False).tolist():
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        curve.append((0.5 + math.sin(t) ** 3 * 16 / 34, 0.46 - y / 34))
    return curve


def _square(pen: ImageDraw.ImageDraw, side: int) -> None:
    pen.rounded_rectangle((0, 0, side - 1, side - 1), radius=side * 0.05, fill=255)


def _circle(pen: ImageDraw.ImageDraw, side: int) -> None:
    pen.ellipse((0, 0, side - 1, side - 1), fill=255)


def _moon(pen: ImageDraw.ImageDraw, side: int) -> None:
    """A crescent with its back to the left, open enough not to be taken for a circle."""
    _circle(pen, side)
    pen.ellipse((side * 0.34, side * 0.02, side * 1.16, side * 0.84), fill=0)


_SHAPES: Mapping[str, Callable[[ImageDraw.ImageDraw, int], None]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _polygon([(0.5, 0.05), (1.0, 0.93), (0.0, 0.93)]),
    "star": _polygon(_star()),
    "heart": _polygon(_heart()),
    "moon": _moon,
}
DRAWN = tuple(_SHAPES)
NAMES = (*DRAWN, *FLUENT)


@remember
def _drawn(name: str) -> Pixels:
    """One drawn thing in greys, lit from above: RGBA [h, w, 4], tight."""
    side = SIDE * FINE
    mask = Image.new("L", (side, side))
    _SHAPES[name](ImageDraw.Draw(mask), side)
    alpha = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BOX))
    light = np.linspace(176, 112, SIDE).round().astype(np.uint8)
    grey = np.broadcast_to(light[:, None, None], (SIDE, SIDE, 3))
    return _tight(Image.fromarray(np.concatenate([grey, alpha[:, :, None]], axis=2)))


def _tight(image: Image.Image) -> Pixels:
    """Cut to what is visible and scale the longer side to SIDE: RGBA [h, w, 4]."""
    seen = image.getchannel("A").point(lambda a: 255 if a > 24 else 0)
    cut = image.crop(seen.getbbox())
    scale = SIDE / max(cut.size)
    size = (max(1, round(cut.width * scale)), max(1, round(cut.height * scale)))
    return np.array(cut.resize(size, Image.Resampling.LANCZOS))


def home() -> Path:
    """The default cache folder of the sprites: $XDG_CACHE_HOME/janus_kit/sprites."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "janus_kit/sprites"


def bank(cache: Path | None = None) -> dict[str, Pixels]:
    """Name -> RGBA uint8 [h, w, 4], tight, in the order of NAMES; emoji only when fetched."""
    found = {name: _drawn(name) for name in DRAWN}
    path = _packed(cache)
    if path.exists():
        with np.load(path) as packed:
            found.update({name: packed[name] for name in FLUENT if name in packed})
    return found


def fetch(cache: Path | None = None) -> Path:
    """Get the emoji once and return the packed file; nothing is fetched when it is there."""
    path = _packed(cache)
    if path.exists() and set(FLUENT) <= set(bank(cache)):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        cutouts = _unpack(_download(Path(folder)), Path(folder))
    # Written whole or not at all: other processes may be looking for the same file.
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
        _write(part, cutouts)
    Path(part.name).replace(path)
    return path


def _write(file: IO[bytes], cutouts: Mapping[str, Pixels]) -> None:
    """Pack the cut-outs; a write that fails leaves no file behind."""
    try:
        np.savez_compressed(file, **dict[str, Any](cutouts))
    except BaseException:
        Path(file.name).unlink()
        raise


def _packed(cache: Path | None) -> Path:
    return (cache or home()) / "fluent-1.1.0.npz"


def _download(folder: Path) -> Path:
    """The package's archive, fetched by npm and checked against the digest written here."""
    npm = shutil.which("npm")
    if npm is None:
        raise JanusKitError(f"npm: not found, so {PACKAGE} cannot be fetched; install Node.js")
    done = subprocess.run(  # noqa: S603 - a fixed list, no shell
        [npm, "pack", PACKAGE, "--silent", "--pack-destination", str(folder)],
        capture_output=True,
        text=True,
    )
    archives = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        said = done.stderr.strip() or "nothing"
        raise JanusKitError(f"npm pack {PACKAGE}: failed and said: {said}; is the network there?")
    digest = hashlib.sha256(archives[0].read_bytes()).hexdigest()
    if digest != SHA256:
        raise JanusKitError(f"{PACKAGE}: the archive's sha256 is {digest}, not {SHA256}; not used")
    return archives[0]


def _unpack(archive: Path, folder: Path) -> dict[str, Pixels]:
    """The six emoji of the archive as cut-outs."""
    cutouts = {}
    with tarfile.open(archive) as tar:
        for name, code in FLUENT.items():
            member = f"package/assets/{code}.webp"
            tar.extract(member, folder, filter="data")
            with Image.open(folder / member) as image:
                cutouts[name] = _tight(image.convert("RGBA"))
    return cutouts


# sRGB <-> CIE Lab (D65), as in IEC 61966-2-1 and CIE 15.
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]], np.float32,
)  # fmt: skip
_WHITE = _TO_XYZ.sum(axis=1)
_FROM_XYZ = np.linalg.inv(_TO_XYZ)


def rgb_to_lab(rgb: npt.ArrayLike) -> Floats:
    """sRGB 0..255 -> Lab, on the last axis [..., 3]."""
    value = np.asarray(rgb, np.float32) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def _lab_to_rgb(lab: Floats) -> Pixels:
    """Lab -> sRGB 0..255, on the last axis; colours outside sRGB are clipped."""
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, (116 * f - 16) * 27 / 24389) * _WHITE
    linear = np.clip(xyz @ _FROM_XYZ.T, 0, 1)
    value = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray((value * 255).round(), np.uint8)


def recolor(rgba: Pixels, color: tuple[int, int, int]) -> Pixels:
    """The same thing in one colour: its hue is the colour's, three quarters of its shading stay."""
    light = rgb_to_lab(rgba[..., :3])[..., 0]
    mean = np.average(light, weights=rgba[..., 3])
    target = rgb_to_lab(color)
    lab = np.empty((*light.shape, 3), np.float32)
    # Deeper shades would turn orange brown and yellow olive.
    shade = np.clip(0.75 * (light - mean), -24, 24)
    lab[..., 0] = np.clip(target[0] + shade, 0, 100)
    lab[..., 1:] = target[1:]
    return np.concatenate([_lab_to_rgb(lab), rgba[..., 3:]], axis=-1)
