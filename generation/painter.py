"""VQTokenizer's decoder on a CPU, a picture at a time, by native/paint.c.

The same sums as vq.Decoder's in another order: pixels differ by less than a hundredth of one of
255 steps.
"""

from collections.abc import Iterable
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_kit.generation.native import available
from janus_kit.generation.native.paint import WIDEST, Conv3x3, Norm

__all__ = ["paint", "paints"]

# Below so many pixels a side, large kernels are larger than pictures, transformed four times so:
# PyTorch's convolutions will do.
LOW, LARGE = 48, 256 * 256
ROOMS = 3
_kept: WeakKeyDictionary[nn.Module, dict[nn.Module, tuple[Any, Conv3x3]]] = WeakKeyDictionary()


def paints(decoder: nn.Module) -> bool:
    """True where `paint` can stand in for the decoder."""
    convs = [m for m in decoder.modules() if isinstance(m, nn.Conv2d)]
    weight = convs[0].weight
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_grad_enabled()
        and all(conv.in_channels % 16 == 0 and conv.in_channels <= WIDEST for conv in convs)
        and available()
    )


def paint(decoder: Any, latents: Tensor) -> Tensor:
    """Latents [b, c, h, w] -> pixels fp32 [b, 3, h·stride, w·stride]; as decoder, vq.Decoder."""
    painter = _Painter(decoder)
    return torch.stack([painter.run(one.float()) for one in latents])


class _Painter:
    """Pictures are fp32 [h, w, channels] between its methods."""

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.kept = _kept.setdefault(decoder, {})
        # What convolutions write to in turns: a block needs its input, what is between its two
        # convolutions, and what comes out. Fresh memory of that size costs a seventh of all else.
        self.rooms = [torch.empty(0)] * ROOMS

    def run(self, latents: Tensor) -> Tensor:
        """[c, h, w] -> [3, h·stride, w·stride]."""
        decoder = self.decoder
        x = self.conv(decoder.conv_in, latents.permute(1, 2, 0).contiguous())
        middle = decoder.middle
        x = self.block(middle.block2, self.look(middle.attention, self.block(middle.block1, x)))
        for level in decoder.levels:
            for i, block in enumerate(level.blocks):
                x = self.block(block, x)
                if level.attention:
                    x = self.look(level.attention[i], x)
            if level.resample:
                x = self.conv(level.conv, x, twice=True)
        x = self.conv(decoder.conv_out, x, Norm.of(decoder.norm_out, x))
        return x.permute(2, 0, 1)

    def block(self, block: Any, x: Tensor) -> Tensor:
        """As vq.ResBlock."""
        y = self.conv(block.conv1, x, Norm.of(block.norm1, x))
        shortcut = x if isinstance(block.shortcut, nn.Identity) else _dot(block.shortcut, x)
        return self.conv(block.conv2, y, Norm.of(block.norm2, y), shortcut)

    def look(self, attention: Any, x: Tensor) -> Tensor:
        """As vq.Attention."""
        norm = Norm.of(attention.norm, x)
        y = x * norm.scale + norm.shift
        q, k, v = (
            _dot(c, y).flatten(0, 1)[None, None] for c in (attention.q, attention.k, attention.v)
        )
        y = F.scaled_dot_product_attention(q, k, v)
        return x + _dot(attention.out, y.view(x.shape))

    def conv(
        self,
        conv: nn.Conv2d,
        x: Tensor,
        norm: Norm | None = None,
        plus: Tensor | None = None,
        *,
        twice: bool = False,
    ) -> Tensor:
        """A 3x3 convolution of what norm makes of x, and plus."""
        large = conv.in_channels * conv.out_channels > LARGE
        if len(x) * (1 + twice) >= LOW or not large:
            native = self.native(conv)
            size = len(native.bias) * (len(x) << twice) * (x.shape[1] << twice)
            room = self.rooms.pop(0)
            self.rooms.append(room if len(room) >= size else torch.empty(size))
            return native(x, norm, plus, twice=twice, room=self.rooms[-1]).contiguous()
        if norm is not None:
            x = F.silu(x * norm.scale + norm.shift)
        y = x.permute(2, 0, 1)[None]
        if twice:
            y = F.interpolate(y, scale_factor=2.0, mode="nearest")
        y = F.conv2d(y, conv.weight.float(), cast(Tensor, conv.bias).float(), padding=1)
        y = y[0].permute(1, 2, 0).contiguous()
        return y if plus is None else y + plus

    def native(self, conv: nn.Conv2d) -> Conv3x3:
        """The kernels of conv, transformed once."""
        tensors = cast(Iterable[Tensor], (conv.weight, conv.bias))
        state = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]
        if conv not in self.kept or self.kept[conv][0] != state:
            self.kept[conv] = (state, Conv3x3(conv))
        return self.kept[conv][1]


def _dot(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution: [..., in] -> [..., out]."""
    return F.linear(x, conv.weight.float().flatten(1), cast(Tensor, conv.bias).float())
