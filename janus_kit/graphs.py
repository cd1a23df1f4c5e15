"""Steps of fixed shapes on tensors that stay where they are, replayed as CUDA graphs.

A step of drawing reads a code, and chooses the next: decoder, head, guidance, choice and embedding.
A step of writing ends with the logits, since who writes looks at every token. All that changes from
step to step is data on the device, so a step that was captured once is launched as a whole: without
that, a step of a small batch is mostly the launching of its kernels. On a CPU the same code runs
without capture; the tests run it so.
"""

import logging
import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor

from janus_kit.generation.sampling import SamplingOptions, choose, guide, on_device
from janus_kit.model import Cache, Janus, Layer

__all__ = [
    "Steps",
    "TextSteps",
    "forget",
    "kept_bytes",
    "lend",
    "lend_text",
    "own_stream",
    "replays",
    "widened",
]

log = logging.getLogger(__name__)
T = TypeVar("T")

BUCKET = 128  # slots; a graph attends to whole buckets, so that five serve a picture
SHAPES = 1_000_000  # that are compiled; buckets bound how many there are
WARM_UP = 3  # steps before a capture, in which libraries choose their kernels

_kept: WeakKeyDictionary[Janus, dict[Any, "Steps"]] = WeakKeyDictionary()
_texts: WeakKeyDictionary[Janus, "TextSteps"] = WeakKeyDictionary()
_streams: dict[torch.device, list[Any]] = {}  # that nobody has
_lock = Lock()
_capturing = Lock()  # one thread at a time


def replays(model: Janus) -> bool:
    """Whether steps of the model can be captured: on GPUs of NVIDIA, if its weights stay there."""
    return model.device.type == "cuda" and not model.held


def lend(
    model: Janus, table: Tensor, pictures: int, copies: int, slots: int, options: SamplingOptions
) -> "Steps | None":
    """Steps for so many pictures, kept from call to call; None where there are none to have.

    There are none while another thread draws as many pictures.
    """
    if not replays(model):
        return None
    shape = (table.data_ptr(), pictures, copies, slots, options)
    with _lock:
        kept = _kept.setdefault(model, {})
        if shape not in kept:
            kept.clear()  # one shape at a time: its cache is as large as a batch allows
            kept[shape] = Steps(model, table, pictures, copies, slots, options)
        return kept[shape] if kept[shape].taken.acquire(blocking=False) else None


def lend_text(model: Janus, rows: int, slots: int) -> "TextSteps | None":
    """As lend, for so many rows of text and at least so many slots."""
    if not replays(model):
        return None
    with _lock:
        kept = _texts.get(model)
        if kept is not None and kept.taken.locked():
            return None
        if kept is None or kept.cache.padding.shape[0] != rows or kept.cache.slots < slots:
            kept = None
            _texts.pop(model, None)  # its memory goes before the new one's comes
            kept = _texts[model] = TextSteps(model, _empty(model, rows, slots))
        kept.taken.acquire()
        return kept


def forget(model: Janus) -> None:
    """Let go of what was kept of a model: graphs know its weights by their addresses."""
    with _lock:
        _kept.pop(model, None)
        _texts.pop(model, None)


def kept_bytes(model: Janus) -> int:
    """Bytes of the cache that drawing steps of a model keep, and give up for another shape."""
    return sum(
        store.nbytes
        for steps in list(_kept.get(model, {}).values())
        if not steps.taken.locked()
        for store in (steps.cache.keys, steps.cache.values)
    )


def own_stream(owner: object, device: torch.device) -> Any:
    """A stream of CUDA that no other living owner has, and that goes to another after this one.

    Those that torch makes come round again after 32, and for each that multiplies cuBLAS keeps its
    workspace for ever, which a graph that was captured there goes on using.
    """
    free = _streams.setdefault(device, [])
    try:
        stream = free.pop()
    except IndexError:
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    finalize(owner, free.append, stream)
    return stream


def _whole(count: int) -> int:
    """count, rounded up to whole buckets."""
    return -(-count // BUCKET) * BUCKET


def _empty(model: Janus, rows: int, slots: int) -> Cache:
    mask = torch.zeros(rows, 0, dtype=torch.bool, device=model.device)
    return Cache.empty(model.config.language, mask, _whole(slots), model.dtype)


def widened(model: Janus, cache: Cache, slots: int, filled: int) -> Cache:
    """The cache, of which filled slots are filled, with room for slots or a few more."""
    wide = _empty(model, cache.padding.shape[0], slots)
    _take(wide, cache, filled)
    return wide


def _take(own: Cache, cache: Cache, filled: int) -> None:
    """Copy the filled slots of a cache that is no longer than own."""
    t = filled
    own.keys[:, :, :, :t].copy_(cache.keys[:, :, :, :t])
    own.values[:, :, :, :t].copy_(cache.values[:, :, :, :t])
    for store in (own.keys, own.values):  # NaN of another call would reach even a weight of 0
        store[:, :, :, t:].zero_()
    own.bias.fill_(float("-inf"))
    own.bias[..., :t].copy_(cache.bias[..., :t])
    own.padding.copy_(cache.padding)


def _compiled(model: Janus, part: Callable[..., T]) -> Callable[..., T]:
    """part of a step by torch.compile if the model wants it, for as many shapes as come: it gives
    up after eight.

    A decoder layer is such a part: one is compiled for all that follow, in place of each anew.
    """
    if not model.compiled:
        return part
    run = torch.compile(part, fullgraph=True, dynamic=False)

    def unlimited(*given: Any) -> T:
        with torch._dynamo.config.patch(recompile_limit=SHAPES, accumulated_recompile_limit=SHAPES):
            return run(*given)

    return unlimited


class Graphs:
    """A step over so many slots, captured once for each number of them, then replayed.

    step: called with its owner, the model and the slots to attend to. changed: the tensors that a
    step changes, apart from the keys and values of its own slot. Neither the model nor the owner is
    kept here: they would keep each other, and their memory, for ever.
    """

    def __init__(self, model: Janus, step: Callable[..., None], changed: Sequence[Tensor]) -> None:
        self.device = model.device
        self.captured = self.device.type == "cuda"
        self.run = step
        self.changed = changed
        self.graphs: dict[int, Any] = {}
        self.pool: Any = None
        self.stream: Any = None  # of all captures

    def __call__(self, owner: Any, model: Janus, filled: int) -> None:
        """owner's step, after which so many slots are filled."""
        span = _whole(filled)
        if not self.captured:
            self.run(owner, model, span)
            return
        with torch.cuda.device(self.device):  # streams and graphs are those of the current one
            if span not in self.graphs:
                with _capturing:
                    self._capture(owner, model, span)
            self.graphs[span].replay()

    def _capture(self, owner: Any, model: Janus, span: int) -> None:
        """Make the graph of a step; what the warm-up has changed is put back."""
        start = time.perf_counter()
        before = [tensor.clone() for tensor in self.changed]
        stream = self.stream = self.stream or own_stream(self, self.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._put_back(before)
                self.run(owner, model, span)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on allocating memory meanwhile.
        with torch.cuda.graph(graph, self.pool, stream, capture_error_mode="thread_local"):
            self.run(owner, model, span)
        self.pool = graph.pool()
        self._put_back(before)
        self.graphs[span] = graph
        log.info("captured a step over %d slots in %.1f s", span, time.perf_counter() - start)

    def _put_back(self, before: Sequence[Tensor]) -> None:
        for tensor, old in zip(self.changed, before, strict=True):
            tensor.copy_(old)


class TextSteps:
    """Steps to the logits of the next token, on a cache that stays where it is."""

    def __init__(self, model: Janus, cache: Cache) -> None:
        rows, language, device = cache.padding.shape[0], model.config.language, model.device
        self.cache = cache
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.embeds = torch.zeros(rows, language.hidden, dtype=model.dtype, device=device)
        self.logits = torch.zeros(rows, language.vocab_size, device=device)
        self.taken = Lock()
        self.layer, self.end = _compiled(model, Layer.step), _compiled(model, TextSteps._end)
        self.graphs = Graphs(model, TextSteps.step, (self.position, cache.bias))

    def take(self, cache: Cache, filled: int) -> None:
        """Begin where cache ends, of which filled slots are filled."""
        _take(self.cache, cache, filled)

    def step(self, model: Janus, span: int) -> None:
        """Read embeds at slot position, attending to span slots."""
        hidden = model.language.step(self.embeds, self.cache, self.position, span, self.layer)
        self.end(self, model, hidden)

    def _end(self, model: Janus, hidden: Tensor) -> None:
        self.logits.copy_(model.text_head(hidden))

    def __call__(self, model: Janus, embeds: Tensor, slot: int) -> Tensor:
        """Read embeds [b, d] at a slot -> logits fp32 [b, v], which the next step overwrites."""
        self.embeds.copy_(embeds)
        self.position.fill_(slot)
        self.graphs(self, model, slot + 1)
        return self.logits


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
        self.table, self.options, self.copies = table, options, copies
        device, side = model.device, model.config.side
        self.cache = _empty(model, pictures * copies, slots)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.place = torch.zeros(1, dtype=torch.long, device=device)
        self.code = torch.zeros(pictures, dtype=torch.long, device=device)
        self.codes = torch.zeros(pictures, side, dtype=torch.long, device=device)
        self.noise = on_device(torch.zeros(pictures, side), device)
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        self.filled = 0
        self.taken = Lock()
        changed = (
            self.position, self.place, self.code, self.codes, self.finite, self.cache.bias
        )  # fmt: skip
        self.layer, self.end = _compiled(model, Layer.step), _compiled(model, Steps._end)
        self.graphs = Graphs(model, Steps.step, changed)

    def take(self, cache: Cache, filled: int) -> None:
        """Begin where cache ends, of which filled slots are filled."""
        _take(self.cache, cache, filled)
        self.position.fill_(filled)
        self.filled = filled

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

    def step(self, model: Janus, span: int) -> None:
        """Read the code, attending to span slots, and choose the next."""
        embeds = self.table[self.code].repeat(self.copies, 1)
        hidden = model.language.step(embeds, self.cache, self.position, span, self.layer)
        self.position.add_(1)
        self.end(self, model, hidden)

    def _end(self, model: Janus, hidden: Tensor) -> None:
        self.choose(model.code_logits(hidden))

    def draw(
        self, model: Janus, logits: Tensor | None, before: Tensor | None, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See sampling.RowModel."""
        wanted = noise.shape[1]  # less than a row where codes were given
        self.noise[:, :wanted].copy_(noise)
        self.place.zero_()
        self.finite.fill_(True)
        if logits is not None:
            self.choose(logits)
        elif before is not None:
            self.code.copy_(before)
        for _ in range(wanted - (logits is not None)):
            self.filled += 1
            self.graphs(self, model, self.filled)
        return self.codes[:, :wanted].clone(), self.finite.clone()
