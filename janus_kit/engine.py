"""The loops' view of a model: rows of ids become a filled cache, then one position at a time.

CodeDrawer answers what generation/sampling.py asks; write_text is the loop for answers, TextWriter
the one for as many as come. On a CPU the steps are native where they were built; model.py's are
what those are held to.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from janus_kit.errors import GenerationError
from janus_kit.generation.sampling import SamplingOptions, choose, draw_one_by_one, on_device
from janus_kit.graphs import Steps, lend
from janus_kit.model import SPAN, Cache, Janus
from janus_kit.prompts import pad_left
from janus_kit.steps import Kind, native_step

__all__ = ["CodeDrawer", "Ended", "TextWriter", "write_text"]


def _slots(count: int) -> int:
    """count, rounded up to whole spans."""
    return -(-count // SPAN) * SPAN


class Decoder:
    """A cache of left-padded rows that grows by one position a step, and the logits that follow."""

    def __init__(
        self, model: Janus, rows: Sequence[Sequence[int]], pad: int, room: int, kind: Kind
    ) -> None:
        inputs = pad_left(rows, pad)
        self.model = model
        self.head = model.code_logits if kind == "code" else model.text_head
        self.native = native_step(model, kind)
        self.tokens = inputs.tokens.to(model.device)
        self.mask = inputs.mask.to(model.device)
        self.first = self.filled = self.tokens.shape[1]
        self.position = torch.tensor([self.filled], device=model.device)
        self.cache = Cache.empty(
            model.config.language, self.mask, _slots(self.filled + room), model.dtype
        )

    def read(self, embeds: Tensor) -> Tensor:
        """Fill the cache from whole rows: [b, t, d] -> the last hidden states [b, d]."""
        return self.model.language(embeds, self.mask, self.cache, last=True)[:, 0]  # type: ignore[no-any-return]

    def fork(self, rows: Tensor) -> "Decoder":
        """Another one that goes on from the given rows (int64 [b]), repeated where rows repeat."""
        other = copy(self)
        other.position = self.position.clone()
        other.cache = self.cache.pick(rows)
        return other

    def step(self, embeds: Tensor) -> Tensor:
        """Read one position: [b, d] -> the logits of what follows [b, v]."""
        self.filled += 1
        cache = self.cache
        if self.native is not None:
            stores = (cache.keys, cache.values, cache.angles, cache.padding)
            return self.native(embeds, *stores, self.filled - 1)
        hidden = self.model.language.step(embeds, cache, self.position, _slots(self.filled))
        self.position += 1
        return self.head(hidden)


class CodeDrawer:
    """A Janus that draws: the CodeModel of sampling.py.

    conditional: drawing ids of each picture; unconditional: what guidance pushes away from, None
    without guidance. Equal rows are read once and their cache is copied; before is the drawer of
    the batch before, whose reading is taken over when it was of the same rows.
    """

    reader: Decoder
    hidden: Tensor  # of the last position of each unique row
    steps: Steps | None  # of a GPU

    def __init__(
        self,
        model: Janus,
        table: Tensor,
        pad: int,
        conditional: Sequence[Sequence[int]],
        unconditional: Sequence[Sequence[int]] | None,
        before: "CodeDrawer | None" = None,
    ) -> None:
        rows = [tuple(row) for row in (*conditional, *(unconditional or ()))]
        self.unique = list(dict.fromkeys(rows))
        self.order = torch.tensor([self.unique.index(row) for row in rows], device=model.device)
        self.copies = 1 if unconditional is None else 2
        self.model, self.steps = model, None
        self.table = table  # embeds of every code [codebook_size, d]
        if before is not None and before.unique == self.unique:
            self.reader, self.hidden = before.reader, before.hidden
            return
        self.reader = Decoder(model, self.unique, pad, model.config.codes, "code")
        self.hidden = self.reader.read(model.language.embed(self.reader.tokens))

    def start(self) -> Tensor:
        self.decoder = self.reader.fork(self.order)
        return self.decoder.head(self.hidden[self.order])

    def step(self, codes: Tensor) -> Tensor:
        embeds = self.table[codes].repeat(self.copies, 1)
        return self.decoder.step(embeds)

    def draw(
        self,
        logits: Tensor | None,
        before: Tensor | None,
        noise: Tensor,
        options: SamplingOptions,
    ) -> tuple[Tensor, Tensor]:
        """See sampling.RowModel. A row is one native call where the whole codebook is kept."""
        decoder = self.decoder
        if logits is not None and decoder.native is None:
            self.steps = self._lent(options)
        if self.steps is not None:
            codes, finite = self.steps.draw(logits, before, noise)
            decoder.filled = self.steps.filled
            if decoder.filled + 1 >= decoder.first + self.model.config.codes:
                self.steps.give_back()
                self.steps = None
            return codes, finite
        if decoder.native is None or options.top_k or options.top_p < 1:
            return draw_one_by_one(self, logits, before, noise, options)
        cache = decoder.cache
        drawn, good = decoder.native.draw(
            logits,
            before,
            noise,
            self.table,
            cache.keys,
            cache.values,
            cache.angles,
            cache.padding,
            decoder.filled,
            guided=self.copies == 2,
            guidance=options.guidance,
            temperature=options.temperature,
        )
        decoder.filled += noise.shape[1] - (before is None)
        return drawn, torch.tensor(good)

    def _lent(self, options: SamplingOptions) -> Steps | None:
        decoder = self.decoder
        pictures, slots = len(self.order) // self.copies, decoder.cache.slots
        steps = lend(self.model, self.table, pictures, self.copies, slots, options)
        if steps is not None:
            steps.take(decoder.cache, decoder.filled)
        return steps


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
    for place in range(noise.shape[1]):
        logits = logits.float()
        if not logits.isfinite().all():
            raise GenerationError(_broken(place))
        tokens = choose(logits, noise[:, place], options).masked_fill(ended, eos)
        ended = ended | (tokens == eos)
        yield tokens
        if bool(ended.all()):
            return
        if place + 1 < noise.shape[1]:
            logits = decoder.step(model.language.embed(tokens))


@dataclass(frozen=True)
class Ended:
    """A row that TextWriter has finished with; name is what it was added by."""

    name: Any
    ids: list[int]  # without eos
    error: GenerationError | None = None


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
        """rows: how many are written at once. noise: float64 [steps], the same for each row."""
        self.model = model
        self.eos, self.pad, self.image = eos, pad, image
        self.noise, self.options = on_device(noise, model.device), options
        self.native = native_step(model, "text")
        self.names: list[Any] = [None] * rows  # None: the row is free
        self.written: list[list[int]] = [[] for _ in range(rows)]
        self.limits = [0] * rows  # of the lengths of answers
        self.filled = 0
        self.cache: Cache | None = None
        self.logits = torch.zeros(rows, model.config.language.vocab_size, device=model.device)

    @property
    def free(self) -> int:
        return self.names.count(None)

    @torch.inference_mode()
    def add(self, rows: Sequence[tuple[Any, Sequence[int], Sequence[Tensor]]]) -> None:
        """Begin rows: (name, ids, the features [576, d] of its pictures) each; at most free.

        An answer ends at the end of noise, or where the model reads no further.
        """
        together = 1 if self.model.device.type == "cpu" else len(rows)
        for start in range(0, len(rows), together):
            part = rows[start : start + together]
            inputs = pad_left([ids for _, ids, _ in part], self.pad)
            mask = inputs.mask.to(self.model.device)
            t = mask.shape[1]
            features = [picture for _, _, shown in part for picture in shown]
            embeds = self.model.embed(inputs.tokens.to(self.model.device), self.image, features)
            language = self.model.config.language
            read = Cache.empty(language, mask, t, self.model.dtype)
            hidden = self.model.language(embeds, mask, read, last=True)[:, 0]
            logits = self.model.text_head(hidden).float()
            cache = self._room(t)
            for i, (name, ids, _) in enumerate(part):
                row = self.names.index(None)
                self.names[row], self.written[row] = name, []
                self.limits[row] = min(len(self.noise), language.max_positions - len(ids))
                window = slice(self.filled - t, self.filled)
                cache.keys[:, row, :, window] = read.keys[:, i]
                cache.values[:, row, :, window] = read.values[:, i]
                cache.bias[row] = float("-inf")
                cache.bias[row, :, :, window] = read.bias[i]
                cache.padding[row] = self.filled - t + read.padding[i]
                self.logits[row] = logits[i]

    def step(self) -> list[Ended]:
        """Write one token of every row; those that have ended with it, whose rows are then free."""
        ended = self._choose()
        if self.free < len(self.names):
            self._read()
        return ended

    @torch.inference_mode()
    def _choose(self) -> list[Ended]:
        longest = len(self.noise)
        places = torch.tensor([min(len(ids), longest - 1) for ids in self.written])
        finite = self.logits.isfinite().all(1)
        safe = self.logits.masked_fill(~finite[:, None], 0)
        tokens = choose(safe, self.noise[places.to(self.noise.device)], self.options).tolist()
        ended = []
        for row, (name, good) in enumerate(zip(self.names, finite.tolist(), strict=True)):
            if name is None:
                continue
            ids, error = self.written[row], None
            if not good:
                error = GenerationError(_broken(len(ids)))
                self._forget(row)
            elif tokens[row] != self.eos:
                ids.append(tokens[row])
                if len(ids) < self.limits[row]:
                    continue
            self.names[row] = None
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
        last = [self.pad if n is None else ids[-1] for n, ids in self._rows()]
        empty = torch.tensor([name is None for name in self.names], device=cache.padding.device)
        cache.padding.masked_fill_(empty, self.filled)  # so that a free row attends to nothing
        cache.bias.masked_fill_(empty[:, None, None, None], float("-inf"))
        embeds = self.model.language.embed(torch.tensor(last, device=self.model.device))
        if self.native is not None:
            stores = (cache.keys, cache.values, cache.angles, cache.padding)
            logits = self.native(embeds, *stores, self.filled)
            cache.bias[..., self.filled] = 0
        else:
            position = torch.tensor([self.filled], device=self.model.device)
            span = _slots(self.filled + 1)
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
        self.cache, self.logits = self.cache.pick(rows), self.logits[rows]
        self.names = [self.names[row] for row in kept]
        self.written = [self.written[row] for row in kept]
        self.limits = [self.limits[row] for row in kept]

    def _rows(self) -> Iterator[tuple[Any, list[int]]]:
        return zip(self.names, self.written, strict=True)

    def _room(self, t: int) -> Cache:
        """The cache, with t slots before the one that is written next, and that one free."""
        language, device = self.model.config.language, self.model.device
        rows = [row for row, name in enumerate(self.names) if name is not None]
        begins = [] if self.cache is None else self.cache.padding[rows].tolist()
        longest = self.filled - min(begins, default=self.filled)
        wanted = max(t, longest)
        if self.cache is None or wanted >= self.cache.slots:
            # Twice the longest answer, so that rows are moved once an answer, not once a step.
            slots = _slots(wanted + 2 * len(self.noise))
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
        self.filled = filled


def _broken(place: int) -> str:
    return (
        f"the model's logits became NaN or infinite at token {place + 1} of the answer; "
        "are the weights damaged, or is the dtype too narrow (try float32)?"
    )
