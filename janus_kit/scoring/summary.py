"""GenEval's scores from the verdicts on single pictures, and how sure they are."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from janus_kit.errors import ScoringError
from janus_kit.scoring.promptset import TASKS, prompts

__all__ = ["LEVEL", "RESAMPLES", "Summary", "interval_of", "summarize"]

RESAMPLES = 2000  # of the bootstrap: the ends of the interval then vary by about 0.1 points
LEVEL = 0.95

_Prompts = dict[str, list[bool]]  # a prompt's metadata as JSON → whether each picture is right


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Scores as fractions of 1, not rounded.

    The intervals hold 95 % of the scores of prompt sets drawn with replacement from each task's
    prompts, every prompt with all its pictures: the pictures of a prompt are alike, and taking
    them for independent makes the interval too narrow. Drawing tells nothing of a task that is all
    right or all wrong: its own interval is Wilson's of as many prompts, and that of overall takes
    the task for certain.
    """

    overall: float  # the mean of the tasks, each counting the same
    interval: tuple[float, float]  # of overall
    tasks: dict[str, float]  # task → mean over its pictures; TASKS first, in their order
    task_intervals: dict[str, tuple[float, float]]
    images: int
    prompts: int
    images_right: float
    prompts_right: float  # prompts with at least one right picture
    coverage: float  # share of the 553 published prompts that have a picture
    missing: tuple[str, ...]  # tasks of TASKS without a picture; overall is not GenEval's then
    samples: tuple[int, int]  # the fewest and the most pictures of a prompt; 4 are published
    marks: tuple[str, ...]  # what the rows say against comparing with published scores


def summarize(rows: Iterable[Mapping[str, Any]]) -> Summary:
    """The scores of result rows, as `summary_scores.py` of djghosh13/geneval computes them.

    A row has tag (the task), prompt, metadata (a mapping or its JSON text: prompts are told apart
    by it) and correct; `mark` is collected. Order does not matter: equal rows give an equal
    summary, interval included (under one version of numpy).

    Raises ScoringError for no rows and for a row that lacks one of these or has a wrong value.
    """
    tasks: dict[str, _Prompts] = {}
    everything: _Prompts = {}
    marks = set()
    for number, row in enumerate(rows):
        tag, prompt, correct = _read(row, f"rows[{number}]")
        tasks.setdefault(tag, {}).setdefault(prompt, []).append(correct)
        everything.setdefault(prompt, []).append(correct)
        marks.add(str(row.get("mark") or ""))
    if not tasks:
        raise ScoringError("the rows: there are none; score at least one picture first")
    order = [task for task in TASKS if task in tasks]
    order += sorted(task for task in tasks if task not in TASKS)
    scores = {task: fmean(_pooled(tasks[task])) for task in order}
    drawn = {task: _resample(tasks[task], task) for task in order}
    published = {json.dumps(metadata) for metadata in prompts()}
    sizes = [len(right) for right in everything.values()]
    return Summary(
        overall=fmean(scores.values()),
        interval=interval_of(np.mean([drawn[task] for task in order], axis=0)),
        tasks=scores,
        task_intervals={task: _of_task(drawn[task], len(tasks[task])) for task in order},
        images=sum(sizes),
        prompts=len(everything),
        images_right=fmean(_pooled(everything)),
        prompts_right=fmean(any(right) for right in everything.values()),
        coverage=len(published & everything.keys()) / len(published),
        missing=tuple(task for task in TASKS if task not in tasks),
        samples=(min(sizes), max(sizes)),
        marks=tuple(sorted(marks - {""})),
    )


def _read(row: Mapping[str, Any], place: str) -> tuple[str, str, bool]:
    """A row's task, its prompt's metadata as JSON text, and whether it is right."""
    if not isinstance(row, Mapping):
        raise ScoringError(f"{place}: must be a mapping, not {type(row).__name__}")
    for key in ("tag", "prompt", "metadata", "correct"):
        if key not in row:
            raise ScoringError(
                f"{place}: '{key}' is missing; a row has tag, prompt, metadata and correct"
            )
    tag, metadata, correct = row["tag"], row["metadata"], row["correct"]
    if not isinstance(tag, str) or not tag:
        raise ScoringError(f"{place}: tag must name a task like 'counting', not {tag!r}")
    if not isinstance(metadata, str | Mapping) or not metadata:
        raise ScoringError(f"{place}: metadata must be a mapping or JSON text, not {metadata!r}")
    if not isinstance(correct, bool | int | np.bool_) or correct not in (0, 1):
        raise ScoringError(f"{place}: correct must be true or false, not {correct!r}")
    try:
        prompt = metadata if isinstance(metadata, str) else json.dumps(dict(metadata))
    except TypeError as error:
        raise ScoringError(f"{place}: metadata cannot be written as JSON ({error})") from error
    return tag, prompt, bool(correct)


def _pooled(prompts: _Prompts) -> list[bool]:
    """All pictures of some prompts."""
    return [correct for right in prompts.values() for correct in right]


def _resample(prompts: _Prompts, task: str) -> npt.NDArray[np.float64]:
    """The task's score under prompts drawn anew with replacement: [RESAMPLES]."""
    # A stream for each task and prompts in order: a task's interval depends on its rows alone.
    rng = np.random.default_rng(list(task.encode()))
    groups: Sequence[list[bool]] = [prompts[prompt] for prompt in sorted(prompts)]
    right = np.array([sum(group) for group in groups], float)
    sizes = np.array([len(group) for group in groups], float)
    often = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=RESAMPLES)
    scores: npt.NDArray[np.float64] = (often @ right) / (often @ sizes)
    return scores


def _of_task(scores: npt.NDArray[np.float64], prompts: int) -> tuple[float, float]:
    """A task's interval; Wilson's (1927) where all is right or all wrong and no draw differs."""
    low, high = interval_of(scores)
    if low == high and low in (0.0, 1.0):
        open_end = 3.8415 / (prompts + 3.8415)  # 1.96 squared
        return (0.0, open_end) if low == 0 else (1 - open_end, 1.0)
    return low, high


def interval_of(scores: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The ends of the middle LEVEL of drawn scores [RESAMPLES]."""
    low, high = np.quantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
