"""The arithmetic of an evaluation: shares with intervals, PSNR and SSIM."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

__all__ = ["fallen", "psnr", "share", "ssim"]

Pixels = npt.NDArray[np.uint8]


def share(right: int, of: int, alike: float = 1) -> dict[str, float]:
    """A share with Wilson's 95 % interval (Wilson, 1927), which is that of `of / alike` trials.

    alike: how many trials say no more than one, as pictures of one prompt that hardly differ.
    """
    if not of:
        return {"right": 0, "of": 0, "share": 0.0, "low": 0.0, "high": 1.0}
    z, p, n = 1.96, right / of, of / alike
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    spread = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return {
        "right": right,
        "of": of,
        "share": round(p, 4),
        "low": round(max(0.0, middle - spread), 4),
        "high": round(min(1.0, middle + spread), 4),
    }


def fallen(figures: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """The shares of figures that lie below the interval that they had before, a line each.

    The share before must also lie above the new interval: two wrong of two say little.
    """
    had = dict(_shares(before))
    return [
        f"{name}: {now['share']:.1%}, was {had[name]['share']:.1%} "
        f"({had[name]['low']:.1%} to {had[name]['high']:.1%})"
        for name, now in _shares(figures)
        if name in had and now["share"] < had[name]["low"] and now["high"] < had[name]["share"]
    ]


def _shares(figures: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every share with an interval, by the names of its sections."""
    for name, value in figures.items():
        if isinstance(value, Mapping) and "low" in value:
            yield f"{above}{name}", value
        elif isinstance(value, Mapping):
            yield from _shares(value, f"{above}{name}, ")


def psnr(true: Pixels, rebuilt: Pixels) -> float:
    """Peak signal-to-noise ratio of two pictures uint8 [h, w, 3], in dB."""
    error = float(np.mean((true.astype(float) - rebuilt.astype(float)) ** 2))
    return 10 * math.log10(255**2 / max(error, 1e-9))


def ssim(true: Pixels, rebuilt: Pixels) -> float:
    """Structural similarity of two pictures uint8 [h, w, 3], mean over places and channels.

    Wang et al., "Image Quality Assessment" (2004): a Gaussian window of 11 pixels, σ 1.5, and the
    constants (0.01·255)² and (0.03·255)².
    """
    x, y = (
        torch.from_numpy(np.ascontiguousarray(p)).permute(2, 0, 1)[:, None].double()
        for p in (true, rebuilt)
    )
    line = torch.exp(-((torch.arange(11) - 5.0) ** 2) / (2 * 1.5**2)).double()
    window = (line[:, None] * line / line.sum() ** 2)[None, None]

    def mean(values: torch.Tensor) -> torch.Tensor:
        return F.conv2d(values, window)

    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    a, b = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = (2 * mx * my + a) * (2 * both + b) / ((mx**2 + my**2 + a) * (vx + vy + b))
    return float(found.mean())
