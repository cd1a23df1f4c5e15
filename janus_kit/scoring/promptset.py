"""GenEval's vocabulary, its 553 prompts and the rule that draws them, and what a prompt asks for.

The protocol is that of arXiv 2310.11513 and djghosh13/geneval (MIT).
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from janus_kit.errors import ScoringError

__all__ = [
    "COLORS",
    "OBJECTS",
    "RELATIONS",
    "TASKS",
    "Clause",
    "Wish",
    "check_object",
    "draw_prompts",
    "parse_metadata",
    "prompts",
]

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLORS = (
    *("red", "orange", "yellow", "green", "blue"),
    *("purple", "pink", "brown", "black", "white"),
)
RELATIONS = ("left of", "right of", "above", "below")

# The 80 classes of COCO in COCO's order: a detector's label is mapped by its index. Three have
# other names here, so that a prompt is clear: mouse, remote and keyboard.
OBJECTS = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog"),
    *("horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella"),
    *("handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite"),
    *("baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle"),
    *("wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich"),
    *("orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "computer mouse"),
    *("tv remote", "computer keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
    *("refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier"),
    "toothbrush",
)
_RENAMED = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}
_NUMBERS = ("zero", "one", "two", "three", "four")
_KEYS = {"include": {"class", "count", "color", "position"}, "exclude": {"class", "count"}}


@dataclass(frozen=True)
class Clause:
    """One wish: at least `count` of `name` (in an exclude clause: fewer than `count`).

    With a color, that many of them have it; with a relation, each lies so to the things that the
    include clause number `target` found.
    """

    name: str  # of OBJECTS
    count: int  # 1 or more
    color: str | None = None  # of COLORS
    relation: str | None = None  # of RELATIONS
    target: int = 0


@dataclass(frozen=True)
class Wish:
    """What a line of metadata asks for."""

    tag: str
    include: tuple[Clause, ...]
    exclude: tuple[Clause, ...]


def prompts() -> list[dict[str, Any]]:
    """The 553 published prompts with their metadata, in the published order; new objects each time.

    A line has tag (of TASKS), include, for counting exclude, and prompt, with the keys in the
    published order: `json.dumps` of each gives the lines of evaluation_metadata.jsonl.
    """
    # numpy does not promise equal streams for ever, so the drawn prompts are kept.
    lines = Path(__file__).with_name("geneval.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def draw_prompts(seed: int = 43) -> list[dict[str, Any]]:
    """The prompts drawn anew by the published rule; seed 43 gives those of `prompts`.

    580 are drawn from one stream, task after task, and repeated ones are dropped.
    """
    rng = np.random.default_rng(seed)
    drawn = [_single(OBJECTS[i]) for i in rng.choice(80, size=80, replace=False)]
    for draw in (_two, _counting, _colors, _position, _color_attr):
        drawn += [draw(rng) for _ in range(100)]
    return list({json.dumps(metadata): metadata for metadata in drawn}.values())


def parse_metadata(metadata: object, place: str = "the metadata") -> Wish:
    """The wish in a line of metadata; place names the line in errors.

    Raises ScoringError where it is no mapping, lacks its tag or any clause, or a clause has an
    unknown key, object, color or relation, a count that is no whole number from 1, or a position
    that does not point to an earlier include clause.
    """
    if not isinstance(metadata, Mapping):
        raise ScoringError(
            f"{place}: must be a mapping with tag and include, not {_shown(metadata)}"
        )
    tag = metadata.get("tag")
    if not isinstance(tag, str) or not tag:
        raise ScoringError(f"{place}: tag must name a task like 'counting', not {_shown(tag)}")
    found: dict[str, list[Clause]] = {"include": [], "exclude": []}
    for kind, clauses in found.items():
        lines = metadata.get(kind, [])
        if not isinstance(lines, list | tuple):
            raise ScoringError(f"{place}: {kind} must be a list of clauses, not {_shown(lines)}")
        for number, line in enumerate(lines):
            clauses.append(_clause(line, kind, number, f"{place}: {kind} clause {number}"))
    if not any(found.values()):
        raise ScoringError(f"{place}: asks for nothing; give include at least one clause")
    return Wish(tag, tuple(found["include"]), tuple(found["exclude"]))


def check_object(name: object, place: str) -> None:
    """Raise ScoringError, with the nearest known name, for a name that is not in OBJECTS."""
    if isinstance(name, str) and name in OBJECTS:
        return
    near = difflib.get_close_matches(name, OBJECTS, n=1) if isinstance(name, str) else []
    near = [_RENAMED[name]] if isinstance(name, str) and name in _RENAMED else near
    remedy = f"did you mean '{near[0]}'?" if near else "take one of geneval.OBJECTS"
    raise ScoringError(f"{place}: {_shown(name)} is not a GenEval object name; {remedy}")


def _clause(line: object, kind: str, number: int, place: str) -> Clause:
    if not isinstance(line, Mapping):
        raise ScoringError(f"{place}: must be a mapping with class and count, not {_shown(line)}")
    # A misspelt key that is passed over would drop a condition without a word.
    strange = sorted(str(key) for key in line.keys() - _KEYS[kind])
    if strange:
        known = ", ".join(sorted(_KEYS[kind]))
        raise ScoringError(f"{place}: '{strange[0]}' is not a key of it; it has {known}")
    check_object(line.get("class"), place)
    count, color = line.get("count"), line.get("color")
    if type(count) is not int or count < 1:
        raise ScoringError(f"{place}: count must be a whole number from 1, not {_shown(count)}")
    if "color" in line and color not in COLORS:
        raise ScoringError(
            f"{place}: {_shown(color)} is not a color; choose from {', '.join(COLORS)}"
        )
    if "position" not in line:
        return Clause(line["class"], count, color)
    position = line["position"]
    pair = position if isinstance(position, list | tuple) and len(position) == 2 else (None, None)
    relation, target = pair
    if relation not in RELATIONS or type(target) is not int or not 0 <= target < number:
        raise ScoringError(
            f"{place}: position must be [one of {', '.join(RELATIONS)}; the number of an earlier "
            f"include clause], not {_shown(position)}"
        )
    return Clause(line["class"], count, color, relation, target)


def _shown(value: object) -> str:
    """A value as a message shows it: short, whatever it is."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _include(name: str, **more: Any) -> dict[str, Any]:
    return {"class": name, "count": 1, **more}


def _single(name: str) -> dict[str, Any]:
    return {
        "tag": "single_object",
        "include": [_include(name)],
        "prompt": f"a photo of {_article(name)}",
    }


def _two(rng: np.random.Generator) -> dict[str, Any]:
    first, second = (OBJECTS[i] for i in rng.choice(80, size=2, replace=False))
    return {
        "tag": "two_object",
        "include": [_include(first), _include(second)],
        "prompt": f"a photo of {_article(first)} and {_article(second)}",
    }


def _counting(rng: np.random.Generator) -> dict[str, Any]:
    name = OBJECTS[rng.choice(80)]
    count = int(rng.integers(2, 4, endpoint=True))
    plural = f"{name}es" if name.endswith("s") else f"{name}s"  # benchs and knifes are published
    return {
        "tag": "counting",
        "include": [{"class": name, "count": count}],
        "exclude": [{"class": name, "count": count + 1}],
        "prompt": f"a photo of {_NUMBERS[count]} {plural}",
    }


def _colors(rng: np.random.Generator) -> dict[str, Any]:
    name = OBJECTS[rng.choice(79) + 1]  # never person
    color = COLORS[rng.choice(10)]
    return {
        "tag": "colors",
        "include": [_include(name, color=color)],
        "prompt": f"a photo of {_article(color)} {name}",
    }


def _position(rng: np.random.Generator) -> dict[str, Any]:
    thing, target = (OBJECTS[i] for i in rng.choice(80, size=2, replace=False))
    relation = RELATIONS[rng.choice(4)]
    return {
        "tag": "position",
        "include": [_include(target), _include(thing, position=[relation, 0])],
        "prompt": f"a photo of {_article(thing)} {relation} {_article(target)}",
    }


def _color_attr(rng: np.random.Generator) -> dict[str, Any]:
    names = [OBJECTS[i + 1] for i in rng.choice(79, size=2, replace=False)]
    colors = [COLORS[i] for i in rng.choice(10, size=2, replace=False)]
    pairs = list(zip(names, colors, strict=True))
    return {
        "tag": "color_attr",
        "include": [_include(name, color=color) for name, color in pairs],
        "prompt": "a photo of " + " and ".join(f"{_article(c)} {name}" for name, c in pairs),
    }
