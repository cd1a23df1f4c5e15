"""Linear layers by other means: few rows at a time, weights in pieces, and none at all."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Linear", "Stacked", "Unfilled", "quick_in_half", "slim", "widens"]

FEW, ROWS = 8, 1024  # rows of x from which on to widen, and of a weight that are widened at once


@cache
def quick_in_half(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 itself; AVX2 imitates it, many times slower."""
    if device.type != "cpu":
        return True
    # Not in every build of PyTorch.
    ask = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return ask is not None and bool(ask())


def widens(x: Tensor) -> bool:
    """Whether products with x are to be made in fp32: bfloat16 on a CPU that has no such products.

    As where there are some, only what comes out of them is rounded.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == torch.bfloat16
        and not torch.is_grad_enabled()
        and not quick_in_half(x.device)
    )


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear, of which what widens() is made in fp32, some rows of the weight at a time."""
    if x.numel() < FEW * x.shape[-1] or weight.dtype != x.dtype or not widens(x):
        return F.linear(x, weight, bias)
    wide = x.float()
    y = x.new_empty(*x.shape[:-1], len(weight))
    for start in range(0, len(weight), ROWS):
        part = slice(start, start + ROWS)
        shift = None if bias is None else bias[part].float()
        y[..., part] = F.linear(wide, weight[part].float(), shift)
    return y


class Linear(nn.Linear):
    """nn.Linear by product."""

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias)


def slim(layer: nn.Module, x: Tensor) -> Tensor:
    """layer(x) for few rows: [b, d] -> [b, out].

    On a CPU in fp32, weight @ xᵀ reads the weights faster than x @ weightᵀ does.
    """
    if type(layer) is not Linear or x.device.type != "cpu" or x.dtype != torch.float32:
        return layer(x)  # type: ignore[no-any-return]
    y = torch.mm(layer.weight, x.contiguous().t()).t()
    return y if layer.bias is None else y + layer.bias


class Stacked(nn.Module):
    """A linear layer without bias whose rows lie in several tensors: [..., k] -> [..., n].

    Files hold in pieces what a model holds as one matrix; pieces can stay where they are mapped.
    """

    def __init__(self, pieces: Sequence[Tensor]) -> None:
        super().__init__()
        self.pieces = nn.ParameterList(nn.Parameter(p, requires_grad=False) for p in pieces)

    @property
    def weight(self) -> Tensor:
        """The one matrix, made anew."""
        return torch.cat(list(self.pieces))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([product(x, piece) for piece in self.pieces], -1)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.weight if keep_vars else self.weight.detach()

    def state_dict(self, *args: Any, **options: Any) -> Any:
        """As that of the one matrix."""
        destination = options.get("destination")
        destination = {} if destination is None else destination
        self._save_to_state_dict(
            destination, options.get("prefix", ""), options.get("keep_vars", False)
        )
        return destination


class Unfilled(TorchFunctionMode):
    """A context in which torch.nn.init leaves weights as they are.

    On the meta device there is nothing to fill, and the first random numbers there load torch's
    compiler, which takes longer than all else that loading a model does.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        if getattr(function, "__module__", "") == nn.init.__name__:
            return args[0] if args else given["tensor"]
        return function(*args, **given)
