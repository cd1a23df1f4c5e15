"""Reading a few positions at once behind a filled cache."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from janus_kit.model import Cache, Language, Layer, attend

__all__ = ["read_ahead"]


def read_ahead(language: Language, embeds: Tensor, cache: Cache, position: int) -> Tensor:
    """Embeds [b, w, d] at slot position and those after it -> hidden states [b, w, d].

    As Language.step does one after the other; the slots are written and not opened in cache.bias.
    """
    width = embeds.shape[1]
    end = position + width
    slots = torch.arange(end, device=embeds.device)
    places = slots[position:]
    turns = cache.angles[places - cache.padding[:, None]].to(embeds.dtype)
    cos, sin = turns.unsqueeze(1).unbind(3)  # [b, 1, w, head_dim] each
    real = slots >= cache.padding[:, None]
    seen = (real[:, None] & (slots <= places[:, None]))[:, None]  # [b, 1, w, end]
    x = embeds
    for i, layer in enumerate(cast(Iterable[Layer], language.layers)):
        attention = layer.attention
        q, k, v = attention.split(attention.qkv(layer.norm1(x)), cos, sin)
        keys, values = cache.keys[i, :, :, :end], cache.values[i, :, :, :end]
        keys[:, :, position:] = k
        values[:, :, position:] = v
        y = attend(q, keys, values, seen)
        x = x + attention.out(y.transpose(1, 2).flatten(2))
        x = x + layer.mlp(x)
    return language.norm(x)  # type: ignore[no-any-return]
