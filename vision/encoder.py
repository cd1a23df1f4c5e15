"""The understanding encoder: SigLIP-L/16 at 384 px and the projector into the language model.

Follows Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (2023), as deepseek-ai/Janus
builds it: no class token, no pooling, all blocks and the final norm.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_kit.config import VisionConfig

__all__ = ["Projector", "VisionEncoder"]


class Block(nn.Module):
    """Pre-norm self-attention and MLP with exact GELU: [n, t, width] -> the same."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.fc1 = nn.Linear(width, config.intermediate)
        self.fc2 = nn.Linear(config.intermediate, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
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

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch(pixels.to(self.patch.weight.dtype)).flatten(2).transpose(1, 2)
        x = x + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x)  # type: ignore[no-any-return]


class Projector(nn.Module):
    """Linear, exact GELU, linear: [..., wide] -> [..., out]; all four of Janus's small nets."""

    def __init__(self, wide: int, middle: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(wide, middle)
        self.fc2 = nn.Linear(middle, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]
