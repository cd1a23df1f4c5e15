"""What the stages teach: rows of drawing and answering, and a fair beginning."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_config

from janus_kit.config import PRESETS
from janus_kit.model import IGNORE, Batch, Janus, angles
from janus_kit.prompts import PRO, Tokenizer
from janus_kit.training.bank.names import NAMES
from janus_kit.training.beginning import initialise
from janus_kit.training.loop import Schedule
from janus_kit.training.model_stage import (
    Example,
    answer_row,
    collate,
    draw_row,
    train_model,
)
from janus_kit.training.quantizer import PatchBook
from janus_kit.training.traits import Traits

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
