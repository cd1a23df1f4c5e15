"""Drawing steps of fixed shapes on tensors that stay where they are, replayed as CUDA graphs.

A step reads a code, and chooses the next: decoder, head, guidance, choice and embedding. All that
changes from step to step is data on the device, so nothing waits for Python, and a step that was
captured once is launched as a whole: without that, a step of a small batch is mostly the launching
of its kernels. On a CPU the same code runs without capture; the tests run it so.
"""

import logging
import time
from collections.abc import Callable
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from janus_kit.generation.sampling import SamplingOptions, choose, guide, on_device
from janus_kit.model import Cache, Janus

__all__ = ["Steps", "lend"]

log = logging.getLogger(__name__)

BUCKET = 128  # slots; a graph attends to whole buckets, so that five serve a picture
WARM_UP = 3  # steps before a capture, in which libraries choose their kernels

_kept: WeakKeyDictionary[Janus, dict[Any, "Steps"]] = WeakKeyDictionary()
_lock = Lock()


def lend(
    model: Janus, table: Tensor, pictures: int, copies: int, slots: int, options: SamplingOptions
) -> "Steps | None":
    """Steps for so many pictures, kept from call to call; None where there are none to have.

    Only GPUs of NVIDIA have them, and only while no other thread draws as many pictures.
    """
    if model.device.type != "cuda" or model.held:
        return None
    shape = (table.data_ptr(), pictures, copies, slots, options)
    with _lock:
        kept = _kept.setdefault(model, {})
        if shape not in kept:
            kept.clear()  # one shape at a time: its cache is as large as a batch allows
            kept[shape] = Steps(model, table, pictures, copies, slots, options)
        return kept[shape] if kept[shape].taken.acquire(blocking=False) else None


class Steps:
    """Drawing steps for a fixed number of pictures, cache length and options."""

    def __init__(
        self,
        model: Janus,
        table: Tensor,
        pictures: int,
        copies: int,
        slots: int,
        options: SamplingOptions,
    ) -> None:
        self.model, self.table, self.options, self.copies = model, table, options, copies
        device, rows = model.device, pictures * copies
        slots = -(-slots // BUCKET) * BUCKET
        mask = torch.zeros(rows, 0, dtype=torch.bool, device=device)
        self.cache = Cache.empty(model.config.language, mask, slots, model.dtype)
        side = model.config.side
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.place = torch.zeros(1, dtype=torch.long, device=device)
        self.code = torch.zeros(pictures, dtype=torch.long, device=device)
        self.codes = torch.zeros(pictures, side, dtype=torch.long, device=device)
        self.noise = on_device(torch.zeros(pictures, side), device)
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        self.filled = 0
        self.taken = Lock()
        self.run: Callable[[int], None] = self.step
        if model.compiled:
            self.run = torch.compile(self.step, fullgraph=True, dynamic=False)
        self.graphs: dict[int, Any] = {}
        self.pool: Any = None

    def take(self, cache: Cache, filled: int) -> None:
        """Begin where cache ends, of which filled slots are filled."""
        own, t = self.cache, filled
        own.keys[:, :, :, :t].copy_(cache.keys[:, :, :, :t])
        own.values[:, :, :, :t].copy_(cache.values[:, :, :, :t])
        own.bias.fill_(float("-inf"))
        own.bias[..., :t].copy_(cache.bias[..., :t])
        own.padding.copy_(cache.padding)
        self.position.fill_(filled)
        self.filled = filled

    def give_back(self) -> None:
        """Let the next call have them."""
        if self.taken.locked():
            self.taken.release()

    def choose(self, logits: Tensor) -> None:
        """Guidance and the choice of the code at place."""
        logits = logits.float()
        if self.copies == 2:
            logits = guide(logits, self.options.guidance)
        self.finite.logical_and_(logits.isfinite().all())
        uniform = self.noise.index_select(1, self.place).squeeze(1)
        self.code.copy_(choose(logits, uniform, self.options))
        self.codes.index_copy_(1, self.place, self.code.unsqueeze(1))
        self.place.add_(1)

    def step(self, span: int) -> None:
        """Read the code, attending to span slots, and choose the next."""
        embeds = self.table[self.code].repeat(self.copies, 1)
        hidden = self.model.language.step(embeds, self.cache, self.position, span)
        self.position.add_(1)
        self.choose(self.model.code_logits(hidden))

    def draw(
        self, logits: Tensor | None, before: Tensor | None, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See sampling.RowModel."""
        self.noise.copy_(noise)
        self.place.zero_()
        self.finite.fill_(True)
        if logits is not None:
            self.choose(logits)
        elif before is not None:
            self.code.copy_(before)
        for _ in range(noise.shape[1] - (logits is not None)):
            self.filled += 1
            self._replay(-(-self.filled // BUCKET) * BUCKET)
        return self.codes.clone(), self.finite.clone()

    def _replay(self, span: int) -> None:
        if self.model.device.type != "cuda":
            self.run(span)
            return
        if span not in self.graphs:
            self._capture(span)
        self.graphs[span].replay()

    def _capture(self, span: int) -> None:
        """Make the graph of a step; what the warm-up has changed is put back."""
        start = time.perf_counter()
        kept = (self.position, self.place, self.code, self.codes, self.finite, self.cache.bias)
        before = [tensor.clone() for tensor in kept]
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.place.zero_()
                self.position.copy_(before[0])  # the slot that the real step writes too
                self.run(span)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            self.run(span)
        self.pool = graph.pool()
        for tensor, old in zip(kept, before, strict=True):
            tensor.copy_(old)
        self.graphs[span] = graph
        log.info("captured a step over %d slots in %.1f s", span, time.perf_counter() - start)
