"""What the vision stage teaches: labelled patches, tones between colours, what a teacher sees."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backbone_parts import random_weights

from janus_kit.config import PRESETS, VisionConfig
from janus_kit.model import Janus
from janus_kit.prompts import Tokenizer
from janus_kit.training import novelty, world
from janus_kit.training.bank.names import NAMES
from janus_kit.training.beginning import initialise, word_embeds
from janus_kit.training.lessons import lesson, novel
from janus_kit.training.loop import Schedule
from janus_kit.training.perceptual import Teacher
from janus_kit.training.quantizer import to_pixels
from janus_kit.training.vision_stage import VisionLearner, patch_labels, some_places, train_vision
from janus_kit.training.watching import SeeingWatch
from janus_kit.vision.encoder import VisionEncoder

FEW = NAMES[1:7]


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


@pytest.mark.usefixtures("pictures")
def test_a_teacher_shows_the_encoder_what_it_sees(tmp_path: Path) -> None:
    config = VisionConfig(width=32, layers=1, heads=2, intermediate=32)
    words = (torch.randn(len(FEW), 16), torch.randn(len(world.COLORS), 16))
    shown: list[torch.Tensor] = []

    class Recorded(Teacher):
        def forward(self, pixels: torch.Tensor, side: int) -> torch.Tensor:
            shown.append(pixels)
            return super().forward(pixels, side)

    def scenes(seed: int) -> Any:
        return world.compose(seed % 2, names=FEW, steady=True)

    spoilt = []

    def spoil(pixels: torch.Tensor, places: Any, _: np.random.Generator) -> torch.Tensor:
        spoilt.append(places.shape)
        return torch.zeros_like(pixels)

    plan = Schedule(steps=12, batch=1, rate=1e-2, warmup=1, save_every=50)
    learner = train_vision(
        config, scenes, FEW, words, tmp_path, plan, spoil=spoil, teacher=Recorded(random_weights())
    )
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["taught"] < 0.8 * rows[0]["taught"]
    first = to_pixels([scenes(0)[0]])
    assert torch.equal(shown[0], first)
    assert len(shown) == 1 + plan.steps
    assert 3 < len(spoilt) < len(shown)
    assert set(spoilt) == {(1, 576, 3)}
    assert all(pixels.std() > 0.1 for pixels in shown)  # as they were, not as they are learnt from
    mean, spread = learner.usual
    assert torch.allclose(learner.teacher(first, 24).mean((0, 1)), mean, atol=1e-4)  # type: ignore[misc]
    assert (spread > 0).all()
    assert not any("teacher" in name for name in learner.state_dict())


def test_no_name_is_thought_impossible_in_a_color_that_no_lesson_has_it_in() -> None:
    torch.manual_seed(0)
    config = VisionConfig(width=32, layers=1, heads=2, intermediate=32)
    words = (torch.randn(3, 16), torch.randn(2, 16))
    unseen = torch.zeros(3, 4, dtype=torch.bool)
    unseen[1, 2] = True  # the second name in the first colour
    learner = VisionLearner(config, words, 0, unseen=unseen)
    pixels = torch.rand(1, 3, 384, 384) * 2 - 1

    def losses(color: int) -> list[float]:
        """That of names, with the second name as it is and meaning something else."""
        labels = torch.tensor([1, color]).repeat(576, 1).T[None]
        found = []
        for word in (words[0][1], -words[0][1]):
            learner.names[1] = torch.nn.functional.normalize(word, dim=0)
            with torch.no_grad():
                found.append(float(learner((pixels, labels, None, pixels))["name"]))
        return found

    for color in (1, -1):  # in that colour, and in a tone near it
        assert losses(color)[0] == losses(color)[1]
    for color in (0, 2):
        assert losses(color)[0] != losses(color)[1]
    assert "unseen" not in learner.state_dict()
    learner.eval()  # what it is asked about may be anything
    assert losses(1)[0] != losses(1)[1]


def test_a_tone_that_is_not_quite_a_color_teaches_no_color() -> None:
    config = VisionConfig(width=32, layers=1, heads=2, intermediate=32)
    learner = VisionLearner(config, (torch.randn(3, 16), torch.randn(2, 16)), 0)
    pixels = torch.zeros(1, 3, 384, 384)
    labels = torch.zeros(1, 2, 576, dtype=torch.long)
    labels[:, :, :9] = 1
    plain = learner((pixels, labels, None, pixels))
    labels[:, 1, :9] = -1
    tinted = learner((pixels, labels, None, pixels))
    assert plain["name"] == tinted["name"]
    assert plain["colour"] != tinted["colour"]
    labels[:, 1, 9:] = -1  # nothing is left to be learnt
    assert learner((pixels, labels, None, pixels))["name"] == plain["name"]


@pytest.mark.usefixtures("pictures")
def test_lessons_have_tones_between_colors_but_those_that_can_be_drawn_do_not() -> None:
    shown = {seed: lesson(NAMES, 4, seed)[1] for seed in range(40)}
    tints = {n: [t.tint for t in scene.things if t.color] for n, scene in shown.items()}
    assert not any(any(found) for seed, found in tints.items() if seed < 4 or seed % 4 == 0)
    others = [tint for seed, found in tints.items() if seed > 4 and seed % 4 for tint in found]
    assert 0.25 < sum(tint is not None for tint in others) / len(others) < 0.75
    assert all(len(shown[seed].things) == 4 for seed in range(1, 40, 2))
    tinted = next(scene for n, scene in shown.items() if any(tints[n]))
    labels = patch_labels(tinted, NAMES, 16, 24)
    assert (labels[1] < 0).any()
    assert (labels[0] >= 0).all()


@pytest.mark.usefixtures("pictures")
def test_an_encoder_is_watched_over_scenes_that_no_lesson_shows() -> None:
    config = VisionConfig(width=32, layers=1, heads=2, intermediate=32)
    words = (torch.randn(len(NAMES), 16), torch.randn(len(world.COLORS), 16))
    learner = VisionLearner(config, words, 0)
    asked: list[int] = []

    def scenes(seed: int) -> Any:
        asked.append(seed)
        return novel(NAMES, seed)

    found = SeeingWatch(scenes=scenes, names=NAMES, count=3)(1, learner)
    assert found.keys() == {"held-out name right", "held-out colour right"}
    assert all(0 <= share <= 1 for share in found.values())
    assert learner.training
    assert len(asked) == 3
    _, scene = novel(NAMES, asked[0])
    assert novelty.is_novel([(thing.name, thing.color) for thing in scene.things])


def test_places_of_things_are_looked_at_more_often_and_each_once() -> None:
    labels = torch.zeros(50, 2, 576, dtype=torch.long)
    labels[:, 0, :120] = 3
    chance = torch.rand(50, 576, generator=torch.Generator().manual_seed(0))
    kept = some_places(labels, chance)
    assert kept.shape == (50, 192)
    assert all(len(set(row.tolist())) == 192 for row in kept)
    things = (kept < 120).sum(1).float() / 120
    ground = (kept >= 120).sum(1).float() / 456
    assert things.mean() > 2 * ground.mean() > 0.3
    assert things.max() < 1


@pytest.mark.usefixtures("pictures")
def test_a_steady_lesson_comes_first_and_then_one_in_four() -> None:
    def steady(seed: int) -> bool:
        return lesson(NAMES, 8, seed)[1].room is None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "render", lambda scene: np.zeros((384, 384, 3), np.uint8))
        assert [steady(seed) for seed in range(13)] == [*[True] * 9, False, False, False, True]


def test_places_that_are_left_out_change_no_order_and_are_not_looked_at() -> None:
    torch.manual_seed(0)
    encoder = VisionEncoder(VisionConfig(width=32, layers=2, heads=2, intermediate=32))
    torch.nn.init.normal_(encoder.positions)
    pixels = torch.rand(2, 3, 384, 384)
    order = torch.stack([torch.randperm(576) for _ in range(2)])
    with torch.no_grad():
        whole, mixed = encoder(pixels), encoder(pixels, order)
        wanted = torch.stack([w[o] for w, o in zip(whole, order, strict=True)])
        assert torch.allclose(mixed, wanted, atol=1e-5)
        half = order[:, :288]
        changed = pixels.clone()
        y, x = divmod(int(order[0, 300]), 24)
        changed[0, :, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16] = 5.0
        assert torch.equal(encoder(pixels, half), encoder(changed, half))
        assert not torch.equal(encoder(changed), whole)
