"""What scenes are pasted together from: lit ground, and things in a colour and a size."""

from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from janus_kit.errors import OptionError
from janus_kit.training.sprites import bank, recolor

__all__ = ["cutout", "forget", "ground"]

Tone = tuple[int, int, int]


@cache
def ground(tone: Tone, side: int) -> Image.Image:
    """The empty picture, side × side: one pale tone in warm light from the upper left.

    The light tells every place of it apart: a model whose positions run in one dimension reads
    from the code before where in the picture it is.
    """
    down, right = np.mgrid[0:side, 0:side] / side
    light = 1 - 0.10 * down - 0.02 * right
    warmth = np.multiply.outer(0.5 - right, np.array([0.03, 0.0, -0.03]))
    lit = np.array(tone) * light[:, :, None] * (1 + warmth)
    return Image.fromarray(np.clip(lit.round(), 0, 255).astype(np.uint8))


@lru_cache(maxsize=4096)
def cutout(name: str, tone: Tone, size: int) -> Image.Image:
    """A thing in a colour: RGBA, the longer side `size`. Raises OptionError where it is not had."""
    whole = _colored(name, tone)
    scale = size / max(whole.size)
    shape = (round(whole.width * scale), round(whole.height * scale))
    return whole.resize(shape, Image.Resampling.LANCZOS)


@lru_cache(maxsize=256)
def _colored(name: str, tone: Tone) -> Image.Image:
    """The thing in a colour, in full size."""
    return Image.fromarray(recolor(_thing(name), tone))


@cache
def _thing(name: str) -> npt.NDArray[np.uint8]:
    found = bank()
    if name not in found:
        raise OptionError(
            f"names: '{name}' is not fetched yet; call janus_kit.training.sprites.fetch()"
        )
    return found[name]


def forget() -> None:
    """Look at the bank anew: another may have been fetched."""
    for remembered in (_thing, _colored, cutout):
        remembered.cache_clear()
