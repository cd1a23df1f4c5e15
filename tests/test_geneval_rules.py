"""GenEval's verdict against slow versions of its rules, and where boxes lie to each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from geneval_parts import BOX, BOXES, clause, thing, wish
from hypothesis import given
from hypothesis import strategies as st

from janus_kit.scoring.geneval import (
    COLORS,
    RELATIONS,
    TASKS,
    Detection,
    judge,
    relative_positions,
)


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
