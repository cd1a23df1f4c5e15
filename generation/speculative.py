"""Drawing several codes a pass: guesses are read together, and those that stand are kept.

Speculative Jacobi decoding (Teng et al., "Accelerating Auto-regressive Text-to-Image Generation
with Training-free Speculative Jacobi Decoding", 2024): what comes out is distributed exactly as if
it were drawn code by code, though a seed gives another picture. Guesses of one pass are coupled
with those of the pass before as closely as can be (MC-SJD, arXiv 2510.24211).
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from janus_kit.generation.sampling import (
    SamplingOptions,
    filter_logits,
    guide,
    inverted,
    not_finite,
)

__all__ = ["WINDOW", "AheadModel", "coupled", "sample_ahead"]

WINDOW = 7  # guesses a pass


class AheadModel(Protocol):
    """What draws one picture; with guidance the conditional row comes first of two."""

    def start(self) -> Tensor:
        """Logits of the first code: [1 or 2, v]."""
        ...

    def ahead(self, codes: Tensor) -> Tensor:
        """Read codes, int64 [w], behind those that stay -> logits of what follows each.

        [1 or 2, w, v]. None of them stays by itself.
        """
        ...

    def advance(self, count: int) -> None:
        """Let the first count of the codes that were read last stay."""
        ...


def coupled(old: Tensor, before: Tensor, after: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draws from after that are those of before as often as can be: int64 [n], and bool [n].

    old: int64 [n], drawn from before, fp64 [n, v]. after: fp64 [n, v]. uniform: fp64 [n, 2] in
    [0, 1). The second are those that stay as they were, with probability min(1, after / before).
    """
    here = old.unsqueeze(1)
    stays = uniform[:, :1] * before.gather(1, here) < after.gather(1, here)
    drawn = inverted((after - before).clamp(min=0), uniform[:, 1])
    return torch.where(stays[:, 0], old, drawn), stays[:, 0]


def sample_ahead(
    model: AheadModel,
    random: torch.Generator,
    first: Tensor,
    options: SamplingOptions,
    on_row: Callable[[Tensor], bool | Sequence[bool]] | None = None,
    initial: Tensor | None = None,
    window: int = WINDOW,
) -> Tensor:
    """Draw one picture's codes, int64 [1, n].

    random: on the CPU. first: int64 [n], what is guessed of each place before the model has said
    anything about it. on_row, initial [1, k] and errors: see sampling.sample.
    """
    count, side = len(first), math.isqrt(len(first))
    done: list[int] = [] if initial is None else initial[0].tolist()
    told = 0  # rows

    def thought(logits: Tensor) -> Tensor:
        """[copies, w, v] -> what each place is drawn from, fp64 [w, v]."""
        logits = logits.float()
        logits = logits[0] if options.guidance == 1 else guide(logits, options.guidance)[0]
        if not logits.isfinite().all():
            raise not_finite(len(done) // side + 1)
        if options.temperature == 0:
            return F.one_hot(logits.argmax(-1), logits.shape[-1]).double()
        kept = filter_logits(logits / options.temperature, options.top_k, options.top_p)
        return kept.double().softmax(-1)

    def chances(rows: int) -> Tensor:
        return torch.rand(rows, 2, generator=random, dtype=torch.float64).to(first.device)

    def goes_on() -> bool:
        nonlocal told
        while told < len(done) // side:
            told += 1
            codes = torch.tensor(done[: told * side], device=first.device)[None]
            answer = True if on_row is None else on_row(codes)
            if not (answer if isinstance(answer, bool) else any(answer)):
                return False
        return True

    start = model.start()
    if done:
        for place in range(0, len(done) - 1, side):  # all but the last, which is read below
            codes = first.new_tensor(done[place : min(place + side, len(done) - 1)])
            model.ahead(codes)
            model.advance(len(codes))
    else:
        done += inverted(thought(start[:, None]), chances(1)[:, 0]).tolist()
    guesses = first.new_empty(0)
    believed = start.new_empty(0, start.shape[-1], dtype=torch.float64)
    while goes_on() and len(done) < count:
        size = min(window, count - len(done) - 1)
        fresh = first[len(done) + len(guesses) : len(done) + size]
        guesses = torch.cat((guesses, fresh))[:size]
        certain = F.one_hot(fresh, believed.shape[1]).double()
        believed = torch.cat((believed, certain))[:size]
        last = first.new_tensor(done[-1:])
        shown = thought(model.ahead(torch.cat((last, guesses))))
        uniform = chances(size + 1)
        drawn, stays = coupled(guesses, believed, shown[:size], uniform[:size])
        next_one = inverted(shown[size:], uniform[size:, 0])
        stood = int(stays.long().cumprod(0).sum())
        model.advance(stood + 1)
        all_drawn = torch.cat((drawn, next_one))
        # The first that fell was drawn anew with all before it right, as was the one after all.
        done += all_drawn[: stood + 1].tolist()
        guesses, believed = all_drawn[stood + 1 :], shown[stood + 1 :]
    return torch.tensor(done[: told * side] if len(done) < count else done, device=first.device)[
        None
    ]
