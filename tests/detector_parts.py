"""What tests of detectors and of judges of color share."""

import numpy as np
from PIL import Image


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Soft random blobs, so that scaling has something smooth to do."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)
