"""Causal attention of whole rows, by attend.c."""

import ctypes

import torch
from torch import Tensor

from janus_kit.generation.native.library import address, available, library, whole

__all__ = ["attend", "attends"]

_LANES, _QUERIES, _WIDEST = 32, 4, 1024  # as attend.c has them


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
    b, heads, t, size = q.shape
    threads = threads or torch.get_num_threads()
    wide = whole(t, _LANES)
    scratch = torch.empty(threads * (size + _QUERIES) * wide)
    y = torch.empty(b, t, heads, size)
    library().janus_attend(
        *(address(tensor) for tensor in (q, k, v, y)),
        *((ctypes.c_int64 * 3)(*tensor.stride()[:3]) for tensor in (q, k, v)),
        *(ctypes.c_int64(number) for number in (b, heads, k.shape[1], t, size, wide)),
        address(scratch),
        ctypes.c_int64(threads),
    )
    return y.transpose(1, 2)
