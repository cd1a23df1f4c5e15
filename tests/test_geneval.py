"""GenEval without a model: prompts, verdicts, colors, summaries and folders, to the last quirk."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from janus_kit.errors import ImageError, JanusKitError, OptionError, ScoringError
from janus_kit.scoring import geneval
from janus_kit.scoring.geneval import (
    COLORS,
    NOT_COMPARABLE,
    OBJECTS,
    RELATIONS,
    TASKS,
    Detection,
    PixelColors,
    classify_color,
    color_texts,
    crop_for_color,
    draw_prompts,
    find_images,
    judge,
    pixel_color,
    prompts,
    relative_positions,
    result_row,
    summarize,
)
from janus_kit.training import world

LINES = prompts()


def sha256(lines: Sequence[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


# The prompts


@pytest.mark.parametrize("found", [LINES, draw_prompts()], ids=["shipped", "drawn"])
def test_the_prompts_are_the_published_ones_to_the_byte(found: list[dict[str, Any]]) -> None:
    metadata = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
    texts = "55b6e3650e980c13daf30569eb666e000faf19bfc2b7b4cbe999fcdb7aa9d680"
    assert sha256([json.dumps(line) for line in found]) == metadata
    assert sha256([line["prompt"] for line in found]) == texts


def test_the_shipped_file_is_the_published_one() -> None:
    data = Path(geneval.__file__).with_name("geneval.jsonl").read_bytes()
    assert len(data) == 85_209
    assert sha256(data.decode().splitlines()) == sha256([json.dumps(line) for line in LINES])


def test_the_object_names_are_the_published_ones() -> None:
    published = "608f6a0e5c8ca1c7a92b818430141fe268c85b7930b50f4160f1d65893b5bacd"
    assert sha256(OBJECTS) == published
    assert OBJECTS[64:67] == ("computer mouse", "tv remote", "computer keyboard")


def test_the_tasks_have_their_published_sizes_and_places() -> None:
    tags = [line["tag"] for line in LINES]
    assert list(dict.fromkeys(tags)) == list(TASKS)
    assert [tags.index(task) for task in TASKS] == [0, 80, 179, 259, 353, 453]
    assert [tags.count(task) for task in TASKS] == [80, 99, 80, 94, 100, 100]
    assert len({line["prompt"] for line in LINES}) == 553


def test_another_seed_drops_other_repetitions() -> None:
    assert len(draw_prompts(1)) == 554


def test_the_prompts_have_the_published_counts_and_relations() -> None:
    counting = [line for line in LINES if line["tag"] == "counting"]
    counts = Counter(line["include"][0]["count"] for line in counting)
    assert counts == {2: 26, 3: 28, 4: 26}
    assert all(c["exclude"][0]["count"] == c["include"][0]["count"] + 1 for c in counting)
    positions = [tuple(c["position"]) for line in LINES for c in line["include"] if "position" in c]
    relations = Counter(relation for relation, _ in positions)
    assert relations == {"left of": 19, "right of": 27, "above": 26, "below": 28}
    assert {target for _, target in positions} == {0}


def test_a_person_is_asked_for_but_never_in_a_color() -> None:
    clauses = [(line["tag"], clause) for line in LINES for clause in line["include"]]
    persons = [(tag, clause) for tag, clause in clauses if clause["class"] == "person"]
    tags = Counter(tag for tag, _ in persons)
    assert tags == {"single_object": 1, "two_object": 6, "counting": 1, "position": 1}
    assert not any("color" in clause for _, clause in persons)
    assert {clause["class"] for _, clause in clauses} == set(OBJECTS)


def test_odd_plurals_stay_and_only_a_vowel_has_an() -> None:
    texts = " ".join(line["prompt"] for line in LINES)
    for plural in ("benchs", "knifes", "sheeps", "persons", "sandwichs", "toothbrushs"):
        assert f" {plural}" in texts
    assert "a photo of an orange" in texts
    assert "an umbrella" in texts


def test_prompts_that_are_written_on_do_not_change_the_next() -> None:
    prompts()[0]["include"][0]["count"] = 9
    assert prompts()[0] == LINES[0]


def test_scoring_needs_neither_torch_nor_a_model() -> None:
    code = (
        "import sys, janus_kit.scoring.geneval as g; g.prompts();"
        "print([m for m in ('torch', 'transformers', 'janus_kit.model') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "[]"


# The verdict

BOX = (0.0, 0.0, 10.0, 10.0)


def thing(
    label: str = "dog",
    box: Sequence[float] = BOX,
    score: float = 0.95,
    color: str | None = None,
) -> Detection:
    return Detection(label, tuple(box), score, color=color)


def clause(name: str = "dog", count: int = 1, **more: Any) -> dict[str, Any]:
    return {"class": name, "count": count, **more}


def wish(*include: dict[str, Any], tag: str = "two_object", **more: Any) -> dict[str, Any]:
    return {"tag": tag, "include": list(include), "prompt": "a photo", **more}


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


# Positions


@pytest.mark.parametrize(
    ("box", "relations"),
    [
        ((-30, 0, -20, 10), ["left of"]),
        ((30, 0, 40, 10), ["right of"]),
        ((0, -30, 10, -20), ["above"]),
        ((0, 30, 10, 40), ["below"]),
        ((-30, -30, -20, -20), ["above", "left of"]),
        ((30, 30, 40, 40), ["below", "right of"]),
        (BOX, []),
        ((2, 0, 12, 10), []),  # 2 apart, and 0.1 · (10 + 10) is taken off
        ((2.0009, 0, 12.0009, 10), []),  # less than a thousandth is left
        ((2.002, 0, 12.002, 10), []),  # 0.001 of 2 is left: a long way from a half
        ((4, 0, 14, 10), []),  # 2 of 4: exactly a half is not enough
        ((-4, 0, 6, 10), []),
        ((0, 4, 10, 14), []),
        ((0, -4, 10, 6), []),
        ((4.01, 0, 14.01, 10), ["right of"]),
        ((10, 0, 0, 10), []),  # turned round, its size is the same
        ((5, 5, 5, 5), []),
        ((40, 0, 40, 10), ["right of"]),
    ],
)
def test_a_box_lies_so_to_the_ten_pixel_box(box: Sequence[float], relations: list[str]) -> None:
    assert relative_positions(box, BOX) == relations


def test_the_distance_that_divides_is_the_whole_one() -> None:
    # 20 and 14 apart; 10 and 4 are left of it on boxes of 50. By 10 / 24.4 nothing holds; divided
    # by what is left itself, 10 / 10.8 would.
    assert relative_positions((20, 14, 70, 64), (0, 0, 50, 50)) == []


def test_without_a_threshold_the_smallest_step_counts() -> None:
    assert relative_positions((0.5, 0, 10.5, 10), BOX, threshold=0) == ["right of"]
    assert relative_positions((0.0011, 0, 10.0011, 10), BOX, threshold=0) == ["right of"]
    assert relative_positions((0.0009, 0, 10.0009, 10), BOX, threshold=0) == []


COORDINATE = st.integers(-40, 40).map(lambda value: value / 2)
BOXES = st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE)
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@given(BOXES, BOXES, st.sampled_from([0.0, 0.1, 0.3]))
def test_the_relations_of_a_to_b_are_the_opposite_of_b_to_a(
    a: Sequence[float], b: Sequence[float], threshold: float
) -> None:
    found = relative_positions(a, b, threshold)
    assert found == sorted(found)
    assert len(found) <= 2
    assert sorted(OPPOSITE[relation] for relation in found) == relative_positions(b, a, threshold)
    assert set(found) == slow_positions(a, b, threshold)


# The verdict against a slow one, written clause by clause from the protocol


def slow_positions(a: Sequence[float], b: Sequence[float], share: float) -> set[str]:
    corners = np.array([a, b], float).reshape(2, 2, 2)  # box, corner, axis
    apart = corners[0].mean(0) - corners[1].mean(0)
    size = np.abs(corners[:, 1] - corners[:, 0]).sum(0)
    left = np.sign(apart) * np.clip(np.abs(apart) - share * size, 0, None)
    if (np.abs(left) < 1e-3).all():
        return set()
    x, y = left / np.sqrt((apart**2).sum())
    where = [(x, -1, "left of"), (x, 1, "right of"), (y, -1, "above"), (y, 1, "below")]
    return {name for value, sign, name in where if value * sign > 0.5}


def slow_kept(
    detections: Sequence[Detection], name: str, cut: float, most: int, overlap: float
) -> list[Detection]:
    left = [found for found in detections if found.label == name and found.score > cut]
    ranked = []
    while left and len(ranked) < most:
        best = max(left, key=lambda found: found.score)
        ranked.append(best)
        left = [found for found in left if found is not best]
    kept: list[Detection] = []
    for found in ranked:
        if overlap < 1 and any(slow_overlap(found.box, other.box) >= overlap for other in kept):
            continue
        kept.append(found)
    return kept


def slow_overlap(a: Sequence[float], b: Sequence[float]) -> float:
    def length(low: float, high: float) -> float:
        return max(0.0, high - low + 1)

    both, each = 1.0, [1.0, 1.0]
    for axis in (0, 1):
        both *= length(max(a[axis], b[axis]), min(a[axis + 2], b[axis + 2]))
        each = [
            area * length(box[axis], box[axis + 2]) for area, box in zip(each, (a, b), strict=True)
        ]
    union = sum(each) - both
    return both / union if union else 0.0


def slow_judge(
    metadata: Mapping[str, Any], detections: Sequence[Detection], most: int, overlap: float
) -> tuple[bool, str]:
    cut = 0.9 if metadata["tag"] == "counting" else 0.3
    lines: list[str] = []
    good: dict[int, list[Detection]] = {}
    for number, asked in enumerate(metadata["include"]):
        name, count = asked["class"], asked["count"]
        found = slow_kept(detections, name, cut, most, overlap)[:count]
        before = len(lines)
        if len(found) < count:
            lines.append(f"expected {name}>={count}, found {len(found)}")
        elif "color" in asked:
            seen = [one.color for one in found]
            right = seen.count(asked["color"])
            if right < count:
                all_of_them = ", ".join(f"{seen.count(c)} {c}" for c in COLORS if c in seen)
                lines.append(
                    f"expected {asked['color']} {name}>={count}, found {right} {asked['color']}; "
                    f"and {all_of_them}"
                )
        if "position" in asked and len(lines) == before:
            relation, target = asked["position"]
            if target not in good:
                lines.append(f"no target for {name} to be {relation}")
            else:
                pairs = [(one, other) for one in found for other in good[target]]
                lies = [slow_positions(one.box, other.box, 0.1) for one, other in pairs]
                wrong = [sorted(relations) for relations in lies if relation not in relations]
                if wrong:
                    there = " and ".join(wrong[0])
                    lines.append(f"expected {name} {relation} target, found {there} target")
        if len(lines) == before:
            good[number] = found
    for asked in metadata.get("exclude", []):
        count = len(slow_kept(detections, asked["class"], cut, most, overlap))
        if count >= asked["count"]:
            lines.append(f"expected {asked['class']}<{asked['count']}, found {count}")
    return not lines, "\n".join(lines)


NAMES = ("dog", "cat", "bench")
NAME = st.sampled_from(NAMES)
COUNT = st.integers(1, 3)


@st.composite
def wishes(draw: st.DrawFn, excludes: bool = True) -> dict[str, Any]:
    include = []
    for number in range(draw(COUNT)):
        asked = clause(draw(NAME), draw(COUNT))
        if draw(st.booleans()):
            asked["color"] = draw(st.sampled_from(COLORS[:2]))
        if number and draw(st.booleans()):
            target = draw(st.integers(0, number - 1))
            asked["position"] = [draw(st.sampled_from(RELATIONS)), target]
        include.append(asked)
    exclude = [clause(draw(NAME), draw(COUNT))] if excludes and draw(st.booleans()) else []
    return wish(*include, tag=draw(st.sampled_from(TASKS)), exclude=exclude)


SCORES = st.lists(st.integers(0, 40).map(lambda n: n / 40), max_size=10, unique=True)


@st.composite
def pictures(draw: st.DrawFn) -> list[Detection]:
    """Detections with distinct scores, many of them at a threshold."""
    color = st.sampled_from(COLORS[:2])
    return [thing(draw(NAME), draw(BOXES), score, draw(color)) for score in draw(SCORES)]


@given(wishes(), pictures(), st.integers(1, 4), st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_the_verdict_is_that_of_the_slow_rule(
    metadata: dict[str, Any], detections: list[Detection], most: int, overlap: float
) -> None:
    verdict = judge(metadata, detections, max_objects=most, max_overlap=overlap)
    assert (verdict.correct, verdict.reason) == slow_judge(metadata, detections, most, overlap)


@given(wishes(), pictures(), st.randoms(use_true_random=False))
def test_the_order_of_detections_does_not_matter(
    metadata: dict[str, Any], detections: list[Detection], random: Any
) -> None:
    shuffled = random.sample(detections, len(detections))
    assert judge(metadata, shuffled) == judge(metadata, detections)


@given(wishes(excludes=False), pictures(), st.sampled_from([0.2, 0.5, 1.0]))
def test_a_higher_threshold_never_mends_a_picture_without_excludes(
    metadata: dict[str, Any], detections: list[Detection], overlap: float
) -> None:
    cuts = [0.0, 0.25, 0.5, 0.9]
    right = [
        judge(
            metadata, detections, threshold=cut, counting_threshold=cut, max_overlap=overlap
        ).correct
        for cut in cuts
    ]
    assert right == sorted(right, reverse=True)


@given(wishes(), pictures())
def test_a_verdict_is_right_exactly_when_it_gives_no_reason(
    metadata: dict[str, Any], detections: list[Detection]
) -> None:
    verdict = judge(metadata, detections)
    assert verdict.correct == (verdict.reason == "")
    assert all(found in detections for things in verdict.kept.values() for found in things)


# Rows


def test_a_row_has_the_columns_of_the_reference() -> None:
    verdict = judge(LEFT, [thing("cat"), thing("dog", (1, 2, 3, 4), 0.5)])
    row = result_row("00000/samples/0000.png", LEFT, verdict)
    assert list(row) == [
        *("filename", "tag", "prompt", "correct", "reason", "metadata", "details"),
    ]
    assert json.loads(row["metadata"]) == LEFT
    assert json.loads(row["details"]) == {"cat": [[0, 0, 10, 10, 0.95]], "dog": [[1, 2, 3, 4, 0.5]]}
    assert json.loads(json.dumps(row)) == row


# Colors


def test_the_texts_of_a_color_always_say_a() -> None:
    texts = color_texts("wine glass")
    assert list(texts) == list(COLORS)
    assert texts["orange"] == [
        "a photo of a orange wine glass",
        "a photo of a orange-colored wine glass",
        "a photo of a orange object",
    ]


def test_the_color_is_the_nearest_mean_of_unit_texts() -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(7, 12)), rng.normal(size=(10, 3, 12))
    expected = []
    for image in images:
        cosines = []
        for color in texts:
            mean = sum(text / np.linalg.norm(text) for text in color) / 3
            cosines.append(float(image @ mean / np.linalg.norm(image) / np.linalg.norm(mean)))
        expected.append(COLORS[cosines.index(max(cosines))])
    assert classify_color(images, texts) == expected
    assert classify_color(images, dict(zip(COLORS, texts, strict=True))) == expected
    assert classify_color(images * 1000, texts) == expected
    assert len(set(expected)) > 2


def test_a_long_text_does_not_outweigh_the_others() -> None:
    texts = np.zeros((10, 2, 3))
    texts[:, :, 2] = 1
    texts[0] = [[100, 0, 0], [0, 1, 0]]  # red: between the two, not where the long one points
    texts[1] = [[1, 0.2, 0], [1, 0.2, 0]]
    assert classify_color([[1, 1, 0]], texts) == ["red"]


def test_of_equally_near_colors_the_first_is_taken() -> None:
    assert classify_color(np.ones((1, 4)), np.ones((10, 3, 4))) == ["red"]
    assert classify_color(np.ones((0, 4)), np.ones((10, 3, 4))) == []


def checkered(width: int = 12, height: int = 10) -> Image.Image:
    """A picture of which every pixel has its own color."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 20, y * 20, x + y], -1).astype(np.uint8))


def test_pixels_outside_the_mask_become_grey_before_the_crop() -> None:
    image = checkered()
    mask = np.zeros((10, 12), bool)
    mask[3:5, 4:8] = True
    found = np.asarray(crop_for_color(image, (3, 2, 9, 6), mask))
    expected = np.where(mask[..., None], np.asarray(image), 153)[2:6, 3:9]
    assert np.array_equal(found, expected)
    whole = np.asarray(crop_for_color(image, (3, 2, 9, 6), mask, crop=False))
    assert np.array_equal(whole, np.where(mask[..., None], np.asarray(image), 153))
    left = np.asarray(crop_for_color(image, (3, 2, 9, 6), mask, background="original"))
    assert np.array_equal(left, np.asarray(image)[2:6, 3:9])
    white = crop_for_color(image, (3, 2, 9, 6), mask, background="white")
    assert white.getpixel((0, 0)) == (255, 255, 255)
    assert np.array_equal(np.asarray(image), np.asarray(checkered()))  # not written on


def test_the_sides_of_a_box_are_rounded_half_to_even() -> None:
    image = checkered()
    assert (
        crop_for_color(image, (0.5, 1.5, 6.5, 7.5)).tobytes() == image.crop((0, 2, 6, 8)).tobytes()
    )
    assert crop_for_color(image, (0.51, 1.49, 6, 7)).tobytes() == image.crop((1, 1, 6, 7)).tobytes()


@given(BOXES)
def test_every_box_gives_a_picture_that_clip_can_read(box: Sequence[float]) -> None:
    image = checkered()
    cut = crop_for_color(image, box)
    assert min(cut.size) >= 1
    x1, y1, x2, y2 = (round(value) for value in box)
    if 0 <= x1 < x2 <= 12 and 0 <= y1 < y2 <= 10:
        assert cut.tobytes() == image.crop(box).tobytes()


def test_transparency_is_dropped_and_orientation_honoured() -> None:
    clear = checkered()
    clear.putalpha(0)
    assert crop_for_color(clear, (0, 0, 12, 10)).tobytes() == checkered().tobytes()
    turned = stored(checkered(), orientation=6)
    upright = checkered().transpose(Image.Transpose.ROTATE_270)
    assert crop_for_color(turned, (0, 0, 10, 12)).tobytes() == upright.tobytes()
    mask = np.ones((12, 10), bool)
    assert crop_for_color(turned, (0, 0, 10, 12), mask).tobytes() == upright.tobytes()


def stored(image: Image.Image, orientation: int) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = BytesIO()
    image.save(buffer, format="PNG", exif=exif)
    return Image.open(buffer)


def test_a_torn_picture_is_told() -> None:
    buffer = BytesIO()
    checkered(200, 200).save(buffer, format="PNG")
    torn = Image.open(BytesIO(buffer.getvalue()[:200]))
    complains(lambda: crop_for_color(torn, BOX), ImageError, ["cannot be decoded", "whole?"])


# The judge by pixels

PAINT = {
    **world.COLORS,
    "brown": (139, 69, 19),
    "white": (250, 250, 250),
}
CSS = {
    "red": "crimson firebrick maroon #d33",
    "orange": "darkorange coral sandybrown",
    "yellow": "gold khaki #f5e663",
    "green": "lime darkgreen forestgreen olivedrab lightgreen",
    "blue": "navy royalblue skyblue steelblue cyan",
    "purple": "indigo darkviolet orchid #80f",
    "pink": "hotpink deeppink lightpink",
    "brown": "saddlebrown sienna tan #654321 burlywood",
    "black": "#111 #333 #0a0a1e",
    "white": "snow ivory beige silver",
}


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("ground", ["white", "#cfc8b8", "#404850", "#2e8b57"])
def test_a_painted_thing_has_its_color_with_and_without_a_mask(color: str, ground: str) -> None:
    for paint in (PAINT[color], *CSS[color].split()):
        image = Image.new("RGB", (96, 80), ground)
        mask = Image.new("1", image.size)
        box = (20, 10, 70, 60)
        ImageDraw.Draw(image).ellipse(box, fill=paint)
        ImageDraw.Draw(mask).ellipse(box, fill=1)
        assert pixel_color(image, box) == color
        assert pixel_color(image, box, np.asarray(mask)) == color


def test_a_thing_keeps_its_color_under_noise_shade_and_a_loose_box() -> None:
    rng = np.random.default_rng(0)
    for color, paint in PAINT.items():
        image = Image.new("RGB", (96, 80), "#dde6ee")
        ImageDraw.Draw(image).rectangle((24, 14, 66, 56), fill=paint)
        light = np.linspace(1.05, 0.85, 80)[:, None, None]
        noisy = np.asarray(image) * light + rng.normal(0, 6, (80, 96, 3))
        shaded = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        assert pixel_color(shaded, (18, 8, 72, 62)) == color


def test_what_stands_in_the_corners_of_a_box_is_not_the_thing() -> None:
    image = Image.new("RGB", (100, 100), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((10, 10, 89, 89), fill=PAINT["blue"])
    pen.ellipse((9, 9, 90, 90), fill="white")
    pen.ellipse((32, 32, 67, 67), fill=PAINT["red"])  # smaller than the four corners together
    assert pixel_color(image, (10, 10, 90, 90)) == "red"


def test_a_thing_that_fills_its_box_or_the_picture_has_its_color() -> None:
    whole = Image.new("RGB", (40, 40), PAINT["blue"])
    assert pixel_color(whole, (0, 0, 40, 40)) == "blue"
    assert pixel_color(whole, (10, 10, 30, 30)) == "blue"
    assert pixel_color(whole, (5, 5, 5, 5)) == "blue"
    assert pixel_color(whole, (-9, -9, 90, 90), np.zeros((40, 40), bool)) == "blue"


def test_a_verdict_by_pixels_says_that_it_is_not_comparable() -> None:
    image = Image.new("RGB", (40, 40), "white")
    ImageDraw.Draw(image).rectangle((10, 10, 29, 29), fill=PAINT["red"])
    dog = thing(box=(10, 10, 30, 30), color="blue")
    red = wish(clause(color="red"), tag="colors")
    by_pixels = PixelColors(image)
    verdict = judge(red, [dog], color_of=by_pixels)
    assert (verdict.correct, verdict.mark) == (True, NOT_COMPARABLE)
    assert judge(wish(clause()), [dog], color_of=by_pixels).mark == ""
    assert judge(red, [dog]).mark == ""
    row = result_row("a.png", red, verdict)
    assert row["mark"] == "not comparable with published scores"
    assert summarize([row]).marks == (NOT_COMPARABLE,)


# The summary


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


# Folders


def folder(root: Path, name: str, pictures: Sequence[str], metadata: str | None = None) -> None:
    samples = root / name / "samples"
    samples.mkdir(parents=True)
    (root / name / "metadata.jsonl").write_text(metadata or json.dumps(LINES[0]) + "\n")
    for picture in pictures:
        (samples / picture).write_bytes(b"")


def test_pictures_are_found_by_number_whatever_the_disk_says(tmp_path: Path) -> None:
    folder(tmp_path, "00010", ["0000.png"], json.dumps(LINES[10]))
    folder(tmp_path, "2", ["00010.png", "0002.png", "0000.png"], json.dumps(LINES[2]))
    found = find_images(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path, _ in found]
    assert names == [
        *("2/samples/0000.png", "2/samples/0002.png", "2/samples/00010.png"),
        "00010/samples/0000.png",
    ]
    assert [image.metadata for image in found] == [LINES[2]] * 3 + [LINES[10]]


def test_only_names_of_digits_are_read(tmp_path: Path) -> None:
    odd = ["0001.png.bak", "a0001.png", "0001.jpg", "0001_png", "grid.png", "²001.png", "٠٠٠١.png"]
    folder(tmp_path, "00000", ["0000.png", *odd])
    (tmp_path / "00000" / "samples" / "0005.png").mkdir()
    (tmp_path / "00000" / "grid.png").write_bytes(b"")
    folder(tmp_path, "old00001", ["0000.png"])
    folder(tmp_path, "²", ["0000.png"])
    (tmp_path / "00003").write_text("a file")
    assert [path.name for path, _ in find_images(str(tmp_path))] == ["0000.png"]


def test_a_prompt_without_pictures_gives_none_and_the_rest_is_read(tmp_path: Path) -> None:
    folder(tmp_path, "00000", ["0000.png"])
    folder(tmp_path, "00001", [])
    folder(tmp_path, "00002", [])
    (tmp_path / "00002" / "samples").rmdir()
    assert len(find_images(tmp_path)) == 1


def test_the_rest_can_be_read_when_one_prompt_is_bad(tmp_path: Path) -> None:
    folder(tmp_path, "00000", ["0000.png"], "{")
    folder(tmp_path, "00001", ["0000.png"])
    bad, good = geneval.prompt_folders(tmp_path)
    with pytest.raises(ScoringError, match="one JSON object"):
        geneval.read_folder(bad)
    assert len(geneval.read_folder(good)) == 1


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("{", ["00000/metadata.jsonl", "one JSON object"]),
        ("{}\n{}", ["00000/metadata.jsonl", "one JSON object"]),
        ("[" * 100_000, ["00000/metadata.jsonl", "one JSON object"]),
        ("[]", ["00000/metadata.jsonl", "mapping"]),
        ('{"tag": "colors"}', ["00000/metadata.jsonl", "asks for nothing"]),
    ],
)
def test_a_bad_metadata_file_is_named(tmp_path: Path, metadata: str, words: list[str]) -> None:
    folder(tmp_path, "00000", ["0000.png"], metadata)
    complains(lambda: find_images(tmp_path), ScoringError, words)


def test_a_folder_without_pictures_is_told_what_was_expected(tmp_path: Path) -> None:
    complains(lambda: find_images(tmp_path), ScoringError, [str(tmp_path), "like 00000"])
    complains(lambda: find_images(tmp_path / "no"), ScoringError, ["no: is not a folder"])
    folder(tmp_path, "00000", [])
    complains(lambda: find_images(tmp_path), ScoringError, ["00000/samples/0000.png"])
    (tmp_path / "00000" / "metadata.jsonl").unlink()
    complains(lambda: find_images(tmp_path), ScoringError, ["cannot be read (No such file"])


def test_a_folder_that_may_not_be_listed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    complains(lambda: find_images(tmp_path), ScoringError, [str(tmp_path), "Permission denied"])


# Bad input: one sentence, with the place, the value and the remedy


def complains(call: Callable[[], object], kind: type[JanusKitError], words: Sequence[str]) -> None:
    with pytest.raises(kind) as caught:
        call()
    said = str(caught.value)
    assert [word for word in words if word not in said] == []
    assert "\n" not in said
    assert len(said) < 400


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


def test_the_door_shows_what_it_lists() -> None:
    for name in geneval.__all__:
        assert getattr(geneval, name) is not None
    assert [a for a, b in combinations(geneval.__all__, 2) if a == b] == []
