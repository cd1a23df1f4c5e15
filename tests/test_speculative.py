"""Speculative drawing: as likely as code by code, and equal where nothing is left to chance."""

from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run
from scipy.stats import chisquare
from test_native import caches, plain, random_janus
from torch import Tensor

from janus_kit import JanusPipeline
from janus_kit.ahead import read_ahead
from janus_kit.errors import GenerationError
from janus_kit.generation.native import available
from janus_kit.generation.sampling import SamplingOptions, guide, sample, uniforms
from janus_kit.generation.speculative import coupled, sample_ahead
from janus_kit.metadata import read_settings
from janus_kit.steps import native_step

BOOK, COUNT, DRAWS = 3, 4, 2500
GUIDED = SamplingOptions(guidance=1.5, temperature=0.8)


class Oracle:
    """Logits of its own after every sequence; drawn one by one, or ahead."""

    def __init__(self, book: int = BOOK, count: int = COUNT) -> None:
        random = torch.Generator().manual_seed(3)
        self.logits = {
            codes: 1.5 * torch.randn(2, book, generator=random)
            for length in range(count)
            for codes in product(range(book), repeat=length)
        }
        self.kept: tuple[int, ...] = ()
        self.read: tuple[int, ...] = ()
        self.passes = 0

    def start(self) -> Tensor:
        self.kept = self.read = ()
        return self.logits[()]

    def step(self, codes: Tensor) -> Tensor:
        self.kept += (int(codes),)
        return self.logits[self.kept]

    def ahead(self, codes: Tensor) -> Tensor:
        self.read = tuple(codes.tolist())
        self.passes += 1
        places = range(1, len(self.read) + 1)
        return torch.stack([self.logits[self.kept + self.read[:end]] for end in places], 1)

    def advance(self, count: int) -> None:
        self.kept += self.read[:count]


def ahead(model: Oracle, seed: int, options: SamplingOptions, window: int, **more: Any) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return sample_ahead(model, random, torch.zeros(COUNT).long(), options, window=window, **more)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_pictures_come_as_often_as_code_by_code(window: int) -> None:
    model = Oracle()
    wanted = {}
    for codes in product(range(BOOK), repeat=COUNT):
        wanted[codes] = 1.0
        for place, code in enumerate(codes):
            logits = guide(model.logits[codes[:place]], GUIDED.guidance) / GUIDED.temperature
            wanted[codes] *= float(logits.double().softmax(-1)[0, code])
    found = Counter(tuple(ahead(model, seed, GUIDED, window)[0].tolist()) for seed in range(DRAWS))
    rare = [codes for codes in wanted if wanted[codes] * DRAWS < 8]
    usual = [codes for codes in wanted if codes not in rare]
    seen = [found[codes] for codes in usual] + [sum(found[codes] for codes in rare)]
    expected = [wanted[codes] for codes in usual] + [sum(wanted[codes] for codes in rare)]
    assert chisquare(seen, [DRAWS * share for share in expected]).pvalue > 1e-3
    assert model.passes < DRAWS * (COUNT - 1)


def test_a_draw_stays_as_often_as_two_distributions_agree() -> None:
    torch.manual_seed(0)
    before = torch.tensor([[0.6, 0.4]]).double().expand(20_000, -1)
    after = torch.tensor([[0.3, 0.7]]).double().expand(20_000, -1)
    old = torch.multinomial(before, 1)[:, 0]
    drawn, stays = coupled(old, before, after, torch.rand(20_000, 2).double())
    assert float(stays.double().mean()) == pytest.approx(0.7, abs=0.02)
    assert float(drawn.double().mean()) == pytest.approx(0.7, abs=0.02)
    assert torch.equal(drawn[stays], old[stays])


@pytest.mark.parametrize("window", [1, 3, 20])
def test_the_likeliest_codes_are_those_of_the_plain_loop(window: int) -> None:
    options = SamplingOptions(guidance=2, temperature=0)
    plainly = sample(Oracle(), uniforms([0], COUNT), options)
    assert torch.equal(ahead(Oracle(), 0, options, window), plainly)


def test_rows_are_told_in_order_and_stop_the_run() -> None:
    told: list[Tensor] = []

    def on_row(codes: Tensor) -> bool:
        told.append(codes)
        return len(told) < 2

    whole = ahead(Oracle(), 1, GUIDED, 3, on_row=on_row)
    assert [codes.shape[1] for codes in told] == [2, 4]
    assert torch.equal(told[1], whole)
    assert torch.equal(told[0], whole[:, :2])
    stopped = ahead(Oracle(), 1, GUIDED, 3, on_row=lambda codes: [False])
    assert torch.equal(stopped, whole[:, :2])


@pytest.mark.parametrize("given", [[2], [1, 0], [0, 1, 2]])
def test_given_codes_stay_and_are_read(given: list[int]) -> None:
    options = SamplingOptions(guidance=2, temperature=0)
    begun = torch.tensor([given])
    found = ahead(Oracle(), 0, options, 2, initial=begun)
    assert torch.equal(found, sample(Oracle(), uniforms([0], COUNT), options, initial=begun))


def test_logits_that_are_no_numbers_are_told_with_their_row() -> None:
    model = Oracle()
    for codes, logits in model.logits.items():
        if len(codes) == 2:
            logits[0, 1] = float("nan")
    with pytest.raises(GenerationError, match="row 1 of"):
        ahead(model, 0, GUIDED, 2)


@pytest.mark.skipif(not available(), reason="the native step was not built")
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
@torch.inference_mode()
def test_positions_read_at_once_give_the_logits_of_single_steps(half: bool, threads: int) -> None:
    janus = random_janus(half)
    step = native_step(janus, "code")
    assert step is not None
    for b, width in ((1, 1), (2, 5), (3, 2)):
        mask = torch.ones(b, 7, dtype=torch.bool)
        mask[-1, :3] = b < 3
        natively, by_torch = caches(janus, mask, 16)
        singly = by_torch.pick(torch.arange(b))
        embeds = torch.randn(b, width, janus.config.language.hidden)
        wanted = plain(janus, janus.code_logits, embeds, singly, 7)
        stores = (natively.keys, natively.values, natively.angles, natively.padding)
        found = step(embeds, *stores, 7, threads)
        torch.testing.assert_close(found, wanted, atol=2e-4, rtol=2e-4)
        hidden = read_ahead(janus.language, embeds, by_torch, 7)
        torch.testing.assert_close(janus.code_head(hidden), wanted, atol=2e-4, rtol=2e-4)
        for cache in (natively, by_torch):
            end = 7 + width
            torch.testing.assert_close(
                cache.keys[..., 7:end, :], singly.keys[..., 7:end, :], atol=1e-4, rtol=1e-4
            )


@pytest.fixture(scope="module")
def model() -> JanusPipeline:
    pipe = JanusPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def codes_of(pipe: JanusPipeline, **options: Any) -> Tensor:
    return pipe("two red apples", output_type="tokens", **options).codes


def test_the_embedded_model_draws_its_likeliest_picture_either_way(model: JanusPipeline) -> None:
    likeliest = codes_of(model, temperature=0, speculative=True)
    assert torch.equal(likeliest, codes_of(model, temperature=0))


@pytest.mark.parametrize("natively", [True, False])
def test_a_random_model_draws_its_likeliest_picture_either_way(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch, natively: bool
) -> None:
    if not natively:
        monkeypatch.setattr("janus_kit.engine.native_step", lambda model, kind: None)
    options = {"temperature": 0, "guidance_scale": 2, "negative_prompt": "a dog", "seed": 1}
    likeliest = codes_of(pipe, speculative=True, **options)
    assert torch.equal(likeliest, codes_of(pipe, **options))


def test_a_picture_is_the_same_alone_and_in_a_call_of_many(model: JanusPipeline) -> None:
    both = codes_of(model, seed=4, num_images_per_prompt=2, speculative=True)
    alone = codes_of(model, seed=5, speculative=True)
    assert torch.equal(both[1:], alone)
    assert not torch.equal(both[0], both[1])


def test_the_command_line_draws_it_again_from_its_png(janus: Run) -> None:
    (first,) = janus("generate", "a cat", "--seed", 3, "--speculative").lines
    assert read_settings(first).speculative
    again = janus("generate", "--from", first)
    assert (again.code, again.err) == (0, "")
    assert Path(again.lines[0]).read_bytes() == Path(first).read_bytes()
