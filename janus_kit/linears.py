"""Linear layers by other means: few rows at a time, weights in pieces, and none at all."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Stacked", "Unfilled", "slim"]


def slim(layer: nn.Module, x: Tensor) -> Tensor:
    """layer(x) for few rows: [b, d] -> [b, out].

    On a CPU in fp32, weight @ xᵀ reads the weights faster than x @ weightᵀ does.
    """
    if type(layer) is not nn.Linear or x.device.type != "cpu" or x.dtype != torch.float32:
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
        return torch.cat([F.linear(x, piece) for piece in self.pieces], -1)

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
