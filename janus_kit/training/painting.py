"""What scenes are pasted together from: lit ground, and things in a colour and a size."""

from collections.abc import Mapping
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from janus_kit.errors import OptionError
from janus_kit.training.bank.make import bank_path
from janus_kit.training.bank.names import NAMES
from janus_kit.training.bank.pack import Bank, Sprite

__all__ = [
    "COLORS",
    "GROUNDS",
    "Tone",
    "bank",
    "cutout",
    "forget",
    "ground",
    "recolor",
    "shadow",
    "views",
]

Tone = tuple[int, int, int]
Pixels = npt.NDArray[np.uint8]

# GenEval's ten colours, in its order; each lies well inside what the pixel judge calls so.
COLORS: Mapping[str, Tone] = {
    "red": (214, 26, 34),
    "orange": (252, 132, 8),
    "yellow": (250, 212, 24),
    "green": (30, 152, 62),
    "blue": (30, 86, 216),
    "purple": (126, 46, 176),
    "pink": (252, 130, 190),
    "brown": (122, 70, 34),
    "black": (36, 36, 40),
    "white": (246, 246, 248),
}
# Empty grounds of middle tone: white things and black ones stand out on each.
GROUNDS: Mapping[str, Tone] = {
    "sand": (206, 192, 168),
    "slate": (168, 176, 186),
    "sage": (178, 190, 172),
    "rose": (204, 182, 178),
}


# sRGB <-> CIE Lab (D65), as in IEC 61966-2-1 and CIE 15.
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]], np.float32,
)  # fmt: skip
_WHITE = _TO_XYZ.sum(axis=1)
_FROM_XYZ = np.linalg.inv(_TO_XYZ)


def _linear(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    value = np.asarray(values, np.float32) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def rgb_to_lab(rgb: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """sRGB 0..255 -> Lab, on the last axis [..., 3]."""
    xyz = _linear(rgb) @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def _lab_to_rgb(lab: npt.NDArray[np.float32]) -> Pixels:
    """Lab -> sRGB 0..255, on the last axis; colours outside sRGB are clipped."""
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, (116 * f - 16) * 27 / 24389) * _WHITE
    linear = np.clip(xyz @ _FROM_XYZ.T, 0, 1)
    value = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray((value * 255).round(), np.uint8)


@cache
def _lightness() -> npt.NDArray[np.float32]:
    """Lab's L of the greys 0 … 255."""
    return rgb_to_lab(np.repeat(np.arange(256)[:, None], 3, 1))[:, 0]


@lru_cache(maxsize=4096)
def _shades(tone: Tone, mean: int) -> Pixels:
    """The colour of each of 256 greys [256, 3] of a thing whose mean grey is `mean`."""
    target = rgb_to_lab(tone)
    light = _lightness()
    # Deeper shades would turn orange brown and white grey; the ends of the scale have less room.
    room = float(min(22.0, 0.55 * target[0], 6 + 1.1 * (100 - target[0])))
    shade = np.clip(0.75 * (light - light[mean]), -room, room)
    lab = np.empty((256, 3), np.float32)
    lab[:, 0] = np.clip(target[0] + shade, 0, 100)
    lab[:, 1:] = target[1:]
    return _lab_to_rgb(lab)


def recolor(rgba: Pixels, tone: Tone) -> Pixels:
    """The same thing in one colour, RGBA uint8: its hue is the tone's, its shading stays."""
    weights = np.array([0.2126, 0.7152, 0.0722], np.float32)
    grey = (rgba[..., :3] @ weights).round().astype(np.uint8)
    mean = round(float(np.average(grey, weights=rgba[..., 3].astype(np.float32) + 1e-3)))
    return np.concatenate([_shades(tone, mean)[grey], rgba[..., 3:]], axis=-1)


@cache
def bank() -> Bank:
    """The picture bank. Raises JanusKitError where `janus-kit train data` has not made it."""
    return Bank(bank_path())


@cache
def views(novel: bool) -> Mapping[str, tuple[Sprite, ...]]:
    """Name -> its training views, or those held out; a name without such has its training views."""
    found: dict[str, list[Sprite]] = {name: [] for name in NAMES}
    known: dict[str, list[Sprite]] = {name: [] for name in NAMES}
    for sprite in bank().sprites:
        (found if sprite.held_out else known)[sprite.name].append(sprite)
    return {n: tuple((found[n] or known[n]) if novel else known[n]) for n in NAMES}


@cache
def models() -> frozenset[str]:
    """The models of which training shows some views."""
    return frozenset(sprite.model for sprite in bank().sprites if not sprite.held_out)


@cache
def _sprites() -> Mapping[str, Sprite]:
    return {sprite.file.removesuffix(".webp"): sprite for sprite in bank().sprites}


@lru_cache(maxsize=5000)
def _whole(view: str, tone: Tone | None) -> Pixels:
    """A view of the bank, "model azimuth.elevation", in full size and perhaps in a colour."""
    if view not in _sprites():
        raise OptionError(f"view: '{view}' is not in the picture bank")
    pixels = bank().pixels(_sprites()[view])
    return pixels if tone is None else recolor(pixels, tone)


@lru_cache(maxsize=2048)
def cutout(
    view: str,
    tone: Tone | None,
    size: int,
    flip: bool = False,
    angle: int = 0,
    stretch: float = 1.0,
    lean: tuple[float, ...] = (),
) -> Image.Image:
    """A view as RGBA, its longer side `size` before it is turned by `angle` degrees; tight.

    tone: its colour, or None for its own. stretch: how many times as wide as it is. lean: how far
    each corner moves in, in shares of the width and the height: eight, from the upper left against
    the clock, x before y.
    """
    if tone is None or tone in COLORS.values():
        pixels = _whole(view, tone)
    else:  # there are too many of them to keep
        pixels = recolor(_whole(view, None), tone)
    image = Image.fromarray(pixels)
    if lean:
        signs = (-1, -1, -1, 1, 1, 1, 1, -1)
        ends = (0, 0, 0, 1, 1, 1, 1, 0)
        sides = (image.width, image.height) * 4
        quad = [
            side * (end + n * by) for side, end, n, by in zip(sides, ends, signs, lean, strict=True)
        ]
        image = image.transform(image.size, Image.Transform.QUAD, quad, Image.Resampling.BILINEAR)
        image = _tight(image)
    width, height = image.width * stretch, image.height
    scale = size / max(width, height)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = image.resize(
        shape, Image.Resampling.LANCZOS if size <= 192 else Image.Resampling.BICUBIC
    )
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if angle:
        image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        image = _tight(image)
    return image


def _tight(image: Image.Image) -> Image.Image:
    """What is to be seen of an RGBA picture."""
    return image.crop(image.getchannel("A").point(lambda a: 255 if a > 16 else 0).getbbox())


@cache
def ground(tone: Tone, side: int) -> Image.Image:
    """The empty picture, side × side: one tone in warm light from the upper left.

    The light tells every place of it apart: a model whose positions run in one dimension reads
    from the code before where in the picture it is.
    """
    down, right = np.mgrid[0:side, 0:side] / side
    light = 1 - 0.10 * down - 0.02 * right
    warmth = np.multiply.outer(0.5 - right, np.array([0.03, 0.0, -0.03]))
    lit = np.array(tone) * light[:, :, None] * (1 + warmth)
    return Image.fromarray(np.clip(lit.round(), 0, 255).astype(np.uint8))


def room(tone: Tone, side: int, rng: np.random.Generator) -> Image.Image:
    """A ground for understanding: plain, two-toned like a wall and a floor, or textured."""
    base = np.array(ground(tone, side), np.float32) * rng.uniform(0.85, 1.12)
    kind = int(rng.integers(4))
    if kind == 1:
        floor = int(side * rng.uniform(0.5, 0.85))
        base[floor:] *= rng.uniform(0.7, 0.92)
        base[floor : floor + 2] *= 0.85
    elif kind == 2:
        coarse = rng.normal(0, 7, (12, 12)).astype(np.float32)
        cloud = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        base += np.asarray(cloud)[..., None]
    elif kind == 3:
        wave = np.sin(np.arange(side) / rng.uniform(4, 14) + rng.uniform(0, 6)) * rng.uniform(2, 7)
        base += wave[None, :, None] if rng.random() < 0.5 else wave[:, None, None]
    if rng.random() < 0.5:
        base += rng.normal(0, rng.uniform(0.5, 4), (side, side, 1)).astype(np.float32)
    return Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))


def shadow(image: Image.Image, box: tuple[int, int, int, int], strength: float) -> None:
    """Darken the ground under a thing softly: an ellipse about the lower edge of its box."""
    x0, _, x1, y1 = box
    width, height = x1 - x0, max(8, (x1 - x0) // 6)
    down, right = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    mask = np.clip(1 - down**2 - right**2, 0, 1) * 255 * strength
    soft = Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.GaussianBlur(3))
    image.paste((40, 40, 44), (x0, y1 - height // 2), soft)


def forget() -> None:
    """Look at the bank anew: another may have been made."""
    for remembered in (bank, views, models, _sprites, _whole, cutout):
        remembered.cache_clear()
