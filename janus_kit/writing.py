"""Text out of a model: one answer after the other token, or as many as come side by side.

write_text is the loop for answers that begin together, TextWriter the one for more than that.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from janus_kit.engine import Decoder, slots_for
from janus_kit.errors import GenerationError
from janus_kit.generation.sampling import SamplingOptions, choose, on_device
from janus_kit.graphs import TextSteps, replays
from janus_kit.model import Cache, Janus
from janus_kit.prompts import pad_left
from janus_kit.steps import native_step

MOVED: Final = 512  # steps after which rows are moved, unless answers end before

__all__ = ["Ended", "Read", "TextWriter", "next_logits", "read", "write_text"]


@torch.inference_mode()
def next_logits(
    model: Janus,
    rows: Sequence[Sequence[int]],
    features: Sequence[Tensor],
    *,
    pad: int,
    image: int,
) -> Tensor:
    """The logits of what follows each row of ids: fp32 [b, v]; features as in write_text.

    Raises GenerationError when they are not finite.
    """
    decoder = Decoder(model, rows, pad, 0, "text")
    hidden = decoder.read(model.embed(decoder.tokens, image, features))
    logits: Tensor = decoder.head(hidden).float()
    if not logits.isfinite().all():
        raise GenerationError(_broken(0))
    return logits


@torch.inference_mode()  # each step of it, not what the caller does between them
def write_text(
    model: Janus,
    rows: Sequence[Sequence[int]],
    features: Sequence[Tensor],
    *,
    pad: int,
    eos: int,
    image: int,
    noise: Tensor,
    options: SamplingOptions,
) -> Iterator[Tensor]:
    """Answer each row of ids: yields int64 [b] a step, eos for rows that have ended.

    features: [576, d] for every picture, in the order of the rows. noise: float64 [b, steps] in
    [0, 1), one stream a row; its width is the longest answer. Ends when all rows have. Raises
    GenerationError when the logits are not finite.
    """
    decoder = Decoder(model, rows, pad, noise.shape[1], "text")
    logits = decoder.head(decoder.read(model.embed(decoder.tokens, image, features)))
    ended = torch.zeros(len(rows), dtype=torch.bool, device=model.device)
    noise = on_device(noise, model.device)
    with decoder.lent() if noise.shape[1] > 1 else nullcontext():
        for place in range(noise.shape[1]):
            logits = logits.float()
            tokens = choose(logits, noise[:, place], options).masked_fill(ended, eos)
            ended = ended | (tokens == eos)
            # Read back once a token, for which a GPU is waited for.
            finite, over = torch.stack((logits.isfinite().all(), ended.all())).tolist()
            if not finite:
                raise GenerationError(_broken(place))
            yield tokens
            if over:
                return
            if place + 1 < noise.shape[1]:
                logits = decoder.step(model.language.embed(tokens))


@dataclass(frozen=True)
class Ended:
    """A row that TextWriter has finished with; name is what it was added by."""

    name: Any
    ids: list[int]  # without eos
    error: GenerationError | None = None


@dataclass(frozen=True)
class Read:
    """Rows of ids that are read, and the logits [b, v] of what follows them."""

    rows: Sequence[Sequence[int]]
    cache: Cache  # of exactly the rows' slots
    logits: Tensor


@torch.inference_mode()
def read(
    model: Janus, rows: Sequence[Sequence[int]], features: Sequence[Tensor], pad: int, image: int
) -> Read:
    """Read whole rows, left-padded; features [576, d] for every picture, in the rows' order."""
    inputs = pad_left(rows, pad)
    mask = inputs.mask.to(model.device)
    embeds = model.embed(inputs.tokens.to(model.device), image, features)
    cache = Cache.empty(model.config.language, mask, mask.shape[1], model.dtype)
    hidden = model.language(embeds, mask, cache, last=True)[:, 0]
    return Read(rows, cache, model.text_head(hidden).float())


class TextWriter:
    """Answers written side by side, in which a row that ends makes room for the next at once.

    All rows write the same slot of one cache. The ids of a new row are laid right before it, and
    its positions count from there, so a row does not see what was in its place. On a CPU rows are
    read one at a time: a row's numbers are then, to the last bit, those that it has alone.
    """

    def __init__(
        self,
        model: Janus,
        rows: int,
        *,
        eos: int,
        pad: int,
        image: int,
        noise: Tensor,
        options: SamplingOptions,
    ) -> None:
        """rows: how many are written at once. noise: float64 [steps], the same for each row that
        is not begun with its own."""
        self.model = model
        self.eos, self.pad, self.image = eos, pad, image
        self.common, self.options = on_device(noise, model.device), options
        self.noise = self.common.repeat(rows, 1)  # of each row
        self.longest = len(noise)  # of an answer
        self.native = native_step(model, "text")
        self.replayed: TextSteps | None = None  # of a GPU, on the cache as it is
        self.names: list[Any] = [None] * rows  # None: the row is free
        self.written: list[list[int]] = [[] for _ in range(rows)]
        self.limits = [0] * rows  # of the lengths of answers
        self.begins = [0] * rows  # the slots of first tokens
        self.filled = 0
        self.cache: Cache | None = None
        self.logits = torch.zeros(rows, model.config.language.vocab_size, device=model.device)
        # What of the above the steps read, on the device: a step copies nothing to it.
        self.counts = torch.zeros(rows, dtype=torch.long, device=model.device)  # of written
        self.empty = torch.ones(rows, dtype=torch.bool, device=model.device)  # which are free
        self.tokens = torch.full_like(self.counts, pad)  # those written last

    @property
    def free(self) -> int:
        return self.names.count(None)

    def add(
        self,
        rows: Sequence[tuple[Any, Sequence[int], Sequence[Tensor]]],
        noise: Tensor | None = None,
    ) -> None:
        """Begin rows: (name, ids, the features [576, d] of its pictures) each; at most free.

        noise: float64 [b, steps], theirs in place of the common one. An answer ends at the end of
        noise, or where the model reads no further.
        """
        together = 1 if self.model.device.type == "cpu" else len(rows)
        for start in range(0, len(rows), together):
            part = rows[start : start + together]
            features = [picture for _, _, shown in part for picture in shown]
            ids = [ids for _, ids, _ in part]
            names = [name for name, _, _ in part]
            own = None if noise is None else noise[start : start + together]
            self.begin(names, read(self.model, ids, features, self.pad, self.image), own)

    @torch.inference_mode()
    def begin(self, names: Sequence[Any], done: Read, noise: Tensor | None = None) -> None:
        """As add, of rows that are read already."""
        t = done.cache.slots
        cache = self._room(t)
        for i, (name, ids) in enumerate(zip(names, done.rows, strict=True)):
            row = self.names.index(None)
            self.names[row], self.written[row] = name, []
            longest = self.model.config.language.max_positions - len(ids)
            self.limits[row] = min(self.longest, longest)
            self.noise[row] = self.common if noise is None else noise[i]
            window = slice(self.filled - t, self.filled)
            cache.keys[:, row, :, window] = done.cache.keys[:, i]
            cache.values[:, row, :, window] = done.cache.values[:, i]
            cache.bias[row] = float("-inf")
            cache.bias[row, :, :, window] = done.cache.bias[i]
            self.begins[row] = self.filled - len(ids)
            cache.padding[row] = self.begins[row]
            self.logits[row] = done.logits[i]
            self.counts[row], self.empty[row] = 0, False

    def step(self) -> list[Ended]:
        """Write one token of every row; those that have ended with it, whose rows are then free."""
        ended = self._choose()
        if self.free < len(self.names):
            self._read()
        return ended

    @torch.inference_mode()
    def _choose(self) -> list[Ended]:
        finite = self.logits.isfinite().all(1)
        safe = self.logits.masked_fill(~finite[:, None], 0)
        place = self.counts.clamp(max=self.longest - 1)[:, None].to(self.noise.device)
        self.tokens = choose(safe, self.noise.gather(1, place)[:, 0], self.options)
        self.counts += 1
        ended = []
        # Read back once a token, for which a GPU is waited for; -1 where there is none.
        chosen = torch.where(finite, self.tokens, -1).tolist()
        for row, (name, token) in enumerate(zip(self.names, chosen, strict=True)):
            if name is None:
                continue
            ids, error = self.written[row], None
            if token < 0:
                error = GenerationError(_broken(len(ids)))
                self._forget(row)
            elif token != self.eos:
                ids.append(token)
                if len(ids) < self.limits[row]:
                    continue
            self.names[row], self.empty[row] = None, True
            ended.append(Ended(name, ids, error))
        return ended

    def _forget(self, row: int) -> None:
        """Drop what a row with NaN has left: even a weight of 0 would hand it to the next row."""
        if self.cache is not None:
            self.cache.keys[:, row].zero_()
            self.cache.values[:, row].zero_()

    @torch.inference_mode()
    def _read(self) -> None:
        """Read the token that each row has just written; sets the logits of the next ones."""
        cache = self._room(0)
        cache.padding.masked_fill_(self.empty, self.filled)  # a free row attends to nothing
        cache.bias.masked_fill_(self.empty[:, None, None, None], float("-inf"))
        # What a free row would choose may be anything, and its numbers are the next row's memory.
        embeds = self.model.language.embed(self.tokens.masked_fill(self.empty, self.pad))
        if self.native is not None:
            stores = (cache.keys, cache.values, cache.angles, cache.padding)
            logits = self.native(embeds, *stores, self.filled)
            cache.bias[..., self.filled] = 0
        elif replays(self.model):
            if self.replayed is None or self.replayed.cache is not cache:
                self.replayed = TextSteps(self.model, cache)
            logits = self.replayed(self.model, embeds, self.filled)
        else:
            position = torch.tensor([self.filled], device=self.model.device)
            span = slots_for(self.filled + 1)
            hidden = self.model.language.step(embeds, cache, position, span)
            logits = self.model.text_head(hidden)
        self.logits = logits.float()
        self.filled += 1

    def shrink(self) -> None:
        """Give up the free rows, when nothing more is to be added and half of them are free."""
        kept = [row for row, name in enumerate(self.names) if name is not None]
        if self.cache is None or not kept or 2 * len(kept) > len(self.names):
            return
        rows = torch.tensor(kept, device=self.model.device)
        self.replayed = None
        self.cache, self.logits = self.cache.pick(rows), self.logits[rows]
        self.counts, self.empty = self.counts[rows], self.empty[rows]
        self.noise = self.noise[rows.to(self.noise.device)]
        self.names = [self.names[row] for row in kept]
        self.written = [self.written[row] for row in kept]
        self.limits = [self.limits[row] for row in kept]
        self.begins = [self.begins[row] for row in kept]

    def _room(self, t: int) -> Cache:
        """The cache, with t slots before the one that is written next, and that one free."""
        language, device = self.model.config.language, self.model.device
        rows = [row for row, name in enumerate(self.names) if name is not None]
        begins = [self.begins[row] for row in rows]
        longest = self.filled - min(begins, default=self.filled)
        wanted = max(t, longest)
        if self.cache is None or wanted >= self.cache.slots:
            self.replayed = None
            # More than the longest answer, so that rows are not moved at every step.
            slots = slots_for(wanted + self.longest + min(self.longest, MOVED))
            mask = torch.zeros(len(self.names), 0, dtype=torch.bool, device=device)
            grown = Cache.empty(language, mask, slots, self.model.dtype)
            self._lay(self.cache or grown, grown, rows, longest, wanted)
            self.cache = grown
        elif self.filled < t or self.filled >= self.cache.slots:
            self._lay(self.cache, self.cache, rows, longest, wanted)
        return self.cache

    def _lay(self, old: Cache, new: Cache, rows: list[int], length: int, filled: int) -> None:
        """Move the last length slots of the rows, so that they end before slot filled."""
        move = filled - self.filled
        a, b = self.filled - length, self.filled
        for row in rows:
            for was, now in ((old.keys, new.keys), (old.values, new.values)):
                now[:, row, :, a + move : b + move] = was[:, row, :, a:b].clone()
            bias = old.bias[row, :, :, a:b].clone()
            new.bias[row] = float("-inf")
            new.bias[row, :, :, a + move : b + move] = bias
            new.padding[row] = old.padding[row] + move
            self.begins[row] += move
        self.filled = filled


def _broken(place: int) -> str:
    return (
        f"the model's logits became NaN or infinite at token {place + 1} of the answer; "
        "are the weights damaged, or is the dtype too narrow (try float32)?"
    )
