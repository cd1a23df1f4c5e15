"""The VQ stage: the tokenizer learns to write pictures as codes and to read them back.

What a code stands for is laid out first, by designing.py; the encoder then learns to name the code
of every place, and the decoder to paint a whole picture from the codes. Vectors and codebook lie on
the unit sphere, as in Yu et al., "Vector-quantized Image Modeling with Improved VQGAN" (2022).

Most steps paint sketches of a quarter or half of the size, from the lower levels alone (after
Karras et al., "Progressive Growing of GANs", 2017): nearly all that the decoder knows of codes is
there, and most of a step's time is in the last level. That level begins as the sketch, enlarged; it
then learns, the others held still, and in the end all of them learn together. Some sketches are of
collages, since most of a scene is ground, but not all: a group norm sees how much of the picture is
ground.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_kit.config import VQConfig
from janus_kit.generation.vq import Level, ResBlock, VQTokenizer
from janus_kit.linears import quick_in_half
from janus_kit.training.critic import Critic
from janus_kit.training.loop import Schedule, Stage, optimizers, train
from janus_kit.training.norms import train_channels_last
from janus_kit.training.perceptual import Perceptual
from janus_kit.training.quantizer import NEAR, PATCH, PatchBook, to_pixels

__all__ = ["VQLearner", "train_vq"]

# Seed → uint8 [384, 384, 3] and its places, see world.places.
Scenes = Callable[[int], "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]"]

PERCEPTUAL = 0.5  # the weight of how a network of photographs sees the difference
ADVERSARIAL = 0.02  # the weight of what a critic of patches finds out
CRITIC_RATE = 3e-4
MISREAD = 0.2  # the share of wrong codes at most
THINGS = 5.0  # how much more a pixel of a thing counts than one of the ground
SHARP = 100.0  # alike patches lie some 0.01 of a cosine apart


class Exercise(NamedTuple):
    """What kind of step: what is painted, how large, and how many pictures of it."""

    sketch: int = 0  # how often it is halved: a sketch by as many levels fewer
    tiles: int = 1  # pieces of scenes on each side of a picture; 1 is a scene
    times: int = 1  # as many pictures as the schedule's batch says
    top: bool = False  # whether the last level alone learns
    named: bool = False  # whether the encoder takes part; it is soon as good as it gets


# Up to which share of the steps, what is done in turns. A collage is two thirds things where a
# scene is a quarter.
HALF, QUARTER = Exercise(sketch=1, times=3), Exercise(sketch=2, times=8)
PLAN: "Sequence[tuple[float, Sequence[Exercise]]]" = (
    (0.65, (HALF, QUARTER, HALF, QUARTER, HALF._replace(tiles=3))),
    (0.8, (Exercise(top=True),)),
    (1.0, (Exercise(named=True), Exercise())),
)
PIECES = 3  # that are cut from a scene


class Lesson(NamedTuple):
    """What one step of the VQ stage looks at."""

    pixels: Tensor  # fp32 [b, 3, h, w] in [-1, 1]
    codes: Tensor  # int64 [b, n], what the encoder is to say
    misread: Tensor  # int64 [b, n], the same as the decoder gets them
    judged: bool = False  # whether the critic takes part
    sketch: int = 0  # see Exercise
    top: bool = False
    named: bool = False


class VQLearner(nn.Module):
    """A VQTokenizer with its losses: forward(lesson) -> figures."""

    def __init__(
        self, config: VQConfig, book: PatchBook, seed: int, perceptual: Perceptual | None = None
    ) -> None:
        super().__init__()
        self.vq = VQTokenizer(config)
        self.perceptual = perceptual
        self.ground = book.ground
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critic = Critic()
            self.sketchers = nn.ModuleList(  # of pictures halved once, twice, …
                nn.Sequential(
                    nn.GroupNorm(32, config.base_channels * times, eps=1e-6),
                    nn.SiLU(),
                    nn.Conv2d(config.base_channels * times, 3, 1),
                )
                for times in config.channel_multiplier[1:]
            )
        initialise(self.vq, seed)
        with torch.no_grad():
            self.vq.codebook.weight.copy_(book.vectors(config.code_dim))

    def forward(self, lesson: Lesson) -> dict[str, Tensor]:
        pixels, codes, misread, judged, sketch, top, asked = lesson
        book = F.normalize(self.vq.codebook.weight.float(), dim=-1)
        side = pixels.shape[-1] // self.vq.config.stride
        latents = self.vq.latents(book[misread], side)
        # Keeps every parameter in the graph for distributed training.
        idle = 0 * sum(p.sum() for p in self.parameters())
        things = (codes >= self.ground).view(-1, 1, side, side).float()
        things = F.max_pool2d(things, 3, 1, 1)  # and what is next to them
        weights = 1 + (THINGS - 1) * F.interpolate(things, scale_factor=self.vq.config.stride)
        weights = weights / weights.mean()
        if sketch:
            pixels, weights = (F.avg_pool2d(part, 2**sketch) for part in (pixels, weights))
        if not quick_in_half(latents.device):  # they come with the channels last, see train_vq
            latents = latents.contiguous()
        drawn = self.paint(latents, sketch, top).float()
        away = drawn - pixels
        pixel = (away.abs() * weights).mean()
        edge = (away.diff(dim=-1).abs() * weights[..., 1:]).mean() + (
            away.diff(dim=-2).abs() * weights[..., 1:, :]
        ).mean()
        square = (away.square() * weights).mean()
        small, true = (F.avg_pool2d(picture, 8 >> sketch) for picture in (drawn, pixels))
        painted = pixel + edge + 0.5 * square + F.l1_loss(small, true) + idle
        figures = {"pixel": pixel, "edge": edge, "square": square}
        if self.perceptual is not None:
            figures["perceptual"] = self.perceptual(drawn, pixels)
            painted = painted + PERCEPTUAL * figures["perceptual"]
        if judged:
            figures["critic"], figures["found out"] = self.critic.losses(drawn, pixels)
            painted = painted + ADVERSARIAL * figures["found out"] + figures["critic"]
        if not asked:
            return {"loss": painted, **figures}
        some = (len(pixels) + 1) // 2  # naming codes is soon as good as it gets; painting is not
        logits = SHARP * self.vq.vectors(pixels[:some]).float() @ book.detach().T
        named = F.cross_entropy(logits.flatten(0, 1), codes[:some].flatten(), label_smoothing=0.02)
        figures["code right"] = (logits.argmax(-1) == codes[:some]).float().mean()
        return {"loss": painted + 0.2 * named, **figures}

    @torch.no_grad()
    def rise(self) -> None:
        """Let the last level paint what the sketch of half the size shows, smoothly enlarged."""
        decoder = self.vq.decoder
        below, last = cast(Level, decoder.levels[-2]), cast(Level, decoder.levels[-1])
        if below.conv.out_channels != decoder.conv_out.in_channels:
            return  # a last level of another width has to learn it
        silent = [cast(ResBlock, block).conv2 for block in last.blocks]
        for conv in (*silent, below.conv, decoder.conv_out):
            for parameter in conv.parameters():
                parameter.zero_()
        # After repetition these weights interpolate bilinearly.
        line = torch.tensor([0.25, 0.5, 0.25])
        keep = torch.eye(len(below.conv.weight))[..., None, None]
        below.conv.weight.copy_(keep * line[:, None] * line)
        head = cast(nn.Sequential, self.sketchers[0])
        paint = cast(nn.Conv2d, head[2])
        decoder.norm_out.load_state_dict(head[0].state_dict())
        decoder.conv_out.weight[:, :, 1, 1] = paint.weight[:, :, 0, 0]
        cast(Tensor, decoder.conv_out.bias).copy_(cast(Tensor, paint.bias))

    def paint(self, latents: Tensor, halved: int = 0, top: bool = False) -> Tensor:
        """The picture, or if halved as so many levels fewer paint it: [b, 3, h / 2ⁿ, w / 2ⁿ].

        top: nothing below the last level learns from it.
        """
        decoder = self.vq.decoder
        count = len(decoder.levels) - halved - top
        with torch.set_grad_enabled(torch.is_grad_enabled() and not top):
            x = decoder.lower(latents, count)
        if halved:
            return self.sketchers[halved - 1](x)  # type: ignore[no-any-return]
        return decoder.upper(x, count)


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


def collages(
    book: PatchBook, pixels: Tensor, codes: Tensor, tiles: int, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Pictures of pieces of scenes [n, 3, h, w] and of their codes [n, 576], PIECES of each.

    -> [b, 3, h, w] and [b, 576]. The more of a piece is things, the likelier it is taken.
    """
    whole = int(codes.shape[1] ** 0.5)
    side = whole // tiles
    shares = F.avg_pool2d((codes >= book.ground).float().view(-1, 1, whole, whole), side, 1)
    odds = shares.flatten(1).double().numpy() ** 8 + 1e-9
    many = whole - side + 1
    grid = codes.view(-1, whole, whole)
    cut, rows = [], []
    for number in np.arange(len(odds)).repeat(PIECES):
        odd = odds[number]
        top, left = divmod(int(random.choice(many * many, p=odd / odd.sum())), many)
        rows.append(grid[number, top : top + side, left : left + side])
        y, x, size = top * PATCH, left * PATCH, side * PATCH
        cut.append(pixels[number, :, y : y + size, x : x + size])

    def join(parts: list[Tensor]) -> Tensor:
        """[…, side, side] each -> [b, …, side·tiles, side·tiles]."""
        lines = [torch.cat(parts[i : i + tiles], -1) for i in range(0, len(parts), tiles)]
        return torch.stack(
            [torch.cat(lines[i : i + tiles], -2) for i in range(0, len(lines), tiles)]
        )

    return join(cut), join(rows).flatten(1)


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
    exercises: Sequence[tuple[float, Sequence[Exercise]]] = PLAN,
    watch: Callable[[int, VQLearner], Mapping[str, float]] | None = None,
) -> VQTokenizer:
    """Train a tokenizer on scenes and the codes of book, in folder.

    taken: a trained one of the same codes that goes on to learn. From schedule.steps × critic_from
    on a critic judges what is painted in full. exercises: see PLAN. watch: looks at the learner as
    it is after so many steps.
    """
    from accelerate import PartialState

    learner = VQLearner(config, book, seed, perceptual)
    if taken is not None:
        learner.vq.load_state_dict(taken.state_dict())
    state = PartialState()
    learner.to(state.device)
    if state.device.type == "cpu" and quick_in_half(state.device):  # in fp32 it is the slower order
        train_channels_last(learner)

    most = schedule.batch * max(e.times * e.tiles**2 for _, turns in exercises for e in turns)

    def at(step: int) -> Sequence[Exercise]:
        return next(turns for until, turns in exercises if step < until * schedule.steps)

    def batch(step: int) -> Lesson:
        share = step * state.num_processes + state.process_index
        turns = at(step)
        exercise = turns[step % len(turns)]
        random = np.random.default_rng([seed, share])
        size = schedule.batch * exercise.times
        if exercise.tiles > 1:
            size = size * exercise.tiles**2 // PIECES
        numbers = range(share * most, share * most + size)
        found = [scenes(number) for number in numbers]
        pixels = to_pixels([picture for picture, _ in found])
        places = torch.from_numpy(np.stack([lying.reshape(-1, 3) for _, lying in found]))
        codes = book.codes(pixels, places)
        if exercise.tiles > 1:
            pixels, codes = collages(book, pixels, codes, exercise.tiles, random)
        seen = misread(book, codes, random)
        judged = step >= schedule.steps * critic_from and not exercise.sketch
        return Lesson(pixels, codes, seen, judged, exercise.sketch, exercise.top, exercise.named)

    sketched = next(
        step
        for step in range(schedule.steps + 1)
        if step == schedule.steps or not all(e.sketch for e in at(step))
    )

    def after(step: int) -> None:
        if step + 1 == sketched:
            learner.rise()

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
        after=after,
        average=0.98,
        watch=None if watch is None else lambda step: watch(step, learner),
    )
    average = train(stage, folder)
    prefix = "vq."
    weights = {k.removeprefix(prefix): v for k, v in average.items() if k.startswith(prefix)}
    # transformers' encoder does not normalise; unit vectors make it pick the same codes.
    weights["codebook.weight"] = F.normalize(weights["codebook.weight"], dim=-1)
    learner.vq.load_state_dict(weights)
    return learner.vq
