"""Group norms that a CPU can train quickly with the channels last.

Convolutions are fastest there with the channels last, in bfloat16 most of all, but PyTorch's way
back through a group norm in that order is so slow that it undoes this: a step of the VQ decoder
takes 1.3 times as long with it (benchmarks/training.py, on one core with AVX-512). The way back
here is its usual formula in a few whole-tensor operations.
"""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["train_channels_last"]


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        n, c, h, w = x.shape
        y, mean, rstd = torch.native_group_norm(
            x, weight.to(x.dtype), bias.to(x.dtype), n, c, h * w, groups, eps
        )
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight, mean, rstd = ctx.saved_tensors
        n, c, h, w = x.shape
        groups = mean.shape[1]
        size = c // groups
        rows, grad = (t.permute(0, 2, 3, 1).reshape(n, h * w, c) for t in (x, grads[0].to(x.dtype)))
        # Sums over places of the gradient, and of it times x, for each channel.
        alone = (x.new_ones(n, 1, h * w) @ grad).squeeze(1).float()
        both = (grad * rows).sum(1, dtype=torch.float32)

        def spread(values: Tensor) -> Tensor:
            return values.repeat_interleave(size, 1)

        mean, rstd = mean.float(), rstd.float()
        scale = weight.float()
        for_weight = ((both - spread(mean) * alone) * spread(rstd)).sum(0)
        alone_in, both_in = ((s * scale).view(n, groups, size).sum(-1) for s in (alone, both))
        slope = (alone_in * mean - both_in) * rstd**3 / (h * w * size)
        level = -slope * mean - alone_in * rstd / (h * w * size)
        factors = (scale * spread(rstd), spread(slope), spread(level))
        by_grad, by_x, fixed = (f.unsqueeze(1).to(x.dtype) for f in factors)
        for_x = torch.addcmul(fixed, grad, by_grad).addcmul_(rows, by_x)
        return (
            for_x.view(n, h, w, c).permute(0, 3, 1, 2),
            for_weight.to(weight.dtype),
            alone.sum(0).to(weight.dtype),
            None,
            None,
        )


def train_channels_last(module: nn.Module) -> None:
    """Lay out a net of convolutions with the channels last, and train its group norms by this."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for norm in module.modules():
        if isinstance(norm, nn.GroupNorm):
            norm.forward = _by_formula(norm)  # type: ignore[method-assign]


def _by_formula(norm: nn.GroupNorm) -> Any:
    def forward(x: Tensor) -> Tensor:
        return _Norm.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)  # type: ignore[no-any-return, no-untyped-call]

    return forward
