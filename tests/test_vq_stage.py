"""The VQ stage: what a step looks at and teaches, and that it resumes exactly."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backbone_parts import random_weights
from codes_parts import FEW, SMALL_VQ, small_book
from PIL import Image

from janus_kit.training import world
from janus_kit.training.loop import Schedule
from janus_kit.training.perceptual import Perceptual
from janus_kit.training.quantizer import NEAR, to_pixels
from janus_kit.training.vq_stage import (
    MISREAD,
    Exercise,
    Lesson,
    VQLearner,
    collages,
    misread,
    train_vq,
)
from janus_kit.training.watching import PaintingWatch


@pytest.mark.usefixtures("pictures")
def test_the_vq_stage_learns_and_resumes_exactly(tmp_path: Path) -> None:
    def scenes(seed: int) -> Any:
        picture, scene = world.compose(seed, names=FEW, steady=True)
        return picture[128:256, 128:256], world.places(scene)[8:16, 8:16]

    plan = Schedule(steps=3, batch=1, rate=1e-3, warmup=1, save_every=1)
    book = small_book(4, SMALL_VQ.codebook_size)
    turns = (
        (0.9, (Exercise(sketch=1, tiles=3), Exercise(named=True))),
        (1.0, (Exercise(top=True),)),
    )
    torch.set_num_threads(1)
    whole = train_vq(SMALL_VQ, scenes, book, tmp_path / "a", plan, exercises=turns)

    class Stop(Exception):
        pass

    def cut(seed: int) -> Any:
        if seed == 9:
            raise Stop
        return scenes(seed)

    with pytest.raises(Stop):
        train_vq(SMALL_VQ, cut, book, tmp_path / "b", plan, exercises=turns)
    again = train_vq(SMALL_VQ, scenes, book, tmp_path / "b", plan, exercises=turns)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    norms = whole.codebook.weight.norm(dim=-1)
    assert torch.allclose(norms, torch.ones_like(norms), atol=1e-5)


@pytest.mark.usefixtures("pictures")
def test_misread_codes_are_busy_ones_of_some_pictures_and_show_what_is_near() -> None:
    book = small_book(10, 256)
    found = [world.compose(seed, names=FEW, steady=True, task="crowd") for seed in range(20)]
    codes = book.codes(to_pixels([picture for picture, _ in found]))
    again, seen = (misread(book, codes, np.random.default_rng(1)) for _ in range(2))
    assert torch.equal(again, seen)
    wrong = seen != codes
    assert (codes[wrong] >= len(book.calm)).all()
    busy = (codes >= len(book.calm)).sum(1)
    touched = wrong.any(1)
    assert 4 < int(touched.sum()) < 16
    assert (wrong.sum(1) < 2 * MISREAD * busy).all()
    for row, code, other in zip(wrong.nonzero()[:, 0], codes[wrong], seen[wrong], strict=True):
        assert other in book.near[code] or other in codes[row]
    whole = book.whole()
    assert (book.near[:, 0] == torch.arange(256)).float().mean() > 0.9  # equal patches may swap
    nearest = (whole[:, None] - whole).norm(dim=-1).topk(NEAR, largest=False).values
    away = (whole[:, None] - whole[book.near]).norm(dim=-1)
    assert torch.allclose(away, nearest, atol=0.02)


@pytest.mark.usefixtures("pictures")
def test_a_sketch_is_painted_by_the_lower_levels_and_teaches_those_alone() -> None:
    book = small_book(4, SMALL_VQ.codebook_size)
    learner = VQLearner(SMALL_VQ, book, 0)
    pixels = to_pixels([world.compose(1, names=FEW, steady=True)[0][:128, :128]])
    codes = book.codes(pixels)
    for halved in (1, 2):
        latents = learner.vq.latents(learner.vq.codebook(codes), 8)
        assert learner.paint(latents, halved).shape == (1, 3, 128 >> halved, 128 >> halved)
        learner.zero_grad()
        learner(Lesson(pixels, codes, codes, sketch=halved))["loss"].backward()
        moved = {n for n, p in learner.named_parameters() if p.grad is not None and p.grad.any()}
        levels = {int(n.split(".")[3]) for n in moved if n.startswith("vq.decoder.levels.")}
        assert levels == set(range(5 - halved))
        assert not any(
            n.startswith(("vq.encoder.", "critic.", "vq.decoder.conv_out")) for n in moved
        )
        sketchers = {n.split(".")[1] for n in moved if n.startswith("sketchers.")}
        assert sketchers == {str(halved - 1)}
        assert any(n.startswith("vq.decoder.conv_in") for n in moved)
        assert all(p.grad is not None for p in learner.parameters() if p.requires_grad)
    learner.zero_grad()
    learner(Lesson(pixels, codes, codes, top=True))["loss"].backward()
    moved = {n for n, p in learner.named_parameters() if p.grad is not None and p.grad.any()}
    top = (
        "vq.decoder.levels.3.conv.",
        "vq.decoder.levels.4.",
        "vq.decoder.norm_out",
        "vq.decoder.conv_out",
    )
    assert all(n.startswith(top) for n in moved)
    assert {n.split(".")[2] for n in moved} == {"levels", "norm_out", "conv_out"}
    with torch.no_grad():
        whole = learner.vq.decoder(latents)
        assert torch.equal(whole, learner.paint(latents))
        assert torch.equal(whole, learner.paint(latents, top=True))


@pytest.mark.usefixtures("pictures")
def test_the_last_level_begins_as_the_sketch_smoothly_enlarged(tmp_path: Path) -> None:
    book = small_book(4, SMALL_VQ.codebook_size)
    learner = VQLearner(SMALL_VQ, book, 0)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # as if trained
        latents = torch.randn(1, SMALL_VQ.latent_channels, 8, 8)
        norm, silu, paint = learner.sketchers[0]  # type: ignore[misc]
        below = learner.vq.decoder.lower(latents, 4)
        learner.rise()
        wanted = torch.nn.functional.interpolate(below, scale_factor=2.0, mode="bilinear")
        wanted = paint(silu(norm(wanted)))
        drawn = learner.paint(latents)
    # Beyond the edge are zeros, which only the outermost pixels and, a little, the norm see.
    assert (drawn - wanted)[..., 2:-2, 2:-2].abs().max() < 0.15 * wanted.std()

    def scenes(seed: int) -> Any:
        picture, scene = world.compose(seed, names=FEW, steady=True)
        return picture[128:256, 128:256], world.places(scene)[8:16, 8:16]

    slow = Schedule(steps=2, batch=1, rate=1e-12, warmup=1)
    turns = ((0.5, (Exercise(sketch=1),)), (1.0, (Exercise(top=True),)))
    edges = []
    for name, some in (("risen", turns), ("plain", turns[1:])):
        train_vq(SMALL_VQ, scenes, book, tmp_path / name, slow, exercises=some)
        state = torch.load(tmp_path / name / "state.pt", weights_only=True)
        edges.append(state["module"]["vq.decoder.conv_out.weight"][..., 0, 0].abs().max())
    assert edges[0] < 1e-9 < edges[1]


@pytest.mark.usefixtures("pictures")
def test_only_a_named_lesson_teaches_the_encoder_and_things_count_more_than_the_ground() -> None:
    book = small_book(4, SMALL_VQ.codebook_size)
    learner = VQLearner(SMALL_VQ, book, 0)
    pixels = to_pixels([world.compose(1, names=FEW, steady=True)[0]])
    codes = book.codes(pixels)
    for named in (False, True):
        learner.zero_grad()
        figures = learner(Lesson(pixels, codes, codes, named=named))
        figures["loss"].backward()
        moved = {n for n, p in learner.named_parameters() if p.grad is not None and p.grad.any()}
        assert any(n.startswith("vq.encoder.") for n in moved) == named
        assert any(n.startswith("vq.decoder.conv_out") for n in moved)
        assert ("code right" in figures) == named
    drawn = learner.vq.decode(codes)

    def loss(where: torch.Tensor) -> float:
        """Of a picture that differs by as much, all in all, from what is drawn, but there alone."""
        there = where.view(1, 1, 24, 24).repeat_interleave(16, 2).repeat_interleave(16, 3)
        true = drawn + 0.1 * there / there.float().mean()
        return learner(Lesson(true.detach(), codes, codes))["pixel"].item()

    things = codes >= book.ground
    beside = torch.nn.functional.max_pool2d(things.view(1, 24, 24).float(), 3, 1, 1).flatten(1) > 0
    assert loss(things) > 3 * loss(~beside)


@pytest.mark.usefixtures("pictures")
def test_a_collage_is_of_pieces_with_things_and_has_the_codes_of_its_pixels() -> None:
    book = small_book(10, 256)
    found = [world.compose(seed, names=FEW, steady=True) for seed in range(6)]
    pixels = to_pixels([picture for picture, _ in found])
    places = torch.from_numpy(np.stack([world.places(s).reshape(-1, 3) for _, s in found]))
    codes = book.codes(pixels, places)
    made, rows = collages(book, pixels, codes, 3, np.random.default_rng(0))
    assert made.shape == (2, 3, 384, 384)
    assert rows.shape == (2, 576)
    assert (rows >= book.ground).float().mean() > 1.5 * (codes >= book.ground).float().mean()
    for number in range(18):
        y, x = (8 * part for part in divmod(number % 9, 3))
        tile = rows[number // 9].view(24, 24)[y : y + 8, x : x + 8]
        seen = made[number // 9, :, 16 * y : 16 * y + 128, 16 * x : 16 * x + 128]
        spots = (
            (codes[number // 3].view(24, 24).unfold(0, 8, 1).unfold(1, 8, 1) == tile)
            .all(-1)
            .all(-1)
        )
        assert any(
            torch.equal(seen, pixels[number // 3][:, 16 * y : 16 * y + 128, 16 * x : 16 * x + 128])
            for y, x in spots.nonzero().tolist()
        )


@pytest.mark.usefixtures("pictures")
def test_the_stage_has_all_its_losses_and_is_watched_over_held_out_scenes(
    tmp_path: Path,
) -> None:
    def scenes(split: Any) -> Any:
        def one(seed: int) -> Any:
            picture, scene = world.compose(seed, names=FEW, steady=True, split=split)
            return picture[128:256, 128:256], world.places(scene)[8:16, 8:16]

        return one

    book = small_book(4, SMALL_VQ.codebook_size)
    train_vq(
        SMALL_VQ,
        scenes("train"),
        book,
        tmp_path,
        Schedule(steps=2, batch=1, rate=1e-3, warmup=1, save_every=5, watch_every=1),
        exercises=((1.0, (Exercise(named=True),)),),
        perceptual=Perceptual(random_weights()),
        watch=PaintingWatch(scenes=scenes("test"), book=book, folder=tmp_path, count=4),
    )
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = next(row for row in reversed(rows) if "loss" in row)
    assert {"pixel", "perceptual", "critic", "found out", "code right"} <= losses.keys()
    assert losses["perceptual"] > 0
    watched = [row for row in rows if "held-out dB" in row]
    assert [row["step"] for row in watched] == [0, 1]
    assert watched[0]["held-out dB"] != watched[1]["held-out dB"]
    assert all(0 < row["held-out dB, half"] < 60 for row in watched)
    with Image.open(tmp_path / "samples/000002.png") as sheet:
        assert sheet.width > sheet.height  # four scenes above what is painted of them
