"""GenEval's verdict: does a picture show what its prompt asks for? Neither torch nor a model here.

Everything of GenEval that needs no model is found in this module, some of it kept beside it. The
protocol is that of arXiv 2310.11513 and djghosh13/geneval, `evaluation/evaluate_images.py`; its
faults that no number depends on are mended, and where that is done it is said.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from janus_kit.errors import OptionError, ScoringError
from janus_kit.scoring.colors import (
    NOT_COMPARABLE,
    PixelColors,
    classify_color,
    color_texts,
    crop_for_color,
    pixel_color,
)
from janus_kit.scoring.folders import FoundImage, find_images, prompt_folders, read_folder
from janus_kit.scoring.promptset import (
    COLORS,
    OBJECTS,
    RELATIONS,
    TASKS,
    Clause,
    check_object,
    draw_prompts,
    parse_metadata,
    prompts,
)
from janus_kit.scoring.summary import Summary, summarize

__all__ = [
    "COLORS",
    "NOT_COMPARABLE",
    "OBJECTS",
    "RELATIONS",
    "TASKS",
    "Detection",
    "FoundImage",
    "PixelColors",
    "Summary",
    "Verdict",
    "classify_color",
    "color_texts",
    "crop_for_color",
    "draw_prompts",
    "find_images",
    "judge",
    "parse_metadata",
    "pixel_color",
    "prompt_folders",
    "prompts",
    "read_folder",
    "relative_positions",
    "result_row",
    "summarize",
]

Box = tuple[float, float, float, float]
ColorOf = Callable[["Detection"], str]

_NEAR = 1e-3  # pixels: an offset that is less on both axes is no relation
_FARTHEST = 1e9  # pixels; sums and squares of coordinates up to it stay exact enough


@dataclass(frozen=True)
class Detection:
    """One thing that a detector found in a picture.

    Raises ScoringError for an unknown label or color, a box that is not four finite numbers, a
    score outside 0…1, or a mask that is not [h, w].
    """

    label: str  # of OBJECTS
    box: Box  # x1, y1, x2, y2 in pixels, y down; right and bottom are not included
    score: float  # 0…1
    # [h, w] of the picture; equality leaves it out.
    mask: npt.NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    color: str | None = None  # of COLORS; what `judge` takes where it is given no color_of

    def __post_init__(self) -> None:
        check_object(self.label, "label")
        object.__setattr__(self, "box", _box(self.box, f"the box of {self.label}"))
        try:
            score = float(self.score)
        except (TypeError, ValueError):
            score = math.nan
        if not 0 <= score <= 1.001:  # a softmax in half precision can pass 1 by a little
            raise ScoringError(
                f"the score of {self.label}: must be from 0 to 1, not {self.score!r}; "
                "is it a logit or a percentage?"
            )
        object.__setattr__(self, "score", score)
        if self.mask is not None:
            mask = np.asarray(self.mask)
            if mask.ndim != 2:
                raise ScoringError(
                    f"the mask of {self.label}: must be [h, w], not {list(mask.shape)}"
                )
            object.__setattr__(self, "mask", mask.astype(bool, copy=False))
        if self.color is not None:
            _check_color(self.color, f"the color of {self.label}")


@dataclass(frozen=True)
class Verdict:
    """Whether a picture shows what was asked, why not, and what the verdict looked at."""

    correct: bool
    reason: str  # lines as the reference words them; empty when correct
    kept: dict[str, list[Detection]]  # by name, in COCO's order; the best first
    mark: str = ""  # what `color_of` says against comparing with published scores


def judge(
    metadata: Mapping[str, Any],
    detections: Iterable[Detection],
    *,
    color_of: ColorOf | None = None,
    threshold: float = 0.3,
    counting_threshold: float = 0.9,
    max_objects: int = 16,
    max_overlap: float = 1.0,
    position_threshold: float = 0.1,
) -> Verdict:
    """The verdict on one picture, as `evaluate_image` and `evaluate` of the reference give it.

    Of each name the detections with a score above the threshold are kept (`counting_threshold`
    where the tag is counting), the best max_objects of them, and of these the ones that overlap a
    better one by less than max_overlap (intersection over union; 1 keeps all). Of equal scores
    the later detection is the better one. Names do not compete: one thing may be a bench and a
    sports ball.

    An include clause looks at its best `count` things only: fewer are a fault, then fewer of the
    color, then any pair of a thing and a target's thing whose relation is another. An exclude
    clause fails when `count` things or more are kept.

    color_of: the color of a detection, of COLORS; asked only for the things of a clause with a
    color. Without it a detection's own color is taken. What it has as attribute `mark` (see
    `PixelColors`) goes into the verdict of metadata that asks for a color.

    Raises ScoringError for metadata that `parse_metadata` refuses and for colors that are not
    known, OptionError for a threshold or overlap outside 0…1, less than one object, or a negative
    position threshold.
    """
    _check_options(threshold, counting_threshold, max_objects, max_overlap, position_threshold)
    wish = parse_metadata(metadata)
    cut = counting_threshold if wish.tag == "counting" else threshold
    kept = _keep(detections, cut, max_objects, max_overlap)
    reasons: list[str] = []
    matched: list[list[Detection] | None] = []  # what each include clause found; None: it failed
    for clause in wish.include:
        found = kept.get(clause.name, [])[: clause.count]
        fault = _fault(clause, found, matched, color_of or _own_color, position_threshold)
        matched.append(None if fault else found)
        reasons += [fault] if fault else []
    for clause in wish.exclude:
        count = len(kept.get(clause.name, []))
        if count >= clause.count:
            reasons.append(f"expected {clause.name}<{clause.count}, found {count}")
    colored = any(clause.color for clause in wish.include)
    mark = str(getattr(color_of, "mark", "")) if colored else ""
    return Verdict(not reasons, "\n".join(reasons), kept, mark)


def relative_positions(
    a_box: Sequence[float], b_box: Sequence[float], threshold: float = 0.1
) -> list[str]:
    """How a lies to b: none, one or two of RELATIONS, in the order of the alphabet.

    Boxes are x1, y1, x2, y2 in pixels. The centres' distance is lessened on each axis by threshold
    times the sum of the sizes and divided by the whole distance; a relation holds above 0.5. On a
    diagonal two can hold. Follows `relative_position` of the reference.

    Raises ScoringError for a box that is not four finite numbers, OptionError for a threshold
    below 0.
    """
    if not 0 <= threshold < math.inf:
        raise OptionError(f"threshold must be 0 or more, not {threshold}")
    a, b = _box(a_box, "the first box"), _box(b_box, "the second box")
    offset = [(a[i] + a[i + 2]) / 2 - (b[i] + b[i + 2]) / 2 for i in (0, 1)]
    sizes = [abs(a[i + 2] - a[i]) + abs(b[i + 2] - b[i]) for i in (0, 1)]
    clear = [
        math.copysign(max(abs(apart) - threshold * size, 0.0), apart)
        for apart, size in zip(offset, sizes, strict=True)
    ]
    if all(abs(apart) < _NEAR for apart in clear):
        return []
    distance = math.hypot(*offset)
    dx, dy = (apart / distance for apart in clear)
    sides = {"above": dy < -0.5, "below": dy > 0.5, "left of": dx < -0.5, "right of": dx > 0.5}
    return [relation for relation, holds in sides.items() if holds]


def result_row(filename: str, metadata: Mapping[str, Any], verdict: Verdict) -> dict[str, Any]:
    """A line of results.jsonl with the reference's columns, so that its summary can read it.

    metadata and details (name → boxes with their score) are JSON texts. A verdict with a mark has
    one column more, mark.
    """
    details = {
        name: [[*thing.box, thing.score] for thing in things]
        for name, things in verdict.kept.items()
    }
    row = {
        "filename": filename,
        "tag": metadata["tag"],
        "prompt": metadata.get("prompt", ""),
        "correct": verdict.correct,
        "reason": verdict.reason,
        "metadata": json.dumps(metadata),
        "details": json.dumps(details),
    }
    return row | ({"mark": verdict.mark} if verdict.mark else {})


def _keep(
    detections: Iterable[Detection], threshold: float, max_objects: int, max_overlap: float
) -> dict[str, list[Detection]]:
    """The detections that count, by name, the best first; names without any are not there."""
    things = list(detections)
    for number, thing in enumerate(things):
        if not isinstance(thing, Detection):
            kind = type(thing).__name__
            raise ScoringError(f"detections[{number}]: must be a Detection, not {kind}")
    # As the reference: sorted upwards and turned round, so of equals the later one leads.
    ranked = sorted(things, key=lambda thing: thing.score)[::-1]
    groups: dict[str, list[Detection]] = {}
    for thing in ranked:
        if thing.score > threshold:
            groups.setdefault(thing.label, []).append(thing)
    return {
        name: _apart(groups[name][:max_objects], max_overlap) for name in OBJECTS if name in groups
    }


def _apart(things: Sequence[Detection], max_overlap: float) -> list[Detection]:
    """The things that overlap no better one; an overlap of 1 is off, for equal boxes too."""
    kept: list[Detection] = []
    for thing in things:
        if max_overlap == 1 or all(_overlap(k.box, thing.box) < max_overlap for k in kept):
            kept.append(thing)
    return kept


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union, 0…1; the reference counts the last pixel of a box as inside."""

    def area(x1: float, y1: float, x2: float, y2: float) -> float:
        return max(x2 - x1 + 1, 0) * max(y2 - y1 + 1, 0)

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a) + area(*b) - shared
    return shared / union if union else 0.0


def _fault(
    clause: Clause,
    found: Sequence[Detection],
    matched: Sequence[Sequence[Detection] | None],
    color_of: ColorOf,
    position_threshold: float,
) -> str:
    """Why an include clause fails, in the reference's words; empty if it holds."""
    name, count = clause.name, clause.count
    if len(found) < count:
        return f"expected {name}>={count}, found {len(found)}"
    if clause.color:
        colors = Counter(_check_color(color_of(thing), f"the color of {name}") for thing in found)
        if colors[clause.color] < count:
            seen = ", ".join(f"{colors[color]} {color}" for color in COLORS if colors[color])
            there = f"{colors[clause.color]} {clause.color}"
            return f"expected {clause.color} {name}>={count}, found {there}; and {seen}"
    if clause.relation:
        targets = matched[clause.target]
        if targets is None:
            return f"no target for {name} to be {clause.relation}"
        for thing, target in product(found, targets):
            relations = relative_positions(thing.box, target.box, position_threshold)
            if clause.relation not in relations:
                # Without any relation two spaces are left; published results have them so.
                lies = " and ".join(relations)
                return f"expected {name} {clause.relation} target, found {lies} target"
    return ""


def _own_color(detection: Detection) -> str:
    if detection.color is None:
        raise ScoringError(
            f"the color of {detection.label}: the prompt asks for it and the detection has none; "
            "give judge a color_of"
        )
    return detection.color


def _check_color(color: str, place: str) -> str:
    if color not in COLORS:
        raise ScoringError(f"{place}: {color!r} is not known; choose from {', '.join(COLORS)}")
    return color


def _box(box: Sequence[float], place: str) -> Box:
    try:
        x1, y1, x2, y2 = (float(value) for value in box)
    except (TypeError, ValueError):
        x1 = y1 = x2 = y2 = math.nan
    if not all(abs(value) < _FARTHEST for value in (x1, y1, x2, y2)):
        shown = repr(box)[:80]
        raise ScoringError(f"{place}: must be four finite numbers x1, y1, x2, y2, not {shown}")
    return x1, y1, x2, y2


def _check_options(
    threshold: float,
    counting_threshold: float,
    max_objects: int,
    max_overlap: float,
    position_threshold: float,
) -> None:
    shares = {
        "threshold": threshold,
        "counting_threshold": counting_threshold,
        "max_overlap": max_overlap,
    }
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise OptionError(f"{name} must be from 0 to 1, not {share}")
    if not isinstance(max_objects, int) or max_objects < 1:
        raise OptionError(f"max_objects must be a whole number from 1, not {max_objects}")
    if not 0 <= position_threshold < math.inf:
        raise OptionError(f"position_threshold must be 0 or more, not {position_threshold}")
