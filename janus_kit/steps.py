"""A model's weights as the native step reads them."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from janus_kit.generation.native import Head, LayerWeights, NativeStep, Packed, available
from janus_kit.linears import Stacked
from janus_kit.model import Janus, Layer

__all__ = ["Kind", "native_step"]

Kind = Literal["code", "text"]
# Of each model the native steps, with what their weights were when they were made.
_native: WeakKeyDictionary[Janus, dict[Kind, tuple[Any, NativeStep]]] = WeakKeyDictionary()


def native_step(model: Janus, kind: Kind) -> NativeStep | None:
    """The model's native step to logits of codes or of text; None where there can be none."""
    if model.device.type != "cpu" or model.dtype not in (torch.float32, torch.bfloat16):
        return None
    if not available():
        return None
    config = model.config.language
    layers = [
        LayerWeights(
            norm1=layer.norm1.weight,
            qkv=_matrix(layer.attention.qkv),
            out=_matrix(layer.attention.out),
            norm2=layer.norm2.weight,
            gate_up=_matrix(layer.gate_up),
            down=_matrix(layer.down),
        )
        for layer in cast(Iterable[Layer], model.language.layers)
    ]
    norm = model.language.norm.weight
    if kind == "text":
        head = Head(norm, _matrix(model.text_head))
    else:
        inner, outer = model.code_head.fc1, model.code_head.fc2
        head = Head(norm, _matrix(outer), outer.bias, _matrix(inner), inner.bias)
    weights = [*(w for layer in layers for w in vars(layer).values()), *vars(head).values()]
    state = [
        (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
        for weight in weights
        for tensor in _tensors(weight)
    ]
    kept = _native.setdefault(model, {})
    if kind not in kept or kept[kind][0] != state:
        step = NativeStep(
            layers,
            head,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            eps=config.rms_eps,
        )
        kept[kind] = (state, step)
    return kept[kind][1]


def _matrix(layer: nn.Module) -> Any:
    """What NativeStep takes for a linear layer."""
    if isinstance(layer, Packed):
        return layer
    return list(layer.pieces) if isinstance(layer, Stacked) else layer.weight


def _tensors(weight: Tensor | Packed | Sequence[Tensor] | None) -> Sequence[Tensor]:
    if weight is None:
        return []
    if isinstance(weight, Packed):
        return [weight.packed]
    return [weight] if isinstance(weight, Tensor) else weight
