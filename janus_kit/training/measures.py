"""The arithmetic of an evaluation: shares with intervals, scores of tasks, PSNR and SSIM."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from janus_kit.scoring.promptset import TASKS
from janus_kit.scoring.summary import interval_of, summarize

__all__ = ["by_task", "fallen", "faster", "middle", "of_ceiling", "psnr", "share", "ssim"]

Pixels = npt.NDArray[np.uint8]
Rows = Sequence[tuple[Mapping[str, Any], bool]]  # GenEval's lines, and whether a picture is right
RESAMPLES = 2000


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


def middle(values: Sequence[float], digits: int) -> dict[str, float]:
    """The mean of two or more values with its normal 95 % interval."""
    mean, spread = fmean(values), 1.96 * stdev(values) / math.sqrt(len(values))
    found = {"mean": mean, "low": mean - spread, "high": mean + spread}
    return {name: round(value, digits) for name, value in found.items()}


def faster(own: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """How many times as fast as another, by medians of seconds.

    low is by one's own slowest round and the other's quickest, high the other way round.
    """
    pairs = {"ratio": ("wall", "wall"), "low": ("least", "most"), "high": ("most", "least")}
    return {name: round(other[a] / own[b], 2) for name, (a, b) in pairs.items()}


def by_task(rows: Rows) -> dict[str, Any]:
    """Shares by task, and as overall their mean, as GenEval has it.

    Intervals are as if a prompt's pictures were one: the embedded model draws them nearly alike.
    That of overall is `scoring.summary`'s, which draws prompts anew.
    """
    shares = {}
    for task in TASKS:
        found = [right for line, right in rows if line["tag"] == task]
        asked = {line["prompt"] for line, _ in rows if line["tag"] == task}
        if found:
            shares[task] = share(sum(found), len(found), len(found) / len(asked))
    if not shares:
        return {}
    whole = summarize(
        {"tag": line["tag"], "prompt": line["prompt"], "metadata": line, "correct": right}
        for line, right in rows
    )
    return {**shares, "overall": _spread(whole.overall, whole.interval)}


def of_ceiling(drawn: Rows, ceiling: Rows) -> dict[str, dict[str, float]]:
    """What share of a ceiling's score is reached, by task and overall; both saw the same prompts.

    The intervals are of prompts drawn anew, the same on both sides (Efron's bootstrap, 1979). A
    task in which nothing of the ceiling is right is left out.
    """
    scores: dict[str, npt.NDArray[np.float64]] = {}
    for task in TASKS:
        sides = [_by_prompt(rows, task) for rows in (drawn, ceiling)]
        prompts = sorted(sides[0])
        if not any(any(right) for right in sides[1].values()):
            continue
        count = len(prompts)
        rng = np.random.default_rng(list(task.encode()))
        often = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
        often[0] = 1 / count  # the first are the prompts as they are
        means = [[fmean(side[prompt]) for prompt in prompts] for side in sides]
        scores[task] = often @ np.array(means).T
    if scores:
        scores["overall"] = np.mean(list(scores.values()), axis=0)
    found = {}
    for task, score in scores.items():
        ratios = score[:, 0] / np.maximum(score[:, 1], 1e-9)
        found[task] = _spread(float(ratios[0]), interval_of(ratios[score[:, 1] > 0]))
    return found


def _by_prompt(rows: Rows, task: str) -> dict[str, list[bool]]:
    found: dict[str, list[bool]] = {}
    for line, right in rows:
        if line["tag"] == task:
            found.setdefault(line["prompt"], []).append(right)
    return found


def _spread(value: float, interval: Iterable[float]) -> dict[str, float]:
    """A figure with its 95 % interval."""
    low, high = interval
    return {"share": round(value, 4), "low": round(low, 4), "high": round(high, 4)}


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
        if isinstance(value, Mapping) and "share" in value:
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
