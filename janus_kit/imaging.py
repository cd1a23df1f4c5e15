"""The helpers for pictures that users of diffusers look for, under its names."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
from PIL import Image

from janus_kit.errors import OptionError
from janus_kit.options import whole
from janus_kit.vision import images as pictures

__all__ = ["load_image", "make_image_grid"]


def load_image(
    image: str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[Any],
) -> Image.Image:
    """The picture as an upright 8-bit RGB image: a path, the bytes of a file, PIL or an array.

    A text is a path, never a URL. Raises ImageError for what is no PNG, JPEG, WEBP, GIF or BMP, is
    damaged, or is larger than 50 MB or 64 megapixels; see vision.images.load.
    """
    return pictures.load(image)


def make_image_grid(
    images: Sequence[Image.Image], rows: int | None = None, cols: int | None = None
) -> Image.Image:
    """A contact sheet on white, row by row; near square unless rows or cols are given.

    Raises ImageError for no images, OptionError for sides below 1 or too few places.
    """
    for name, side in (("rows", rows), ("cols", cols)):
        if side is not None:
            whole(name, side, 1, 1_000_000)
    if rows is not None:
        cols = math.ceil(len(images) / rows) if cols is None else cols
        if rows * cols < len(images):
            raise OptionError(f"{rows} × {cols} places are too few for {len(images)} images")
    return pictures.grid(images, cols)
