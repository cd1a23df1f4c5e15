"""What the stages teach: rows of drawing and answering, labelled patches, and a fair beginning."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backbone_parts import random_weights
from conftest import tiny_config

from janus_kit.config import PRESETS, VisionConfig
from janus_kit.model import IGNORE, Batch, Janus, angles
from janus_kit.prompts import PRO, Tokenizer
from janus_kit.training import novelty, world
from janus_kit.training.bank.names import NAMES
from janus_kit.training.beginning import initialise, word_embeds
from janus_kit.training.lessons import lesson, novel
from janus_kit.training.loop import Schedule
from janus_kit.training.model_stage import (
    Example,
    answer_row,
    collate,
    draw_row,
    train_model,
)
from janus_kit.training.perceptual import Teacher
from janus_kit.training.quantizer import PatchBook, to_pixels
from janus_kit.training.traits import Traits
from janus_kit.training.vision_stage import VisionLearner, patch_labels, some_places, train_vision
from janus_kit.training.watching import SeeingWatch
from janus_kit.vision.encoder import VisionEncoder

FEW = NAMES[1:7]


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


def attentive(tokenizer: Tokenizer) -> Janus:
    """A small model whose blocks are not silent, which would hide what they attend to."""
    janus = Janus(tiny_config())
    initialise(janus, None, None, tokenizer, 0)
    for layer in janus.language.layers:
        for parameter in layer.parameters():
            parameter.data += torch.linspace(-0.2, 0.2, parameter.numel()).view(parameter.shape)
    return janus


def test_branches_of_a_row_teach_what_rows_of_their_own_do(tokenizer: Tokenizer) -> None:
    config, janus = tiny_config(), attentive(tokenizer)
    dialogues = [[("What is it?", "An apple."), ("Red?", "Yes.")], [("How many?", "Four.")]]
    side = config.vision.image_size
    pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def loss(chosen: list[Any]) -> torch.Tensor:
        row = answer_row(tokenizer, PRO, chosen, config.vision.tokens)
        return janus.loss(collate([row], tokenizer, pixels)).text

    def answers(chosen: list[Any]) -> int:
        row = answer_row(tokenizer, PRO, chosen, config.vision.tokens)
        return sum(label != IGNORE for label in row.text_labels)

    counts = [answers([dialogue]) for dialogue in dialogues]
    apart = sum(loss([d]) * n for d, n in zip(dialogues, counts, strict=True)) / sum(counts)
    assert answers(dialogues) == sum(counts)
    assert torch.allclose(loss(dialogues), torch.as_tensor(apart), atol=1e-5)
    assert torch.allclose(loss(dialogues[::-1]), loss(dialogues), atol=1e-5)


def test_places_that_are_left_out_are_as_if_nobody_could_see_them(tokenizer: Tokenizer) -> None:
    config, janus = tiny_config(), attentive(tokenizer)
    dialogues = [[("What is it?", "An apple."), ("Red?", "Yes.")], [("How many?", "Four.")]]
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    looked = [i % 3 == 1 for i in range(config.vision.tokens)]

    def loss(batch: Batch) -> torch.Tensor:
        return janus.loss(batch).text

    whole = collate([answer_row(tokenizer, PRO, dialogues, len(looked))], tokenizer, pixels)
    assert whole.branches is not None
    row = answer_row(tokenizer, PRO, dialogues, len(looked), looked)
    assert row.tokens.count(tokenizer.image) == sum(looked)
    few = collate([row], tokenizer, pixels, torch.tensor([looked]))
    hidden = whole.branches.clone()
    picture = (whole.tokens[0] == tokenizer.image).nonzero().flatten()
    hidden[0, picture[~torch.tensor(looked)]] = 99  # a branch that no other sees
    assert torch.allclose(loss(few), loss(replace(whole, branches=hidden)), atol=1e-5)
    assert not torch.allclose(loss(few), loss(whole), atol=1e-4)
    every = answer_row(tokenizer, PRO, dialogues, len(looked), [True] * len(looked))
    assert every == answer_row(tokenizer, PRO, dialogues, len(looked))


def test_rows_are_padded_on_the_right_and_padding_teaches_nothing(tokenizer: Tokenizer) -> None:
    rows = [draw_row(tokenizer, PRO, p, [1, 2], drop=False) for p in ("a", "a much longer prompt")]
    batch = collate(rows, tokenizer)
    assert batch.tokens.shape == batch.code_labels.shape
    assert batch.tokens[0, -1] == tokenizer.pad
    assert batch.code_labels[0, -1] == IGNORE
    assert batch.tokens[0, 0] == tokenizer.bos


def test_a_fresh_model_tells_columns_and_rows_and_looks_above(tokenizer_folder: Path) -> None:
    config = PRESETS["tiny"]
    tokenizer = Tokenizer.from_folder(tokenizer_folder)
    config = replace(config, language=replace(config.language, vocab_size=1024))
    janus = Janus(config)
    torch.manual_seed(0)
    count = config.vq.codebook_size
    kinds = torch.arange(count)
    traits = Traits(
        *(torch.nn.functional.one_hot(kinds // k % n, n).float()
          for k, n in ((1, 81), (81, 24), (7, 24), (13, 11)))
    )  # fmt: skip
    initialise(janus, traits, None, tokenizer, 0)
    row = draw_row(tokenizer, PRO, "a red apple", list(range(576)), drop=False)
    batch = collate([row], tokenizer)
    start, t = row.tokens.index(tokenizer.begin_image), len(row.tokens)
    embeds = janus.embed(batch.tokens, -1, [])
    drawn = batch.codes >= 0
    embeds = embeds.masked_scatter(drawn.unsqueeze(-1), janus.embed_codes(batch.codes[drawn]))
    layer: Any = janus.language.layers[0]
    cos, sin = angles(config.language, torch.arange(t)[None, None], torch.float32)
    q, k, _ = layer.attention.split(layer.attention.qkv(layer.norm1(embeds)), cos, sin)
    seen = torch.ones(t, t, dtype=torch.bool).tril()
    looks = (q @ k.mT / 8)[0].masked_fill(~seen, -torch.inf).softmax(-1)
    assert looks[0, start + 200, start + 200 - 23] > 0.8
    column = looks[1, start:, start]
    assert column[96] > 2 * column[96 + 12]  # the first of a row against its middle
    assert column[120] > 2 * column[120 + 12]
    down = looks[3, start::24, start]
    assert (down.diff() < 0.1).all()  # codes of unlike length disturb it
    assert down[0] > 0.9 > 0.1 > down[-1]


def test_codes_count_as_much_as_their_weights(tokenizer: Tokenizer) -> None:
    config = tiny_config()
    torch.manual_seed(1)
    janus = Janus(config)
    codes = torch.arange(config.codes).tolist()
    row = draw_row(tokenizer, PRO, "a star", codes, drop=False)
    batch = collate([row], tokenizer)
    first = torch.zeros(batch.codes.shape)
    first[batch.code_labels == 0] = 3.0  # all weight on the label of code 0
    rest = 1 - (first > 0).float()
    parts = [janus.loss(replace(batch, code_weights=w)).code for w in (first, rest)]
    plain = janus.loss(batch).code
    assert torch.allclose(plain, (parts[0] + parts[1] * (len(codes) - 1)) / len(codes), atol=1e-5)
    assert not torch.allclose(parts[0], parts[1])


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
    places = torch.zeros(18, 2)
    bare = torch.zeros(0, 4, 192)
    book = PatchBook(calm, busy, ground=8, own=(4, 8), colors=4, places=places, bare=bare)
    traits = Traits(*(torch.eye(64)[:, :n] for n in (7, 6, 6, 5)))
    torch.manual_seed(3)
    janus = train_model(config, book, tokenizer, example, example, tmp_path, plan, traits=traits)
    initialise(start, traits, None, tokenizer, 0)
    for name, value in start.named_parameters():
        kept = torch.equal(value, janus.get_parameter(name))
        assert kept == name.startswith(("vq.", "vision.", "vision_aligner.")), name
    # What is known of a form is the same in all colours: rows differ by what a colour adds.
    for rows in (janus.code_head.fc2.weight, janus.code_embed.weight):
        for run in book.families():
            forms = rows[run].view(book.colors, -1, rows.shape[1])
            added = forms - forms[:1]
            assert torch.allclose(added, added.mean(1, keepdim=True).expand_as(added), atol=1e-5)
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
