"""3x3 convolutions and GroupNorm of the VQ decoder, by paint.c.

Pictures are fp32 [h, w, channels]. A convolution takes a quarter of the products that PyTorch's
does, in fp32, and reads its input already normalised.
"""

import ctypes
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from janus_kit.generation.native.library import CHANNELS, address, level, library, whole

__all__ = ["Conv3x3", "Norm"]

_PARTS = 64  # as paint.c has it
WIDEST = 4096  # channels


class _Conv(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "scale", "shift", "u", "bias", "plus", "y")),
        *((name, ctypes.c_int64) for name in ("h", "w", "in_", "out", "twice", "level")),
    )


@dataclass(frozen=True)
class Norm:
    """GroupNorm with SiLU, as a scale and a shift for every channel of one picture."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, norm: nn.GroupNorm, x: Tensor) -> "Norm":
        """What norm makes of x [h, w, channels]."""
        h, w, channels = x.shape
        weight, bias = norm.weight.float(), norm.bias.float()
        scale, shift = torch.empty(channels), torch.empty(channels)
        scratch = torch.empty(_PARTS * 2 * channels, dtype=torch.float64)
        library().janus_norm(
            address(x),
            *(ctypes.c_int64(i) for i in (h * w, channels, norm.num_groups)),
            address(weight),
            address(bias),
            ctypes.c_double(norm.eps),
            *(address(tensor) for tensor in (scratch, scale, shift)),
            ctypes.c_int64(torch.get_num_threads()),
        )
        return cls(scale, shift)


class Conv3x3:
    """A 3x3 convolution with a border of zeros: [h, w, in] -> [h, w, out]."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.out, self.channels = conv.out_channels, conv.in_channels
        out = whole(self.out, CHANNELS)
        weight = torch.zeros(out, self.channels, 3, 3)
        weight[: self.out] = conv.weight
        self.bias = torch.zeros(out)
        assert conv.bias is not None
        self.bias[: self.out] = conv.bias
        self.u = torch.empty(out * self.channels * 36)
        library().janus_winograd(
            address(weight),
            address(self.u),
            *(ctypes.c_int64(i) for i in (out, self.channels)),
        )

    def __call__(
        self,
        x: Tensor,
        norm: Norm | None = None,
        plus: Tensor | None = None,
        *,
        twice: bool = False,
        simd: int | None = None,
        room: Tensor | None = None,
    ) -> Tensor:
        """norm: what is done to x first. plus: [h, w, out] to add. twice: x is doubled first.

        simd: see level(). room: fp32 memory for what comes out, which is then a view of it.
        """
        h, w, _ = x.shape
        shape = (h * (1 + twice), w * (1 + twice), len(self.bias))
        y = torch.empty(shape) if room is None else room[: math.prod(shape)].view(shape)
        call = _Conv(
            x=x.data_ptr(),
            scale=None if norm is None else norm.scale.data_ptr(),
            shift=None if norm is None else norm.shift.data_ptr(),
            u=self.u.data_ptr(),
            bias=self.bias.data_ptr(),
            plus=None if plus is None else plus.data_ptr(),
            y=y.data_ptr(),
            h=h,
            w=w,
            in_=self.channels,
            out=len(self.bias),
            twice=twice,
            level=level() if simd is None else simd,
        )
        threads = ctypes.c_int64(torch.get_num_threads())
        scratch = torch.empty(library().janus_conv_scratch(ctypes.byref(call), threads))
        library().janus_conv(ctypes.byref(call), address(scratch), threads)
        return y[..., : self.out]
