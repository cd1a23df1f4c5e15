"""The understanding encoder: SigLIP-L/16 at 384 px and the projector into the language model.

Follows Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (2023), as deepseek-ai/Janus
builds it: no class token, no pooling, all blocks and the final norm.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_kit.config import VisionConfig
from janus_kit.linears import Linear, widens

__all__ = ["Projector", "VisionEncoder", "attend_to_learn", "learns_on_cpu"]


def attend_to_learn(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention as two products, for training on a CPU under autocast: [b, h, t, d] -> the same.

    mask: bool, True where a place is seen. With PyTorch's fused attention a step of the embedded
    model's encoder takes 1.6 times as long there (benchmarks/training.py).
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        # Added, not filled in: the way back is then nothing at all.
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -torch.inf)
    with torch.autocast("cpu", enabled=False):
        return torch.softmax(scores, -1) @ v.to(scores.dtype)


def learns_on_cpu(x: Tensor) -> bool:
    """Whether x is part of a training step on a CPU in half precision."""
    on = torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
    return on and x.device.type == "cpu"


class Block(nn.Module):
    """Pre-norm self-attention and MLP with exact GELU: [n, t, width] -> the same."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.fc1 = Linear(width, config.intermediate)
        self.fc2 = Linear(config.intermediate, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if widens(x):
            y = F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(x.dtype)
        else:
            y = (attend_to_learn if learns_on_cpu(x) else F.scaled_dot_product_attention)(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, width))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))  # type: ignore[no-any-return]


class VisionEncoder(nn.Module):
    """Pixels [n, 3, 384, 384] in [-1, 1] -> features [n, 576, width]."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.positions = nn.Parameter(torch.zeros(config.tokens, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, pixels: Tensor, kept: Tensor | None = None) -> Tensor:
        """kept: the places that are looked at, all others being left out, int64 [n, k]; all if
        None. The features are then [n, k, width]."""
        x = self.patch(pixels.to(self.patch.weight.dtype)).flatten(2).transpose(1, 2)
        x = x + self.positions
        if kept is not None:
            x = x.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)  # type: ignore[no-any-return]


class Projector(nn.Module):
    """Linear, exact GELU, linear: [..., wide] -> [..., out]; all four of Janus's small nets."""

    def __init__(self, wide: int, middle: int, out: int) -> None:
        super().__init__()
        self.fc1 = Linear(wide, middle)
        self.fc2 = Linear(middle, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]
