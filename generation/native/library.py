"""The compiled C of this folder."""

import ctypes
import importlib.util
import logging
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["address", "available", "free_memory", "level", "library", "read_speed", "whole"]

log = logging.getLogger(__name__)

GROUP, CHANNELS = 64, 16  # as packed.h has them


@cache
def library() -> Any:
    """The compiled code, or None where it was not built."""
    found = importlib.util.find_spec("janus_kit.generation.native._step")
    if found is None or found.origin is None:
        log.warning("the native step was not built; drawing goes on in PyTorch, slower")
        return None
    try:
        opened = ctypes.CDLL(found.origin)
    except OSError as error:
        log.warning("%s: cannot be loaded (%s); drawing goes on in PyTorch", found.origin, error)
        return None
    for name in ("step", "draw", "attend", "linear", "pack", "conv", "winograd", "norm"):
        getattr(opened, f"janus_{name}").restype = None
    for name in ("scratch", "ready", "level", "read", "conv_scratch"):
        getattr(opened, f"janus_{name}").restype = ctypes.c_int64
    return opened


def available() -> bool:
    """True where the native step was built."""
    return library() is not None


def level() -> int:
    """The instructions that this CPU has, as step.c's janus_level names them."""
    return int(library().janus_level())


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where a tensor's numbers are; null for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def whole(number: int, unit: int) -> int:
    """number, rounded up to whole units."""
    return -(-number // unit) * unit


def free_memory() -> int | None:
    """Bytes that can still be taken, by Linux's own estimate, which counts caches that can be
    dropped; None where nothing says it."""
    try:
        known = re.search(r"MemAvailable: *(\d+)", Path("/proc/meminfo").read_text("utf-8"))
    except OSError:
        return None
    return int(known[1]) * 1024 if known else None


def read_speed(gigabytes: float = 1.0, threads: int | None = None) -> float:
    """GB/s at which memory is read, measured once: the limit of a step that reads every weight."""
    data = torch.ones(int(gigabytes * 1e9) // 8, dtype=torch.int64)
    many = ctypes.c_int64(threads or torch.get_num_threads())
    start = time.perf_counter()
    library().janus_read(address(data), ctypes.c_int64(8 * len(data)), many)
    return 8e-9 * len(data) / (time.perf_counter() - start)
