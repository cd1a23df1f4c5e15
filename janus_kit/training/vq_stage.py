"""The VQ stage: the tokenizer learns to write pictures as codes and to read them back.

What a code stands for is laid out first, by quantizer.py; the encoder then learns to name the code
of every place, and the decoder to paint a whole picture from the codes. Vectors and codebook lie on
the unit sphere, as in Yu et al., "Vector-quantized Image Modeling with Improved VQGAN" (2022).

The decoder first paints sketches of a quarter and of half the size, from its lower levels, as
Karras et al., "Progressive Growing of GANs" (2017), have it: nearly all that it knows of codes is
there, and most of a step's time is in the last level.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_kit.config import VQConfig
from janus_kit.generation.vq import VQTokenizer
from janus_kit.training.critic import Critic
from janus_kit.training.loop import Schedule, Stage, optimizers, train
from janus_kit.training.norms import train_channels_last
from janus_kit.training.perceptual import Perceptual
from janus_kit.training.quantizer import NEAR, PatchBook, to_pixels

__all__ = ["VQLearner", "train_vq"]

# Seed → uint8 [384, 384, 3] and its places, see world.places.
Scenes = Callable[[int], "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]"]

PERCEPTUAL = 0.5  # the weight of how a network of photographs sees the difference
ADVERSARIAL = 0.02  # the weight of what a critic of patches finds out
CRITIC_RATE = 3e-4
MISREAD = 0.2  # the share of wrong codes at most
# How many of the decoder's levels a sketch leaves out, each of which doubles the size; up to which
# share of the steps such sketches are painted; and of how many times as many pictures.
SKETCHES = ((2, 0.5, 4), (1, 0.75, 3))
SHARP = 100.0  # alike patches lie some 0.01 of a cosine apart


class Lesson(NamedTuple):
    """What one step of the VQ stage looks at."""

    pixels: Tensor  # fp32 [b, 3, h, w] in [-1, 1]
    codes: Tensor  # int64 [b, n], what the encoder is to say
    misread: Tensor  # int64 [b, n], the same as the decoder gets them
    judged: bool  # whether the critic takes part
    sketch: int = 0  # how often the picture is halved: a sketch by as many levels fewer


class VQLearner(nn.Module):
    """A VQTokenizer with its losses: forward(lesson) -> figures."""

    def __init__(
        self, config: VQConfig, book: PatchBook, seed: int, perceptual: Perceptual | None = None
    ) -> None:
        super().__init__()
        self.vq = VQTokenizer(config)
        self.perceptual = perceptual
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critic = Critic()
            self.sketchers = nn.ModuleList(  # of pictures halved once, twice, …
                nn.Sequential(
                    nn.GroupNorm(32, config.base_channels * times, eps=1e-6),
                    nn.SiLU(),
                    nn.Conv2d(config.base_channels * times, 3, 3, padding=1),
                )
                for times in config.channel_multiplier[1:]
            )
        initialise(self.vq, seed)
        with torch.no_grad():
            self.vq.codebook.weight.copy_(book.vectors(config.code_dim))

    def forward(self, lesson: Lesson) -> dict[str, Tensor]:
        pixels, codes, misread, judged, sketch = lesson
        book = F.normalize(self.vq.codebook.weight.float(), dim=-1)
        latents = self.vq.latents(book[misread], pixels.shape[-1] // self.vq.config.stride)
        # Keeps every parameter in the graph for distributed training.
        idle = 0 * sum(p.sum() for p in self.parameters())
        if sketch:
            pixels = F.avg_pool2d(pixels, 2**sketch)
            drawn = self.sketch(latents, sketch).float()
        else:
            drawn = self.vq.decoder(latents).float()
        pixel = F.l1_loss(drawn, pixels)
        edge = F.l1_loss(drawn.diff(dim=-1), pixels.diff(dim=-1)) + F.l1_loss(
            drawn.diff(dim=-2), pixels.diff(dim=-2)
        )
        square = F.mse_loss(drawn, pixels)
        small, true = (F.avg_pool2d(picture, 8 >> sketch) for picture in (drawn, pixels))
        painted = pixel + edge + 0.5 * square + F.l1_loss(small, true) + idle
        figures = {"pixel": pixel, "edge": edge, "square": square}
        if self.perceptual is not None:
            figures["perceptual"] = self.perceptual(drawn, pixels)
            painted = painted + PERCEPTUAL * figures["perceptual"]
        if sketch:
            return {"loss": painted, **figures}
        some = (len(pixels) + 1) // 2  # naming codes is soon as good as it gets; painting is not
        logits = SHARP * self.vq.vectors(pixels[:some]).float() @ book.detach().T
        named = F.cross_entropy(logits.flatten(0, 1), codes[:some].flatten(), label_smoothing=0.02)
        figures["code right"] = (logits.argmax(-1) == codes[:some]).float().mean()
        if judged:
            figures["critic"], figures["found out"] = self.critic.losses(drawn, pixels)
            painted = painted + ADVERSARIAL * figures["found out"] + figures["critic"]
        return {"loss": painted + 0.2 * named, **figures}

    def sketch(self, latents: Tensor, halved: int) -> Tensor:
        """The picture as so many levels fewer paint it: [b, 3, h / 2ⁿ, w / 2ⁿ]."""
        decoder = self.vq.decoder
        x = decoder.lower(latents, len(decoder.levels) - halved)
        return self.sketchers[halved - 1](x)  # type: ignore[no-any-return]


@torch.no_grad()
def initialise(vq: VQTokenizer, seed: int) -> None:
    """Fresh weights that let colours straight through: silent blocks, resampling by identity.

    From PyTorch's own initial weights the same net draws one flat colour for hundreds of steps.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in vq.named_parameters():
        owner = name.split(".")[-2]
        if parameter.dim() == 1:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            continue
        fan = parameter[0].numel()
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * (3 * fan) ** -0.5)
        if owner == "conv2" or (".attention." in name and owner == "out"):
            parameter.zero_()
        elif owner in ("conv", "shortcut"):
            parameter.mul_(0.1).add_(nn.init.dirac_(torch.empty_like(parameter)))
        elif owner == "conv_in":
            parameter.add_(nn.init.dirac_(torch.empty_like(parameter)))
    vq.from_code.weight.mul_(3)
    vq.decoder.conv_out.weight.mul_(0.3)
    vq.decoder.conv_out.bias.fill_(0.8)  # type: ignore[union-attr] # most of a scene is pale


def misread(book: PatchBook, codes: Tensor, random: np.random.Generator) -> Tensor:
    """Codes [b, n] as a small model draws them: in half of the pictures some busy ones are wrong.

    A wrong one shows something alike, or what is elsewhere in the picture. The decoder sees what is
    around it, and learns to paint what was meant.
    """
    share = MISREAD * random.random(len(codes)) * (random.random(len(codes)) < 0.5)
    wrong = torch.from_numpy(random.random(codes.shape) < share[:, None]).to(codes.device)
    wrong &= codes >= len(book.calm)
    rows = torch.arange(len(codes)).unsqueeze(-1)
    elsewhere = codes[rows, torch.from_numpy(random.integers(0, codes.shape[1], codes.shape))]
    alike = book.near[codes, torch.from_numpy(random.integers(1, NEAR, codes.shape))]
    others = torch.where(torch.from_numpy(random.random(codes.shape) < 0.5), alike, elsewhere)
    return torch.where(wrong, others, codes)


def train_vq(
    config: VQConfig,
    scenes: Scenes,
    book: PatchBook,
    folder: Path,
    schedule: Schedule,
    *,
    seed: int = 0,
    perceptual: Perceptual | None = None,
    taken: VQTokenizer | None = None,
    critic_from: float = 0.5,
    sketches: Sequence[tuple[int, float, int]] = SKETCHES,
) -> VQTokenizer:
    """Train a tokenizer on scenes and the codes of book, in folder.

    taken: a trained one of the same codes that goes on to learn. Pictures are whole, since
    group norms and attention look at all of them. From schedule.steps × critic_from on a critic
    judges what is painted. sketches: see SKETCHES.
    """
    from accelerate import PartialState

    learner = VQLearner(config, book, seed, perceptual)
    if taken is not None:
        learner.vq.load_state_dict(taken.state_dict())
    state = PartialState()
    learner.to(state.device)
    if state.device.type == "cpu":
        train_channels_last(learner)

    def batch(step: int) -> Lesson:
        share = step * state.num_processes + state.process_index
        sketch, times = next(
            ((halved, n) for halved, until, n in sketches if step < until * schedule.steps),
            (0, 1),
        )
        size = schedule.batch * times
        first = share * schedule.batch * max((n for *_, n in sketches), default=1)
        found = [scenes(first + i) for i in range(size)]
        pixels = to_pixels([picture for picture, _ in found])
        places = torch.from_numpy(np.stack([lying.reshape(-1, 3) for _, lying in found]))
        codes = book.codes(pixels, places)
        seen = misread(book, codes, np.random.default_rng([seed, share]))
        judged = step >= schedule.steps * critic_from
        pixels, codes, seen = (part.to(state.device) for part in (pixels, codes, seen))
        return Lesson(pixels, codes, seen, judged and not sketch, sketch)

    def inside(name: str) -> bool:
        return name.startswith("0.") and not name.endswith(
            ("conv_out.weight", "encoder.conv_in.weight", "codebook.weight")
        )

    painters = nn.ModuleList((learner.vq, learner.sketchers))
    judge = torch.optim.AdamW(learner.critic.parameters(), lr=CRITIC_RATE, betas=(0.5, 0.9))
    stage = Stage(
        module=learner,
        optimizers=(*optimizers(painters, inside, schedule.rate), judge),
        batch=batch,
        schedule=schedule,
        average=0.98,
    )
    average = train(stage, folder)
    prefix = "vq."
    weights = {k.removeprefix(prefix): v for k, v in average.items() if k.startswith(prefix)}
    # transformers' encoder does not normalise; unit vectors make it pick the same codes.
    weights["codebook.weight"] = F.normalize(weights["codebook.weight"], dim=-1)
    learner.vq.load_state_dict(weights)
    return learner.vq
