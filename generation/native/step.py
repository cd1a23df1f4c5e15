"""Decoder steps by step.c."""

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from janus_kit.generation.native.library import address, level, library
from janus_kit.generation.native.packed import KINDS, Packed

__all__ = ["Head", "LayerWeights", "NativeStep"]

TRIAL, LONGEST_TRIAL = 16, 1024  # steps until another number of threads is tried again
TRIED = 2  # steps with it, of those of a row
_FP32, _BF16, _BF16_BOTH = 0, 1, 2  # kinds of linear.h

Matrix = Tensor | Packed | Sequence[Tensor]  # several: one below the other


@dataclass(frozen=True)
class LayerWeights:
    """One decoder block, as model.Layer holds it; qkv and gate_up may be in pieces."""

    norm1: Tensor
    qkv: Matrix
    out: Matrix
    norm2: Tensor
    gate_up: Matrix
    down: Matrix


@dataclass(frozen=True)
class Head:
    """What turns hidden states into logits: the final norm and one matrix, or two with GELU."""

    norm: Tensor
    outer: Matrix
    outer_bias: Tensor | None = None
    inner: Matrix | None = None
    inner_bias: Tensor | None = None


def matrices(layers: Sequence[LayerWeights], head: Head) -> list[Tensor | Packed]:
    """All of them, one by one."""
    found: list[Matrix] = [m for w in layers for m in (w.qkv, w.out, w.gate_up, w.down)]
    found += [m for m in (head.inner, head.outer) if m is not None]
    return list(chain(*(_listed(matrix) for matrix in found)))


def _listed(matrix: Matrix) -> Sequence[Tensor | Packed]:
    return [matrix] if isinstance(matrix, Tensor | Packed) else matrix


class _Shape(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("layers", "hidden", "heads", "kv_heads")),
        *((name, ctypes.c_int64) for name in ("head_dim", "intermediate", "middle", "out")),
        *((name, ctypes.c_int64) for name in ("kind", "cache_half", "level")),
        ("eps", ctypes.c_float),
        ("unused", ctypes.c_float),
    )


class _Store(ctypes.Structure):
    _fields_ = (
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("slots", ctypes.c_int64),
        ("angles", ctypes.c_void_p),
        ("padding", ctypes.c_void_p),
    )


class _Draw(ctypes.Structure):
    _fields_ = (
        ("table", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("table_half", "copies", "count")),
        ("before", ctypes.c_void_p),
        ("uniform", ctypes.c_void_p),
        ("codes", ctypes.c_void_p),
        ("finite", ctypes.c_int64),
        ("guidance", ctypes.c_double),
        ("temperature", ctypes.c_double),
    )


class _Threads:
    """One thread or many, whichever was faster when last tried.

    Many wait for each other some forty times a step; beside other work on the machine, each wait
    may cost a time slice. Results do not depend on the number.
    """

    def __init__(self, many: int) -> None:
        self.most = self.now = max(1, many)
        self.other = 1
        self.seconds = dict.fromkeys((self.now, self.other), float("inf"))
        self.steps, self.trial, self.delay = 0, 2, TRIAL

    @property
    def due(self) -> bool:
        """Whether the next call tries the other number."""
        return self.now != self.other and self.steps + 1 >= self.trial

    def call(self, run: Callable[[int], None], steps: int = 1) -> None:
        """run(threads), which is timed and does that many steps."""
        due = self.due
        tried = self.other if due else self.now
        start = time.perf_counter()
        run(tried)
        self.seconds[tried] = (time.perf_counter() - start) / steps
        self.steps += steps
        if not due:
            return
        if self.seconds[self.other] < self.seconds[self.now]:
            self.now, self.other, self.delay = self.other, self.now, TRIAL
        else:
            self.delay = min(2 * self.delay, LONGEST_TRIAL)
        self.trial = self.steps + self.delay


class NativeStep:
    """A decoder and its head on the CPU: (embeds of one position, cache) -> logits of the next.

    Matrices of a float32 model that bfloat16 holds exactly, as those of published weights are, are
    read in it: half the bytes for the same numbers. With matrices in bfloat16, what they are
    multiplied with is rounded to it as well; packed ones round it to 8 bits. simd: see level().
    """

    def __init__(
        self,
        layers: Sequence[LayerWeights],
        head: Head,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        eps: float,
        simd: int | None = None,
    ) -> None:
        first = matrices(layers, head)
        if isinstance(first[0], Packed):
            self.kind = KINDS[first[0].bits]
        elif first[0].dtype == torch.bfloat16:
            self.kind = _BF16_BOTH
        else:
            tensors = [m for m in first if isinstance(m, Tensor)]
            half = all(bool((m.bfloat16().float() == m).all()) for m in tensors)
            self.kind = _BF16 if half else _FP32
        self._kept: list[Tensor] = []  # what the addresses below point to
        fields: list[int] = []
        for w in layers:
            fields += [self._vector(w.norm1), *self._pieces(w.qkv, 3), *self._pieces(w.out, 1)]
            fields += [self._vector(w.norm2), *self._pieces(w.gate_up, 2), *self._pieces(w.down, 1)]
        self._layers = (ctypes.c_int64 * len(fields))(*fields)
        fields = [self._vector(head.norm), *self._pieces(head.inner, 1)]
        middle = fields[-1]
        fields += [self._vector(head.inner_bias), *self._pieces(head.outer, 1)]
        out = fields[-1]
        fields.append(self._vector(head.outer_bias))
        self._head = (ctypes.c_int64 * len(fields))(*fields)
        self._threads = _Threads(1)
        down = _listed(layers[0].down)[0]
        self._shape = _Shape(
            layers=len(layers),
            hidden=head.norm.shape[0],
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate=down.k if isinstance(down, Packed) else down.shape[1],
            middle=middle,
            out=out,
            kind=self.kind,
            level=level() if simd is None else simd,
            eps=eps,
        )

    def _keep(self, tensor: Tensor) -> int:
        self._kept.append(tensor.detach().contiguous())
        return self._kept[-1].data_ptr()

    def _vector(self, tensor: Tensor | None) -> int:
        return 0 if tensor is None else self._keep(tensor.float())

    def _pieces(self, matrix: Matrix | None, room: int) -> list[int]:
        """Address, scale and number of rows of each piece, filled up to room pieces."""
        fields: list[int] = []
        for piece in [] if matrix is None else _listed(matrix):
            if isinstance(piece, Packed):
                fields += [self._keep(piece.packed), self._keep(piece.scale), piece.n]
            else:
                kept = self._keep(piece if self.kind == _FP32 else piece.bfloat16())
                fields += [kept, 0, piece.shape[0]]
        return fields + [0] * (3 * room - len(fields))

    @property
    def bytes(self) -> int:
        """Of all weights that a step reads."""
        return sum(tensor.nbytes for tensor in self._kept)

    def __call__(
        self,
        embeds: Tensor,
        keys: Tensor,
        values: Tensor,
        angles: Tensor,
        padding: Tensor,
        position: int,
        threads: int | None = None,
    ) -> Tensor:
        """embeds [b, hidden] at slot position -> logits fp32 [b, out]; see model.Cache.

        keys and values in fp32 or bfloat16, angles fp32. threads: None takes torch's number, or
        one where that is faster.
        """
        embeds = embeds.float().contiguous()
        logits = torch.empty(len(embeds), self._shape.out)
        most = threads or torch.get_num_threads()
        shape, store, scratch = self._prepared(len(embeds), keys, values, angles, padding, most)

        def run(threads: int) -> None:
            library().janus_step(
                ctypes.byref(shape),
                self._layers,
                self._head,
                ctypes.c_int64(len(embeds)),
                address(embeds),
                ctypes.byref(store),
                ctypes.c_int64(position),
                address(scratch),
                address(logits),
                ctypes.c_int64(threads),
            )

        self._run(run, 1, threads, most)
        return logits

    def draw(
        self,
        logits: Tensor | None,
        before: Tensor | None,
        noise: Tensor,
        table: Tensor,
        keys: Tensor,
        values: Tensor,
        angles: Tensor,
        padding: Tensor,
        position: int,
        *,
        guided: bool,
        guidance: float,
        temperature: float,
        threads: int | None = None,
    ) -> tuple[Tensor, bool]:
        """Draw codes one after another: -> int64 [b, n], and whether all logits were finite.

        logits fp32 [b or 2b, out] (guided: 2b, conditional rows first) of the first code, or codes
        before it, int64 [b], which are read at slot position. noise: float64 [b, n]. table: embeds
        [out, hidden] in fp32 or bfloat16. The rest is as in a step. The codes are those of
        sampling.guide and sampling.choose with the whole codebook.
        """
        most = threads or torch.get_num_threads()
        if threads is None and noise.shape[1] > TRIED and self._many(most).due:
            # Where it is slower, another number of threads is to cost no row.
            go = partial(
                self.draw,
                table=table,
                keys=keys,
                values=values,
                angles=angles,
                padding=padding,
                guided=guided,
                guidance=guidance,
                temperature=temperature,
            )
            first, fine = go(logits, before, noise[:, :TRIED], position=position)
            last, at = first[:, -1].contiguous(), position + TRIED - (logits is not None)
            rest, good = go(None, last, noise[:, TRIED:], position=at)
            return torch.cat((first, rest), 1), fine and good
        noise = noise.contiguous()
        codes = torch.empty(noise.shape, dtype=torch.long)
        copies = 2 if guided else 1
        if logits is None:
            logits = torch.empty(copies * len(noise), self._shape.out)
        logits = logits.float().clone(memory_format=torch.contiguous_format)
        work = _Draw(
            table=table.data_ptr(),
            table_half=table.dtype == torch.bfloat16,
            copies=copies,
            count=noise.shape[1],
            before=None if before is None else before.data_ptr(),
            uniform=noise.data_ptr(),
            codes=codes.data_ptr(),
            finite=1,
            guidance=guidance,
            temperature=temperature,
        )
        shape, store, scratch = self._prepared(len(logits), keys, values, angles, padding, most)

        def run(threads: int) -> None:
            library().janus_draw(
                ctypes.byref(shape),
                self._layers,
                self._head,
                ctypes.c_int64(len(logits)),
                ctypes.byref(store),
                ctypes.c_int64(position),
                address(scratch),
                address(logits),
                ctypes.byref(work),
                ctypes.c_int64(threads),
            )

        self._run(run, noise.shape[1], threads, most)
        return codes, bool(work.finite)

    def _prepared(
        self, rows: int, keys: Tensor, values: Tensor, angles: Tensor, padding: Tensor, most: int
    ) -> tuple[_Shape, _Store, Tensor]:
        """The shape with the cache's dtype, the cache, and scratch for as many threads."""
        shape = _Shape.from_buffer_copy(self._shape)
        shape.cache_half = keys.dtype == torch.bfloat16
        slots = keys.shape[3]
        scratch = torch.empty(
            library().janus_scratch(
                ctypes.byref(shape), *(ctypes.c_int64(i) for i in (rows, slots, most))
            ),
            dtype=torch.uint8,
        )
        places = [tensor.data_ptr() for tensor in (angles, padding)]
        return shape, _Store(keys.data_ptr(), values.data_ptr(), slots, *places), scratch

    def _many(self, most: int) -> _Threads:
        """What chooses from one thread and so many."""
        if self._threads.most != most:
            self._threads = _Threads(most)
        return self._threads

    def _run(self, run: Callable[[int], None], steps: int, threads: int | None, most: int) -> None:
        """run with so many threads, or for None with those that are quickest, most at most."""
        if threads is None:
            self._many(most).call(run, steps)
        else:
            run(threads)
