"""Drawing image codes: guidance, the choice of a code, and the one loop that draws a picture.

The loop follows deepseek-ai/Janus (generation_inference.py); guidance is that of Ho & Salimans,
"Classifier-Free Diffusion Guidance" (2022). Unlike there, every picture has a random stream of its
own, so that a picture does not depend on what is drawn beside it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from janus_kit.errors import GenerationError, OptionError

__all__ = [
    "CodeModel",
    "RowModel",
    "SamplingOptions",
    "choose",
    "draw_one_by_one",
    "filter_logits",
    "guide",
    "sample",
    "uniforms",
]


TOP_K = 2**31 - 1  # more than any codebook has


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How codes or tokens are drawn. Two equal options with equal uniforms draw equal codes."""

    guidance: float = 5.0  # 1 switches guidance off and halves the work
    temperature: float = 1.0  # 0 takes the likeliest
    top_k: int = 0  # 0 keeps the whole vocabulary
    top_p: float = 1.0  # 1 keeps the whole distribution

    def __post_init__(self) -> None:
        for name in ("guidance", "temperature", "top_p"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise OptionError(f"{name} must be a number, not {value!r}")
            # A whole number too long for a float counts as one that is not finite.
            if (isinstance(value, int) and abs(value) > 1e300) or not math.isfinite(value):
                raise OptionError(f"{name} must be a finite number, not {value!r:.40}")
        if not 1 <= self.guidance <= 1000:
            raise OptionError(f"guidance must be from 1 (off) to 1000, not {self.guidance}")
        if self.temperature != 0 and not 1e-3 <= self.temperature <= 1000:
            raise OptionError(
                f"temperature must be 0 (take the likeliest) or from 0.001 to 1000, "
                f"not {self.temperature}"
            )
        whole = isinstance(self.top_k, int) and not isinstance(self.top_k, bool)
        if not whole or not 0 <= self.top_k <= TOP_K:
            raise OptionError(
                f"top_k must be a whole number from 0 (all codes) to {TOP_K}, "
                f"not {self.top_k!r:.40}"
            )
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p must be above 0 and at most 1, not {self.top_p}")


class CodeModel(Protocol):
    """All that sampling asks of a model; rows are pictures."""

    def start(self) -> Tensor:
        """Logits of the first code: [b, v], or [2b, v] when guided (conditional rows first)."""
        ...

    def step(self, codes: Tensor) -> Tensor:
        """Read codes int64 [b] and give the logits of the next ones, shaped as by start."""
        ...


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """One stream a picture: -> float64 [len(seeds), count] in [0, 1), the same on every device."""
    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        rows.append(torch.rand(count, generator=generator, dtype=torch.float64))
    return torch.stack(rows)


def on_device(noise: Tensor, device: torch.device) -> Tensor:
    """Uniform numbers where the logits are; MPS has no fp64, and half precision would repeat."""
    return noise.to(device, torch.float32 if device.type == "mps" else torch.float64)


def guide(logits: Tensor, guidance: float) -> Tensor:
    """Push away from the unconditional half: [2b, v] -> [b, v]."""
    conditional, unconditional = logits.chunk(2)
    return unconditional + guidance * (conditional - unconditional)


def filter_logits(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Leave the top_k likeliest, and of those the smallest set of probability top_p: [b, v]."""
    if 0 < top_k < logits.shape[-1]:
        floor = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < floor, -math.inf)
    if top_p < 1:
        ordered, order = logits.sort(descending=True, stable=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        cut = (before >= top_p).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(cut, -math.inf)
    return logits


def choose(logits: Tensor, uniform: Tensor, options: SamplingOptions) -> Tensor:
    """Draw one code a row by inverting the distribution function: fp32 [b, v], [b] -> int64 [b].

    Summed in fp64 and in the order of the codes, so that only the logits' own last bits matter.
    """
    if options.temperature == 0:
        return logits.argmax(-1)
    logits = filter_logits(logits / options.temperature, options.top_k, options.top_p)
    wide = logits if logits.device.type == "mps" else logits.double()  # MPS has no fp64
    return inverted(wide.softmax(-1), uniform)


def inverted(weights: Tensor, uniform: Tensor) -> Tensor:
    """Draw a number a row by inverting the distribution function: [b, v], [b] -> int64 [b]."""
    sums = weights.cumsum(-1)
    target = uniform.to(sums).unsqueeze(-1) * sums[:, -1:]
    return torch.searchsorted(sums, target, right=True).squeeze(-1).clamp(max=sums.shape[-1] - 1)


def not_finite(row: int) -> GenerationError:
    """What to raise where logits of a picture's row are no numbers."""
    return GenerationError(
        f"the model's logits became NaN or infinite in row {row} of the picture; are the weights "
        "damaged, or is the dtype too narrow (try float32)?"
    )


class RowModel(CodeModel, Protocol):
    """A CodeModel that draws several codes by itself."""

    def draw(
        self,
        logits: Tensor | None,
        before: Tensor | None,
        noise: Tensor,
        options: SamplingOptions,
    ) -> tuple[Tensor, Tensor]:
        """Draw a code for each column of noise, float64 [b, n] in [0, 1), and read all but one.

        logits are those of the first code; None: the codes before it, int64 [b], are read first.
        -> the codes int64 [b, n], and bool []: whether all logits were finite.
        """
        ...


def draw_one_by_one(
    model: CodeModel,
    logits: Tensor | None,
    before: Tensor | None,
    noise: Tensor,
    options: SamplingOptions,
) -> tuple[Tensor, Tensor]:
    """RowModel.draw for any CodeModel."""
    drawn = [] if before is None else [before]
    # A device must not wait for Python in between: nothing is read back here.
    finite = torch.ones((), dtype=torch.bool, device=noise.device)
    for uniform in noise.unbind(1):
        logits = (model.step(drawn[-1]) if logits is None else logits).float()
        if options.guidance != 1:
            logits = guide(logits, options.guidance)
        finite &= logits.isfinite().all()
        drawn.append(choose(logits, uniform, options))
        logits = None
    return torch.stack(drawn[-noise.shape[1] :], 1), finite


def sample(
    model: CodeModel | RowModel,
    noise: Tensor,
    options: SamplingOptions,
    on_row: Callable[[Tensor], bool | Sequence[bool]] | None = None,
    initial: Tensor | None = None,
) -> Tensor:
    """Draw a square picture's codes for each row of noise: float64 [b, n] -> int64 [b, n].

    initial: int64 [b, k], the codes that the pictures begin with in place of drawn ones; what
    follows is drawn as if the model had chosen them.
    on_row gets the codes so far, [b, k·√n], once a row of the picture, and stops the run by
    answering False; the codes so far are then returned. It may also answer for each picture: those
    that need not go on have -1 from there, and a model with a method keep, int64 [k] -> bool, is
    told which of its rows remain; it says whether it can do without the others. A method close is
    called at the end, however that comes. Raises GenerationError when the model's logits are not
    finite, naming the place.
    """
    try:
        return _sample(model, noise, options, on_row, initial)
    finally:
        close = getattr(model, "close", None)
        if close is not None:
            close()


def _sample(
    model: CodeModel | RowModel,
    noise: Tensor,
    options: SamplingOptions,
    on_row: Callable[[Tensor], bool | Sequence[bool]] | None,
    initial: Tensor | None,
) -> Tensor:
    count = noise.shape[1]
    side = math.isqrt(count)
    logits: Tensor | None = model.start()
    assert logits is not None
    noise = on_device(noise, logits.device)
    codes = torch.zeros(noise.shape, dtype=torch.long, device=noise.device)
    draw = getattr(model, "draw", None) or partial(draw_one_by_one, model)
    going = list(range(len(noise)))  # the pictures that are still drawn
    until = [count] * len(noise)  # how many codes of each are wanted

    def goes_on(end: int, finite: Tensor) -> bool:
        nonlocal going
        if not finite:
            raise not_finite(end // side)
        answer = on_row is None or on_row(codes[:, :end])
        if isinstance(answer, bool):
            return answer
        for picture, stays in enumerate(answer):
            until[picture] = until[picture] if stays else min(end, until[picture])
        staying = [picture for picture in going if until[picture] == count]
        keep = getattr(model, "keep", None)
        if end > first and keep is not None and 0 < len(staying) < len(going):
            places = [going.index(picture) for picture in staying]
            if keep(torch.tensor(places, device=noise.device)):
                going = staying
        return bool(staying)

    first = start = 0 if initial is None else initial.shape[1]
    finite = torch.ones((), dtype=torch.bool, device=noise.device)
    for place in range(start):
        codes[:, place] = initial[:, place]  # type: ignore[index]
        finite &= logits.isfinite().all()
        logits = model.step(codes[:, place])
        if (place + 1) % side == 0 and not goes_on(place + 1, finite):
            return codes[:, : place + 1]
    while start < count:
        end = (start // side + 1) * side  # a row, or what the given codes leave of it
        before: Tensor | None = codes[going, start - 1].contiguous() if logits is None else None
        drawn, good = draw(logits, before, noise[going, start:end].contiguous(), options)
        codes[going, start:end] = drawn
        logits, start = None, end
        if not goes_on(end, finite & good.to(finite.device)):
            break
    places = torch.arange(start, device=codes.device)
    wanted = torch.tensor(until, device=codes.device)
    return codes[:, :start].masked_fill(places >= wanted.unsqueeze(1), -1)
