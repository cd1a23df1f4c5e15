"""The drawing loop on a fake model: what it refuses, chooses, reports and leaves alone."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from janus_kit.errors import GenerationError, OptionError
from janus_kit.generation.sampling import (
    SamplingOptions,
    choose,
    filter_logits,
    guide,
    sample,
    uniforms,
)

SIZE = 7  # codes in the book
COUNT = 16  # codes of a picture, 4 rows of 4


class Echo:
    """Likes the code after the one that it has read, and a little its neighbours."""

    def __init__(self, rows: int, copies: int = 2) -> None:
        self.rows, self.copies, self.read = rows, copies, list[Tensor]()

    def start(self) -> Tensor:
        return self.step(torch.zeros(self.rows, dtype=torch.long))

    def step(self, codes: Tensor) -> Tensor:
        self.read.append(codes)
        liked = F.one_hot((codes + 1) % SIZE, SIZE) + 0.1 * torch.arange(SIZE)
        return torch.cat([liked, 0.5 * liked])[: len(codes) * self.copies]


class Broken(Echo):
    """An Echo whose logits hold a bad number from one place on, in the last picture only."""

    def __init__(self, place: int, bad: float, copies: int) -> None:
        super().__init__(2, copies)
        self.place, self.bad = place, bad

    def step(self, codes: Tensor) -> Tensor:
        logits = super().step(codes)
        if len(self.read) > self.place:
            logits[-1, 3] = self.bad
        return logits


def draw(seeds: list[int], **options: Any) -> Tensor:
    return sample(Echo(len(seeds)), uniforms(seeds, COUNT), SamplingOptions(**options))


def logits_of(rows: int, size: int = 40) -> Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(5)) * 2


# Options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("guidance", value) for value in (0, 0.99, -3, 1e9, math.nan, math.inf, "5", None, True)],
        *[("temperature", value) for value in (-1, 1e-38, math.inf, -math.inf, math.nan, "1")],
        *[("top_p", value) for value in (0, 1.1, -0.1, math.nan, None)],
        *[("top_k", value) for value in (-1, "3", 1.0, None, True, math.nan)],
    ],
)
def test_an_option_out_of_range_is_refused_by_name_and_value(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"^{name} must be ") as caught:
        SamplingOptions(**{name: value})
    assert str(value) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("guidance", value) for value in (1, 1.0, 5, 1000)],
        *[("temperature", value) for value in (0, 0.0, 0.001, 1, 1000)],
        *[("top_p", value) for value in (1e-9, 0.5, 1)],
        *[("top_k", value) for value in (0, 1, 10**9)],
    ],
)
def test_an_option_at_the_edge_of_its_range_draws(name: str, value: Any) -> None:
    copies = 1 if name == "guidance" and value == 1 else 2
    codes = sample(Echo(2, copies), uniforms([1, 2], COUNT), SamplingOptions(**{name: value}))
    assert codes.shape == (2, COUNT)
    assert 0 <= codes.min() <= codes.max() < SIZE


# Choosing one code


@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_k": 1}, {"top_p": 1e-9}])
def test_the_narrowest_choice_is_the_likeliest_code(options: dict[str, Any]) -> None:
    logits = logits_of(50)
    noise = uniforms([1], 50)[0]
    assert torch.equal(choose(logits, noise, SamplingOptions(**options)), logits.argmax(-1))
    assert not torch.equal(choose(logits, noise, SamplingOptions()), logits.argmax(-1))


def test_top_k_of_the_whole_book_or_more_changes_nothing() -> None:
    logits = logits_of(4)
    for top_k in (0, 40, 41, 10**9):
        assert torch.equal(filter_logits(logits, top_k, 1.0), logits)


def test_top_k_leaves_the_likeliest_ones() -> None:
    kept = filter_logits(logits_of(4), 5, 1.0).isfinite()
    assert kept.sum(1).tolist() == [5] * 4
    assert torch.equal(logits_of(4).topk(5).indices.sort().values, kept.nonzero()[:, 1].view(4, 5))


def test_top_p_leaves_the_fewest_codes_that_reach_it() -> None:
    chances = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    for top_p, kept in ((0.3, [1]), (0.5, [1, 3]), (0.69, [1, 3]), (0.75, [1, 2, 3])):
        found = filter_logits(chances.log(), 0, top_p).isfinite()
        assert found.nonzero()[:, 1].tolist() == kept


@pytest.mark.parametrize("options", [{"top_k": 3}, {"top_p": 0.3}, {}])
def test_no_random_number_chooses_a_code_that_cannot_be(options: dict[str, Any]) -> None:
    logits = logits_of(2000).sort(descending=True).values  # what is cut stands last
    logits[:, 30:] = -math.inf
    possible = filter_logits(logits, options.get("top_k", 0), options.get("top_p", 1.0)).isfinite()
    for number in (0.0, 1 - 2**-53):  # the least and the largest that torch.rand gives
        uniform = torch.full((2000,), number, dtype=torch.float64)
        chosen = choose(logits, uniform, SamplingOptions(**options))
        assert possible.gather(1, chosen[:, None]).all()


def test_guidance_pushes_away_from_the_unconditional_half() -> None:
    both = logits_of(6)
    conditional, unconditional = both[:3], both[3:]
    expected = unconditional + 2.5 * (conditional - unconditional)
    assert torch.equal(guide(both, 2.5), expected)
    torch.testing.assert_close(guide(both, 1.0), conditional)


# The loop


def test_equal_seeds_draw_equal_codes_and_others_do_not() -> None:
    codes = draw([3, 4, 3])
    assert torch.equal(codes[0], codes[2])
    assert not torch.equal(codes[0], codes[1])


def test_a_seed_has_the_same_stream_alone_and_among_others() -> None:
    together = uniforms([5, 0, 2**63 - 1], 576)
    assert together.dtype == torch.float64
    assert 0 <= together.min() <= together.max() < 1
    for row, seed in enumerate([5, 0, 2**63 - 1]):
        assert torch.equal(uniforms([seed], 576)[0], together[row])
    assert torch.equal(uniforms([5], 100)[0], together[0, :100])


def test_a_row_does_not_depend_on_its_batch() -> None:
    assert torch.equal(draw([7, 8, 9])[1:], draw([8, 9]))


def test_temperature_zero_follows_the_model_whatever_the_seed() -> None:
    expected = [(1 + i) % SIZE for i in range(COUNT)]
    assert draw([1, 2], temperature=0).tolist() == [expected, expected]


def test_the_model_reads_every_code_but_the_last_once_and_in_order() -> None:
    model = Echo(3)
    codes = sample(model, uniforms([1, 2, 3], COUNT), SamplingOptions())
    assert torch.equal(torch.stack(model.read[1:], 1), codes[:, :-1])


def test_without_guidance_the_unconditional_half_is_not_looked_at() -> None:
    noise, options = uniforms([1, 2, 3], COUNT), SamplingOptions(guidance=1, temperature=0.5)
    codes = sample(Echo(3, copies=1), noise, options)
    assert codes.shape == (3, COUNT)
    assert len(set(codes.flatten().tolist())) > 1


def test_each_row_is_reported_once_with_the_codes_so_far() -> None:
    seen: list[Tensor] = []

    def on_row(codes: Tensor) -> bool:
        seen.append(codes.clone())
        return True

    codes = sample(Echo(2), uniforms([1, 2], COUNT), SamplingOptions(), on_row)
    assert [part.shape[1] for part in seen] == [4, 8, 12, 16]
    assert all(torch.equal(part, codes[:, : part.shape[1]]) for part in seen)


def test_the_loop_stops_at_the_row_where_it_is_told_to() -> None:
    model = Echo(2)
    noise = uniforms([1, 2], COUNT)
    codes = sample(model, noise, SamplingOptions(), lambda codes: codes.shape[1] < 8)
    assert torch.equal(codes, draw([1, 2])[:, :8])
    assert len(model.read) == 8  # nothing was computed for the row after


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("guidance", [1, 5])
@pytest.mark.parametrize(("place", "row"), [(0, 1), (3, 1), (4, 2), (15, 4)])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_logits_name_the_row_where_they_began(
    temperature: float, guidance: float, place: int, row: int, bad: float
) -> None:
    model = Broken(place, bad, copies=1 if guidance == 1 else 2)
    options = SamplingOptions(temperature=temperature, guidance=guidance)
    with pytest.raises(GenerationError, match=f"NaN or infinite in row {row} of the picture"):
        sample(model, uniforms([1, 2], COUNT), options)


def test_bad_logits_are_told_before_their_row_is_reported() -> None:
    rows: list[int] = []

    def on_row(codes: Tensor) -> bool:
        rows.append(codes.shape[1])
        return True

    with pytest.raises(GenerationError):
        sample(Broken(5, math.nan, 2), uniforms([1, 2], COUNT), SamplingOptions(), on_row)
    assert rows == [4]
