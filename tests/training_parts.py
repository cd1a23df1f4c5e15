"""What tests of the training loop share: a line to be fitted."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from janus_kit.training.loop import Schedule, Stage, optimizers, train


class Fit(nn.Module):
    """A line to be fitted, with a kernel for Muon."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Conv2d(2, 3, 3)
        self.outside = nn.Linear(3, 1)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.outside(self.inside(batch).mean((2, 3)))
        return {"loss": (found - batch[:, :, 1:4, 1:4].mean((1, 2, 3))[:, None]).square().mean()}


def fit_batch(step: int) -> torch.Tensor:
    return torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(step))


def learn(
    folder: Path,
    steps: int,
    batch: Callable[[int], torch.Tensor] = fit_batch,
    watch: Callable[[int], Mapping[str, float]] | None = None,
    module: nn.Module | None = None,
    **plan: int,
) -> dict[str, torch.Tensor]:
    """Train a module, a line to be fitted unless told, to the end. plan: more of the schedule."""
    module = module or Fit()
    stage = Stage(
        module=module,
        optimizers=optimizers(module, lambda name: name.startswith("inside"), 3e-2),
        batch=batch,
        schedule=Schedule(steps=steps, batch=4, rate=1e-2, warmup=3, save_every=5, **plan),
        average=0.9,
        watch=watch,
    )
    return train(stage, folder, precision="no")


def fit(folder: Path, steps: int, stop: int | None = None) -> dict[str, torch.Tensor]:
    """Train to the end, or raise KeyboardInterrupt at a step."""

    def batch(step: int) -> torch.Tensor:
        if step == stop:
            raise KeyboardInterrupt
        return fit_batch(step)

    return learn(folder, steps, batch)
