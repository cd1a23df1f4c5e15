"""A pixel check of drawn scenes that knows nothing of models: blobs, their colour and outline."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from janus_kit.training.sprites import bank, rgb_to_lab
from janus_kit.training.world import COLORS, Facts

__all__ = ["Blob", "blobs", "see"]

STEP = 4  # pixels of a picture that one place of the mask stands for
CONTRAST = 14.0  # difference in Lab from the background at which a pixel belongs to a thing
OUTLINE = 32  # outlines are compared at this size


@dataclass(frozen=True)
class Blob:
    """One connected thing: its nearest colour and name, its centre in pixels, and how alike."""

    name: str
    color: str
    center: tuple[float, float]
    likeness: float  # intersection over union with the named outline


def see(pixels: "npt.NDArray[np.uint8]", names: tuple[str, ...]) -> Facts:
    """What a picture uint8 [h, w, 3] shows, in the form of world.facts.

    Equal things are counted; of two different ones the relation is the larger of the distances of
    their centres.
    """
    found = blobs(pixels, names)
    kinds = sorted({(b.color, b.name) for b in found})
    if len(found) == 2 and len(kinds) == 2:
        first, second = found
        (x0, y0), (x1, y1) = first.center, second.center
        sides = abs(x1 - x0) > abs(y1 - y0)
        if (x0 > x1) if sides else (y0 > y1):
            first, second = second, first
        both = ((1, first.color, first.name), (1, second.color, second.name))
        return both, "left of" if sides else "above"
    counted = tuple(
        sorted((sum((b.color, b.name) == kind for b in found), *kind) for kind in kinds)
    )
    return counted, None


def blobs(pixels: "npt.NDArray[np.uint8]", names: tuple[str, ...]) -> list[Blob]:
    """The things of a picture on a plain background, uint8 [h, w, 3]."""
    lab = rgb_to_lab(pixels)
    # The slight gradient of a background runs from top to bottom: each line has its own tone.
    edge = np.concatenate([lab[:, :6], lab[:, -6:]], 1)
    tone = np.median(edge, 1, keepdims=True)
    apart = np.linalg.norm(lab - tone, axis=-1) > CONTRAST
    small = _shrink(apart)
    labels = _components(small)
    sizes = np.bincount(labels.ravel())[1:]
    if not len(sizes):
        return []
    found = []
    for label in np.flatnonzero(sizes >= max(20, sizes.max() * 0.15)) + 1:
        part = labels == label
        rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
        top, bottom = rows[0] * STEP, (rows[-1] + 1) * STEP
        left, right = columns[0] * STEP, (columns[-1] + 1) * STEP
        near = np.kron(part, np.ones((STEP, STEP), bool))
        mask = (apart & near)[top:bottom, left:right]
        name, likeness = _outline(mask, names)
        color = _color(lab[top:bottom, left:right][mask])
        found.append(Blob(name, color, ((left + right) / 2, (top + bottom) / 2), likeness))
    return found


def _shrink(mask: "npt.NDArray[np.bool_]") -> "npt.NDArray[np.bool_]":
    """A place counts when half of its pixels do."""
    h, w = mask.shape[0] // STEP, mask.shape[1] // STEP
    shares = mask[: h * STEP, : w * STEP].reshape(h, STEP, w, STEP).mean((1, 3))
    return np.asarray(shares >= 0.5)


def _components(mask: "npt.NDArray[np.bool_]") -> "npt.NDArray[np.int64]":
    """Labels 1… of the 8-connected parts of a mask, 0 outside."""
    labels = np.zeros(mask.shape, np.int64)
    count = 0
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        count += 1
        labels[start] = count
        waiting = [start]
        while waiting:
            y, x = waiting.pop()
            window = (slice(max(y - 1, 0), y + 2), slice(max(x - 1, 0), x + 2))
            for dy, dx in zip(*np.nonzero(mask[window] & (labels[window] == 0)), strict=True):
                place = (window[0].start + dy, window[1].start + dx)
                labels[place] = count
                waiting.append(place)
    return labels


@lru_cache(maxsize=64)
def _silhouette(name: str) -> "npt.NDArray[np.bool_]":
    return _fit(bank()[name][..., 3] > 127)


def _fit(mask: "npt.NDArray[Any]") -> "npt.NDArray[np.bool_]":
    """A mask stretched to OUTLINE × OUTLINE."""
    image = Image.fromarray(mask.astype(np.uint8) * 255).resize((OUTLINE, OUTLINE))
    return np.asarray(image) > 127


def _outline(mask: "npt.NDArray[np.bool_]", names: tuple[str, ...]) -> tuple[str, float]:
    """The name whose outline and proportions are most like the mask's."""
    fitted, ratio = _fit(mask), mask.shape[0] / mask.shape[1]

    def likeness(name: str) -> float:
        other = _silhouette(name)
        alike = float((fitted & other).sum() / max(1, (fitted | other).sum()))
        h, w = bank_shape(name)
        return alike - 0.3 * abs(float(np.log(ratio * w / h)))

    best = max(names, key=likeness)
    return best, likeness(best)


@lru_cache(maxsize=64)
def bank_shape(name: str) -> tuple[int, int]:
    """Height and width of a thing's cut-out."""
    h, w = bank()[name].shape[:2]
    return h, w


def _color(lab: "npt.NDArray[np.float32]") -> str:
    """The nearest of the world's colours to the median of some pixels."""
    middle = np.median(lab, 0)
    palette = rgb_to_lab(np.array(list(COLORS.values()), np.uint8)[None])[0]
    weights = np.array([0.5, 1.0, 1.0])  # shading moves lightness more than hue
    nearest = np.argmin((((palette - middle) * weights) ** 2).sum(-1))
    return list(COLORS)[int(nearest)]
