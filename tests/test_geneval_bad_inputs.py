"""Bad metadata, detections, rows and arguments of GenEval: each is told in one sentence."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from geneval_parts import BOX, checkered, clause, complains, thing, wish

from janus_kit.errors import ImageError, JanusKitError, OptionError, ScoringError
from janus_kit.scoring.geneval import (
    Detection,
    PixelColors,
    classify_color,
    color_texts,
    crop_for_color,
    judge,
    pixel_color,
    relative_positions,
    summarize,
)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("a dog", ["mapping", "'a dog'"]),
        ({"include": [clause()]}, ["tag", "'counting'", "None"]),
        ({"tag": 3, "include": [clause()]}, ["tag", "3"]),
        (wish(), ["asks for nothing"]),
        ({"tag": "colors", "include": clause()}, ["include must be a list"]),
        (wish(clause(), "dog"), ["include clause 1", "mapping", "'dog'"]),
        (wish(clause("bnech")), ["include clause 0", "'bnech'", "did you mean 'bench'?"]),
        (wish(clause("mouse")), ["did you mean 'computer mouse'?"]),
        (wish(clause("qqqq" * 90)), ["take one of geneval.OBJECTS"]),
        (wish({"count": 1}), ["None is not a GenEval object name"]),
        (wish({"class": "dog"}), ["count", "None"]),
        (wish(clause(count=0)), ["count must be a whole number from 1, not 0"]),
        (wish(clause(count=True)), ["count", "True"]),
        (wish({"class": "dog", "count": 1.0}), ["count", "1.0"]),
        (wish(clause(color="grey")), ["'grey' is not a color", "black, white"]),
        (wish(clause(colour="red")), ["'colour' is not a key", "color"]),
        (wish(clause(position=["left of", 0])), ["clause 0: position", "earlier"]),
        (wish(clause(), clause(position=["left of", -1])), ["position", "-1"]),
        (wish(clause(), clause(position=["near", 0])), ["position", "'near'", "left of"]),
        (wish(clause(), clause(position="left of")), ["position", "'left of'"]),
        (wish(clause(), exclude=[clause(color="red")]), ["exclude clause 0", "'color'"]),
        (wish(clause(), exclude=None), ["exclude must be a list", "None"]),
    ],
)
def test_bad_metadata_is_told(metadata: Any, words: list[str]) -> None:
    complains(lambda: judge(metadata, []), ScoringError, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": "doggo"}, ["'doggo'", "did you mean 'dog'?"]),
        ({"label": 16}, ["16 is not a GenEval object name"]),
        ({"box": (0, 0, float("nan"), 1)}, ["box of dog", "nan", "x1, y1, x2, y2"]),
        ({"box": (0, 0, float("inf"), 1)}, ["box of dog", "inf"]),
        ({"box": (0, 0, 1)}, ["box of dog", "(0, 0, 1)"]),
        ({"box": None}, ["box of dog", "None"]),
        ({"score": float("nan")}, ["score of dog", "nan"]),
        ({"score": 97.5}, ["score of dog", "97.5", "percentage"]),
        ({"score": "high"}, ["score of dog", "'high'"]),
        ({"mask": np.ones((1, 4, 4), bool)}, ["mask of dog", "[1, 4, 4]"]),
        ({"color": "grey"}, ["color of dog", "'grey'", "white"]),
    ],
)
def test_a_bad_detection_is_told(change: dict[str, Any], words: list[str]) -> None:
    good = {"label": "dog", "box": BOX, "score": 0.5}
    complains(lambda: Detection(**(good | change)), ScoringError, words)


def test_a_detection_may_come_as_arrays() -> None:
    found = Detection("dog", np.ones(4, np.float32), np.float32(0.5), np.ones((2, 2), np.uint8))
    assert found == Detection("dog", (1.0, 1.0, 1.0, 1.0), 0.5)
    assert found.mask is not None
    assert found.mask.dtype == bool
    assert judge(wish(clause()), (one for one in [found])).correct


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: judge(wish(clause()), [{}]), ScoringError, ["detections[0]", "dict"]),
        (
            lambda: judge(wish(clause(color="red")), [thing()]),
            ScoringError,
            ["color of dog", "color_of"],
        ),
        (
            lambda: judge(wish(clause(color="red")), [thing()], color_of=lambda _: "Red"),
            ScoringError,
            ["color of dog", "'Red'", "red, orange"],
        ),
        (lambda: judge(wish(clause()), [], threshold=1.5), OptionError, ["threshold", "1.5"]),
        (
            lambda: judge(wish(clause()), [], counting_threshold=float("nan")),
            OptionError,
            ["counting_threshold", "nan"],
        ),
        (lambda: judge(wish(clause()), [], max_overlap=-1), OptionError, ["max_overlap", "-1"]),
        (lambda: judge(wish(clause()), [], max_objects=0), OptionError, ["max_objects", "0"]),
        (
            lambda: judge(wish(clause()), [], max_objects=1.5),  # type: ignore[arg-type]
            OptionError,
            ["max_objects", "1.5"],
        ),
        (
            lambda: judge(wish(clause()), [], position_threshold=-0.1),
            OptionError,
            ["position_threshold", "-0.1"],
        ),
        (lambda: relative_positions(BOX, BOX, -1), OptionError, ["threshold", "-1"]),
        (lambda: relative_positions(BOX, (1, 2)), ScoringError, ["second box", "(1, 2)"]),
        (lambda: color_texts("mouse"), ScoringError, ["'mouse'", "'computer mouse'"]),
        (lambda: crop_for_color("a.png", BOX), ImageError, ["str", "PIL image"]),
        (lambda: PixelColors(None), ImageError, ["NoneType", "PIL image"]),
        (
            lambda: crop_for_color(checkered(), (0, 0, float("nan"), 1)),
            ScoringError,
            ["the box", "nan"],
        ),
        (
            lambda: pixel_color(checkered(), (0, 0, float("inf"), 1)),
            ScoringError,
            ["the box", "inf"],
        ),
        (
            lambda: crop_for_color(checkered(), BOX, np.ones((12, 10), bool)),
            ScoringError,
            ["[12, 10]", "10 high and 12 wide"],
        ),
        (
            lambda: crop_for_color(checkered(), BOX, np.ones((10, 12), bool), background="mud"),
            OptionError,
            ["background", "'mud'", "original"],
        ),
        (
            lambda: classify_color(np.ones((2, 4)), np.ones((9, 3, 4))),
            ScoringError,
            ["[2, 4]", "[9, 3, 4]"],
        ),
        (
            lambda: classify_color(np.ones((2, 5)), np.ones((10, 3, 4))),
            ScoringError,
            ["[2, 5]", "[10, 3, 4]"],
        ),
        (
            lambda: classify_color(np.ones((2, 4)), {"red": np.ones((3, 4))}),
            ScoringError,
            ["'orange' is missing"],
        ),
        (
            lambda: classify_color([[0, 0]], np.ones((10, 3, 2))),
            ScoringError,
            ["image embeddings", "zero"],
        ),
        (
            lambda: classify_color([[1, 0]], np.full((10, 3, 2), np.nan)),
            ScoringError,
            ["text embeddings", "not finite"],
        ),
        (
            lambda: classify_color([["a"]], np.ones((10, 3, 2))),
            ScoringError,
            ["image embeddings", "numbers"],
        ),
        (lambda: summarize([]), ScoringError, ["the rows", "at least one"]),
        (lambda: summarize([3]), ScoringError, ["rows[0]", "int"]),
        (
            lambda: summarize([{"tag": "colors", "prompt": "", "metadata": "a"}]),
            ScoringError,
            ["rows[0]", "'correct' is missing"],
        ),
    ],
)
def test_a_wrong_argument_is_told(
    call: Callable[[], object], kind: type[JanusKitError], words: list[str]
) -> None:
    complains(call, kind, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"correct": "yes"}, ["rows[1]", "correct", "'yes'"]),
        ({"correct": float("nan")}, ["rows[1]", "correct", "nan"]),
        ({"correct": 2}, ["rows[1]", "correct", "2"]),
        ({"tag": None}, ["rows[1]", "tag", "None"]),
        ({"metadata": None}, ["rows[1]", "metadata", "None"]),
        ({"metadata": {"a": {1}}}, ["rows[1]", "metadata", "JSON"]),
    ],
)
def test_a_bad_row_is_told_by_its_number(change: dict[str, Any], words: list[str]) -> None:
    good = {"tag": "colors", "prompt": "", "metadata": "a", "correct": True}
    complains(lambda: summarize([good, good | change]), ScoringError, words)
