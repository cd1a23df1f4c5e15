"""The language of the drawing world: wishes, captions, questions and answers, and back to facts."""

import re
from collections.abc import Sequence

import numpy as np

from janus_kit.training.bank.names import NAMES
from janus_kit.training.novelty import held_out, held_out_count, held_out_pair
from janus_kit.training.world import COLORS, OPPOSITE, SIDE, Scene, pick

__all__ = [
    "Fact",
    "Facts",
    "caption",
    "detailed",
    "facts",
    "matches",
    "named",
    "parse",
    "plural",
    "prompt",
    "questions",
    "unrelated",
    "words",
]

Fact = tuple[int, str | None, str]  # how many, which colour, what
Facts = tuple[tuple[Fact, ...], str | None]  # what there is, and how the first lies to the second

ROWS = 3  # of a picture, in which things stand side by side
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
_PLURALS = {
    "person": "people",
    "knife": "knives",
    "sheep": "sheep",
    "scissors": "scissors",
    "skis": "skis",
}
SAME = {
    "over": "above", "on top of": "above", "under": "below", "beneath": "below",
    "on the left of": "left of", "on the right of": "right of",
}  # fmt: skip
_PREFIXES = (
    "a photo of ", "", "a picture of ", "an image of ", "draw ", "show me ", "a photograph of ",
)  # fmt: skip
_PREFIX_WEIGHTS = (10, 4, 1, 1, 1, 1, 1)
DESCRIBE = (
    "Describe the image.",
    "Describe the picture.",
    "What is in this image?",
    "Caption this picture.",
    "What do you see?",
)
IN_DETAIL = ("Describe the image in detail.", "Describe this picture in detail.")


def plural(name: str) -> str:
    """More than one of a name, as GenEval writes it but for people and knives."""
    if name in _PLURALS:
        return _PLURALS[name]
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")


_WORDS = {name: n for n, name in NUMBERS.items()} | {str(n): n for n in NUMBERS}
_NOUNS = {form: name for name in NAMES for form in (name, plural(name), name + "s")}
_NOUNS |= {"people": "person", "men": "person", "man": "person", "woman": "person"}
_ANY_NOUN = "|".join(re.escape(noun) for noun in sorted(_NOUNS, key=len, reverse=True))
_FACT = re.compile(
    rf"(?:\b(an?|the|{'|'.join(_WORDS)})\s+)?(?:\b({'|'.join(COLORS)})\s+)?\b({_ANY_NOUN})\b"
)
_RELATION = re.compile(rf"\b({'|'.join((*SAME, *OPPOSITE))})\b")


def facts(scene: Scene) -> Facts:
    """What the picture shows, in the form that `parse` gives."""
    return _canonical(*_seen(scene))


def matches(asked: Facts, shown: Facts) -> bool:
    """True when what was asked for is shown; a relation counts only when it was asked for."""
    return asked == shown or (asked[1] is None and asked[0] == _sorted(shown[0]))


def parse(text: str) -> Facts:
    """The facts of a caption or a prompt; what is not understood is passed over."""
    text = text.lower()
    seen: list[Fact] = []
    for number, color, noun in _FACT.findall(text):
        # "an orange cup" is a colour and a thing, "an orange" a thing.
        fact = (_WORDS.get(number, 1), color or None, _NOUNS[noun])
        # "There is a cup and a dog. The cup is left of the dog." names two things, not four.
        if number != "the" or fact[2] not in {other[2] for other in seen}:
            seen.append(fact)
    relation = _RELATION.search(text)
    return _canonical(seen, relation and SAME.get(relation[0], relation[0]))


def unrelated(told: Facts) -> Facts:
    """The same things, wherever they lie."""
    return _sorted(told[0]), None


def caption(scene: Scene) -> str:
    """The one sentence that describes the picture; it depends on nothing that is not seen.

    Things are told as one reads, row by row: where the next one is to be looked for is then known
    from the last, which an order of the words would tell only to who knows all of them already.
    """
    seen, relation = _read(scene)
    if relation:
        return _say(f" {relation} ".join(_phrase(fact) for fact in seen))
    return _say(_listed([_phrase(fact) for fact in seen]))


def detailed(scene: Scene) -> str:
    """All that is to be seen: a sentence for the number, one for each kind, one for where."""
    seen, relation = _read(scene)
    number = len(scene.things)
    told = [f"There {_are(number)} {NUMBERS[number]} {'thing' if number == 1 else 'things'}."]
    told += [_say(f"there {_are(fact[0])} {_phrase(fact)}") for fact in seen]
    if relation:
        told.append(_say(f"the {_noun(seen[0])} is {relation} the {_noun(seen[1])}"))
    return " ".join(told)


def prompt(scene: Scene, rng: np.random.Generator) -> str:
    """A wish that the picture fulfils, in one of the ways in which people write them."""
    seen, relation = _seen(scene)
    digits, prefix = rng.random() < 0.1, pick(rng, _PREFIXES, _PREFIX_WEIGHTS)
    bare = len(seen) == 1 and seen[0][0] == 1 and rng.random() < 0.08  # "red apple"
    careless = pick(rng, ("s", "")) if rng.random() < 0.15 else None  # "two sheeps", "two cat"
    phrases = [_typed(fact, digits, careless) for fact in seen]
    placed = relation is not None and scene.task == "position"
    way = rng.random()
    if way < 0.04:
        return detailed(scene)
    if bare:
        text = _colored(seen[0])
    elif not placed and way < 0.08:
        return _say(f"there {_are(seen[0][0])} {_listed(phrases)}")
    elif not placed and len(seen) == 2 and way < 0.16:
        text = " next to ".join(phrases)
    elif not placed:
        text = _listed(phrases)
    else:
        assert relation is not None
        beside = relation in ("left of", "right of")
        if rng.random() < 0.3:
            relation = f"{pick(rng, ('to the', 'on the'))} {relation}" if beside else relation
            relation = {"above": "over", "below": "under"}.get(relation, relation)
        text = f" {relation} ".join(phrases)
    text = ("" if bare else prefix) + text
    text = text[0].upper() + text[1:] if rng.random() < 0.1 else text
    return text + "." if rng.random() < 0.1 else text


def questions(
    scene: Scene, rng: np.random.Generator, names: Sequence[str] = NAMES
) -> list[tuple[str, str]]:
    """Questions about the picture and their short answers; yes and no are equally likely."""
    seen, relation = facts(scene)
    asked = [("How many things are there?", _say(NUMBERS[len(scene.things)]))]
    for fact in seen:
        count, color, name = fact
        if color and [other[2] for other in seen].count(name) == 1:
            word = "colour" if rng.random() < 0.2 else "color"
            asked.append((f"What {word} {_are(count)} the {_noun(fact)}?", _say(color)))
            asked.append(_tinted(fact, color, rng))
        asked.append((f"How many {plural(name)} are there?", _say(NUMBERS[count])))
    if len(seen) == 1:
        asked.append(("What is this?" if seen[0][0] == 1 else "What are these?", caption(scene)))
    asked += [_whether(seen, rng, names), _whether(seen, rng, names)]
    asked += [_any(seen, rng, names), _any(seen, rng, names)]
    if len(seen) == 2 and seen[0][0] != seen[1][0]:
        more, less = sorted(seen, key=lambda fact: -fact[0])
        pair = (more, less) if rng.random() < 0.5 else (less, more)
        nouns = [plural(fact[2]) for fact in pair]
        asked.append((f"Are there more {nouns[0]} or {nouns[1]}?", _say(plural(more[2]))))
    if relation:
        asked += _where(seen, relation, rng)
    return asked


def named(question: str) -> tuple[str, ...]:
    """What a question is about: the first thing it names, both that it compares, or none."""
    found = [_NOUNS[match[3]] for match in _FACT.finditer(question.lower())]
    return tuple(found if " or " in question else found[:1])


def mentions(text: str) -> list[tuple[int, str]]:
    """Where in a text things are counted, coloured and named: characters from its start, names."""
    return [
        (match.start(part), _NOUNS[match[3]])
        for match in _FACT.finditer(text.lower())
        for part in (1, 2, 3)
        if match[part]
    ]


def words() -> list[str]:
    """Every word that prompts of this world are made of, in lower case."""
    said = " ".join((*_NOUNS, *COLORS, *_WORDS, *OPPOSITE, *SAME, *_PREFIXES))
    more = "a an and the to on of in is are with next there thing things"
    return sorted({*said.split(), *more.split()})


def _noun(fact: Fact) -> str:
    return fact[2] if fact[0] == 1 else plural(fact[2])


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _colored(fact: Fact) -> str:
    return f"{fact[1]} {_noun(fact)}" if fact[1] else _noun(fact)


def _phrase(fact: Fact, number: str = "") -> str:
    """'a bench', 'an orange cup' or 'three yellow kites'."""
    text = _colored(fact)
    article = "an" if text[0] in "aeiou" and not text.startswith("uni") else "a"
    return f"{number or (article if fact[0] == 1 else NUMBERS[fact[0]])} {text}"


def _typed(fact: Fact, digits: bool, ending: str | None) -> str:
    """A phrase as people type it: a number in digits, or a plural by this ending alone."""
    count, _, name = fact
    if count == 1:
        return _phrase(fact)
    text = _phrase(fact, str(count) if digits else "")
    return text if ending is None else text.removesuffix(plural(name)) + name + ending


def _listed(phrases: Sequence[str]) -> str:
    """'a, b and c'."""
    return " and ".join([part for part in (", ".join(phrases[:-1]), phrases[-1]) if part])


def _say(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _seen(scene: Scene) -> tuple[tuple[Fact, ...], str | None]:
    """The scene's facts in its own order."""
    kinds = [(thing.color, thing.name) for thing in scene.things]
    return tuple((kinds.count(kind), *kind) for kind in dict.fromkeys(kinds)), scene.relation


def _read(scene: Scene) -> Facts:
    """The scene's facts as one reads it: by the row and the column of the first thing of each."""
    seen, relation = facts(scene)
    if relation:  # the first is to the left or above
        return seen, relation

    def first(fact: Fact) -> tuple[int, int]:
        boxes = [t.box for t in scene.things if (t.color, t.name) == fact[1:]]
        return min(((y0 + y1) * ROWS // (2 * SIDE), x0 + x1) for x0, y0, x1, y1 in boxes)

    return tuple(sorted(seen, key=first)), None


def _sorted(seen: Sequence[Fact]) -> tuple[Fact, ...]:
    return tuple(sorted(seen, key=lambda fact: (-fact[0], fact[2], fact[1] or "")))


def _canonical(seen: Sequence[Fact], relation: str | None) -> Facts:
    """One form for all that means the same: left of and above only, else in sorted order."""
    if relation is None or len(seen) != 2:
        return _sorted(seen), None
    if relation in ("right of", "below"):
        return tuple(seen[::-1]), OPPOSITE[relation]
    return tuple(seen), relation


def _never(fact: Fact, seen: Sequence[Fact]) -> bool:
    """Whether training must not speak of a fact: it would teach that it does not exist."""
    count, color, name = fact
    return (
        bool(color and held_out(name, color))
        or held_out_count(name, count)
        or any(held_out_pair(name, other[2]) for other in seen if other[2] != name)
    )


def _whether(
    seen: Sequence[Fact], rng: np.random.Generator, names: Sequence[str]
) -> tuple[str, str]:
    """Is there a red car? A no changes one thing of a yes: the colour, the thing or the number."""
    fact = pick(rng, seen)
    there = bool(rng.random() < 0.5)
    count, color, name = fact
    if not there:
        shown = {(other[1], other[2]) for other in seen} | {(None, other[2]) for other in seen}
        kinds: list[list[Fact]] = [
            [(count, color, other) for other in names if (color, other) not in shown],
            [(count, c, name) for c in COLORS if color and (c, name) not in shown],
            [(n, color, name) for n in (2, 3, 4) if count > 1 and n != count],
        ]
        kinds = [[f for f in kind if not _never(f, seen)] for kind in kinds]
        fact = pick(rng, pick(rng, [kind for kind in kinds if kind]))
    return f"{_say(_are(fact[0]))[:-1]} there {_phrase(fact)}?", "Yes." if there else "No."


def _tinted(fact: Fact, color: str, rng: np.random.Generator) -> tuple[str, str]:
    """Is the car red? Of a thing that has a colour."""
    true = bool(rng.random() < 0.5)
    others = [c for c in COLORS if c != color and not held_out(fact[2], c)]
    said = color if true else pick(rng, others)
    return f"{_say(_are(fact[0]))[:-1]} the {_noun(fact)} {said}?", "Yes." if true else "No."


def _any(seen: Sequence[Fact], rng: np.random.Generator, names: Sequence[str]) -> tuple[str, str]:
    """Is there a car? By the name alone, which is what has to be found first."""
    shown = {fact[2] for fact in seen}
    there = bool(rng.random() < 0.5)
    others = [name for name in names if name not in shown]
    # With what is shown it may make a pair that training must not speak of.
    others = [name for name in others if not _never((1, None, name), seen)] or others
    name = pick(rng, sorted(shown)) if there else pick(rng, others)
    return f"Is there {_phrase((1, None, name))}?", "Yes." if there else "No."


def _where(seen: Sequence[Fact], relation: str, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Questions about how two things lie, asked from a side that is drawn."""
    (first, second), side = seen, relation
    if rng.random() < 0.5:
        first, second, side = second, first, OPPOSITE[relation]
    if first[2] == second[2]:
        return []
    true = bool(rng.random() < 0.5)
    said = side if true else OPPOSITE[side]
    return [
        (f"Where is the {first[2]}?", _say(f"{side} the {second[2]}")),
        (f"What is {side} the {second[2]}?", _say(_phrase(first))),
        (f"Is the {first[2]} {said} the {second[2]}?", "Yes." if true else "No."),
    ]
