"""The helpers for pictures that users of diffusers look for, under its names."""

import os
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
from PIL import Image

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


def make_image_grid(images: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """A contact sheet on white, row by row; near square unless columns is given.

    Raises ImageError for no images, OptionError for less than one column.
    """
    return pictures.grid(images, columns)
