"""Matrices in 8 or 4 bits, which a CPU reads in a half or a quarter of the time of bfloat16.

Weights are whole numbers times a scale, one a row in 8 bits, one for every 64 of a row in 4. What
they are multiplied with is rounded to 8 bits in groups of 64 as well, so that products are whole
numbers: the scheme of "LLM.int8()" (Dettmers et al., 2022) and of llama.cpp's Q8_0 and Q4_0.
"""

import ctypes
import mmap
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import torch
from torch import Tensor, nn

from janus_kit.generation.native.library import CHANNELS, GROUP, address, level, library, whole

__all__ = ["BITS", "KINDS", "Packed", "large"]

BITS: Final[Mapping[str, int]] = {"int8": 8, "int4": 4}
KINDS: Final = {8: 3, 4: 4}  # of linear.h
LARGE: Final = 2**22  # bytes from which on a matrix has pages of its own


class _Piece(ctypes.Structure):
    _fields_ = (("weight", ctypes.c_void_p), ("scale", ctypes.c_void_p), ("n", ctypes.c_int64))


def large(size: int) -> Tensor:
    """Memory to be written, uint8 [size]: in pages of 2 MB where the system has them.

    A matrix that is read once a step is read by a tenth faster from them than from pages of 4 KB,
    whose places a CPU looks up as often as it reads 64 lines.
    """
    if size < LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # of a system without such pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


class Packed(nn.Module):
    """A linear layer with packed weights: [..., k] -> [..., n], in the dtype of what comes in.

    bits: 8 or 4. packed: uint8, as packed.h lays it out; scale: fp32 [n], or bfloat16
    [n/16, k/64, 16]. For inference on a CPU only.
    """

    packed: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(
        self, n: int, k: int, bits: int, packed: Tensor, scale: Tensor, bias: Tensor | None = None
    ) -> None:
        super().__init__()
        self.n, self.k, self.bits = n, k, bits
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    @staticmethod
    def sizes(n: int, k: int, bits: int) -> tuple[int, tuple[int, ...]]:
        """The bytes of packed, and the shape of scale."""
        rows, groups = whole(n, CHANNELS), whole(k, GROUP) // GROUP
        scales = (n,) if bits == 8 else (rows // CHANNELS, groups, CHANNELS)
        return rows * groups * GROUP * bits // 8, scales

    @classmethod
    def of(cls, weight: Tensor, bits: int, bias: Tensor | None = None) -> "Packed":
        """Pack a matrix, fp32 or bfloat16 [n, k]."""
        n, k = weight.shape
        weight = weight.detach().contiguous()
        if weight.dtype not in (torch.float32, torch.bfloat16):
            weight = weight.float()
        size, scales = cls.sizes(n, k, bits)
        packed = large(size)
        scale = torch.empty(scales, dtype=torch.float32 if bits == 8 else torch.bfloat16)
        library().janus_pack(
            ctypes.c_int64(KINDS[bits]),
            address(weight),
            *(ctypes.c_int64(int(i)) for i in (weight.dtype == torch.bfloat16, n, k)),
            address(packed),
            address(scale),
            ctypes.c_int64(torch.get_num_threads()),
        )
        return cls(n, k, bits, packed, scale, bias)

    def unpacked(self) -> Tensor:
        """The matrix that the packed one stands for: fp32 [n, k]."""
        groups = whole(self.k, GROUP) // GROUP
        if self.bits == 8:
            whole_numbers = self.packed.view(-1, groups * 16, CHANNELS, 4).int() - 128
        else:
            halves = self.packed.view(-1, groups, 1, 8, CHANNELS, 4).int()
            both = torch.cat((halves & 15, halves >> 4), 2) - 8
            whole_numbers = both.view(-1, groups * 16, CHANNELS, 4)
        numbers = whole_numbers.float().permute(0, 2, 1, 3).reshape(-1, groups, GROUP)
        if self.bits == 8:
            return numbers.flatten(1)[: self.n, : self.k] * self.scale[:, None]
        scales = self.scale.float().transpose(1, 2).reshape(-1, groups, 1)
        return (numbers * scales).flatten(1)[: self.n, : self.k]

    def forward(self, x: Tensor, simd: int | None = None) -> Tensor:
        """simd: see level(); None takes what the CPU has."""
        rows = x.reshape(-1, self.k).float().contiguous()
        ready = torch.empty(
            max(1, len(rows)) * library().janus_ready(ctypes.c_int64(self.k)), dtype=torch.uint8
        )
        y = torch.empty(len(rows), self.n)
        piece = _Piece(self.packed.data_ptr(), self.scale.data_ptr(), self.n)
        library().janus_linear(
            ctypes.c_int64(KINDS[self.bits]),
            ctypes.c_int64(level() if simd is None else simd),
            ctypes.byref(piece),
            address(rows),
            address(y),
            address(ready),
            *(ctypes.c_int64(i) for i in (len(rows), self.k, torch.get_num_threads())),
        )
        if self.bias is not None:
            y += self.bias
        return y.view(*x.shape[:-1], self.n).to(x.dtype)
