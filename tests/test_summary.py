"""GenEval's scores and intervals from rows of verdicts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from geneval_parts import LINES

from janus_kit.scoring.geneval import (
    TASKS,
    summarize,
)


def rows(right: Mapping[str, int], samples: int = 4) -> list[dict[str, Any]]:
    """Rows for all published prompts; of each task so many pictures are right, spread evenly."""
    found: list[dict[str, Any]] = []
    for task, many in right.items():
        pictures = [line for line in LINES if line["tag"] == task for _ in range(samples)]
        order = np.random.default_rng(0).permutation(len(pictures))
        for line, place in zip(pictures, order.tolist(), strict=True):
            found.append({**line, "metadata": json.dumps(line), "correct": place < many})
    return found


# The independent run of Janus-Pro-7B whose scores are published to two digits.
ANCHOR = dict(zip(TASKS, (313, 343, 184, 336, 304, 265), strict=True))


def test_the_independent_run_of_janus_pro_has_its_published_score() -> None:
    summary = summarize(rows(ANCHOR))
    percent = [round(100 * score, 2) for score in summary.tasks.values()]
    assert percent == [97.81, 86.62, 57.5, 89.36, 76.0, 66.25]
    assert round(100 * summary.overall, 2) == 78.92
    assert (summary.images, summary.prompts, summary.samples) == (2212, 553, (4, 4))
    assert summary.images_right == sum(ANCHOR.values()) / 2212
    assert summary.prompts_right > summary.images_right
    assert (summary.coverage, summary.missing, summary.marks) == (1.0, (), ())


@pytest.mark.parametrize(
    ("tasks", "overall"),
    [
        ((0.97, 0.68, 0.30, 0.84, 0.46, 0.42), 0.61),  # Janus, tech report, table 4
        ((0.99, 0.89, 0.59, 0.90, 0.79, 0.66), 0.80),  # Janus-Pro-7B
        ((0.98, 0.94, 0.90, 0.92, 0.91, 0.80), 0.91),  # STAR-7B
    ],
)
def test_published_tasks_give_the_published_overall(tasks: Sequence[float], overall: float) -> None:
    found = [
        {"tag": task, "prompt": "", "metadata": f"{task} {k}", "correct": k < round(100 * score)}
        for task, score in zip(TASKS, tasks, strict=True)
        for k in range(100)
    ]
    assert round(summarize(found).overall, 2) == overall


def test_the_interval_is_as_wide_as_the_binomial_says() -> None:
    # Standard errors that independent pictures would have: 0.6 … 2.4 points a task, 0.8 overall.
    summary = summarize(rows(ANCHOR))
    for task, (low, high) in summary.task_intervals.items():
        score, images = summary.tasks[task], sum(line["tag"] == task for line in LINES) * 4
        error = np.sqrt(score * (1 - score) / images)
        assert low < score < high
        assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.25)
    low, high = summary.interval
    assert low < summary.overall < high
    assert (high - low) / 2 == pytest.approx(1.96 * 0.008, rel=0.15)


def test_four_equal_pictures_of_a_prompt_tell_no_more_than_one() -> None:
    one = rows({task: count // 4 for task, count in ANCHOR.items()}, samples=1)
    four = [row for row in one for _ in range(4)]
    assert summarize(four).interval == pytest.approx(summarize(one).interval)
    spread = summarize(rows(ANCHOR)).interval
    low, high = summarize(four).interval
    assert (high - low) / (spread[1] - spread[0]) == pytest.approx(2, rel=0.15)


def test_prompts_with_more_pictures_weigh_more_and_no_score_passes_one() -> None:
    many = [{"tag": "colors", "prompt": "", "metadata": "a", "correct": True}] * 9
    summary = summarize([*many, {**many[0], "metadata": "b", "correct": False}])
    assert (summary.overall, summary.interval) == (0.9, (0.0, 1.0))


def test_a_task_that_is_all_right_or_all_wrong_is_not_certain() -> None:
    found = rows({"colors": 0, "counting": 4}, samples=1)
    found = [row for row in found if row["tag"] in ("colors", "counting")]
    for row in found:
        row["correct"] = row["tag"] == "counting"
    low, high = summarize(found).task_intervals["colors"]
    assert (low, high) == (0, pytest.approx(0.0393, abs=1e-3))  # none of 94 prompts
    low, high = summarize(found).task_intervals["counting"]
    assert (low, high) == (pytest.approx(0.9542, abs=1e-3), 1)  # all of 80


def test_the_order_of_rows_does_not_matter() -> None:
    found = rows(ANCHOR)
    shuffled = [found[k] for k in np.random.default_rng(1).permutation(len(found))]
    assert summarize(shuffled) == summarize(found)


def test_metadata_as_a_mapping_and_as_its_text_are_one_prompt() -> None:
    text = {**LINES[0], "metadata": json.dumps(LINES[0]), "correct": True}
    summary = summarize([text, text | {"metadata": LINES[0], "correct": np.bool_(False)}])
    assert (summary.prompts, summary.images, summary.overall) == (1, 2, 0.5)


def test_what_is_missing_is_said_and_only_shrinks_the_denominators() -> None:
    found = [row for row in rows(ANCHOR) if row["tag"] in ("colors", "single_object")]
    summary = summarize([*found[:320], *found[324:]])  # one prompt of colors has no picture
    assert list(summary.tasks) == ["single_object", "colors"]
    assert summary.overall == sum(summary.tasks.values()) / 2
    assert summary.coverage == 173 / 553
    assert summary.missing == ("two_object", "counting", "position", "color_attr")
    assert summarize(found[1:]).samples == (3, 4)


def test_overall_counts_every_task_the_same() -> None:
    few = [{"tag": "colors", "prompt": "", "metadata": "a", "correct": False}]
    many = [
        {"tag": "counting", "prompt": "", "metadata": f"b{k}", "correct": True} for k in range(9)
    ]
    summary = summarize(few + many)
    assert summary.overall == 0.5
    assert (summary.images_right, summary.prompts_right) == (0.9, 0.9)
    assert summary.coverage == 0


def test_a_task_of_ones_own_counts_after_the_published_ones() -> None:
    found = [
        {"tag": tag, "prompt": "", "metadata": tag, "correct": True} for tag in ("size", "colors")
    ]
    assert list(summarize(found).tasks) == ["colors", "size"]
