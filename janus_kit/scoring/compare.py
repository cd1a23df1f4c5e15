"""Two runs on the same prompts: is one better, or is that chance?"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from janus_kit.errors import ScoringError
from janus_kit.scoring.records import read_rows
from janus_kit.scoring.summary import RESAMPLES, interval_of

__all__ = ["against", "baseline", "compare"]

JUDGED = ("colors", "judge", "compat")  # what else a summary tells of judging
FEWEST = 20  # prompts; fewer show no difference that could not be chance

Scores = dict[str, dict[str, float]]  # task → prompt → its score, 0…1


def compare(ours: Scores, theirs: Scores) -> dict[str, Any]:
    """How much higher ours is, in points, by the prompts that both have; with 95 % intervals.

    The prompts of each task are drawn with replacement, each with both of its scores: what makes a
    prompt hard is hard for both and cancels out. The overall is the mean of the tasks. Raises
    ScoringError where no prompt is in both.
    """
    apart = {
        task: np.array(
            [
                scores[prompt] - theirs[task][prompt]
                for prompt in sorted(scores.keys() & theirs[task].keys())
            ]
        )
        for task, scores in ours.items()
        if task in theirs
    }
    apart = {task: differences for task, differences in apart.items() if len(differences)}
    if not apart:
        raise ScoringError("the baseline: has no prompt in common with this run")
    rng = np.random.default_rng(0)
    drawn, found = [], {}
    for task, differences in apart.items():
        count = len(differences)
        often = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        drawn.append(100 * (often @ differences) / count)
        found[task] = _difference(100 * float(differences.mean()), drawn[-1], count)
    middle = fmean(entry["difference"] for entry in found.values())
    count = sum(map(len, apart.values()))
    return {"overall": _difference(middle, np.mean(drawn, axis=0), count), "tasks": found}


def _difference(middle: float, drawn: Any, prompts: int) -> dict[str, Any]:
    low, high = interval_of(drawn)
    real = prompts >= FEWEST and bool(low > 0 or high < 0)
    if prompts < FEWEST:
        verdict = f"no telling: {prompts} prompts are too few, {FEWEST} the fewest"
    elif real:
        verdict = f"{'better' if middle > 0 else 'worse'}: the interval leaves zero out"
    else:
        verdict = "no real difference: the interval holds zero"
    return {
        "difference": middle,
        "interval": [low, high],
        "prompts": prompts,
        "real": real,
        "verdict": verdict,
    }


def against(
    path: Path, rows: Iterable[Mapping[str, Any]], summary: Mapping[str, Any]
) -> dict[str, Any]:
    """The comparison of a run's rows and summary with another's, whose summary.json path is.

    Where the two were judged in different ways, no difference is called real, and it says why.
    Raises as `baseline`.
    """
    benchmark = summary["benchmark"]
    other, theirs = baseline(path, benchmark)
    found = compare(_scores(rows, benchmark), theirs)
    apart = _judged_apart(summary, other)
    if apart:
        for entry in (found["overall"], *found["tasks"].values()):
            entry["real"] = False
            entry["verdict"] = f"no telling: judged with {apart}"
    return {"baseline": str(path), "drawn_by": other.get("drawn_by"), **found}


def _judged_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """By what two runs were judged differently: "colors pixels here and CLIP there"; "" if not."""
    pairs = [(name, one.get(name), other.get(name)) for name in JUDGED]
    inner: list[dict[str, Any]] = [part.get("detector") or {} for part in (one, other)]
    names = sorted({*inner[0], *inner[1]} - {"names_it_cannot_see"})
    pairs += [(f"detector's {name}", inner[0].get(name), inner[1].get(name)) for name in names]
    return ", ".join(f"{name} {a} here and {b} there" for name, a, b in pairs if a != b)


def baseline(path: Path, benchmark: str) -> tuple[dict[str, Any], Scores]:
    """A run's summary and the scores beside it, in results.jsonl.

    Raises ScoringError where one of them cannot be read or is of another benchmark.
    """
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScoringError(
            f"{path}: cannot be read ({error}); give a run's summary.json"
        ) from error
    if not isinstance(summary, dict) or summary.get("benchmark") != benchmark:
        raise ScoringError(f"{path}: is no summary of {benchmark}; give one of the same benchmark")
    try:
        theirs = _scores(read_rows(path.with_name("results.jsonl")), benchmark)
    except KeyError as error:
        raise ScoringError(f"{path}: its results.jsonl has no column {error}") from error
    except (TypeError, ValueError) as error:
        raise ScoringError(
            f"{path}: its results.jsonl has a wrong value ({error}); score that run again"
        ) from error
    return summary, theirs


def _scores(rows: Iterable[Mapping[str, Any]], benchmark: str) -> Scores:
    """The mean of each prompt's pictures by task; all of DPG-Bench is one task."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if benchmark == "geneval":
            task, prompt, score = row["tag"], row["metadata"], float(row["correct"])
        else:
            task, prompt, score = "dpg", row["item_id"], float(row["score"])
        found.setdefault(task, {}).setdefault(prompt, []).append(score)
    return {
        task: {prompt: fmean(scores) for prompt, scores in prompts.items()}
        for task, prompts in found.items()
    }
