"""The color of a thing in a picture: what CLIP is shown and asked, and a judge without weights."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from janus_kit.errors import ImageError, OptionError, ScoringError
from janus_kit.scoring.promptset import COLORS, check_object

if TYPE_CHECKING:
    from janus_kit.scoring.geneval import Detection

__all__ = [
    "NOT_COMPARABLE",
    "PixelColors",
    "classify_color",
    "color_texts",
    "crop_for_color",
    "pixel_color",
]

NOT_COMPARABLE = "not comparable with published scores"

_Floats = npt.NDArray[np.float64]
_CONTRAST = 32  # levels of one channel by which a thing's pixel differs from the border's colour
_LEAST = 0.05  # share of the box that must differ; below it the thing is taken to fill the box


def crop_for_color(
    image: Image.Image,
    box: Sequence[float],
    mask: npt.NDArray[np.bool_] | None = None,
    *,
    background: str = "#999",
    crop: bool = True,
) -> Image.Image:
    """The RGB picture from which CLIP tells a thing's color, as `ImageCrops` of the reference.

    Pixels outside the mask become the background; "original" leaves them. Then the box is cut out,
    its sides rounded half to even, unless crop is False. A part of the box beyond the picture is
    left off, and a box without width or height gets one pixel; the reference cannot do either.
    EXIF orientation is honoured and transparency dropped.

    image: any PIL picture. box: x1, y1, x2, y2 in pixels of the upright picture. mask: bool [h, w]
    of it. Raises ImageError for what is no whole picture, ScoringError for a box or a mask
    that does not fit it, OptionError for a background that Pillow does not know.
    """
    upright = _upright(image)
    if mask is not None and background != "original":
        outside = ~_fitting(mask, upright)
        try:
            blank = Image.new("RGB", upright.size, background)
        except ValueError as error:
            raise OptionError(
                f"background: {background!r} is not a color; give one like '#999', or 'original'"
            ) from error
        upright.paste(blank, mask=Image.fromarray(outside.astype(np.uint8) * 255))
    return upright.crop(_window(box, upright.size)) if crop else upright


def color_texts(object_name: str) -> dict[str, list[str]]:
    """The three texts of every color, in the order of COLORS: always "a", before orange too.

    Raises ScoringError for a name that is not in OBJECTS.
    """
    check_object(object_name, "object_name")
    return {
        color: [
            f"a photo of a {color} {object_name}",
            f"a photo of a {color}-colored {object_name}",
            f"a photo of a {color} object",
        ]
        for color in COLORS
    }


def classify_color(
    image_embeddings: npt.ArrayLike, text_embeddings: npt.ArrayLike | Mapping[str, npt.ArrayLike]
) -> list[str]:
    """The likeliest color of n pictures, by the nearest of ten directions: [n, d] → n of COLORS.

    text_embeddings: [10, k, d] in the order of COLORS, or color → [k, d]. Each is normalised, then
    the mean of a color's k is, as clip_benchmark's `zero_shot_classifier`. Of equally near colors
    the first is taken.

    Raises ScoringError for other shapes, and for embeddings that are zero or not finite.
    """
    if isinstance(text_embeddings, Mapping):
        missing = [color for color in COLORS if color not in text_embeddings]
        if missing:
            raise ScoringError(f"text_embeddings: '{missing[0]}' is missing; give all ten colors")
        text_embeddings = [np.asarray(text_embeddings[color]) for color in COLORS]
    images, texts = _numbers(image_embeddings, "image"), _numbers(text_embeddings, "text")
    if images.ndim != 2 or texts.ndim != 3 or texts.shape[::2] != (len(COLORS), images.shape[-1]):
        raise ScoringError(
            f"the embeddings: must be [n, d] and [10, k, d], not {list(images.shape)} and "
            f"{list(texts.shape)}"
        )
    colors = _unit(_unit(texts, "text").mean(1), "text")
    nearest = (_unit(images, "image") @ colors.T).argmax(1)
    return [COLORS[index] for index in nearest.tolist()]


class PixelColors:
    """The `pixels` color judge of one picture, to be given to `judge` as color_of.

    It has no weights and looks at nothing but hue and lightness, so its verdicts carry `mark`.
    Raises ImageError for what is no whole PIL picture.
    """

    name = "pixels"
    mark = NOT_COMPARABLE

    def __init__(self, image: Image.Image) -> None:
        self._image = _upright(image)

    def __call__(self, detection: "Detection") -> str:
        """The detection's color, of COLORS. Raises as `pixel_color`."""
        return pixel_color(self._image, detection.box, detection.mask)


def pixel_color(
    image: Image.Image, box: Sequence[float], mask: npt.NDArray[np.bool_] | None = None
) -> str:
    """The color, of COLORS, that most pixels of a thing have; greys are black or white.

    A thing is its mask. Without one, or with an empty one, it is what differs from the border of
    its box, inside the ellipse that the box holds. Our own rule: not comparable with published
    scores.

    Arguments and errors as `crop_for_color`.
    """
    upright = _upright(image)
    pixels = np.asarray(upright)
    if mask is not None and _fitting(mask, upright).any():
        thing = pixels[np.asarray(mask, bool)]
    else:
        thing = _inside(pixels, _window(box, upright.size))
    votes = np.bincount(_name(thing), minlength=len(COLORS))
    return COLORS[int(votes.argmax())]


def _inside(
    pixels: npt.NDArray[np.uint8], window: tuple[int, int, int, int]
) -> npt.NDArray[np.uint8]:
    """The pixels [k, 3] of the thing in a window of a picture [h, w, 3]."""
    left, top, right, bottom = window
    around = max(2, round(0.05 * max(right - left, bottom - top)))
    y, x = max(top - around, 0), max(left - around, 0)
    outer = pixels[y : bottom + around, x : right + around]
    beyond = np.ones(outer.shape[:2], bool)
    beyond[top - y : bottom - y, left - x : right - x] = False
    if not beyond.any():  # the box is the whole picture: its own outermost pixels
        beyond[[0, -1]] = beyond[:, [0, -1]] = True
    border = np.median(outer[beyond], axis=0)
    inner = pixels[top:bottom, left:right]
    rows, columns = (2 * (np.arange(n) + 0.5) / n - 1 for n in inner.shape[:2])
    ellipse = rows[:, None] ** 2 + columns**2 <= 1
    apart = ellipse & (np.abs(inner - border).max(-1) > _CONTRAST)
    chosen = apart if apart.sum() >= _LEAST * ellipse.sum() else ellipse
    thing: npt.NDArray[np.uint8] = inner[chosen]
    return thing


def _name(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The color of each pixel [k, 3], as its number in COLORS: [k]."""
    red, green, blue = levels = pixels.T / 255
    value, darkest = levels.max(0), levels.min(0)
    chroma = value - darkest
    some = np.maximum(chroma, 1e-9)
    sixth = np.select(
        [value == red, value == green],
        [(green - blue) / some, (blue - red) / some + 2],
        (red - green) / some + 4,
    )
    hue = sixth * 60 % 360
    saturation = chroma / np.maximum(value, 1e-9)
    grey = (chroma < 0.1) | (saturation < 0.15)
    reddish = (hue < 14) | (hue >= 342)
    # The first rule that holds names the pixel. Brown is dark or dull orange, pink is pale red.
    rules = [
        ((value < 0.22) | (grey & (value + darkest < 1)), "black"),
        (grey, "white"),
        (reddish & (saturation < 0.5) & (value > 0.75), "pink"),
        (reddish & (saturation < 0.78) & (value < 0.75), "brown"),
        (reddish, "red"),
        ((hue < 43) & ((value < 0.7) | ((saturation < 0.5) & (value < 0.9))), "brown"),
        (hue < 43, "orange"),
        ((hue < 55) & (value < 0.55), "brown"),
        (hue < 68, "yellow"),
        (hue < 172, "green"),
        (hue < 258, "blue"),
        ((hue < 305) | (value < 0.6), "purple"),
    ]
    names = [np.int64(COLORS.index(color)) for _, color in rules]
    pink = np.int64(COLORS.index("pink"))
    return np.select([holds for holds, _ in rules], names, pink)


def _upright(image: Image.Image) -> Image.Image:
    """A new RGB picture that stands as its EXIF orientation says."""
    if not isinstance(image, Image.Image):
        raise ImageError(f"{type(image).__name__} is not a picture; pass a PIL image")
    try:
        return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError) as error:  # Pillow decodes only now
        raise ImageError(f"the picture cannot be decoded ({error}); is the file whole?") from error


def _window(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box as whole pixels inside a picture (width, height), one pixel or more a side."""
    try:
        x1, y1, x2, y2 = (round(float(value)) for value in box)
    except (TypeError, ValueError, OverflowError) as error:  # round(inf) overflows
        shown = repr(box)[:80]
        raise ScoringError(
            f"the box: must be four finite numbers x1, y1, x2, y2, not {shown}"
        ) from error
    (left, right), (top, bottom) = sorted((x1, x2)), sorted((y1, y2))
    left, top = (min(max(low, 0), side - 1) for low, side in zip((left, top), size, strict=True))
    right, bottom = min(max(right, left + 1), size[0]), min(max(bottom, top + 1), size[1])
    return left, top, right, bottom


def _fitting(mask: npt.NDArray[np.bool_], image: Image.Image) -> npt.NDArray[np.bool_]:
    """The mask as bool [h, w]."""
    found = np.asarray(mask)
    if found.shape != (image.height, image.width):
        raise ScoringError(
            f"the mask: has shape {list(found.shape)} and the picture is {image.height} high and "
            f"{image.width} wide; give it the upright picture's size"
        )
    return found.astype(bool, copy=False)


def _numbers(values: npt.ArrayLike, what: str) -> _Floats:
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ScoringError(f"the {what} embeddings: must be an array of numbers") from error
    return found


def _unit(vectors: _Floats, what: str) -> _Floats:
    """Vectors [..., d] at length 1."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ScoringError(
            f"the {what} embeddings: one is zero or not finite; was the model run in float16?"
        )
    return np.asarray(vectors / lengths)
