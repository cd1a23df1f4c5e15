"""Anything → RGB picture → tensor, and tensor → picture. Nothing here opens a URL."""

import logging
import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from janus_kit.errors import GenerationError, ImageError, OptionError

__all__ = ["MAX_BYTES", "grid", "load", "to_pil", "to_pixels", "to_square", "to_uint8"]

logger = logging.getLogger(__name__)

MAX_BYTES = 50_000_000  # of a file
_MAX_PIXELS = 64_000_000
_MAX_SIDE = 20_000
_MAX_ASPECT = 200
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")

# A JPEG of 64 MP decodes in 0.03 s at this draft size against 0.41 s; both sides stay above it.
_DRAFT = (768, 768)
_SHORTEST = 14  # the published min_size
_GREY = (127, 127, 127)  # int(0.5 * 255), the published background

_URL = re.compile(r"[a-z][a-z0-9+.-]+://|data:image/", re.IGNORECASE)

# (offset, leading bytes, what it is): named so that the remedy can be, and never opened.
_REFUSED = (
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "an EPS drawing"),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS drawing"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\xd7\xcd\xc6\x9a", "a WMF drawing"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a FlashPix or an old Office file"),
    (4, b"ftypavi", "an AVIF picture, which Pillow opens with nothing to install"),
    (4, b"ftyphe", "a HEIC photo, for which Pillow needs pip install pillow-heif"),
    (4, b"ftypm", "a video, or a HEIC photo, for which Pillow needs pip install pillow-heif"),
    (4, b"ftyp", "a video"),
)
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load(
    source: str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[Any],
    *,
    allow_tiff: bool = False,
) -> Image.Image:
    """The picture as an upright 8-bit RGB image without metadata; a new object, always.

    source: a path (a str is a local path, never a URL), the bytes of a file, a PIL image, or a
    uint8 array [h, w], [h, w, 3] or [h, w, 4]. Files are PNG, JPEG, WEBP, GIF or BMP up to 50 MB,
    64 megapixels, 20,000 pixels a side and 200:1; only the first frame of an animation is read.
    A JPEG whose sides are 1,536 or more comes smaller, by 2, 4 or 8, with sides of 768 or more.
    Transparent parts become white; 16-bit greys are scaled by 1/257; colour profiles are ignored.

    Raises ImageError, naming the source and the remedy, for everything that is not such a picture.
    """
    if isinstance(source, Image.Image):
        return _finish(source, "the image")
    if isinstance(source, np.ndarray):
        return _finish(_from_array(source), "the array")
    if isinstance(source, bytes):
        return _decode(source, "the image bytes", allow_tiff)
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        place = _place(path)
        return _decode(_read(path, place), place, allow_tiff)
    raise ImageError(
        f"{type(source).__name__} is not a picture; pass a path, bytes, a PIL image or an array"
    )


def to_pixels(image: Image.Image, size: int = 384) -> Tensor:
    """What the encoder reads: the whole picture on a grey square, float32 [3, size, size] in ±1.

    The rule of deepseek-ai/Janus `image_processing_vlm.py`: the long side becomes size, the short
    side is rounded down (transformers 5 rounds it to the nearest) and is at least 14.

    image: RGB, as `load` returns it (else ImageError). Raises OptionError for a size below 1.
    """
    return _to_tensor(to_view(image, size))


def to_view(image: Image.Image, size: int = 384) -> Image.Image:
    """The picture behind to_pixels: RGB [size, size]. The view of a view is that view itself."""
    _check_square(image, size)
    longest = max(image.size)
    width, height = (max(side * size // longest, min(_SHORTEST, size)) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (size, size), _GREY)
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return square


def to_square(image: Image.Image, size: int = 384) -> Tensor:
    """What the drawing tokenizer learns from: the centre square, float32 [3, size, size] in ±1.

    The short side becomes size and the long side is cropped, as the Janus-Pro report trains.

    image: RGB, as `load` returns it (else ImageError). Raises OptionError for a size below 1.
    """
    _check_square(image, size)
    fitted = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return _to_tensor(fitted)


def to_uint8(pixels: Tensor) -> npt.NDArray[np.uint8]:
    """Pixels [b, 3, h, w], ±1 → [b, h, w, 3] in 0…255, clipped and rounded down as published.

    Raises ImageError for another shape and GenerationError for NaN.
    """
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ImageError(f"pixels must be [b, 3, h, w], not {list(pixels.shape)}")
    pixels = pixels.detach().float()
    if bool(pixels.isnan().any()):
        raise GenerationError("the pixels hold NaN; decode in float32 or bfloat16, not float16")
    levels = ((pixels + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)
    array: npt.NDArray[np.uint8] = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


def to_pil(pixels: Tensor) -> list[Image.Image]:
    """Pixels [b, 3, h, w] in ±1 → b RGB images. Raises as `to_uint8`."""
    return [Image.fromarray(picture) for picture in to_uint8(pixels)]


def grid(images: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """A contact sheet on white, filled row by row; near square unless columns is given.

    Raises ImageError for no images and OptionError for less than one column.
    """
    if not images:
        raise ImageError("a grid needs at least one image, and the list is empty")
    if columns is None:
        columns = math.ceil(math.sqrt(len(images)))
    if columns < 1:
        raise OptionError(f"columns must be 1 or more, not {columns}")
    columns = min(columns, len(images))
    width = max(image.width for image in images)
    height = max(image.height for image in images)
    sheet = Image.new("RGB", (columns * width, math.ceil(len(images) / columns) * height), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * width, index // columns * height))
    return sheet


def _place(path: str) -> str:
    """A path as one short printable line: escapes, line breaks and odd bytes become visible."""
    shown = path if path.isprintable() else repr(path)
    return shown if len(shown) <= 300 else f"{shown[:297]}..."


def _read(path: str, place: str) -> bytes:
    """The bytes of a regular file, read once: MAX_BYTES, and one more where it is larger."""
    if _URL.match(path):
        raise ImageError(f"{place}: is a URL; download it first and pass the file")
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        raise ImageError(f"{place}: {_reason(error)}; check the path") from error
    if not stat.S_ISREG(mode):  # opening a FIFO would wait for a writer that never comes
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise ImageError(f"{place}: is {kind}; pass one picture file")
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"{place}: {_reason(error)}; check that it can be read") from error


def _decode(data: bytes, place: str, allow_tiff: bool) -> Image.Image:
    """The bytes of a file → an upright RGB image."""
    if not data:
        raise ImageError(f"{place}: is empty (0 bytes); copy or download it again")
    if len(data) > MAX_BYTES:
        raise ImageError(f"{place}: is larger than {MAX_BYTES // 10**6} MB; make it smaller first")
    _refuse(data[:1024], place, allow_tiff)
    # Before 13.0 Pillow reserves 2 GiB for a WEBP of 30 bytes before it knows the size.
    size = _webp_size(data)
    if size is not None:
        _check_size(size, place)
    formats = (*_FORMATS, "TIFF") if allow_tiff else _FORMATS
    with _decoding(place):
        image: Image.Image = Image.open(BytesIO(data), formats=formats)
        _check_size(image.size, place)
        image.draft("RGB", _DRAFT)
    picture = _finish(image, place)
    with suppress(Exception):  # behind a good first frame a file may be damaged
        # The further pictures of an MPO are a camera's previews or depths.
        if getattr(image, "is_animated", False) and image.format != "MPO":
            logger.warning("%s: holds several frames; only the first is read", place)
    return picture


def _finish(image: Image.Image, place: str) -> Image.Image:
    """An opened image → an upright RGB image that keeps nothing of the file."""
    _check_size(image.size, place)
    with _decoding(place):
        image.load()
        turn = _turn(image, place)
        upright = _to_rgb(image, place)
        if turn is not None:
            upright = upright.transpose(turn)
    upright.info = {}  # a kept EXIF orientation would turn the picture again on the next load
    return upright


@contextmanager
def _decoding(place: str) -> Iterator[None]:
    """Turn whatever a decoder raises on bad bytes into an ImageError."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        names = ", ".join(_FORMATS[:-1])
        raise ImageError(
            f"{place}: is not a readable {names} or {_FORMATS[-1]} picture; save it again as PNG"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{place}: {_too_many_pixels()}") from error
    except Exception as error:
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError, ...
        raise ImageError(
            f"{place}: is damaged or cut short ({_reason(error)}); copy or download it again"
        ) from error


def _reason(error: Exception) -> str:
    """One line from an exception: the system's own words where there are some."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join(text.split())[:200] or type(error).__name__


def _refuse(head: bytes, place: str, allow_tiff: bool) -> None:
    """Name the formats that people try and that are not read, from their leading bytes."""
    remedy = "convert it to PNG or JPEG"
    for offset, magic, kind in _REFUSED:
        if head.startswith(magic, offset):
            raise ImageError(f"{place}: is {kind}; {remedy}")
    if head.startswith(_TIFF) and not allow_tiff:
        raise ImageError(f"{place}: is a TIFF; {remedy}")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<"):
        if b"<svg" in text:
            raise ImageError(f"{place}: is an SVG drawing; {remedy}")
        raise ImageError(f"{place}: is a web page or XML, not a picture; download the picture")


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """(width, height) that a WEBP claims in its first 30 bytes; None for anything else."""
    if len(head) < 30 or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    if head[12:16] == b"VP8X":
        return (
            int.from_bytes(head[24:27], "little") + 1,
            int.from_bytes(head[27:30], "little") + 1,
        )
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if head[12:16] == b"VP8 ":
        return (
            int.from_bytes(head[26:28], "little") & 0x3FFF,
            int.from_bytes(head[28:30], "little") & 0x3FFF,
        )
    return None


def _too_many_pixels() -> str:
    return f"has more than {_MAX_PIXELS // 10**6} million pixels; make it smaller first"


def _check_size(size: tuple[int, int], place: str) -> None:
    """Refuse a picture by its header, before a decoder gives it memory."""
    shortest, longest = min(size), max(size)
    shape = f"{size[0]}x{size[1]}"
    if shortest < 1:
        raise ImageError(f"{place}: is {shape} pixels; a picture needs at least one")
    if longest > _MAX_SIDE:
        raise ImageError(f"{place}: is {shape} pixels; at most {_MAX_SIDE} a side are read, cut it")
    if longest > _MAX_ASPECT * shortest:
        raise ImageError(f"{place}: is {shape} pixels, longer than {_MAX_ASPECT}:1; cut it")
    if size[0] * size[1] > _MAX_PIXELS:
        raise ImageError(f"{place}: is {shape} and {_too_many_pixels()}")


def _turn(image: Image.Image, place: str) -> Image.Transpose | None:
    """What turns the picture upright by its EXIF orientation; broken EXIF is only a warning."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # noqa: BLE001 - a photo that may lie on its side beats no photo
        logger.warning("%s: its EXIF cannot be read (%s); not turned", place, _reason(error))
        return None


def _to_rgb(image: Image.Image, place: str) -> Image.Image:
    """A loaded image of any mode → RGB, 8 bits, as a person would see it on white paper."""
    if image.mode == "F":
        logger.warning("%s: holds floats without a known range; stretched to 0…255", place)
        return _from_levels(_stretch(np.asarray(image)))
    if image.mode.startswith("I"):  # Pillow's convert("RGB") clips these to white
        return _from_levels(np.clip(np.asarray(image), 0, 65535) / np.float32(257))
    if not image.has_transparency_data:
        return image.convert("RGB")
    # Pillow's convert("RGB") shows the colour that hides under alpha 0.
    painted = image if image.mode == "RGBA" else image.convert("RGBA")
    paper = Image.new("RGB", image.size, "white")
    paper.paste(painted, mask=painted.getchannel("A"))
    return paper


def _stretch(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """[h, w] floats → 0…255 from the smallest to the largest finite one; a flat one is 0."""
    wide = values.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    wide = np.nan_to_num(wide, nan=low, posinf=high, neginf=low)
    stretched: npt.NDArray[np.float64] = (wide - low) * (255 / max(high - low, 1e-300))
    return stretched


def _from_levels(levels: npt.NDArray[Any]) -> Image.Image:
    """[h, w] of 0…255 → RGB grey."""
    return Image.fromarray(np.rint(levels).astype(np.uint8)).convert("RGB")


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    """uint8 [h, w], [h, w, 3] or [h, w, 4] → an image."""
    if array.dtype != np.uint8 or not (
        array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    ):
        raise ImageError(
            f"the array: is {array.dtype} {list(array.shape)}; "
            "pass uint8 [h, w], [h, w, 3] or [h, w, 4]"
        )
    _check_size((array.shape[1], array.shape[0]), "the array")
    return Image.fromarray(np.ascontiguousarray(array))


def _check_square(image: Image.Image, size: int) -> None:
    if image.mode != "RGB":
        raise ImageError(f"the image: has mode {image.mode}, not RGB; pass it through load first")
    if size < 1:
        raise OptionError(f"size must be 1 or more pixels, not {size}")


def _to_tensor(image: Image.Image) -> Tensor:
    """RGB → float32 [3, h, w] in ±1."""
    levels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float()
    return levels.div_(255).sub_(0.5).div_(0.5)
