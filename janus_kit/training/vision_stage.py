"""The understanding encoder learns to see before it learns to speak.

Published Janus models start from a pretrained SigLIP; this stage stands in its place. Every patch
of a scene learns which thing covers it and in which colour: 576 labels a picture, where an answer
of a few words would give a handful.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_kit.config import VisionConfig
from janus_kit.training.loop import Schedule, Stage, optimizers, train
from janus_kit.training.world import COLORS, Scene
from janus_kit.vision.encoder import VisionEncoder

__all__ = ["VisionLearner", "patch_labels", "train_vision"]

Scenes = Callable[[int], "tuple[np.ndarray[Any, Any], Scene]"]


def patch_labels(scene: Scene, names: Sequence[str], patch: int, side: int) -> Tensor:
    """What covers each patch: int64 [2, side²], numbers of names and colours; 0 is nothing."""
    labels = torch.zeros(2, side, side, dtype=torch.long)
    colors = list(COLORS)
    for thing in scene.things:
        x0, y0, x1, y1 = thing.box
        rows, columns = slice(y0 // patch, -(-y1 // patch)), slice(x0 // patch, -(-x1 // patch))
        labels[0, rows, columns] = names.index(thing.name) + 1
        labels[1, rows, columns] = colors.index(thing.color) + 1
    return labels.flatten(1)


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


class VisionLearner(nn.Module):
    """A VisionEncoder with two linear heads: forward((pixels, labels)) -> figures."""

    def __init__(self, config: VisionConfig, names: int, seed: int) -> None:
        super().__init__()
        self.vision = VisionEncoder(config)
        self.heads = nn.ModuleList(nn.Linear(config.width, n + 1) for n in (names, len(COLORS)))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() == 1:
                    parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
                else:
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(noise * parameter[0].numel() ** -0.5 * 0.6)
                if name.endswith(("out.weight", "fc2.weight")):
                    parameter.zero_()
            self.vision.positions.copy_(0.5 * waves(config))

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        pixels, labels = batch
        features = self.vision(pixels)
        figures = {}
        for place, (kind, head) in enumerate(zip(("name", "colour"), self.heads, strict=True)):
            logits = head(features).float().flatten(0, 1)
            wanted = labels[:, place].flatten()
            # Most patches are background; the things count as much as all of it.
            weight = torch.where(wanted > 0, 1.0, 0.2)
            losses = F.cross_entropy(logits, wanted, reduction="none")
            figures[kind] = (losses * weight).sum() / weight.sum()
            things = wanted > 0
            figures[f"{kind} right"] = (logits.argmax(-1) == wanted)[things].float().mean()
        return {"loss": figures["name"] + figures["colour"], **figures}


def train_vision(
    config: VisionConfig,
    scenes: Scenes,
    names: Sequence[str],
    folder: Path,
    schedule: Schedule,
    *,
    seed: int = 0,
) -> VisionEncoder:
    """Train an encoder on scenes, in folder; returns it with the mean weights."""
    from accelerate import PartialState

    state = PartialState()
    learner = VisionLearner(config, len(names), seed).to(state.device)
    side = config.image_size // config.patch_size

    def batch(step: int) -> tuple[Tensor, Tensor]:
        first = (step * state.num_processes + state.process_index) * schedule.batch
        found = [scenes(number) for number in range(first, first + schedule.batch)]
        pixels = torch.from_numpy(np.stack([picture for picture, _ in found]))
        labels = [patch_labels(scene, names, config.patch_size, side) for _, scene in found]
        scaled = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        return scaled.to(state.device), torch.stack(labels).to(state.device)

    def inside(name: str) -> bool:
        # Colours are a patch's loudest direction by far; Muon lets it learn outlines as fast.
        return ".blocks." in name or name.endswith("patch.weight")

    stage = Stage(
        module=learner,
        optimizers=optimizers(learner, inside, schedule.rate),
        batch=batch,
        schedule=schedule,
        average=0.98,
    )
    average = train(stage, folder)
    prefix = "vision."
    weights = {k.removeprefix(prefix): v for k, v in average.items() if k.startswith(prefix)}
    learner.vision.load_state_dict(weights)
    return learner.vision
