"""The loops' view of a model: rows of ids become a filled cache, then one position at a time.

CodeDrawer answers what generation/sampling.py asks; writing.py has the loops for text. On a CPU the
steps are native where they were built; model.py's are what those are held to.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy

import torch
from torch import Tensor

from janus_kit.generation.sampling import SamplingOptions, draw_one_by_one
from janus_kit.graphs import Steps, TextSteps, lend, lend_text, replays, widened
from janus_kit.model import SPAN, Cache, Janus
from janus_kit.prompts import pad_left
from janus_kit.steps import Kind, native_step

__all__ = ["CodeDrawer", "Decoder", "slots_for"]


def slots_for(count: int) -> int:
    """count, rounded up to whole spans."""
    return -(-count // SPAN) * SPAN


class Decoder:
    """A cache of left-padded rows that grows by one position a step, and the logits that follow."""

    replayed: TextSteps | None = None  # of a GPU

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
            model.config.language, self.mask, slots_for(self.filled + room), model.dtype
        )

    def read(self, embeds: Tensor) -> Tensor:
        """Fill the cache from whole rows: [b, t, d] -> the last hidden states [b, d]."""
        return self.model.language(embeds, self.mask, self.cache, last=True)[:, 0]  # type: ignore[no-any-return]

    def fork(self, rows: Tensor, slots: int = 0) -> "Decoder":
        """Another one that goes on from the given rows (int64 [b]), repeated where rows repeat.

        slots: how many its cache has at least.
        """
        other = copy(self)
        other.position = self.position.clone()
        other.cache = self.cache.pick(rows)
        if slots > self.cache.slots:
            other.cache = widened(self.model, other.cache, slots, self.filled)
        return other

    def step(self, embeds: Tensor) -> Tensor:
        """Read one position: [b, d] -> the logits of what follows [b, v]."""
        self.filled += 1
        cache = self.cache
        if self.native is not None:
            stores = (cache.keys, cache.values, cache.angles, cache.padding)
            return self.native(embeds, *stores, self.filled - 1)
        if self.replayed is not None:
            return self.replayed(self.model, embeds, self.filled - 1)
        hidden = self.model.language.step(embeds, cache, self.position, slots_for(self.filled))
        self.position += 1
        return self.head(hidden)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Steps of text by graphs, where there are some to have."""
        self.replayed = lend_text(self.model, len(self.mask), self.cache.slots)
        try:
            if self.replayed is not None:
                self.replayed.take(self.cache, self.filled)
            yield
        finally:
            if self.replayed is not None:
                self.replayed.taken.release()
                self.replayed = None


class CodeDrawer:
    """A Janus that draws: the CodeModel of sampling.py.

    conditional: drawing ids of each picture; unconditional: what guidance pushes away from, None
    without guidance. Equal rows are read once and their cache is copied; before is the drawer of
    the batch before, whose reading is taken over when it was of the same rows.
    """

    reader: Decoder
    hidden: Tensor  # of the last position of each unique row
    decoder: Decoder | None  # of all rows, once there is need of it
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
        # Where steps have a cache of their own, this one need not hold more than is read.
        room = 0 if replays(model) else model.config.codes
        self.reader = Decoder(model, self.unique, pad, room, "code")
        self.hidden = self.reader.read(model.language.embed(self.reader.tokens))

    def start(self) -> Tensor:
        self.decoder = None
        return self.reader.head(self.hidden[self.order])

    def step(self, codes: Tensor) -> Tensor:
        embeds = self.table[codes].repeat(self.copies, 1)
        return self._forked().step(embeds)

    def keep(self, rows: Tensor) -> bool:
        """Go on with these pictures alone (int64 [k]); False where the shape of a step is fixed."""
        if self.steps is not None:
            return False
        decoder = self._forked()
        pictures = decoder.cache.padding.shape[0] // self.copies
        self.decoder = decoder.fork(torch.cat([rows + pictures * i for i in range(self.copies)]))
        return True

    def draw(
        self,
        logits: Tensor | None,
        before: Tensor | None,
        noise: Tensor,
        options: SamplingOptions,
    ) -> tuple[Tensor, Tensor]:
        """See sampling.RowModel. A row is one native call where the whole codebook is kept."""
        if logits is not None and self.reader.native is None:
            self.steps = self._lent(options)
        if self.steps is not None:
            return self.steps.draw(self.model, logits, before, noise)
        decoder = self._forked()
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

    def close(self) -> None:
        """Let the next call have the steps."""
        if self.steps is not None:
            self.steps.taken.release()
            self.steps = None

    @property
    def _slots(self) -> int:
        """Of a cache that holds the whole picture, too."""
        return slots_for(self.reader.first + self.model.config.codes)

    def _forked(self) -> Decoder:
        if self.decoder is None:
            self.decoder = self.reader.fork(self.order, self._slots)
        return self.decoder

    def _lent(self, options: SamplingOptions) -> Steps | None:
        pictures = len(self.order) // self.copies
        steps = lend(self.model, self.table, pictures, self.copies, self._slots, options)
        if steps is not None:
            if self.decoder is None:
                steps.take(self.reader.cache.pick(self.order), self.reader.filled)
            else:  # codes were given
                steps.take(self.decoder.cache, self.decoder.filled)
                self.decoder = None
        return steps
