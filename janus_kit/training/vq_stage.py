"""Stage one: the VQ tokenizer learns to write pictures as codes and to read them back.

Follows van den Oord et al., "Neural Discrete Representation Learning" (2017), with the unit-sphere
codebook of Yu et al., "Vector-quantized Image Modeling with Improved VQGAN" (2022).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_kit.config import VQConfig
from janus_kit.generation.vq import VQTokenizer
from janus_kit.training.loop import Schedule, Stage, optimizers, train

__all__ = ["VQLearner", "train_vq"]

Scenes = Callable[[int], "np.ndarray[Any, Any]"]  # seed → uint8 [384, 384, 3]

WARM = 150  # steps without quantization, before the codebook is laid out among the vectors
REVIVE = 25  # steps after which a code that was never chosen is moved


class VQLearner(nn.Module):
    """A VQTokenizer with its losses: forward(pixels [b, 3, h, w]) -> figures."""

    def __init__(self, config: VQConfig, seed: int) -> None:
        super().__init__()
        self.vq = VQTokenizer(config)
        initialise(self.vq, seed)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("chosen", torch.zeros(config.codebook_size))
        self.step: Tensor
        self.chosen: Tensor
        self.recent: list[Tensor] = []

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        vectors = self.vq.vectors(pixels).float()
        side = pixels.shape[-1] // self.vq.config.stride
        if self.step < WARM:
            read, commit = vectors, vectors.sum() * 0
        else:
            codes = self.vq.nearest(vectors.detach())
            self.chosen.scatter_add_(0, codes.flatten(), torch.ones_like(codes.flatten().float()))
            picked = F.normalize(self.vq.codebook(codes).float(), dim=-1)
            commit = F.mse_loss(picked, vectors.detach()) + 0.25 * F.mse_loss(
                vectors, picked.detach()
            )
            read = vectors + (picked - vectors).detach()
        self.recent = [*self.recent[-7:], vectors.detach().flatten(0, 1)]
        drawn = self.vq.decode_vectors(read, side).float()
        pixel = F.l1_loss(drawn, pixels)
        edge = F.l1_loss(drawn.diff(dim=-1), pixels.diff(dim=-1)) + F.l1_loss(
            drawn.diff(dim=-2), pixels.diff(dim=-2)
        )
        small, true = F.avg_pool2d(drawn, 8), F.avg_pool2d(pixels, 8)
        loss = pixel + edge + 0.5 * F.mse_loss(drawn, pixels) + F.l1_loss(small, true) + commit
        used = (self.chosen > 0).float().mean()
        return {"loss": loss, "pixel": pixel, "edge": edge, "commit": commit, "used": used}

    @torch.no_grad()
    def after(self, step: int) -> None:
        """Lay out the codebook once, then move codes that nothing chooses."""
        self.step.fill_(step + 1)
        generator = torch.Generator().manual_seed(step)
        if step + 1 == WARM:
            self.vq.codebook.weight.copy_(_spread(torch.cat(self.recent), self.chosen, generator))
        elif step + 1 > WARM and (step + 1 - WARM) % REVIVE == 0:
            dead = (self.chosen == 0).nonzero().flatten()
            pool = torch.cat(self.recent)
            places = torch.randint(len(pool), (len(dead),), generator=generator)
            self.vq.codebook.weight[dead] = pool[places.to(pool.device)]
            self.chosen.zero_()


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
    vq.codebook.weight.copy_(F.normalize(vq.codebook.weight, dim=-1))


def _spread(vectors: Tensor, like: Tensor, generator: torch.Generator) -> Tensor:
    """k-means on the unit sphere: vectors [m, d] -> centres [len(like), d]."""
    order = torch.randperm(len(vectors), generator=generator).to(vectors.device)
    vectors = vectors[order[:40_000]]
    centres = vectors[: len(like)].clone()
    for _ in range(15):
        nearest = (vectors @ centres.T).argmax(-1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        moved = F.normalize(sums, dim=-1)
        empty = sums.norm(dim=-1) == 0
        spare = torch.randint(len(vectors), (int(empty.sum()),), generator=generator)
        moved[empty] = vectors[spare.to(vectors.device)]
        centres = moved
    return centres


def _pixels(scenes: Scenes, seeds: range, size: int) -> Tensor:
    """Scenes, cut to a window on the grid of the codes: -> [b, 3, size, size] in [-1, 1]."""
    rows = []
    for seed in seeds:
        picture = scenes(seed)
        random = np.random.default_rng(seed)
        # Of four windows the busiest: most of a scene is background.
        room = (picture.shape[0] - size) // 16 + 1
        corners = random.integers(0, room, (4, 2)) * 16
        windows = [picture[y : y + size, x : x + size] for y, x in corners]
        window = max(windows, key=lambda w: float(w[::4, ::4].std()))
        rows.append(torch.from_numpy(window.copy()).permute(2, 0, 1).float() / 127.5 - 1)
    return torch.stack(rows)


def train_vq(
    config: VQConfig, scenes: Scenes, folder: Path, schedule: Schedule, *, seed: int = 0
) -> VQTokenizer:
    """Train a tokenizer on scenes, in folder; the last third sees whole pictures.

    Most steps look at 128×128 pixels, a ninth of the work; GroupNorm and attention then need the
    real size before the end.
    """
    from accelerate import PartialState

    learner = VQLearner(config, seed)
    state = PartialState()
    learner.to(state.device)

    def batch(step: int) -> Tensor:
        whole = step >= schedule.steps * 2 // 3
        rows = max(1, schedule.batch // (4 if whole else 1))
        first = (step * state.num_processes + state.process_index) * schedule.batch
        return _pixels(scenes, range(first, first + rows), 384 if whole else 128).to(state.device)

    def inside(name: str) -> bool:
        return not name.endswith(("conv_out.weight", "encoder.conv_in.weight", "codebook.weight"))

    stage = Stage(
        module=learner,
        optimizers=optimizers(learner, inside, schedule.rate),
        batch=batch,
        schedule=schedule,
        after=learner.after,
        average=0.98,
    )
    average = train(stage, folder)
    prefix = "vq."
    weights = {k.removeprefix(prefix): v for k, v in average.items() if k.startswith(prefix)}
    # The mean of a moved code is nowhere; codes are taken as they are, and as unit vectors, so
    # that transformers' encoder, which does not normalise, picks the same ones.
    weights["codebook.weight"] = F.normalize(learner.vq.codebook.weight.detach(), dim=-1)
    learner.vq.load_state_dict(weights)
    return learner.vq
