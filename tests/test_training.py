"""The training code: loops that resume exactly, rows that teach what they should, a fair judge."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_config
from PIL import Image
from torch import nn

from janus_kit.config import PRESETS, VisionConfig, VQConfig
from janus_kit.errors import CheckpointError, OptionError
from janus_kit.model import IGNORE, Janus, angles
from janus_kit.prompts import PRO, Tokenizer
from janus_kit.training import painting, world
from janus_kit.training.bank.heroes import HEROES
from janus_kit.training.bank.names import NAMES
from janus_kit.training.beginning import initialise, word_embeds
from janus_kit.training.evaluate import evaluate
from janus_kit.training.loop import Schedule, Stage, optimizers, train
from janus_kit.training.measures import psnr, share, ssim
from janus_kit.training.model_stage import (
    Example,
    answer_row,
    collate,
    draw_row,
    train_model,
)
from janus_kit.training.quantizer import BUSY, PatchBook, as_drawn, design, patches, to_pixels
from janus_kit.training.recipe import BUDGETS, lesson, texts, train_embedded
from janus_kit.training.vision_stage import half_spoilt, patch_labels, train_vision
from janus_kit.training.vq_stage import train_vq

SMALL_VQ = VQConfig(
    codebook_size=64,
    base_channels=32,
    latent_channels=32,
    channel_multiplier=(1, 1, 1, 1, 1),
    res_blocks=1,
)


class Fit(nn.Module):
    """A line to be fitted, with a kernel for Muon."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Conv2d(2, 3, 3)
        self.outside = nn.Linear(3, 1)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.outside(self.inside(batch).mean((2, 3)))
        return {"loss": (found - batch[:, :, 1:4, 1:4].mean((1, 2, 3))[:, None]).square().mean()}


def fit_batch(step: int) -> torch.Tensor:
    return torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(step))


def fit(folder: Path, steps: int, stop: int | None = None) -> dict[str, torch.Tensor]:
    """Train to the end, or raise KeyboardInterrupt at a step."""
    module = Fit()

    def batch(step: int) -> torch.Tensor:
        if step == stop:
            raise KeyboardInterrupt
        return fit_batch(step)

    stage = Stage(
        module=module,
        optimizers=optimizers(module, lambda name: name.startswith("inside"), 3e-2),
        batch=batch,
        schedule=Schedule(steps=steps, batch=4, rate=1e-2, warmup=3, save_every=5),
        average=0.9,
    )
    return train(stage, folder, precision="no")


def test_a_killed_run_goes_on_to_the_very_same_weights(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", 20)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", 20, stop=13)
    again = fit(tmp_path / "cut", 20)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_the_loop_learns_and_both_optimizers_move_their_parameters(tmp_path: Path) -> None:
    start = {k: v.clone() for k, v in Fit().state_dict().items()}
    end = fit(tmp_path, 60)
    assert all(not torch.allclose(start[name], end[name]) for name in start)
    module = Fit()
    module.load_state_dict(end)
    losses = [module(fit_batch(900 + i))["loss"].item() for i in range(8)]
    fresh = [Fit()(fit_batch(900 + i))["loss"].item() for i in range(8)]
    assert np.mean(losses) < 0.7 * np.mean(fresh)


def test_what_is_watched_is_logged_and_changes_nothing(tmp_path: Path) -> None:
    module, seen = Fit(), []

    def watch(step: int) -> dict[str, float]:
        seen.append(step)
        return {"held-out": 1.5}

    stage = Stage(
        module=module,
        optimizers=optimizers(module, lambda name: name.startswith("inside"), 3e-2),
        batch=fit_batch,
        schedule=Schedule(steps=20, batch=4, rate=1e-2, warmup=3, save_every=5, watch_every=8),
        average=0.9,
        watch=watch,
    )
    watched = train(stage, tmp_path / "watched", precision="no")
    assert seen == [8, 16, 20]
    lines = [json.loads(x) for x in (tmp_path / "watched/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "held-out" in line] == [7, 15, 19]
    plain = fit(tmp_path / "plain", 20)
    assert all(torch.equal(watched[name], plain[name]) for name in plain)


def test_a_state_of_another_stage_is_refused_with_its_file_named(tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match=r"state\.pt: not a state of this stage"):
        fit(tmp_path, 5)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 0}, {"rate": 0.0}])
def test_an_impossible_schedule_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Schedule(**{"steps": 1, "batch": 1, "rate": 1.0, **wrong})


def test_the_rate_rises_holds_and_falls() -> None:
    scale = Schedule(steps=100, batch=1, rate=1.0, warmup=10, hold=0.5, floor=0.1).scale
    assert scale(0) == pytest.approx(0.1)
    assert scale(10) == scale(50) == 1.0
    assert scale(75) == pytest.approx(0.55)
    assert scale(99) < 0.13


@pytest.fixture
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(tokenizer_folder)


def test_a_drawing_row_teaches_every_code_and_nothing_else(tokenizer: Tokenizer) -> None:
    row = draw_row(tokenizer, PRO, "a red apple", [7, 8, 9], drop=False)
    assert row.tokens[0] == tokenizer.bos
    assert [c for c in row.codes if c >= 0] == [7, 8]
    assert [c for c in row.code_labels if c != IGNORE] == [7, 8, 9]
    first = row.code_labels.index(7)
    assert row.tokens[first] == tokenizer.begin_image  # the code that follows begin_image
    assert row.codes[first + 1] == 7
    assert row.code_labels[first + 1] == 8
    assert set(row.text_labels) == {IGNORE}


def test_a_dropped_prompt_keeps_its_length_and_loses_its_words(tokenizer: Tokenizer) -> None:
    kept = draw_row(tokenizer, PRO, "a red apple", [7, 8, 9], drop=False)
    lost = draw_row(tokenizer, PRO, "a red apple", [7, 8, 9], drop=True)
    assert len(kept.tokens) == len(lost.tokens)
    assert kept.code_labels == lost.code_labels
    words = lost.tokens[1 : lost.code_labels.index(7)]
    assert set(words) == {tokenizer.pad}


def test_a_hidden_code_is_learnt_but_not_read(tokenizer: Tokenizer) -> None:
    row = draw_row(tokenizer, PRO, "a star", [7, 8, 9], drop=False, hidden=[True, False, True])
    assert [c for c in row.code_labels if c != IGNORE] == [7, 8, 9]
    assert row.codes[-2:] == [-1, 8]
    assert row.tokens[-2] == tokenizer.pad


def test_an_answering_row_teaches_the_answers_and_their_ends(tokenizer: Tokenizer) -> None:
    row = answer_row(tokenizer, PRO, [[("What is it?", "An apple."), ("Red?", "Yes.")]], 4)
    learnt = [token for token in row.text_labels if token != IGNORE]
    ends = [i for i, token in enumerate(learnt) if token == tokenizer.eos]
    assert len(ends) == 2
    assert tokenizer.decode(learnt[: ends[0]]).strip() == "An apple."
    assert tokenizer.decode(learnt[ends[0] + 1 : ends[1]]).strip() == "Yes."
    assert row.tokens.count(tokenizer.image) == 4
    place = row.text_labels.index(learnt[0])
    assert row.tokens[place + 1] == learnt[0]  # the label is the token that comes next


def test_branches_of_a_row_teach_what_rows_of_their_own_do(tokenizer: Tokenizer) -> None:
    config = tiny_config()
    janus = Janus(config)
    initialise(janus, None, None, tokenizer, 0)
    for layer in janus.language.layers:  # silent blocks would hide what they attend to
        for parameter in layer.parameters():
            parameter.data += torch.linspace(-0.2, 0.2, parameter.numel()).view(parameter.shape)
    dialogues = [[("What is it?", "An apple."), ("Red?", "Yes.")], [("How many?", "Four.")]]
    side = config.vision.image_size
    pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def loss(chosen: list[Any]) -> torch.Tensor:
        row = answer_row(tokenizer, PRO, chosen, config.vision.tokens)
        return janus.loss(collate([row], tokenizer, torch.device("cpu"), pixels)).text

    def answers(chosen: list[Any]) -> int:
        row = answer_row(tokenizer, PRO, chosen, config.vision.tokens)
        return sum(label != IGNORE for label in row.text_labels)

    counts = [answers([dialogue]) for dialogue in dialogues]
    apart = sum(loss([d]) * n for d, n in zip(dialogues, counts, strict=True)) / sum(counts)
    assert answers(dialogues) == sum(counts)
    assert torch.allclose(loss(dialogues), torch.as_tensor(apart), atol=1e-5)
    assert torch.allclose(loss(dialogues[::-1]), loss(dialogues), atol=1e-5)


def test_rows_are_padded_on_the_right_and_padding_teaches_nothing(tokenizer: Tokenizer) -> None:
    rows = [draw_row(tokenizer, PRO, p, [1, 2], drop=False) for p in ("a", "a much longer prompt")]
    batch = collate(rows, tokenizer, torch.device("cpu"))
    assert batch.tokens.shape == batch.code_labels.shape
    assert batch.tokens[0, -1] == tokenizer.pad
    assert batch.code_labels[0, -1] == IGNORE
    assert batch.tokens[0, 0] == tokenizer.bos


@pytest.mark.usefixtures("pictures")
def test_the_vq_stage_learns_and_resumes_exactly(tmp_path: Path) -> None:
    def scenes(seed: int) -> Any:
        return world.compose(seed, names=FEW, steady=True)[0][128:256, 128:256]

    plan = Schedule(steps=3, batch=1, rate=1e-3, warmup=1, save_every=1)
    book = small_book(4, SMALL_VQ.codebook_size)
    torch.set_num_threads(1)
    whole = train_vq(SMALL_VQ, scenes_of_any_size(scenes), book, tmp_path / "a", plan)

    class Stop(Exception):
        pass

    def cut(seed: int) -> Any:
        if seed == 1:
            raise Stop
        return scenes(seed)

    with pytest.raises(Stop):
        train_vq(SMALL_VQ, scenes_of_any_size(cut), book, tmp_path / "b", plan)
    again = train_vq(SMALL_VQ, scenes_of_any_size(scenes), book, tmp_path / "b", plan)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    norms = whole.codebook.weight.norm(dim=-1)
    assert torch.allclose(norms, torch.ones_like(norms), atol=1e-5)


FEW = NAMES[1:7]


def scenes_of(few: tuple[str, ...], count: int) -> list[world.Scene]:
    return [world.compose(seed, names=few, steady=True)[1] for seed in range(count)]


def small_book(count: int, codes: int, few: tuple[str, ...] = FEW) -> PatchBook:
    """Codes laid out over some steady scenes of few things."""
    scenes = scenes_of(few, count)
    plain = [world.render(world.unpainted(scene)) for scene in scenes]
    return design(world.empty(), plain, map(world.in_all_colors, scenes), codes)


@pytest.mark.usefixtures("pictures")
def test_a_thing_has_the_same_codes_wherever_it_stands() -> None:
    book = small_book(30, 512)
    thing = painting.cutout(HEROES["bicycle"], world.COLORS["red"], 144)
    pictures = []
    places = [(32, 32), (208, 144)]
    for place in places:
        picture = Image.new("RGB", (384, 384), painting.GROUNDS["sand"])
        picture.paste(thing, place, thing)
        pictures.append(np.array(picture))
    found = book.codes(to_pixels(pictures)).view(2, 24, 24)
    first, second = (found[i, y // 16 :, x // 16 :][:7, :7] for i, (x, y) in enumerate(places))
    assert torch.equal(first, second)
    assert len(torch.unique(first)) > 8


@pytest.mark.usefixtures("pictures")
def test_a_thing_has_the_same_forms_in_every_colour() -> None:
    book = small_book(30, 1024)
    calm, busy = book.ground + book.own[0], len(book.calm) + book.own[1]
    smooth, forms = (len(book.calm) - calm) // 10, (len(book.busy) - book.own[1]) // 10
    scene = world.compose(10_000, names=FEW, steady=True)[1]
    found = book.codes(to_pixels(world.in_all_colors(scene)))
    assert ((found >= calm) & (found < len(book.calm)) | (found >= busy)).any()
    for color, row in enumerate(found):
        both = (row >= busy) & (found[0] >= busy)
        if both.sum() > 20:
            assert ((row - busy) % forms == (found[0] - busy) % forms)[both].float().mean() > 0.5
            assert ((row - busy) // forms == color)[both].float().mean() > 0.8
        inside = (row >= calm) & (row < len(book.calm))
        if inside.any():
            assert ((row - calm) // smooth == color)[inside].float().mean() > 0.8


@pytest.mark.usefixtures("pictures")
def test_things_in_their_own_colours_have_codes_of_their_own() -> None:
    book = small_book(30, 1024)
    scene = world.unpainted(world.compose(10_001, names=FEW, steady=True)[1])
    found = book.codes(to_pixels([world.render(scene)]))[0]
    own_busy = (found >= len(book.calm)) & (found < len(book.calm) + book.own[1])
    own_calm = (found >= book.ground) & (found < book.ground + book.own[0])
    things = ~(found < book.ground)
    assert things.sum() > 20
    assert (own_busy | own_calm)[things].float().mean() > 0.9


@pytest.mark.usefixtures("pictures")
def test_a_saved_book_gives_the_same_codes_and_another_file_is_refused(tmp_path: Path) -> None:
    book = small_book(10, 256)
    book.save(tmp_path / "patches.safetensors")
    again = PatchBook.load(tmp_path / "patches.safetensors")
    assert torch.equal(book.calm, again.calm)
    assert torch.equal(book.busy, again.busy)
    assert (book.ground, book.own, book.colors) == (again.ground, again.own, again.colors)
    assert [path.name for path in tmp_path.iterdir()] == ["patches.safetensors"]
    (tmp_path / "torn.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"torn\.safetensors: holds no patches"):
        PatchBook.load(tmp_path / "torn.safetensors")


@pytest.mark.usefixtures("pictures")
def test_painted_codes_show_what_they_stand_for() -> None:
    book = small_book(40, 512)
    pixels = to_pixels([world.compose(9_000 + i, names=FEW, steady=True)[0] for i in range(4)])
    painted = book.paint(book.codes(pixels))
    assert painted.shape == pixels.shape
    error = (painted - pixels).abs().mean()
    assert error < 0.05
    shuffled = book.paint(book.codes(pixels.flip(-1)))
    assert (shuffled - pixels).abs().mean() > 2 * error


@pytest.mark.usefixtures("pictures")
def test_half_of_the_pictures_are_shown_as_drawn_ones_would_look() -> None:
    book = small_book(40, 512)
    pixels = to_pixels([world.compose(9_000 + i)[0] for i in range(8)])
    spoil = partial(as_drawn, book)
    shown = half_spoilt(pixels, spoil, np.random.default_rng(3))
    kept = [torch.equal(a, b) for a, b in zip(shown, pixels, strict=True)]
    assert 1 <= sum(kept) <= 7
    assert torch.equal(shown, half_spoilt(pixels, spoil, np.random.default_rng(3)))
    assert 0.005 < (shown - pixels)[[not k for k in kept]].abs().mean() < 0.1
    assert shown.abs().max() <= 1
    assert half_spoilt(pixels, None, np.random.default_rng(3)) is pixels


def test_codes_of_one_colour_or_one_form_begin_as_kin() -> None:
    # Of each colour one calm form and three busy ones.
    book = PatchBook(torch.zeros(7, 3), torch.zeros(14, 192), ground=2, own=(1, 2), colors=4)
    traits = torch.nn.functional.normalize(book.traits(4096, 0), dim=-1)
    alike = traits @ traits.T
    a, same_color, same_form, other = 9, 10, 12, 13  # of the busy ones in colours, from 9 on
    assert alike[a, same_color] == pytest.approx(0.5, abs=0.1)
    assert alike[a, same_form] == pytest.approx(0.5, abs=0.1)
    assert alike[a, other] == pytest.approx(0.0, abs=0.1)
    assert alike[a, 3] == pytest.approx(0.5, abs=0.1)  # the calm code of the same colour
    for alone in (0, 2, 7):  # ground, and own colours
        assert alike[a, alone] == pytest.approx(0.0, abs=0.1)


def test_a_fresh_model_tells_columns_and_rows_and_looks_above(tokenizer_folder: Path) -> None:
    config = PRESETS["tiny"]
    tokenizer = Tokenizer.from_folder(tokenizer_folder)
    config = replace(config, language=replace(config.language, vocab_size=1024))
    janus = Janus(config)
    torch.manual_seed(0)
    calm, busy = torch.randn(232, 3), torch.randn(7960, 192)
    book = PatchBook(calm, busy, ground=92, own=(60, 1960), colors=10)
    initialise(janus, book, None, tokenizer, 0)
    row = draw_row(tokenizer, PRO, "a red apple", list(range(576)), drop=False)
    batch = collate([row], tokenizer, torch.device("cpu"))
    start, t = row.tokens.index(tokenizer.begin_image), len(row.tokens)
    embeds = janus.embed(batch.tokens, -1, [])
    drawn = batch.codes >= 0
    embeds = embeds.masked_scatter(drawn.unsqueeze(-1), janus.embed_codes(batch.codes[drawn]))
    layer: Any = janus.language.layers[0]
    cos, sin = angles(config.language, torch.arange(t)[None, None], torch.float32)
    q, k, _ = layer.attention.split(layer.attention.qkv(layer.norm1(embeds)), cos, sin)
    seen = torch.ones(t, t, dtype=torch.bool).tril()
    looks = (q @ k.mT / 8)[0].masked_fill(~seen, -torch.inf).softmax(-1)
    assert looks[0, start + 200, start + 200 - 23] > 0.9
    column = looks[1, start:, start]
    assert column[96] > 2 * column[96 + 12]  # the first of a row against its middle
    assert column[120] > 2 * column[120 + 12]
    down = looks[3, start::24, start]
    assert (down.diff() < 0.05).all()
    assert down[0] > 0.9 > 0.1 > down[-1]


def test_a_thing_begins_where_a_busy_code_stands_below_a_calm_one() -> None:
    book = PatchBook(torch.zeros(2, 3), torch.zeros(2, 192), ground=1, own=(0, 0), colors=1)
    codes = torch.tensor([[2, 0, 0, 3, 3, 1, 0, 2, 0]])  # 2 and 3 are busy
    expected = torch.tensor([[1, 0, 0, 0, 1, 0, 0, 0, 0]])
    assert book.outlines(codes).long().tolist() == expected.tolist()


def test_codes_count_as_much_as_their_weights(tokenizer: Tokenizer) -> None:
    config = tiny_config()
    torch.manual_seed(1)
    janus = Janus(config)
    codes = torch.arange(config.codes).tolist()
    row = draw_row(tokenizer, PRO, "a star", codes, drop=False)
    batch = collate([row], tokenizer, torch.device("cpu"))
    first = torch.zeros(batch.codes.shape)
    first[batch.code_labels == 0] = 3.0  # all weight on the label of code 0
    rest = 1 - (first > 0).float()
    parts = [janus.loss(replace(batch, code_weights=w)).code for w in (first, rest)]
    plain = janus.loss(batch).code
    assert torch.allclose(plain, (parts[0] + parts[1] * (len(codes) - 1)) / len(codes), atol=1e-5)
    assert not torch.allclose(parts[0], parts[1])


@pytest.mark.usefixtures("pictures")
def test_a_code_stands_for_the_patch_that_is_nearest() -> None:
    book = small_book(10, 256)
    calm = len(book.calm)
    assert calm + len(book.busy) == 256
    pixels = to_pixels([world.compose(7, names=FEW, steady=True)[0]])
    found = patches(pixels)
    for patch, code in zip(found, book.codes(pixels)[0].tolist(), strict=True):
        if code < calm:
            assert patch.std(-1).max() <= BUSY
            nearest = (book.calm - patch.mean(-1)).norm(dim=-1)
        else:
            nearest = (book.busy - patch.flatten()).norm(dim=-1)
        assert nearest[code % calm if code < calm else code - calm] <= nearest.min() + 1e-4
    vectors = book.vectors(8)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(256), atol=1e-5)


def scenes_of_any_size(scenes: Any) -> Any:
    """Small scenes repeated to 384 pixels, so that whole pictures exist."""
    return lambda seed: np.tile(scenes(seed), (3, 3, 1))


def test_the_model_stage_trains_all_but_the_encoder_and_the_tokenizer(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    config = tiny_config()
    tokenizer = Tokenizer.from_folder(tokenizer_folder)
    torch.manual_seed(3)
    start = Janus(config)

    def example(seed: int, words: np.random.Generator) -> Example:
        size = config.vision.image_size
        pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
        return Example(pixels=pixels, prompt="a red apple", dialogues=[[("What?", "An apple.")]])

    plan = Schedule(steps=6, batch=2, rate=5e-3, warmup=1, save_every=3)
    calm, busy = torch.linspace(-1, 1, 48).view(16, 3), torch.randn(48, 192)
    book = PatchBook(calm, busy, ground=8, own=(4, 8), colors=4)
    torch.manual_seed(3)
    janus = train_model(config, book, tokenizer, example, example, tmp_path, plan)
    initialise(start, book, None, tokenizer, 0)
    for name, value in start.named_parameters():
        kept = torch.equal(value, janus.get_parameter(name))
        assert kept == name.startswith(("vq.", "vision.", "vision_aligner.")), name
    log = (tmp_path / "log.jsonl").read_text().splitlines()
    assert "text" in log[0]
    assert "code" in log[-1]
    again = train_model(config, book, tokenizer, example, example, tmp_path, plan)
    for name, value in janus.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.usefixtures("pictures")
def test_every_patch_that_a_thing_covers_is_labelled_with_it() -> None:
    for seed in range(20):
        _, scene = world.compose(seed)
        labels = patch_labels(scene, NAMES, 16, 24).view(2, 24, 24)
        covered = torch.zeros(24, 24, dtype=torch.bool)
        for thing in scene.things:
            there = torch.from_numpy(world.mask(thing)).view(24, 16, 24, 16).float().mean((1, 3))
            whole = there == 1
            covered |= there > 0.1
            if whole.any() and len({t.name for t in scene.things}) == 1:
                color = list(world.COLORS).index(thing.color) + 1 if thing.color else 0
                assert (labels[0][whole] == NAMES.index(thing.name) + 1).all()
                assert (labels[1][whole] == color).all()
        assert torch.equal(labels[0] > 0, covered)


@pytest.mark.usefixtures("pictures")
def test_the_vision_stage_learns_and_is_taken_over_with_its_aligner(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    config = VisionConfig(width=32, layers=1, heads=2, intermediate=32)
    plan = Schedule(steps=30, batch=2, rate=1e-2, warmup=2, save_every=50)
    scenes = partial(world.compose, names=FEW)
    tokenizer = Tokenizer.from_folder(tokenizer_folder)
    tiny = replace(PRESETS["tiny"], vision=config)
    tiny = replace(tiny, language=replace(tiny.language, vocab_size=1024))
    embeds = word_embeds(tiny.language, 0)
    words = (embeds[: len(FEW)], embeds[100 : 100 + len(world.COLORS)])
    learner = train_vision(config, scenes, FEW, words, tmp_path, plan)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    janus = Janus(tiny)
    initialise(janus, None, learner, tokenizer, 0)
    taken = janus.vision.state_dict()
    assert all(torch.equal(v, taken[k]) for k, v in learner.vision.state_dict().items())
    # Patches and words lie in one space: a feature is as near to a word as the stage left it.
    features = learner.vision(to_pixels([scenes(9)[0]]))
    before, after = learner.aligner(features), janus.vision_aligner(features)
    near = torch.cosine_similarity(before[..., 4:], after[..., 4:], dim=-1)
    assert near.min() > 0.999
    told = janus.language.embed.weight[: len(FEW), 4:]
    assert torch.cosine_similarity(told, words[0][:, 4:], dim=-1).min() > 0.999


def test_an_unknown_budget_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="budget must be cpu"):
        train_embedded(tmp_path, budget="huge")


def test_the_world_can_be_told_in_the_words_of_the_tokenizer() -> None:
    lines = texts(NAMES)
    assert PRO.system in lines
    assert any("left of" in line for line in lines)
    assert all(any(name in line.lower() for line in lines) for name in NAMES)
    assert not any("<|" in line for line in lines)


def test_a_steady_lesson_comes_first_and_then_one_in_four() -> None:
    def steady(seed: int) -> bool:
        return lesson(NAMES, 8, seed)[1].room is None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "render", lambda scene: np.zeros((384, 384, 3), np.uint8))
        assert [steady(seed) for seed in range(13)] == [*[True] * 9, False, False, False, True]


def test_an_interval_holds_its_share_and_narrows() -> None:
    few, many = share(9, 10), share(900, 1000)
    assert few["low"] < 0.9 < few["high"]
    assert many["high"] - many["low"] < few["high"] - few["low"]
    assert share(0, 0)["high"] == 1.0


def test_psnr_and_ssim_are_those_of_the_papers() -> None:
    random = np.random.default_rng(0)
    true = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert psnr(true, true) > 100
    assert ssim(true, true) == pytest.approx(1.0)
    off = np.clip(true.astype(int) + 10, 0, 255).astype(np.uint8)
    flat = np.full((32, 32, 3), 100, np.uint8)
    assert psnr(flat, flat + 10) == pytest.approx(28.13, abs=0.01)
    # Without any structure only the means count: (2ab + C1) / (a² + b² + C1).
    a, b, c = 100.0, 110.0, (0.01 * 255) ** 2
    assert ssim(flat, flat + 10) == pytest.approx((2 * a * b + c) / (a * a + b * b + c))
    assert 0.9 < ssim(true, off) < 1
    assert abs(ssim(true, true[::-1].copy())) < 0.2


@pytest.mark.slow
@pytest.mark.usefixtures("pictures")
def test_the_whole_recipe_runs_and_its_model_loads_in_transformers(tmp_path: Path) -> None:
    from transformers import JanusForConditionalGeneration

    from janus_kit import JanusPipeline

    folder = train_embedded(tmp_path, budget="small")
    pipe = JanusPipeline.from_pretrained(folder)
    assert pipe("a red cup", seed=1, output_type="tokens").codes.shape == (1, 576)
    assert "zebra" in (folder / "words.txt").read_text().split()
    lines = (tmp_path / "model_stage/log.jsonl").read_text().splitlines()
    (held_out,) = [json.loads(line) for line in lines if "held-out" in line]
    assert held_out["held-out code"] > 0 < held_out["held-out text"]
    with Image.open(tmp_path / "model_stage/samples/000004.png") as sheet:
        assert sheet.size == (768, 768)
    JanusForConditionalGeneration.from_pretrained(folder)
    longer = train_embedded(tmp_path / "longer", budget="small", start=folder)
    for name in ("tokenizer.json", "patches.safetensors"):
        assert (longer / name).read_bytes() == (folder / name).read_bytes()
    old, new = (JanusPipeline.from_pretrained(path).model.state_dict() for path in (folder, longer))
    moved = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert {"language", "vision", "vq", "code_head"} <= moved
    near = torch.nn.functional.cosine_similarity
    name = "language.layers.0.attention.qkv.weight"
    assert near(old[name].flatten(), new[name].flatten(), dim=0) > 0.99  # not begun anew


@pytest.mark.slow
def test_two_processes_train_as_one_and_the_world_size_is_two(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from accelerate import PartialState\n"
        "state = PartialState(cpu=True)\n"
        "assert state.num_processes == 2, state.num_processes\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_training import fit\n"
        "weights = fit(Path(sys.argv[1]), 4)\n"
        "torch.save(weights, Path(sys.argv[1]) / f'{state.process_index}.pt')\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc_per_node=2",
            "--master_port=29517",
            str(script),
            str(tmp_path),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_budget_uses_a_known_preset() -> None:
    assert {budget.preset for budget in BUDGETS.values()} <= set(PRESETS)


def test_an_evaluation_fetches_what_its_check_needs_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise OptionError("the detector cannot be had")

    monkeypatch.setattr("janus_kit.training.evaluate.fetch_efficientdet", refuse)
    with pytest.raises(OptionError, match="cannot be had"):
        evaluate(scenes=1)
