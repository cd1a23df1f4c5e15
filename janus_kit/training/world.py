"""The small drawing world: coloured things on pale ground, and the language that tells of them."""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from janus_kit.errors import OptionError
from janus_kit.training.painting import cutout, ground
from janus_kit.training.sprites import NAMES

__all__ = [
    "COLORS",
    "TASKS",
    "Fact",
    "Facts",
    "Scene",
    "Thing",
    "caption",
    "compose",
    "facts",
    "held_out",
    "held_out_pair",
    "in_all_colors",
    "matches",
    "parse",
    "prompt",
    "questions",
    "render",
]

Split = Literal["train", "test"]
Fact = tuple[int, str, str]  # how many, which colour, what
Facts = tuple[tuple[Fact, ...], str | None]  # what there is, and how the first lies to the second

T = TypeVar("T")

SIDE = 384
GRID = 16  # boxes start on the grid of the image codes, so that equal things have equal codes
COLORS: Mapping[str, tuple[int, int, int]] = {
    "red": (216, 24, 32),
    "orange": (255, 134, 0),
    "yellow": (252, 214, 20),
    "green": (28, 158, 60),
    "blue": (28, 84, 222),
    "purple": (122, 44, 172),
    "pink": (255, 128, 196),
    "black": (38, 38, 42),
}
BACKGROUNDS: Mapping[str, tuple[int, int, int]] = {
    "white": (252, 252, 252),
    "cream": (250, 243, 226),
    "grey": (232, 232, 234),
    "blue": (224, 236, 248),
}
TASKS: Mapping[str, float] = {"single": 0.3, "count": 0.3, "two": 0.15, "position": 0.25}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
PLURALS: Mapping[str, str] = {"fish": "fish"}
PREFIXES = ("", "a photo of ", "a picture of ", "an image of ", "draw ")

# Centres of the things in pixels. The space between them is more than a thing and its jitter.
SINGLE = ((192, 192),)
BESIDE = ((104, 192), (280, 192))
STACKED = ((192, 104), (192, 280))
LAYOUTS: Mapping[int, tuple[tuple[tuple[int, int], ...], ...]] = {
    2: (BESIDE,),
    3: (
        ((80, 192), (192, 192), (304, 192)),
        ((192, 104), (104, 272), (280, 272)),
        ((104, 112), (280, 112), (192, 280)),
    ),
    4: (((104, 104), (280, 104), (104, 280), (280, 280)),),
}

# The longer side of things in a steady world.
STEADY: Mapping[str, int] = {"single": 192, "count": 128, "two": 128, "position": 128}

# What `parse` reads. One fact: "a red apple", "3 yellow stars", "green house".
COUNTS = {word: n for n, word in NUMBERS.items()} | {str(n): n for n in NUMBERS}
SINGULAR = {PLURALS.get(name, name + "s"): name for name in NAMES} | {name: name for name in NAMES}
SAME = {"over": "above", "on top of": "above", "under": "below", "beneath": "below"}
_FACT = re.compile(
    rf"(?:\b(an?|{'|'.join(COUNTS)})\s+)?\b({'|'.join(COLORS)})\s+({'|'.join(SINGULAR)})\b"
)
_RELATION = re.compile(rf"\b({'|'.join((*OPPOSITE, *SAME))})\b")


@dataclass(frozen=True)
class Thing:
    """One thing in a picture; the box is x0, y0, x1, y1 in pixels, its ends not included."""

    name: str
    color: str
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """What a picture shows. The relation says how the first thing lies to the second."""

    things: tuple[Thing, ...]
    relation: str | None  # left of, right of, above or below; for tasks two and position
    task: str  # a key of TASKS
    background: str  # a key of BACKGROUNDS


def held_out(name: str, color: str) -> bool:
    """True for the one colour of each thing (an eighth of all) that training never shows."""
    # By turns, so that no colour loses more than two things. A red apple is one of them.
    return tuple(COLORS)[(5 * NAMES.index(name) + 2) % len(COLORS)] == color


def held_out_pair(a: str, b: str) -> bool:
    """True for the tenth of pairs of things that training never shows together."""
    return zlib.crc32("+".join(sorted((a, b))).encode()) % 10 == 0


def compose(
    seed: int, *, names: Sequence[str], split: Split = "train", steady: bool = False
) -> tuple[npt.NDArray[np.uint8], Scene]:
    """A picture, uint8 [384, 384, 3], and what it shows; equal seeds give equal pictures.

    A test scene has a thing in a colour, or two things together, that no train scene has. In a
    steady world things have one size and one place for each task and count: what a small run can
    learn.
    """
    if split not in ("train", "test"):
        raise OptionError(f"split: '{split}' is not one; choose train or test")
    novel = split == "test"
    known = tuple(dict.fromkeys(names))
    singles = _singles(known, novel)
    rng = np.random.default_rng([seed, novel])
    task = _pick(rng, tuple(TASKS), tuple(TASKS.values()))
    background = _pick(rng, tuple(BACKGROUNDS))
    relation = None
    if task in ("single", "count"):
        count = 1 if task == "single" else _pick(rng, tuple(LAYOUTS))
        things = (_pick(rng, singles),) * count
        choice = LAYOUTS[count][-1:] if steady and count > 1 else LAYOUTS.get(count, ())
        centres = SINGLE if task == "single" else _pick(rng, choice)
    else:
        relation = _pick(rng, tuple(OPPOSITE))
        if steady and task == "two":
            relation = "left of"  # the prompt has no relation: what it names first stands first
        things = _pick_two(rng, known, novel)
        centres = BESIDE if relation in ("left of", "right of") else STACKED
        centres = centres if relation in ("left of", "above") else centres[::-1]
    size = STEADY[task] if steady else _size(rng, task, centres)
    steps = 0 if steady else (2 if len(centres) == 1 else 1)
    boxes = _place(
        rng, [cutout(name, COLORS[color], size).size for name, color in things], centres, steps
    )
    placed = tuple(Thing(*thing, box) for thing, box in zip(things, boxes, strict=True))
    scene = Scene(placed, relation, task, background)
    return render(scene), scene


def render(scene: Scene) -> npt.NDArray[np.uint8]:
    """The picture of a scene, uint8 [384, 384, 3]."""
    image = ground(BACKGROUNDS[scene.background], SIDE).copy()
    for thing in scene.things:
        x0, y0, x1, y1 = thing.box
        sprite = cutout(thing.name, COLORS[thing.color], max(x1 - x0, y1 - y0))
        image.paste(sprite, (x0, y0), sprite)
    return np.array(image)


def in_all_colors(scene: Scene) -> list[npt.NDArray[np.uint8]]:
    """The picture with all things red, with all things orange, and so on through COLORS."""
    return [
        render(replace(scene, things=tuple(replace(thing, color=c) for thing in scene.things)))
        for c in COLORS
    ]


def _pick(rng: np.random.Generator, items: Sequence[T], weights: Sequence[float] = ()) -> T:
    """One of the items, as likely as its weight."""
    if not weights:
        return items[int(rng.integers(len(items)))]
    return items[int(rng.choice(len(items), p=np.array(weights) / sum(weights)))]


@lru_cache(maxsize=64)
def _singles(names: tuple[str, ...], novel: bool) -> tuple[tuple[str, str], ...]:
    """The coloured things of one split."""
    strange = [name for name in names if name not in NAMES]
    if strange or not names:
        raise OptionError(f"names: {strange or 'none given'}; choose from {', '.join(NAMES)}")
    return tuple((name, c) for name in names for c in COLORS if held_out(name, c) == novel)


@lru_cache(maxsize=64)
def _pairs(names: tuple[str, ...], novel: bool) -> tuple[tuple[str, str], ...]:
    """The pairs of different things of one split."""
    return tuple(p for p in combinations(names, 2) if held_out_pair(*p) == novel)


def _pick_two(
    rng: np.random.Generator, names: tuple[str, ...], novel: bool
) -> tuple[tuple[str, str], ...]:
    """Two coloured things; in a novel two either the pair or one thing's colour is held out."""
    pairs, together = _pairs(names, False), _pairs(names, True)
    by_pair = novel and bool(together) and (not pairs or rng.random() < 0.5)
    if not (together if by_pair else pairs):
        raise OptionError(f"names: {list(names)} hold no two things to show together; give more")
    pair = _pick(rng, together if by_pair else pairs)
    things = [_pick(rng, _singles((name,), False)) for name in pair]
    if novel and not by_pair:
        strange = int(rng.integers(2))
        things[strange] = _pick(rng, _singles((pair[strange],), True))
    return tuple(things) if rng.random() < 0.5 else tuple(things[::-1])


def _size(rng: np.random.Generator, task: str, centres: Sequence[tuple[int, int]]) -> int:
    """The longer side of each thing in pixels: few sizes, so that the codes repeat."""
    if task == "single":
        return _pick(rng, (160, 192, 224))
    if task == "count":
        row = len(centres) == 3 and len({y for _, y in centres}) == 1
        return 96 if row else _pick(rng, (96, 112))
    return _pick(rng, (112, 128, 144))


def _place(
    rng: np.random.Generator,
    sizes: Sequence[tuple[int, int]],
    centres: Sequence[tuple[int, int]],
    steps: int,
) -> list[tuple[int, int, int, int]]:
    """Boxes about the centres, all moved together by up to so many steps of the grid."""
    dx, dy = (rng.integers(-steps, steps + 1, size=2) * GRID).tolist()
    boxes = []
    for (width, height), (x, y) in zip(sizes, centres, strict=True):
        x0 = int((x + dx - width / 2) / GRID + 0.5) * GRID
        y0 = int((y + dy - height / 2) / GRID + 0.5) * GRID
        boxes.append((x0, y0, x0 + width, y0 + height))
    return boxes


def _noun(name: str, count: int = 1) -> str:
    """The name as it stands after a number."""
    return name if count == 1 else PLURALS.get(name, name + "s")


def _phrase(fact: Fact, number: str = "") -> str:
    """'a red apple' or 'three yellow stars'."""
    count, color, name = fact
    article = "an" if color[0] in "aeiou" else "a"
    number = number or (article if count == 1 else NUMBERS[count])
    return f"{number} {color} {_noun(name, count)}"


def _seen(scene: Scene) -> tuple[tuple[Fact, ...], str | None]:
    """The scene's facts in its own order."""
    if scene.task == "count":
        return ((len(scene.things), scene.things[0].color, scene.things[0].name),), None
    return tuple((1, thing.color, thing.name) for thing in scene.things), scene.relation


def _canonical(seen: Sequence[Fact], relation: str | None) -> Facts:
    """One form for all that means the same: left of and above only, else in sorted order."""
    if relation is None or len(seen) != 2:
        return tuple(sorted(seen)), None
    if relation in ("right of", "below"):
        return tuple(seen[::-1]), OPPOSITE[relation]
    return tuple(seen), relation


def facts(scene: Scene) -> Facts:
    """What the picture shows, in the form that `parse` gives."""
    return _canonical(*_seen(scene))


def matches(asked: Facts, shown: Facts) -> bool:
    """True when what was asked for is shown; a relation counts only when it was asked for."""
    return asked == shown or (asked[1] is None and asked[0] == tuple(sorted(shown[0])))


def caption(scene: Scene) -> str:
    """The one sentence that describes the picture; it depends on nothing that is not seen."""
    seen, relation = facts(scene)
    return _say(f" {relation} ".join(_phrase(fact) for fact in seen))


def prompt(scene: Scene, rng: np.random.Generator) -> str:
    """A wish that the picture fulfils, in one of the ways in which people write them."""
    seen, relation = _seen(scene)
    digits, prefix = rng.random() < 0.15, _pick(rng, PREFIXES, (6, 1, 1, 1, 1))
    phrases = [_phrase(fact, str(fact[0]) if digits and fact[0] > 1 else "") for fact in seen]
    if relation is None or scene.task == "two":
        text = " and ".join(phrases)
    else:
        sides = relation in ("left of", "right of")
        relation = f"to the {relation}" if sides and rng.random() < 0.4 else relation
        text = f" {relation} ".join(phrases)
    text = prefix + text
    text = text[0].upper() + text[1:] if rng.random() < 0.1 else text
    return text + "." if rng.random() < 0.1 else text


def parse(text: str) -> Facts:
    """The facts of a caption or a prompt; what is not understood is passed over."""
    text = text.lower()
    seen = [
        (COUNTS.get(number, 1), color, SINGULAR[noun])
        for number, color, noun in _FACT.findall(text)
    ]
    relation = _RELATION.search(text)
    return _canonical(seen, relation and SAME.get(relation[0], relation[0]))


def questions(
    scene: Scene, rng: np.random.Generator, names: Sequence[str] = NAMES
) -> list[tuple[str, str]]:
    """Questions about the picture and their short answers; yes and no are equally likely."""
    seen, relation = facts(scene)
    asked = [
        ("Describe the picture.", caption(scene)),
        (_pick(rng, ("What is in the picture?", "What do you see?")), caption(scene)),
        ("How many things are there?", _say(NUMBERS[len(scene.things)])),
    ]
    for count, color, name in seen:
        noun, verb = _noun(name, count), "is" if count == 1 else "are"
        word = "colour" if rng.random() < 0.2 else "color"
        asked.append((f"What {word} {verb} the {noun}?", _say(color)))
        asked.append((f"How many {_noun(name, 2)} are there?", _say(NUMBERS[count])))
    asked.append(_whether(seen, rng, names))
    if relation:
        asked += _where(seen, relation, rng)
    return asked


def _say(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _whether(
    seen: Sequence[Fact], rng: np.random.Generator, names: Sequence[str]
) -> tuple[str, str]:
    """Is there a red car? A no changes one thing of a yes: the colour, the thing or the number."""
    count, color, name = _pick(rng, seen)
    there = bool(rng.random() < 0.5)
    if not there:
        # Never a held-out one: training would teach that it does not exist.
        known = _singles(tuple(names), False)
        kinds = [
            [(count, c, n) for n, c in known if n == name and c != color],
            [(count, c, n) for n, c in known if n != name and c == color],
            [(k, color, name) for k in (2, 3, 4) if count > 1 and k != count],
        ]
        kinds = [[fact for fact in kind if fact not in seen] for kind in kinds]
        count, color, name = _pick(rng, _pick(rng, [kind for kind in kinds if kind]))
    verb = "Is" if count == 1 else "Are"
    return f"{verb} there {_phrase((count, color, name))}?", "Yes." if there else "No."


def _where(seen: Sequence[Fact], relation: str, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Questions about how two things lie, asked from a side that is drawn."""
    (first, second), side = seen, relation
    if rng.random() < 0.5:
        first, second, side = second, first, OPPOSITE[relation]
    true = bool(rng.random() < 0.5)
    said = side if true else OPPOSITE[side]
    return [
        (f"Where is the {first[2]}?", _say(f"{side} the {second[2]}")),
        (f"What is {side} the {second[2]}?", _say(_phrase(first))),
        (f"Is the {first[2]} {said} the {second[2]}?", "Yes." if true else "No."),
    ]
