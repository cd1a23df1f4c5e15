"""Image codes ↔ pixels: the VQ tokenizer of LlamaGen, encoder and decoder.

Follows FoundationVision/LlamaGen's VQ-16, as deepseek-ai/Janus uses it: both the encoder's vectors
and the codebook are put on the unit sphere before they meet, and again before decoding.
"""

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_kit.config import VQConfig
from janus_kit.errors import GenerationError
from janus_kit.generation.painter import paint, paints

__all__ = ["VQTokenizer"]


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut: [b, cin, h, w] -> [b, cout, h, w]."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.norm1 = _norm(cin)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2 = _norm(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return self.shortcut(x) + y  # type: ignore[no-any-return]


class Attention(nn.Module):
    """One-head self-attention over all places: [b, c, h, w] -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (conv(y).flatten(2).transpose(1, 2) for conv in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]


class Level(nn.Module):
    """Blocks of one resolution, attention where it is the lowest, and the way to the next."""

    def __init__(self, cin: int, cout: int, blocks: int, attend: bool, resample: str) -> None:
        super().__init__()
        widths = [cin] + [cout] * blocks
        self.blocks = nn.ModuleList(ResBlock(a, b) for a, b in pairwise(widths))
        self.attention = nn.ModuleList(Attention(cout) for _ in range(blocks if attend else 0))
        self.resample = resample
        if resample == "down":
            self.conv = nn.Conv2d(cout, cout, 3, stride=2)
        elif resample == "up":
            self.conv = nn.Conv2d(cout, cout, 3, padding=1)

    def inside(self, x: Tensor) -> Tensor:
        """What the level makes of x [b, cin, h, w] before it is resampled: [b, cout, h, w]."""
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.attention:
                x = self.attention[i](x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.resampled(self.inside(x))

    def resampled(self, x: Tensor) -> Tensor:
        """What inside made at the next level's size, twice or half as large, or as it is."""
        if self.resample == "down":
            return self.conv(F.pad(x, (0, 1, 0, 1)))  # type: ignore[no-any-return]
        if self.resample == "up":
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]
        return x


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block1 = ResBlock(channels, channels)
        self.attention = Attention(channels)
        self.block2 = ResBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block2(self.attention(self.block1(x)))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Pixels [b, 3, h, w] -> latents [b, latent, h/stride, w/stride]."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.base_channels * m for m in (1, *config.channel_multiplier)]
        last = len(config.channel_multiplier) - 1
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            Level(
                widths[i],
                widths[i + 1],
                config.res_blocks,
                i == last,
                "" if i == last else "down",
            )
            for i in range(last + 1)
        )
        self.middle = Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv_in(pixels)
        for level in self.levels:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.middle(x))))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Latents [b, latent, h, w] -> pixels [b, 3, h·stride, w·stride]; level 0 is the lowest."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.base_channels * m for m in reversed(config.channel_multiplier)]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.middle = Middle(widths[0])
        self.levels = nn.ModuleList(
            Level(
                widths[max(i - 1, 0)],
                widths[i],
                config.res_blocks + 1,
                i == 0,
                "" if i == last else "up",
            )
            for i in range(last + 1)
        )
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def lower(self, latents: Tensor, count: int) -> Tensor:
        """What the lowest count levels make of latents, the last of them before it is resampled."""
        x = self.middle(self.conv_in(latents))
        for level in self.levels[: count - 1]:
            x = level(x)
        return cast(Level, self.levels[count - 1]).inside(x)

    def upper(self, x: Tensor, count: int) -> Tensor:
        """The pixels, from what lower made by the same count."""
        x = cast(Level, self.levels[count - 1]).resampled(x)
        for level in self.levels[count:]:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))  # type: ignore[no-any-return]

    def forward(self, latents: Tensor) -> Tensor:
        return self.upper(self.lower(latents, len(self.levels)), len(self.levels))


class VQTokenizer(nn.Module):
    """Pixels in [-1, 1] ↔ codes in 0 … codebook_size - 1, one code for every 16×16 pixels."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.to_code = nn.Conv2d(config.latent_channels, config.code_dim, 1)
        self.codebook = nn.Embedding(config.codebook_size, config.code_dim)
        self.from_code = nn.Conv2d(config.code_dim, config.latent_channels, 1)
        self.decoder = Decoder(config)

    def vectors(self, pixels: Tensor) -> Tensor:
        """Unit vectors before quantization: [b, 3, h, w] -> [b, n, code_dim], raster order."""
        x = self.to_code(self.encoder(pixels.to(self.codebook.weight.dtype)))
        return F.normalize(x.flatten(2).transpose(1, 2), dim=-1)

    def nearest(self, vectors: Tensor) -> Tensor:
        """The codes closest to unit vectors: [b, n, code_dim] -> [b, n] int64."""
        every = torch.arange(self.config.codebook_size, device=vectors.device)
        book = F.normalize(self.codebook(every).float(), dim=-1)  # called: it may be offloaded
        # On the unit sphere the nearest vector is the one with the largest dot product.
        return (vectors.float() @ book.T).argmax(-1)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [b, 3, h, w] in [-1, 1] -> codes [b, n] int64.

        transformers' port compares the raw vectors; deepseek-ai/Janus (vq_model.py) puts both
        sides on the unit sphere first, and so do we. With a codebook of unit vectors the two agree.
        """
        return self.nearest(self.vectors(pixels))

    def decode(self, codes: Tensor, side: int | None = None) -> Tensor:
        """Codes [b, h·w] -> pixels [b, 3, 16h, 16w], about [-1, 1], unclamped.

        side: w; None for square pictures. Raises IndexError for a code outside the codebook.
        """
        width = side or int(codes.shape[1] ** 0.5)
        if codes.shape[1] % width or (side is None and width * width != codes.shape[1]):
            raise IndexError(f"{codes.shape[1]} codes are not a picture {width} codes wide")
        latents = self.latents(F.normalize(self.codebook(codes), dim=-1), width)
        if paints(self.decoder):
            return paint(self.decoder, latents)
        return self.decoder(latents)  # type: ignore[no-any-return]

    def latents(self, vectors: Tensor, side: int) -> Tensor:
        """Code vectors [b, h·side, code_dim] -> what the decoder reads [b, latent, h, side]."""
        grid = vectors.transpose(1, 2).reshape(len(vectors), vectors.shape[2], -1, side)
        return self.from_code(grid)  # type: ignore[no-any-return]


def decode_in_chunks(vq: VQTokenizer, codes: Tensor, chunk: int, side: int) -> Tensor:
    """VQTokenizer.decode, chunk pictures at a time: -> fp32 on the CPU.

    The memory of the model's device does not grow with the number of pictures. Raises
    GenerationError for NaN, which float16 can give.
    """
    pixels = torch.cat([vq.decode(part, side).float().cpu() for part in torch.split(codes, chunk)])
    if bool(pixels.isnan().any()):
        raise GenerationError("the pixels hold NaN; decode in float32 or bfloat16, not float16")
    return pixels
