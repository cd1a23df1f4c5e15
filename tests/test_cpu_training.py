"""What makes training on a CPU quick gives the gradients of the plain way."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from codes_parts import SMALL_VQ
from torch import Tensor, nn

from janus_kit.generation.vq import VQTokenizer
from janus_kit.training.norms import train_channels_last
from janus_kit.training.vq_stage import initialise
from janus_kit.vision.encoder import attend_to_learn

SMALL = replace(SMALL_VQ, channel_multiplier=(1, 1, 2, 1, 1))


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Of a loss that every output takes part in, by x and by every parameter."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_(True)
    module.zero_grad()
    y = module(x)
    weights = torch.linspace(-1, 1, y.numel()).view_as(y)
    (y * weights).sum().backward()
    assert x.grad is not None
    return [x.grad, *(p.grad.clone() for p in module.parameters() if p.grad is not None)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_group_norm_has_the_same_way_back(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(8, 32, eps=1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = (3 * torch.randn(2, 32, 6, 10) + 1).to(memory_format=layout)
    plain = gradients(norm, x)
    y = norm(x)
    train_channels_last(norm)
    assert torch.allclose(norm(x), y, atol=1e-6)
    for ours, theirs in zip(gradients(norm, x), plain, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_decoder_with_channels_last_learns_the_same() -> None:
    vq = VQTokenizer(SMALL)
    initialise(vq, 0)
    with torch.no_grad():
        for parameter in vq.decoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    x = torch.randn(2, 32, 4, 4)
    plain = gradients(vq.decoder, x)
    train_channels_last(vq)
    ours, theirs = (
        torch.cat([g.flatten() for g in each]) for each in (gradients(vq.decoder, x), plain)
    )
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


@pytest.mark.parametrize("causal", [False, True])
def test_attention_as_two_products_is_attention(causal: bool) -> None:
    torch.manual_seed(0)
    rows = [torch.randn(2, 3, 17, 8).requires_grad_(True) for _ in range(3)]
    seen = torch.ones(17, 17, dtype=torch.bool).tril() if causal else None
    ways = [attend(*rows, seen) for attend in (attend_to_learn, F.scaled_dot_product_attention)]
    assert torch.allclose(*ways, atol=1e-6)
    grads = [torch.autograd.grad(y.square().sum(), rows) for y in ways]
    for ours, theirs in zip(*grads, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
