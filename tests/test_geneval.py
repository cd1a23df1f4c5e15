"""GenEval's verdict, clause by clause, to the last quirk."""

import json
import subprocess
import sys
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from geneval_parts import LINES, clause, thing, wish

from janus_kit.scoring import geneval
from janus_kit.scoring.geneval import (
    Detection,
    judge,
    result_row,
)


def test_scoring_needs_neither_torch_nor_a_model() -> None:
    code = (
        "import sys, janus_kit.scoring.geneval as g; g.prompts();"
        "print([m for m in ('torch', 'transformers', 'janus_kit.model') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "[]"


COUNTING = wish(clause(count=2), tag="counting", exclude=[clause(count=3)])
LEFT = wish(clause("cat"), clause("dog", position=["left of", 0]), tag="position")


def never(detection: Detection) -> str:
    raise AssertionError("the color was asked for")


def test_a_thing_that_is_there_is_enough_and_more_are_free() -> None:
    verdict = judge(wish(clause()), [thing(score=0.4), thing("cat"), thing(score=0.8)])
    assert (verdict.correct, verdict.reason, verdict.mark) == (True, "", "")
    assert list(verdict.kept) == ["cat", "dog"]  # in COCO's order; none for the other names
    assert [dog.score for dog in verdict.kept["dog"]] == [0.8, 0.4]


def test_every_clause_that_fails_has_its_line() -> None:
    verdict = judge(wish(clause(count=3), clause("bench"), clause("cat")), [thing(), thing("cat")])
    assert not verdict.correct
    assert verdict.reason == "expected dog>=3, found 1\nexpected bench>=1, found 0"


def test_the_threshold_itself_is_not_enough() -> None:
    assert judge(wish(clause()), [thing(score=0.3)]).reason == "expected dog>=1, found 0"
    assert judge(wish(clause()), [thing(score=np.nextafter(0.3, 1))]).correct
    assert judge(wish(clause()), [thing(score=0.3)], threshold=0.29).correct


def test_only_counting_has_the_higher_threshold() -> None:
    two = [thing(score=0.9), thing(score=0.91)]
    assert judge(COUNTING, two).reason == "expected dog>=2, found 1"
    assert judge(COUNTING | {"tag": "two_object"}, two).correct
    assert judge(COUNTING, two, counting_threshold=0.3).correct
    assert judge(COUNTING, two, threshold=0.0).reason == "expected dog>=2, found 1"


def test_too_many_are_a_fault_only_where_the_metadata_excludes_them() -> None:
    three = [thing(score=score) for score in (0.91, 0.92, 0.93)]
    assert judge(COUNTING, three[:2]).correct
    assert judge(COUNTING, three).reason == "expected dog<3, found 3"
    assert judge(wish(clause(count=2), tag="counting"), three).correct


def test_the_cap_comes_before_the_exclude_clause() -> None:
    many = [thing(score=0.91 + k / 1000) for k in range(20)]
    assert judge(COUNTING, many).reason == "expected dog<3, found 16"
    assert judge(COUNTING, many, max_objects=2).correct  # two of twenty are left
    assert min(dog.score for dog in judge(COUNTING, many).kept["dog"]) == many[4].score


def test_the_cap_comes_before_the_overlap() -> None:
    far = thing(box=(50, 50, 60, 60), score=0.5)
    two = [thing(score=0.9), thing(score=0.8), far]
    assert len(judge(wish(clause()), two, max_objects=2, max_overlap=0.5).kept["dog"]) == 1
    assert judge(wish(clause()), two, max_overlap=0.5).kept["dog"] == [two[0], far]


def test_equal_boxes_are_two_things_unless_an_overlap_is_given() -> None:
    twins = [thing(score=0.92), thing(score=0.91)]
    assert judge(COUNTING, twins).correct
    assert judge(COUNTING, twins, max_overlap=0.99).reason == "expected dog>=2, found 1"


def test_the_overlap_counts_the_last_pixel_and_its_limit_is_too_much() -> None:
    # 4 × 1 and 4 × 1 pixels that share two, by the rule of + 1; without it they have no area.
    two = [thing(box=(0, 0, 3, 0), score=0.92), thing(box=(2, 0, 5, 0), score=0.91)]
    assert judge(COUNTING, two, max_overlap=1 / 3).reason == "expected dog>=2, found 1"
    assert judge(COUNTING, two, max_overlap=0.334).correct


def test_a_dropped_thing_drops_no_other() -> None:
    boxes = [(0, 0, 9, 9), (4, 0, 13, 9), (8, 0, 17, 9)]
    chain = [thing(box=box, score=0.9 - k / 10) for k, box in enumerate(boxes)]
    kept = judge(wish(clause()), chain, max_overlap=0.3).kept["dog"]
    assert kept == [chain[0], chain[2]]


def test_one_region_may_have_two_names() -> None:
    both = [thing("bench"), thing("sports ball")]
    assert judge(wish(clause("bench"), clause("sports ball")), both).correct


def test_only_the_best_things_are_asked_for_their_color() -> None:
    dogs = [thing(score=0.9, color="blue"), thing(score=0.8, color="red")]
    red = wish(clause(color="red"))
    assert judge(red, dogs).reason == "expected red dog>=1, found 0 red; and 1 blue"
    asked: list[float] = []

    def color_of(detection: Detection) -> str:
        asked.append(detection.score)
        return "red"

    assert judge(red, dogs, color_of=color_of).correct
    assert asked == [0.9]


def test_no_color_is_asked_for_where_none_is_needed() -> None:
    assert judge(wish(clause()), [thing()], color_of=never).correct
    assert not judge(wish(clause(count=2, color="red")), [thing()], color_of=never).correct
    assert judge(LEFT, [thing("cat"), thing("dog")], color_of=never).reason


def test_found_colors_stand_in_the_order_of_the_palette() -> None:
    colors = ["white", "blue", "red", "white"]
    dogs = [thing(score=0.9 - k / 10, color=color) for k, color in enumerate(colors)]
    verdict = judge(wish(clause(count=4, color="red")), dogs)
    line = "expected red dog>=4, found 1 red; and 1 red, 1 blue, 2 white"
    assert verdict.reason == line


def test_a_thing_on_the_right_side_of_its_target_is_right() -> None:
    assert judge(LEFT, [thing("cat", (50, 0, 60, 10)), thing("dog")]).correct
    wrong = judge(LEFT, [thing("cat"), thing("dog", (50, 0, 60, 10))])
    assert wrong.reason == "expected dog left of target, found right of target"


def test_two_relations_are_named_in_the_order_of_the_alphabet() -> None:
    diagonal = [thing("cat"), thing("dog", (40, -40, 50, -30))]
    line = "expected dog left of target, found above and right of target"
    assert judge(LEFT, diagonal).reason == line
    assert judge(LEFT, [thing("cat"), thing("dog", (-40, -40, -30, -30))]).correct


def test_no_relation_leaves_two_spaces() -> None:
    line = "expected dog left of target, found  target"
    assert judge(LEFT, [thing("cat"), thing("dog")]).reason == line


def test_a_target_that_failed_fails_what_lies_by_it() -> None:
    lines = ["expected cat>=1, found 0", "no target for dog to be left of"]
    assert judge(LEFT, [thing("dog")]).reason.splitlines() == lines
    red = wish(clause("cat", color="red"), clause("dog", position=["left of", 0]))
    blue_cat = [thing("cat", (50, 0, 60, 10), color="blue"), thing("dog")]
    lines = ["expected red cat>=1, found 0 red; and 1 blue", "no target for dog to be left of"]
    assert judge(red, blue_cat).reason.splitlines() == lines


def test_a_position_is_looked_at_only_when_nothing_failed_before() -> None:
    asked = wish(clause("cat"), clause("dog", color="red", position=["left of", 0]))
    wrong = [thing("cat"), thing("dog", (50, 0, 60, 10), color="blue")]
    assert judge(asked, wrong).reason == "expected red dog>=1, found 0 red; and 1 blue"
    assert judge(asked, wrong[:1]).reason == "expected dog>=1, found 0"


def test_every_pair_must_hold_and_the_first_that_does_not_is_named() -> None:
    asked = wish(clause("cat", 2), clause("dog", 2, position=["left of", 0]))
    cats = [thing("cat", (50, 0, 60, 10), 0.9), thing("cat", (150, 0, 160, 10), 0.8)]
    dogs = [thing("dog", (0, 0, 10, 10), 0.9), thing("dog", (100, 0, 110, 10), 0.8)]
    line = "expected dog left of target, found right of target"
    assert judge(asked, cats + dogs).reason == line
    assert judge(asked, [*cats, dogs[0], thing("dog", (20, 0, 30, 10), 0.8)]).correct


def test_the_position_threshold_reaches_the_verdict() -> None:
    close = [thing("cat", (11, 0, 21, 10)), thing("dog")]
    assert judge(LEFT, close).correct
    assert not judge(LEFT, close, position_threshold=0.6).correct


def test_of_equal_scores_the_later_detection_is_the_better() -> None:
    first, second = thing(color="red"), thing(color="blue")
    assert judge(wish(clause()), [first, second]).kept["dog"] == [second, first]


def test_metadata_of_any_task_is_judged_right_on_a_true_picture() -> None:
    for line in LINES:
        assert judge(line, true_picture(line)).correct
        assert not judge(line, true_picture(line)[1:]).correct


def true_picture(metadata: Mapping[str, Any]) -> list[Detection]:
    """Detections that fulfil a published line."""
    places = {"left of": (-60, 0), "right of": (60, 0), "above": (0, -60), "below": (0, 60)}
    found = []
    for line in metadata["include"]:
        x, y = places[line["position"][0]] if "position" in line else (0, 0)
        box = (x, y, x + 20, y + 20)
        found += [thing(line["class"], box, color=line.get("color"))] * line["count"]
    return found


def test_a_row_has_the_columns_of_the_reference() -> None:
    verdict = judge(LEFT, [thing("cat"), thing("dog", (1, 2, 3, 4), 0.5)])
    row = result_row("00000/samples/0000.png", LEFT, verdict)
    assert list(row) == [
        *("filename", "tag", "prompt", "correct", "reason", "metadata", "details"),
    ]
    assert json.loads(row["metadata"]) == LEFT
    assert json.loads(row["details"]) == {"cat": [[0, 0, 10, 10, 0.95]], "dog": [[1, 2, 3, 4, 0.5]]}
    assert json.loads(json.dumps(row)) == row


def test_the_door_shows_what_it_lists() -> None:
    for name in geneval.__all__:
        assert getattr(geneval, name) is not None
    assert [a for a, b in combinations(geneval.__all__, 2) if a == b] == []
