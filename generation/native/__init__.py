"""The decoder step and causal attention in C: step.c, where it was built.

It reads row-major matrices as PyTorch holds them. On a CPU a step of few rows reads every weight
once, and a small model's step in PyTorch is mostly the starting of its hundred operations.
"""

import ctypes
import importlib.util
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["Head", "NativeStep", "attend", "attends", "available"]

log = logging.getLogger(__name__)

_LANES, _QUERIES, _WIDEST = 32, 4, 1024  # as step.c has them
TRIAL, LONGEST_TRIAL = 16, 1024  # steps until another number of threads is tried again


class _Shape(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("layers", "hidden", "heads", "kv_heads")),
        *((name, ctypes.c_int64) for name in ("head_dim", "intermediate", "middle", "out", "half")),
        ("eps", ctypes.c_float),
        ("unused", ctypes.c_float),
    )


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled step.c, or None where it was not built."""
    found = importlib.util.find_spec("janus_kit.generation.native._step")
    if found is None or found.origin is None:
        log.info("the native step was not built; drawing goes on in PyTorch, slower")
        return None
    try:
        library = ctypes.CDLL(found.origin)
    except OSError as error:
        log.warning("%s: cannot be loaded (%s); drawing goes on in PyTorch", found.origin, error)
        return None
    library.janus_step.restype = None
    library.janus_attend.restype = None
    library.janus_scratch.restype = ctypes.c_int64
    return library


def available() -> bool:
    """True where the native step was built."""
    return _library() is not None


def attends(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """True where `attend` can take them."""
    return (
        q.device.type == "cpu"
        and q.dtype == k.dtype == v.dtype == torch.float32
        and not torch.is_grad_enabled()
        and q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        and q.shape[2] == k.shape[2]
        and q.shape[3] <= _WIDEST
        and available()
    )


def attend(q: Tensor, k: Tensor, v: Tensor, threads: int | None = None) -> Tensor:
    """Causal attention of whole rows: fp32 [b, heads, t, size], k and v with kv_heads -> as q.

    For what `attends` allows; threads: None takes torch's number.
    """
    library: Any = _library()
    b, heads, t, size = q.shape
    threads = threads or torch.get_num_threads()
    wide = -(-t // _LANES) * _LANES
    scratch = torch.empty(threads * (size + _QUERIES) * wide)
    y = torch.empty(b, t, heads, size)
    library.janus_attend(
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (q, k, v, y)),
        *((ctypes.c_int64 * 3)(*tensor.stride()[:3]) for tensor in (q, k, v)),
        *(ctypes.c_int64(number) for number in (b, heads, k.shape[1], t, size, wide)),
        ctypes.c_void_p(scratch.data_ptr()),
        ctypes.c_int64(threads),
    )
    return y.transpose(1, 2)


@dataclass(frozen=True)
class Head:
    """What turns hidden states into logits: the final norm and one matrix, or two with GELU."""

    norm: Tensor
    outer: Tensor
    outer_bias: Tensor | None = None
    inner: Tensor | None = None
    inner_bias: Tensor | None = None


class _Threads:
    """One thread or many, whichever was faster when last tried.

    Many wait for each other some forty times a step; beside other work on the machine, each wait
    may cost a time slice. Results do not depend on the number.
    """

    def __init__(self, many: int) -> None:
        self.now, self.other = max(1, many), 1
        self.seconds = dict.fromkeys((self.now, self.other), float("inf"))
        self.steps, self.trial, self.delay = 0, 2, TRIAL

    def call(self, step: Any) -> None:
        """step(threads), which is timed."""
        self.steps += 1
        tried = self.other if self.steps >= self.trial else self.now
        start = time.perf_counter()
        step(tried)
        self.seconds[tried] = time.perf_counter() - start
        if self.steps < self.trial:
            return
        if self.seconds[self.other] < self.seconds[self.now]:
            self.now, self.other, self.delay = self.other, self.now, TRIAL
        else:
            self.delay = min(2 * self.delay, LONGEST_TRIAL)
        self.trial = self.steps + self.delay


class NativeStep:
    """A decoder and its head on the CPU: (embeds of one position, cache) -> logits of the next.

    layers: for each norm1, qkv, out, norm2, gate_up, down, as model.Layer holds them, fp32.
    Matrices that bfloat16 holds exactly, as those of published weights are, are read in it: half
    the bytes for the same numbers.
    """

    def __init__(
        self,
        layers: Sequence[Sequence[Tensor]],
        head: Head,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        eps: float,
    ) -> None:
        matrices = [m for layer in layers for m in layer if m.dim() == 2]
        matrices += [m for m in (head.inner, head.outer) if m is not None]
        half = all(bool((m.bfloat16().float() == m).all()) for m in matrices)
        self._kept: list[Tensor] = []  # what the addresses below point to
        self._layers = (ctypes.c_void_p * (6 * len(layers)))(
            *(self._address(tensor, half) for layer in layers for tensor in layer)
        )
        fields = (head.norm, head.inner, head.inner_bias, head.outer, head.outer_bias)
        self._head = (ctypes.c_void_p * 5)(*(self._address(tensor, half) for tensor in fields))
        self._threads = _Threads(1)
        hidden = head.norm.shape[0]
        self._shape = _Shape(
            layers=len(layers),
            hidden=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate=layers[0][5].shape[1],
            middle=0 if head.inner is None else head.inner.shape[0],
            out=head.outer.shape[0],
            half=half,
            eps=eps,
        )

    def _address(self, tensor: Tensor | None, half: bool) -> int | None:
        if tensor is None:
            return None
        kept = tensor.detach().bfloat16() if half and tensor.dim() == 2 else tensor.detach()
        self._kept.append(kept.contiguous())
        return self._kept[-1].data_ptr()

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
        """embeds fp32 [b, hidden] at slot position -> logits fp32 [b, out]; see model.Cache.

        threads: None takes torch's number, or one where that is faster.
        """
        library: Any = _library()
        most = threads or torch.get_num_threads()
        rows, slots = len(embeds), keys.shape[3]
        scratch = torch.empty(
            library.janus_scratch(
                ctypes.byref(self._shape),
                ctypes.c_int64(rows),
                ctypes.c_int64(slots),
                ctypes.c_int64(most),
            )
        )
        logits = torch.empty(rows, self._shape.out)
        embeds = embeds.contiguous()

        def step(threads: int) -> None:
            library.janus_step(
                ctypes.byref(self._shape),
                self._layers,
                self._head,
                ctypes.c_int64(rows),
                *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (embeds, keys, values)),
                ctypes.c_int64(slots),
                *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (angles, padding)),
                ctypes.c_int64(position),
                *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (scratch, logits)),
                ctypes.c_int64(threads),
            )

        if threads is not None:
            step(threads)
        else:
            if most not in self._threads.seconds:
                self._threads = _Threads(most)
            self._threads.call(step)
        return logits
