"""The understanding encoder learns to see before it learns to speak.

Published Janus models start from a pretrained SigLIP; this stage stands in its place. Every patch
of a scene learns which thing covers it and in which colour: 576 labels a picture, where an answer
of a few words would give a handful. The labels are the language model's own embeds of the words, so
that its aligner, too, starts with pictures and text in one space, as SigLIP's are.

A teacher that has seen photographs shows besides what it makes of each place: of a model that
training never shows it knows far more than labels tell.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_kit.config import VisionConfig
from janus_kit.model import Janus
from janus_kit.training.loop import Schedule, Stage, optimizers, train
from janus_kit.training.novelty import held_out
from janus_kit.training.perceptual import Teacher
from janus_kit.training.world import COLORS, Scene, mask, places
from janus_kit.vision.encoder import Projector, VisionEncoder

__all__ = ["VisionLearner", "patch_labels", "some_spoilt", "train_vision"]

Scenes = Callable[[int], "tuple[np.ndarray[Any, Any], Scene]"]
MARKS = 4  # channels of the embeds that tell kinds of places apart, see beginning.py
COVERED = 0.1  # the share of a patch that a thing has to cover
# The share of places that is looked at, and of the steps in which all others are left out. Steps
# are much faster (benchmarks/training.py), and a thing has to be known by any part of it: Li et
# al., "Scaling Language-Image Pre-training via Masking" (2023). Places of things are kept more
# often, by so much of the range of chance: most of a scene is ground.
KEPT, MASKED, PREFERRED = 1 / 3, 0.85, 0.4
GROUND = 0.2  # how much a place of the ground counts beside one of a thing
TAUGHT = 2.0  # how much the teacher counts beside names and colours
PUPILS = 0.5  # the share of the pictures that it is asked about: it costs as much as all else
SPOILT = 0.6  # the share of what could have been drawn that is spoilt

# Pixels and what is known of their places, see world.places -> pixels.
Spoil = Callable[[Tensor, Tensor | None, np.random.Generator], Tensor]


def some_spoilt(
    pixels: Tensor,
    places: "Sequence[np.ndarray[Any, Any] | None]",
    spoil: Spoil | None,
    random: np.random.Generator,
) -> Tensor:
    """Most of the steady pictures spoilt, the others as they are: [b, 3, h, w].

    places: of each that is steady what world.places says. Only those are ever drawn; of what is
    not, codes say too little to tell its name.
    """
    steady = np.array([place is not None for place in places])
    chosen = torch.from_numpy((random.random(len(pixels)) < SPOILT) & steady)
    if spoil is not None and chosen.any():
        pixels = pixels.clone()
        known = [places[i] for i in chosen.nonzero().flatten().tolist()]
        lying = np.stack([place.reshape(-1, 3) for place in known if place is not None])
        pixels[chosen] = spoil(pixels[chosen], torch.from_numpy(lying), random)
    return pixels


def patch_labels(scene: Scene, names: Sequence[str], patch: int, side: int) -> Tensor:
    """What covers each patch: int64 [2, side²], numbers of names and colours; 0 is nothing, or
    a thing in its own colours. The number of a colour that is not quite it is negative."""
    labels = torch.zeros(2, side, side, dtype=torch.long)
    colors = list(COLORS)
    for thing in scene.things:
        seen = torch.from_numpy(mask(thing)).view(side, patch, side, patch)
        there = seen.float().mean((1, 3)) > COVERED
        labels[0, there] = names.index(thing.name) + 1
        if thing.color:
            number = colors.index(thing.color) + 1
            labels[1, there] = number if thing.tint is None else -number
    return labels.flatten(1)


def some_places(labels: Tensor, chance: Tensor) -> Tensor:
    """The places that are looked at, things' more often: [b, 2, n], [b, n] in [0, 1) -> [b, k]."""
    order = chance - PREFERRED * (labels[:, 0] > 0)
    return order.argsort(1)[:, : int(KEPT * chance.shape[1])]


def waves(config: VisionConfig) -> Tensor:
    """Sines and cosines of a patch's row and column: [tokens, width] in [-1, 1].

    Where MAE (He et al., 2021) keeps them fixed, they are the start here: what is beside a patch
    is then one direction everywhere, and need not be learnt 576 times.
    """
    side = config.image_size // config.patch_size
    places = torch.arange(side, dtype=torch.float32)
    rates = 100.0 ** -torch.linspace(0, 1, config.width // 4)
    angles = places[:, None] * rates
    line = torch.cat((angles.sin(), angles.cos()), 1)  # [side, width / 2]
    grid = torch.cat((line[:, None].expand(-1, side, -1), line.expand(side, -1, -1)), 2)
    return F.pad(grid.flatten(0, 1), (0, config.width - grid.shape[-1]))


# Pixels [b, 3, h, w], labels [b, 2, n], the places that are looked at, [b, k], or None for all, and
# the pixels before they were spoilt.
Lesson: TypeAlias = tuple[Tensor, Tensor, Tensor | None, Tensor]


class VisionLearner(nn.Module):
    """A VisionEncoder and its aligner: forward(lesson) -> figures.

    words: a name's or a colour's embed each, fp32 [names, d] and [colours, d]. taken: a trained
    model whose encoder goes on to learn; its aligner stays, since the rest has learnt to read it.
    teacher: shows what it sees of the pictures. unseen: bool [1 + colours, 1 + names], the names
    that no lesson has in a colour: that they never come does not count as evidence against them.
    """

    names: Tensor
    colors: Tensor
    usual: Tensor
    unseen: Tensor

    def __init__(
        self,
        config: VisionConfig,
        words: tuple[Tensor, Tensor],
        seed: int,
        taken: Janus | None = None,
        teacher: Teacher | None = None,
        unseen: Tensor | None = None,
    ) -> None:
        super().__init__()
        names, colors = (embeds.clone() for embeds in words)
        if taken is not None:
            names[:, :MARKS] = 0  # where its aligner tells a patch from a word
            colors[:, :MARKS] = 0
        self.side = config.image_size // config.patch_size
        self.vision = VisionEncoder(config)
        self.aligner = Projector(config.width, names.shape[1], names.shape[1])
        self.teacher = teacher
        self.pupil = None if teacher is None else nn.Linear(config.width, Teacher.width)
        # What a teacher sees of a place in the mean, and how it varies.
        self.register_buffer("usual", torch.zeros(2, Teacher.width))
        self.register_buffer("names", F.normalize(names, dim=-1), persistent=False)
        self.register_buffer("colors", F.normalize(colors, dim=-1), persistent=False)
        none = torch.zeros(len(colors) + 1, len(names) + 1, dtype=torch.bool)
        self.register_buffer("unseen", none if unseen is None else unseen, persistent=False)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() == 1:
                    parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
                else:
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(noise * parameter[0].numel() ** -0.5 * 0.6)
                if ".blocks." in name and name.endswith(("out.weight", "fc2.weight")):
                    parameter.zero_()
            self.vision.positions.copy_(0.5 * waves(config))
        # What a scaled aligner's answers are multiplied by.
        self.sharp = nn.Parameter(torch.ones(()), requires_grad=taken is not None)
        if taken is not None:
            self.vision.load_state_dict(taken.vision.state_dict())
            self.aligner.load_state_dict(taken.vision_aligner.state_dict())
            self.aligner.requires_grad_(False)

    @torch.no_grad()
    def settle(self, batch: "Lesson") -> None:
        """Set what no step learns by a batch: the teacher's usual, and how sharp answers are.

        Of a trained model sharp is the power of two at which the loss is least.
        """
        if self.teacher is not None:
            spread, mean = torch.std_mean(self.teacher(batch[3], self.side), (0, 1))
            self.usual.copy_(torch.stack((mean, spread)))
        if not self.sharp.requires_grad:
            return
        powers = [2.0**n for n in range(-2, 8)]

        def loss(power: float) -> float:
            self.sharp.fill_(power)
            return float(self.forward(batch)["loss"])

        self.sharp.fill_(min(powers, key=loss))

    def forward(self, batch: "Lesson") -> dict[str, Tensor]:
        pixels, labels, kept, true = batch
        if kept is not None:
            labels = labels.gather(2, kept.unsqueeze(1).expand(-1, 2, -1))
        seen = self.vision(pixels, kept)
        found = self.sharp * self.aligner(seen).float().flatten(0, 1)
        figures = {}
        for place, (kind, words) in enumerate((("name", self.names), ("colour", self.colors))):
            logits = F.pad(found @ words.float().T, (1, 0))  # nothing is the zero vector
            wanted = labels[:, place].flatten()
            if kind == "name" and self.training:
                away = self.unseen[labels[:, 1].flatten().abs()]
                logits = logits.masked_fill(away, -torch.inf)
            # Most patches are background; the things count as much as all of it.
            weight = torch.where(wanted > 0, 1.0, GROUND) * (wanted >= 0)
            losses = F.cross_entropy(logits, wanted.clamp(min=0), reduction="none")
            figures[kind] = (losses * weight).sum() / weight.sum()
            things = wanted > 0
            figures[f"{kind} right"] = (logits.argmax(-1) == wanted)[things].float().mean()
        loss = figures["name"] + figures["colour"]
        if self.teacher is not None and self.pupil is not None:
            mean, spread = self.usual
            few = max(1, int(PUPILS * len(true)))
            shown = (self.teacher(true[:few], self.side) - mean) / spread
            if kept is not None:
                shown = shown.gather(1, kept[:few, :, None].expand(-1, -1, shown.shape[-1]))
            weight = torch.where(labels[:few, 0] > 0, 1.0, GROUND)
            away = 1 - F.cosine_similarity(self.pupil(seen[:few]).float(), shown, dim=-1)
            figures["taught"] = (away * weight).sum() / weight.sum()
            loss = loss + TAUGHT * figures["taught"]
        return {"loss": loss, **figures}


def train_vision(
    config: VisionConfig,
    scenes: Scenes,
    names: Sequence[str],
    words: tuple[Tensor, Tensor],
    folder: Path,
    schedule: Schedule,
    *,
    spoil: Spoil | None = None,
    seed: int = 0,
    taken: Janus | None = None,
    teacher: Teacher | None = None,
    watch: Callable[[int, VisionLearner], Mapping[str, float]] | None = None,
) -> VisionLearner:
    """Train an encoder and its aligner on scenes, in folder; returns them with the mean weights.

    words: the embeds of names, and of world.COLORS. spoil: what is done to most of the pictures
    that could have been drawn. taken, teacher: see VisionLearner. watch: looks at the learner as it
    is after so many steps.
    """
    from accelerate import PartialState
    from accelerate.utils import send_to_device

    state = PartialState()
    unseen = torch.zeros(len(COLORS) + 1, len(names) + 1, dtype=torch.bool)
    for number, color in enumerate(COLORS, 1):
        unseen[number, 1:] = torch.tensor([held_out(name, color) for name in names])
    learner = VisionLearner(config, words, seed, taken, teacher, unseen).to(state.device)
    side = learner.side

    def batch(step: int) -> Lesson:
        first = (step * state.num_processes + state.process_index) * schedule.batch
        found = [scenes(number) for number in range(first, first + schedule.batch)]
        pixels = torch.from_numpy(np.stack([picture for picture, _ in found]))
        labels = [patch_labels(scene, names, config.patch_size, side) for _, scene in found]
        stacked = torch.stack(labels)
        scaled = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        random = np.random.default_rng([seed, first])
        lying = [places(scene) if scene.steady else None for _, scene in found]
        spoilt = some_spoilt(scaled, lying, spoil, random)
        kept = None
        if step < MASKED * schedule.steps:
            chance = torch.from_numpy(random.random((schedule.batch, side * side)))
            kept = some_places(stacked, chance)
        return spoilt, stacked, kept, scaled

    def inside(name: str) -> bool:
        # Colours are a patch's loudest direction by far; Muon lets it learn outlines as fast.
        return ".blocks." in name or name.endswith("patch.weight")

    if taken is not None or teacher is not None:
        learner.settle(send_to_device(batch(0), state.device))
    stage = Stage(
        module=learner,
        optimizers=optimizers(learner, inside, schedule.rate),
        batch=batch,
        schedule=schedule,
        average=0.98,
        watch=None if watch is None else lambda step: watch(step, learner),
    )
    average = train(stage, folder)
    learner.load_state_dict(average)
    return learner
