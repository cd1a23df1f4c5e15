"""Muon (Jordan et al., 2024) for machines without bfloat16 of their own.

PyTorch's works in bfloat16. A CPU with AVX2 only imitates that, so that an update takes many times
as long as in float32 (benchmarks/training.py).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Muon32"]


class Muon32(torch.optim.Muon):
    """torch.optim.Muon with adjust_lr_fn "match_rms_adamw", in float32 throughout."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of all parameters [rows, columns] by their gradients."""
        if closure is not None:
            raise TypeError("gradients are made before the step, not by a closure")
        for group in self.param_groups:
            parameters: list[Tensor] = []
            gradients: list[Tensor] = []
            means: list[Tensor] = []
            self._init_group(group, parameters, gradients, means)
            for parameter, gradient, mean in zip(parameters, gradients, means, strict=True):
                mean.lerp_(gradient, 1 - group["momentum"])
                update = gradient.lerp(mean, group["momentum"]) if group["nesterov"] else mean
                update = orthogonal(update, group["ns_coefficients"], group["ns_steps"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                size = 0.2 * max(parameter.shape) ** 0.5
                parameter.add_(update, alpha=-group["lr"] * size)


def orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    """About the nearest matrix whose rows or columns, the fewer, are orthonormal, by Newton-Schulz.

    [rows, columns] -> the same. The coefficients leave lengths between about 0.7 and 1.2.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.T if tall else matrix
    found = found / found.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.T if tall else found
