"""What the stages are shown: the scene of a number, and what is said about it."""

from typing import Any

import numpy as np

from janus_kit.prompts import PRO
from janus_kit.training import language, world
from janus_kit.training.model_stage import Example
from janus_kit.training.vision_stage import patch_labels

__all__ = ["asked", "example", "held_out", "lesson", "novel", "picture", "texts"]

PATCH = 16  # pixels on the side of a place of the encoder
TINTS = 0.5  # the share of coloured things of lessons that are in tones between two colours
QUESTIONS = 14  # conversations of one turn about a picture, besides the description


def lesson(
    names: tuple[str, ...], easy: int, seed: int
) -> "tuple[np.ndarray[Any, Any], world.Scene]":
    """Scene number seed for the encoder: steady ones alone before number easy, a quarter later.

    One view of each thing is soon known; what is looked at, and where, then serves for all views.
    Every second shows four things: more views are seen in as many steps. Later ones have half of
    their coloured things in tones between two colours, so that no name hangs on one.
    """
    steady = seed < easy or seed % 4 == 0
    task, tints = ("crowd" if seed % 2 else None), (0.0 if steady else TINTS)
    return world.compose(seed, names=names, steady=steady, task=task, tints=tints)


def novel(names: tuple[str, ...], seed: int) -> "tuple[np.ndarray[Any, Any], world.Scene]":
    """Scene number seed of what training never shows, for the encoder."""
    return world.compose(seed, names=names, split="test")


def example(names: tuple[str, ...], seed: int, words: np.random.Generator) -> Example:
    """Scene number seed of those that are drawn, with a prompt and conversations by words."""
    return _told(world.compose(seed, names=names, steady=True), names, words)


def asked(names: tuple[str, ...], seed: int, words: np.random.Generator) -> Example:
    """Scene number seed of those that are asked about: any, or two coloured things, many, numbers.

    Of two alone is it seen whether an answer is about the thing that the question names, of two
    numbers alone can be asked which is larger, and without numbers of one kind each of its things
    is named alone. Nine of them, so that each is now steady and now not.
    """
    tasks = ("color_attr", "numbers", None, "dense", "crowd", "counting", "numbers", None, "dense")
    task = tasks[seed % len(tasks)]
    return _told(world.compose(seed, names=names, steady=seed % 4 < 2, task=task), names, words)


def held_out(
    names: tuple[str, ...], steady: bool, seed: int, words: np.random.Generator
) -> Example:
    """Scene number seed of what training never shows, with its words."""
    return _told(world.compose(seed, names=names, split="test", steady=steady), names, words)


def _told(
    composed: "tuple[np.ndarray[Any, Any], world.Scene]",
    names: tuple[str, ...],
    words: np.random.Generator,
) -> Example:
    pixels, scene = composed
    asked = language.questions(scene, words, names) + language.questions(scene, words, names)
    asked = list(dict.fromkeys(asked))
    asked = [asked[i] for i in words.permutation(len(asked))]
    told = (world.pick(words, language.DESCRIBE), language.caption(scene))
    long = (world.pick(words, language.IN_DETAIL), language.detailed(scene))
    dialogues = [[told], [long], *[[pair] for pair in asked[:QUESTIONS]], asked[-3:]]
    covered = patch_labels(scene, names, PATCH, len(pixels) // PATCH)[0].numpy()
    shown = [thing.name for thing in scene.things]
    about = {question: language.named(question) for question, _ in asked}
    return Example(
        pixels=pixels,
        prompt=language.prompt(scene, words),
        dialogues=dialogues,
        places=world.places(scene) if scene.steady else None,
        covered=covered > 0,
        sought={
            q: np.isin(covered, [names.index(n) + 1 for n in ns]) for q, ns in about.items() if ns
        },
        things={n: covered == names.index(n) + 1 for n in dict.fromkeys(shown)},
    )


def picture(
    names: tuple[str, ...], split: world.Split, seed: int
) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """Scene number seed for the VQ tokenizer: most show four things, so that little is ground."""
    task = None if seed % 4 == 0 else "crowd"
    pixels, scene = world.compose(seed, names=names, split=split, steady=True, task=task)
    return pixels, world.places(scene)


def texts(names: tuple[str, ...]) -> list[str]:
    """What the tokenizer is made from: the language of the world and the system prompt."""
    words = np.random.default_rng(0)
    lines = [PRO.system] * 50
    for seed in range(3000):
        scene = world.sketch(seed, names)
        lines += [language.prompt(scene, words), language.caption(scene), language.detailed(scene)]
        lines += [*language.DESCRIBE[:2], *language.IN_DETAIL]
        lines += [line for pair in language.questions(scene, words, names) for line in pair]
    return lines
