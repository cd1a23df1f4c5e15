"""A head is taught where to look: at what a question names, as answers begin."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_config

from janus_kit.model import IGNORE, Batch, Janus, branching
from janus_kit.prompts import PRO, Tokenizer
from janus_kit.training import language, world
from janus_kit.training.bank.names import NAMES
from janus_kit.training.lessons import asked, example
from janus_kit.training.looking import Gaze, Looks, looks
from janus_kit.training.model_stage import answer_row, collate

CUP = [("Is there a cup?", "Yes."), ("What color is the cup?", "Red.")]
DOG = [("Is there a dog?", "No.")]
WHERE = np.arange(16) % 5 == 0  # the places of the cup
SOUGHT = {CUP[0][0]: WHERE, CUP[1][0]: WHERE, DOG[0][0]: np.zeros(16, dtype=bool)}
TALK = [("What is this?", "A red cup.")]


@pytest.fixture
def batch(tokenizer_folder: Path) -> Batch:
    """Two pictures; of the second one conversation is about nothing that is named."""
    tokenizer = Tokenizer.from_folder(tokenizer_folder)
    rows = [answer_row(tokenizer, PRO, told, 16) for told in ([CUP, DOG], [TALK, DOG])]
    return collate(rows, tokenizer, torch.rand(2, 3, 64, 64))


@pytest.fixture
def wanted(batch: Batch) -> Looks:
    return looks(batch, [[CUP, DOG], [TALK, DOG]], [SOUGHT, SOUGHT])


def test_every_answer_about_one_thing_looks_at_its_places_or_at_the_start(
    batch: Batch, wanted: Looks, tokenizer_folder: Path
) -> None:
    tokenizer = Tokenizer.from_folder(tokenizer_folder)
    assert wanted.rows.tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    said = [batch.text_labels[r, p].item() for r, p in zip(wanted.rows, wanted.places, strict=True)]
    answers = [tokenizer.encode(" " + answer)[:2] for _, answer in (*CUP, *DOG, *DOG)]
    assert said == [token for begin in answers for token in begin]
    start = batch.tokens[0].tolist().index(batch.image_token)
    for sought in wanted.sought[:4]:
        assert (sought.nonzero().flatten() - start).tolist() == WHERE.nonzero()[0].tolist()
    for sought in wanted.sought[4:]:
        assert sought.nonzero().tolist() == [[0]]


def test_places_are_found_where_others_are_left_out(tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(tokenizer_folder)
    looked = WHERE | (np.arange(16) % 2 == 0)
    row = answer_row(tokenizer, PRO, [CUP], 16, looked.tolist())
    batch = collate([row], tokenizer, torch.rand(1, 3, 64, 64), torch.from_numpy(looked)[None])
    start = row.tokens.index(tokenizer.image)
    for sought in looks(batch, [[CUP]], [SOUGHT]).sought:
        assert (sought.nonzero().flatten() - start).tolist() == [
            looked[:place].sum() for place in WHERE.nonzero()[0]
        ]


def test_an_answer_looks_at_a_thing_before_it_names_or_colors_it(tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(tokenizer_folder)
    told = [("What do you see?", "A red cup left of a dog and two knives.")]
    there = {"cup": WHERE, "dog": ~WHERE}
    row = answer_row(tokenizer, PRO, [told], 16)
    batch = collate([row], tokenizer, torch.rand(1, 3, 64, 64))
    found = looks(batch, [[told]], [{}], [there], tokenizer)
    start = row.tokens.index(tokenizer.image)
    sought = [(s.nonzero().flatten() - start).tolist() for s in found.sought]
    first = ("A", "A", "red", "cup")  # of the first word, which a blank stands before
    names = ["cup"] * len(first) + ["dog"] * 2
    order = found.places.argsort().tolist()
    assert [sought[i] for i in order] == [there[n].nonzero()[0].tolist() for n in names]
    for place, text in zip(found.places[order], (*first, "a", "dog"), strict=True):
        rest = [n for n in row.text_labels[place:] if n not in (IGNORE, tokenizer.eos)]
        assert tokenizer.decode(rest).lstrip().startswith(text)


def test_what_compares_looks_at_both_and_not_at_the_answer_alone(tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(tokenizer_folder)
    question = "Are there more cups or dogs?"
    told, both = [(question, "Cups.")], np.arange(16) < 9
    row = answer_row(tokenizer, PRO, [told], 16)
    batch = collate([row], tokenizer, torch.rand(1, 3, 64, 64))
    found = looks(batch, [[told]], [{question: both}], [{"cup": WHERE}], tokenizer)
    start = row.tokens.index(tokenizer.image)
    for sought in found.sought:
        assert (sought.nonzero().flatten() - start).tolist() == both.nonzero()[0].tolist()
    assert len(found.sought) == 2


def test_the_loss_is_the_attention_that_lies_elsewhere(batch: Batch, wanted: Looks) -> None:
    torch.manual_seed(0)
    janus = Janus(tiny_config())
    gaze = Gaze(janus)
    janus.loss(batch)
    assert gaze.read is not None
    q, k, _ = gaze.attention.split(gaze.attention.qkv(gaze.read[0]), *gaze.read[1:])
    assert batch.branches is not None
    seen = branching(batch.branches)[1][:, 0]
    weights = (q[:, 3] @ k[:, 1].mT * 8**-0.5).masked_fill(~seen, -torch.inf).softmax(-1)
    shares = [
        weights[row, place][sought].sum().log()
        for row, place, sought in zip(wanted.rows, wanted.places, wanted.sought, strict=True)
    ]
    assert torch.allclose(gaze.loss(batch, wanted), -torch.stack(shares).mean(), atol=1e-5)


def test_a_head_soon_looks_where_it_is_told_to(batch: Batch, wanted: Looks) -> None:
    torch.manual_seed(0)
    janus = Janus(tiny_config())
    gaze = Gaze(janus)
    learner = torch.optim.Adam(janus.language.parameters(), lr=1e-2)
    figures = []
    for _ in range(30):
        janus.loss(batch)
        loss = gaze.loss(batch, wanted)
        figures.append(loss.item())
        learner.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        learner.step()
    assert figures[-1] < 0.2 < 1 < figures[0]


def test_where_nothing_is_named_nothing_is_lost(batch: Batch) -> None:
    janus = Janus(tiny_config())
    gaze = Gaze(janus)
    janus.loss(batch)
    none = looks(batch, [[CUP, DOG], [TALK, DOG]], [{}, {}])
    assert gaze.loss(batch, none) == 0


@pytest.mark.usefixtures("pictures")
def test_the_world_tells_where_what_its_questions_name_is() -> None:
    absent = shown = 0
    for seed in (*range(12), *range(200, 260)):  # among the later ones some compare
        told = example(NAMES, seed, np.random.default_rng(seed))
        _, scene = world.compose(seed, names=NAMES, steady=True)
        there = {thing.name for thing in scene.things}
        asked = {question for dialogue in told.dialogues for question, _ in dialogue}
        assert told.sought.keys() & asked
        for question, places in told.sought.items():
            names = language.named(question)
            assert places.any() == bool(there & {*names}), question
            shown += bool(there & {*names})
            absent += not there & {*names}
            for thing in scene.things:
                if thing.name in names:
                    whole = world.mask(thing).reshape(24, 16, 24, 16).all((1, 3)).flatten()
                    covered = np.zeros(576, dtype=bool)
                    for other in scene.things:
                        if other.name not in names:
                            covered |= (
                                world.mask(other).reshape(24, 16, 24, 16).any((1, 3)).flatten()
                            )
                    assert places[whole & ~covered].all()
    assert min(absent, shown) > 5


@pytest.mark.usefixtures("pictures")
def test_what_is_asked_about_is_two_of_two_colors_many_numbers_and_any() -> None:
    tasks = ("color_attr", "numbers", None, "dense", "crowd", "counting", "numbers", None, "dense")
    steady = {task: set() for task in tasks}  # type: dict[str | None, set[bool]]
    compared = 0
    for seed in range(36):
        task, still = tasks[seed % 9], seed % 4 < 2
        pixels, scene = world.compose(seed, task=task, steady=still)
        told = asked(NAMES, seed, np.random.default_rng(seed))
        assert np.array_equal(told.pixels, pixels)
        both = [n for n in map(language.named, told.sought) if len(n) == 2]
        compared += bool(both)
        if task == "numbers":
            assert {*both[0]} == {thing.name for thing in scene.things}
        assert scene.steady == still
        steady[task].add(still)
    assert all(found == {True, False} for found in steady.values())
    assert compared >= 8
