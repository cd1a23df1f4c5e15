"""The drawing world: GenEval's eighty things, alone, together, counted, coloured and placed.

Scenes are composed from a seed and carry their whole truth. The steady world is the part that a
small model learns to draw: one view of each thing, two sizes, places on a grid. Understanding
learns from the whole: all training views, any size and place, turned, on grounds like rooms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from janus_kit.errors import OptionError
from janus_kit.training import painting
from janus_kit.training.bank.heroes import HEROES
from janus_kit.training.bank.names import NAMES
from janus_kit.training.novelty import held_out, is_novel
from janus_kit.training.painting import COLORS, GROUNDS

__all__ = [
    "COLORS",
    "NAMES",
    "OPPOSITE",
    "TASKS",
    "Scene",
    "Split",
    "Thing",
    "compose",
    "empty",
    "in_all_colors",
    "mask",
    "paintable",
    "painted",
    "pick",
    "places",
    "render",
    "sketch",
    "staged",
]

Split = Literal["train", "test"]
T = TypeVar("T")

SIDE = 384
MARGIN = 6  # pixels about every thing
GRID = 16  # steady boxes start on the grid of the image codes: equal things have equal codes
# How often each is composed: GenEval's six tasks, and scenes of three and four things. Half ask for
# colours: a thing has ten of them to be learnt, and one look of its own.
TASKS: Mapping[str, float] = {
    "single_object": 0.06,
    "two_object": 0.12,
    "counting": 0.12,
    "colors": 0.24,
    "position": 0.14,
    "color_attr": 0.24,
    "dense": 0.08,
}
MORE = ("crowd", "numbers")  # kinds of scenes that are composed where they are asked for
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
UNPAINTED = ("person",)  # has its own colours only
STRETCH = 0.25  # training stretches things by at most e to this, or squeezes them
LEAN = 0.22  # and moves each of their corners in by at most this share, as another view would
PAINTED = 0.15  # the share of things that are coloured where the task does not ask for it

# Centres as shares of the side. Of a steady scene, and of one that is not, with the sizes there.
_ONE = ((0.5, 0.5),)
_BESIDE = ((0.25, 0.5), (0.75, 0.5))
_STACKED = ((0.5, 0.25), (0.5, 0.75))
_THREE = ((0.5, 0.25), (0.25, 0.75), (0.75, 0.75))
_FOUR = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
_ROW = ((0.18, 0.5), (0.5, 0.5), (0.82, 0.5))
_TURNED = ((0.25, 0.25), (0.75, 0.25), (0.5, 0.75))
# Steady sizes of the longer side. A thing has ten colours and one look of its own, so that codes
# are scarce for coloured things: small ones need fewer.
_OWN, _COLORED = 144, 112
STEADY_GROUNDS = ("slate",)  # of painting.GROUNDS
_Layout = tuple[tuple[tuple[float, float], ...], float, tuple[int, int]]  # centres, jitter, sizes
_LAYOUTS: Mapping[int, tuple[_Layout, ...]] = {
    1: ((_ONE, 0.16, (130, 300)),),
    2: ((_BESIDE, 0.04, (88, 144)), (_STACKED, 0.04, (88, 144))),
    3: ((_THREE, 0.03, (80, 144)), (_TURNED, 0.03, (80, 144)), (_ROW, 0.015, (72, 104))),
    4: ((_FOUR, 0.03, (72, 144)),),
}


@dataclass(frozen=True)
class Thing:
    """One thing in a picture; the box is x0, y0, x1, y1 in pixels, its ends not included."""

    name: str  # of NAMES
    color: str | None  # of COLORS; None is its own
    box: tuple[int, int, int, int]
    view: str  # "model azimuth.elevation" of the picture bank
    size: int  # of the longer side, before it is turned
    flip: bool = False
    angle: int = 0  # degrees against the clock
    stretch: float = 1.0  # how many times as wide as it is, before it is turned
    lean: tuple[float, ...] = ()  # how far its corners are moved, see painting.cutout
    tint: tuple[int, int, int] | None = None  # the tone in which it is, not quite its colour's


@dataclass(frozen=True)
class Scene:
    """What a picture shows. The relation says how the first thing lies to the second."""

    things: tuple[Thing, ...]
    relation: str | None  # a key of OPPOSITE, where two things alone are side by side
    task: str  # a key of TASKS, or one of MORE
    ground: str  # a key of painting.GROUNDS
    room: int | None = None  # the seed of an uneven ground

    @property
    def steady(self) -> bool:
        """Whether it is of the world that is drawn."""
        return self.room is None


def compose(
    seed: int,
    *,
    names: Sequence[str] = NAMES,
    split: Split = "train",
    steady: bool = False,
    task: str | None = None,
    tints: float = 0.0,
) -> tuple[npt.NDArray[np.uint8], Scene]:
    """A picture, uint8 [384, 384, 3], and what it shows; equal seeds give equal pictures.

    A test scene has a thing in a colour, in a number or beside another that no train scene has,
    and, unless it is steady, views that no train scene has. names: 5 or more of NAMES. task: one
    of TASKS, "crowd" for four things of four names, half of them coloured, or "numbers" for two or
    three of one kind and one of another. tints: the share of coloured things that are painted
    between their colour and another. Raises OptionError for others, JanusKitError where the picture
    bank is not made yet.
    """
    if split not in ("train", "test"):
        raise OptionError(f"split: '{split}' is not one; choose train or test")
    known = tuple(dict.fromkeys(names))
    strange = [name for name in known if name not in NAMES]
    if strange or len(known) < 5:
        raise OptionError(f"names: {strange or known}; give 5 or more of GenEval's objects")
    novel = split == "test"
    rng = np.random.default_rng([seed, novel])
    tasks = {t: w for t, w in TASKS.items() if not (novel and t == "single_object")}
    chosen = pick(rng, tuple(tasks), tuple(tasks.values()))
    if task is not None and task not in (*tasks, *MORE):
        raise OptionError(f"task: '{task}' is not one; choose from {', '.join((*tasks, *MORE))}")
    task = task or chosen
    kinds = _kinds(rng, task, known, novel)
    scene = _place(rng, task, kinds, novel=novel, steady=steady)
    if tints:
        scene = replace(scene, things=tuple(_tinted(rng, thing, tints) for thing in scene.things))
    return render(scene), scene


def render(scene: Scene) -> npt.NDArray[np.uint8]:
    """The picture of a scene, uint8 [384, 384, 3]."""
    tone = GROUNDS[scene.ground]
    if scene.room is None:
        image = painting.ground(tone, SIDE).copy()
    else:
        rng = np.random.default_rng(scene.room)
        image = painting.room(tone, SIDE, rng)
        strength = rng.uniform(0, 0.5)
        for thing in scene.things:
            painting.shadow(image, thing.box, strength)
    for thing in scene.things:
        sprite = _sprite(thing)
        image.paste(sprite, thing.box[:2], sprite)
    return np.array(image)


def mask(thing: Thing) -> npt.NDArray[np.bool_]:
    """Where a thing lies in its picture, under later things too: bool [384, 384]."""
    found = np.zeros((SIDE, SIDE), bool)
    x0, y0, x1, y1 = thing.box
    found[y0:y1, x0:x1] = np.asarray(_sprite(thing).getchannel("A")) > 127
    return found


def places(scene: Scene) -> npt.NDArray[np.int64]:
    """Which part of which thing each place of a steady scene shows: int64 [24, 24, 3].

    Rows and columns from the corner of the nearest thing's box, in places of GRID pixels; and the
    number of its colour in COLORS from 1, or 0 for a thing in its own colours.
    """
    side = SIDE // GRID
    spots: npt.NDArray[np.int64] = np.moveaxis(np.mgrid[0:side, 0:side], 0, -1)
    found: npt.NDArray[np.int64] = np.zeros((side, side, 3), np.int64)
    nearest = np.full((side, side), np.inf)
    for thing in scene.things:
        x0, y0, x1, y1 = thing.box
        first = np.array((y0 // GRID, x0 // GRID))
        last = np.array(((y1 - 1) // GRID, (x1 - 1) // GRID))
        away = np.maximum(0, np.maximum(first - spots, spots - last)).sum(-1)
        closer = away < nearest
        found[closer, :2] = (spots - first)[closer]
        found[closer, 2] = 1 + list(COLORS).index(thing.color) if thing.color else 0
        nearest = np.minimum(nearest, away)
    return found


def staged(
    kinds: Sequence[tuple[int, str | None, str]], relation: str | None, seed: int
) -> tuple[npt.NDArray[np.uint8], Scene]:
    """A steady picture of so many things of each colour and name, four in all at most."""
    things = [(name, color) for count, color, name in kinds for _ in range(count)]
    rng = np.random.default_rng([seed, 3])
    scene = _place(rng, "two_object", things, novel=False, steady=True, relation=relation)
    return render(scene), scene


def sketch(seed: int, names: Sequence[str] = NAMES) -> Scene:
    """What a training scene could show, without views and places: enough to talk about."""
    rng = np.random.default_rng([seed, 2])
    task = pick(rng, tuple(TASKS), tuple(TASKS.values()))
    kinds = _kinds(rng, task, tuple(names), False)
    pair = len(kinds) == 2 and len(set(kinds)) == 2
    things = tuple(Thing(name, color, (0, 0, 1, 1), "", 1) for name, color in kinds)
    return Scene(things, pick(rng, tuple(OPPOSITE)) if pair else None, task, "sand")


def empty() -> list[npt.NDArray[np.uint8]]:
    """The grounds of the steady world."""
    return [np.array(painting.ground(GROUNDS[ground], SIDE)) for ground in STEADY_GROUNDS]


def painted(scene: Scene, color: str | None) -> Scene:
    """The steady scene with all things in a colour, or in their own, and in the size of such."""

    def change(thing: Thing) -> Thing:
        x0, y0, x1, y1 = thing.box
        changed = replace(thing, color=color, size=_COLORED if color else _OWN)
        return _put(changed, ((x0 + x1) / 2, (y0 + y1) / 2), True)

    return replace(scene, things=tuple(map(change, scene.things)))


def paintable(scene: Scene) -> bool:
    """Whether all things of the scene are had in the ten colours."""
    return all(thing.name not in UNPAINTED for thing in scene.things)


def in_all_colors(scene: Scene) -> list[npt.NDArray[np.uint8]]:
    """The steady picture with all things red, with all orange, and so on through COLORS."""
    return [render(painted(scene, color)) for color in COLORS]


def pick(rng: np.random.Generator, items: Sequence[T], weights: Sequence[float] = ()) -> T:
    """One of the items, as likely as its weight."""
    if not weights:
        return items[int(rng.integers(len(items)))]
    return items[int(rng.choice(len(items), p=np.array(weights) / sum(weights)))]


def _sprite(thing: Thing) -> Image.Image:
    tone = thing.tint or (COLORS[thing.color] if thing.color else None)
    shape = (thing.size, thing.flip, thing.angle, thing.stretch, thing.lean)
    return painting.cutout(thing.view, tone, *shape)


_Kind = tuple[str, str | None]  # a name and a colour


def _kinds(rng: np.random.Generator, task: str, names: tuple[str, ...], novel: bool) -> list[_Kind]:
    """The name and colour of each thing; equal ones are a number of one kind."""
    for _ in range(10_000):
        kinds = _guess(rng, task, names)
        if is_novel(kinds) == novel:
            return kinds
    raise OptionError(f"names: {list(names)} allow no {task} scene of this split; give more")


def _guess(rng: np.random.Generator, task: str, names: tuple[str, ...]) -> list[_Kind]:
    paintable = tuple(name for name in names if name not in UNPAINTED)

    def some(count: int, colored: bool, share: float = PAINTED) -> list[_Kind]:
        chosen = rng.choice(len(paintable if colored else names), size=count, replace=False)
        found: list[_Kind] = []
        for index in chosen:
            name = (paintable if colored else names)[int(index)]
            painted = colored or (name not in UNPAINTED and rng.random() < share)
            found.append((name, pick(rng, tuple(COLORS)) if painted else None))
        return found

    if task == "single_object":
        return [(pick(rng, names), None)]
    if task == "colors":
        return some(1, True)
    if task == "counting":
        return some(1, False) * int(rng.integers(2, 5))
    if task == "crowd":
        return some(4, False, 0.5)
    if task in ("dense", "numbers"):
        if task == "dense" and rng.random() < 0.5:
            return some(int(rng.integers(3, 5)), False)
        first, second = some(2, False)
        return [first] * int(rng.integers(2, 4)) + [second]
    return some(2, task == "color_attr")


def _place(
    rng: np.random.Generator,
    task: str,
    kinds: list[_Kind],
    *,
    novel: bool,
    steady: bool,
    relation: str | None = None,
) -> Scene:
    """Give each thing a view, a size and a place."""
    count = len(kinds)
    layouts = _LAYOUTS[count][:1] if steady else _LAYOUTS[count]
    centres, jitter, sizes = pick(rng, layouts)
    if len(set(kinds)) == 2 and count == 2:
        if relation is None and (task == "position" or not steady):
            relation = pick(rng, tuple(OPPOSITE))
        # Where the prompt says none, what it names first stands first.
        relation = relation or "left of"
        centres = _BESIDE if relation in ("left of", "right of") else _STACKED
        centres = centres if relation in ("left of", "above") else centres[::-1]
    elif not steady:
        centres = tuple(centres[int(i)] for i in rng.permutation(count))
    looks = {kind: _view(rng, kind[0], novel, steady) for kind in dict.fromkeys(kinds)}
    shift = rng.integers(-1, 1, 2) * GRID if steady else np.zeros(2)
    flip, angle, stretch, things = False, 0, 1.0, []
    lean: tuple[float, ...] = ()
    for kind, place in zip(kinds, centres, strict=True):
        centre = np.array(place) * SIDE + shift
        if steady:
            size = _COLORED if kind[1] else _OWN
        else:
            size = int(rng.integers(sizes[0], sizes[1] + 1))
            flip, angle = bool(rng.random() < 0.5), int(rng.integers(-8, 9))
            if not novel:  # an unknown model is built otherwise, and the detector knows true ones
                stretch = float(np.exp(rng.uniform(-STRETCH, STRETCH)))
                if rng.random() < 0.75:
                    lean = tuple(rng.uniform(0, LEAN, 8).tolist())
            centre += rng.uniform(-jitter, jitter, 2) * SIDE
        thing = Thing(kind[0], kind[1], (0, 0, 0, 0), looks[kind], size, flip, angle, stretch, lean)
        things.append(_put(thing, (float(centre[0]), float(centre[1])), steady))
    return Scene(
        tuple(things),
        relation,
        task,
        pick(rng, STEADY_GROUNDS if steady else tuple(GROUNDS)),
        None if steady else int(rng.integers(2**31)),
    )


def _tinted(rng: np.random.Generator, thing: Thing, share: float) -> Thing:
    """Some coloured things in a tone nearer to their colour than to another that they may have."""
    if thing.color is None or rng.random() >= share:
        return thing
    others = [c for c in COLORS if c != thing.color and not held_out(thing.name, c)]
    ends = zip(COLORS[thing.color], COLORS[pick(rng, others)], strict=True)
    part = rng.uniform(0.15, 0.5)
    red, green, blue = (round(own + part * (other - own)) for own, other in ends)
    return replace(thing, tint=(red, green, blue))


def _view(rng: np.random.Generator, name: str, novel: bool, steady: bool) -> str:
    """A view of a name."""
    if steady:
        return HEROES[name]
    return pick(rng, painting.views(novel)[name]).file.removesuffix(".webp")


def _put(thing: Thing, centre: tuple[float, float], steady: bool) -> Thing:
    """The thing with its box about the centre, inside the picture; a large one gets smaller."""
    width, height = _sprite(thing).size
    room = SIDE - 2 * MARGIN
    if max(width, height) > room:  # turned
        return _put(replace(thing, size=thing.size * room // max(width, height)), centre, steady)
    x, y = centre[0] - width / 2, centre[1] - height / 2
    if steady:
        x, y = (int(n / GRID + 0.5) * GRID for n in (x, y))
    least = GRID if steady else MARGIN  # a steady box stays on the grid
    x0 = int(min(max(x, least), SIDE - MARGIN - width))
    y0 = int(min(max(y, least), SIDE - MARGIN - height))
    return replace(thing, box=(x0, y0, x0 + width, y0 + height))
