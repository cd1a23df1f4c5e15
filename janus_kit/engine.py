"""The two loops' view of a model: rows of ids become a filled cache, then one position at a time.

CodeDrawer answers what generation/sampling.py asks; write_text is the loop for answers. On a CPU
in fp32 the steps are native where they were built; model.py's are what those are held to.
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from janus_kit.errors import GenerationError
from janus_kit.generation.native import Head, NativeStep, available
from janus_kit.generation.sampling import SamplingOptions, choose, on_device
from janus_kit.model import SPAN, Cache, Janus, Layer
from janus_kit.prompts import pad_left

__all__ = ["CodeDrawer", "write_text"]


def _slots(count: int) -> int:
    """count, rounded up to whole spans."""
    return -(-count // SPAN) * SPAN


Kind = Literal["code", "text"]
# Of each model the native steps, with what their weights were when they were made.
_native: WeakKeyDictionary[Janus, dict[Kind, tuple[Any, NativeStep]]] = WeakKeyDictionary()


def native_step(model: Janus, kind: Kind) -> NativeStep | None:
    """The model's native step to logits of codes or of text; None where there can be none."""
    if model.device.type != "cpu" or model.dtype != torch.float32 or not available():
        return None
    language, config = model.language, model.config.language
    layers = [
        (
            layer.norm1.weight,
            layer.attention.qkv.weight,
            layer.attention.out.weight,
            layer.norm2.weight,
            layer.gate_up.weight,
            layer.down.weight,
        )
        for layer in cast(Iterable[Layer], language.layers)
    ]
    norm = language.norm.weight
    if kind == "text":
        head = Head(norm, model.text_head.weight)
    else:
        inner, outer = model.code_head.fc1, model.code_head.fc2
        head = Head(norm, outer.weight, outer.bias, inner.weight, inner.bias)
    weights = [tensor for layer in layers for tensor in layer]
    weights += [t for t in (norm, head.outer, head.outer_bias, head.inner) if t is not None]
    state = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in weights]
    kept = _native.setdefault(model, {})
    if kind not in kept or kept[kind][0] != state:
        step = NativeStep(
            layers,
            head,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            eps=config.rms_eps,
        )
        kept[kind] = (state, step)
    return kept[kind][1]


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
        self.filled = self.tokens.shape[1]
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
            raise GenerationError(
                f"the model's logits became NaN or infinite at token {place + 1} of the answer; "
                "are the weights damaged, or is the dtype too narrow (try float32)?"
            )
        tokens = choose(logits, noise[:, place], options).masked_fill(ended, eos)
        ended = ended | (tokens == eos)
        yield tokens
        if bool(ended.all()):
            return
        if place + 1 < noise.shape[1]:
            logits = decoder.step(model.language.embed(tokens))
