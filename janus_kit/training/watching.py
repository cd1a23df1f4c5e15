"""What is looked at while the stages train: held-out figures, and sheets of pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from janus_kit.drawing import noise
from janus_kit.engine import CodeDrawer
from janus_kit.generation.sampling import SamplingOptions, sample
from janus_kit.imaging import make_image_grid
from janus_kit.model import Janus
from janus_kit.prompts import PRO, Tokenizer, drawing_ids, unconditional_ids
from janus_kit.training.model_stage import Examples, answer_row, codes_of, collate, draw_row
from janus_kit.training.quantizer import PatchBook, to_pixels
from janus_kit.training.vision_stage import VisionLearner, patch_labels
from janus_kit.training.vq_stage import VQLearner
from janus_kit.training.world import Scene
from janus_kit.vision.images import to_uint8

__all__ = ["PaintingWatch", "SeeingWatch", "Watch"]

FRESH = 70_000_000  # the first number of the scenes that are looked at


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Called with a step and the model at it: the mean losses over held-out examples.

    Beside them a sheet of the wishes is drawn, samples/STEP.png in folder, painted from what the
    codes stand for, since the VQ tokenizer may not be trained yet.
    """

    book: PatchBook
    tokenizer: Tokenizer
    drawn: Examples
    asked: Examples
    folder: Path
    wishes: Sequence[str]
    count: int = 16
    options: SamplingOptions = field(default_factory=SamplingOptions)

    def __call__(self, step: int, janus: Janus) -> Mapping[str, float]:
        training = janus.training
        janus.eval()
        try:
            with torch.inference_mode():
                figures = self._losses(janus)
                self._sheet(step, janus)
        finally:
            janus.train(training)
        return figures

    def _losses(self, janus: Janus) -> dict[str, float]:
        random = np.random.default_rng(0)
        code, text = [], []
        for number in range(FRESH, FRESH + self.count):
            wish, shown = self.drawn(number, random), self.asked(number, random)
            codes = codes_of(self.book, [wish])[0].tolist()
            row = draw_row(self.tokenizer, PRO, wish.prompt, codes, drop=False)
            wished = collate([row], self.tokenizer).to(janus.device)
            code.append(janus.loss(wished).code.item())
            tokens = janus.config.vision.tokens
            row = answer_row(self.tokenizer, PRO, shown.dialogues, tokens)
            told = collate([row], self.tokenizer, to_pixels([shown.pixels])).to(janus.device)
            text.append(janus.loss(told).text.item())
        return {"held-out code": sum(code) / len(code), "held-out text": sum(text) / len(text)}

    def _sheet(self, step: int, janus: Janus) -> None:
        rows = [drawing_ids(self.tokenizer, PRO, wish) for wish in self.wishes]
        dropped = [unconditional_ids(row, self.tokenizer) for row in rows]
        drawer = CodeDrawer(janus, janus.code_table(), self.tokenizer.pad, rows, dropped)
        streams, _ = noise(len(rows), janus.config.codes, 0, None)
        codes = sample(drawer, streams, self.options).cpu()
        images = [Image.fromarray(picture) for picture in to_uint8(self.book.paint(codes))]
        path = self.folder / "samples" / f"{step:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_image_grid(images).save(path)


@dataclass(frozen=True, kw_only=True)
class SeeingWatch:
    """Called with a step and the encoder at it: what it makes of things in held-out scenes."""

    scenes: "Callable[[int], tuple[np.ndarray[Any, Any], Scene]]"
    names: Sequence[str]
    count: int = 24

    def __call__(self, step: int, learner: VisionLearner) -> Mapping[str, float]:
        training = learner.training
        learner.eval()
        try:
            with torch.inference_mode():
                found = [
                    self._figures(number, learner) for number in range(FRESH, FRESH + self.count)
                ]
        finally:
            learner.train(training)
        return {  # a scene without colours says nothing about them
            f"held-out {name}": float(torch.stack([figures[name] for figures in found]).nanmean())
            for name in ("name right", "colour right")
        }

    def _figures(self, number: int, learner: VisionLearner) -> Mapping[str, torch.Tensor]:
        pixels, scene = self.scenes(number)
        labels = patch_labels(scene, self.names, learner.vision.config.patch_size, learner.side)
        device = learner.names.device
        shown = to_pixels([pixels]).to(device)
        found: Mapping[str, torch.Tensor] = learner((shown, labels[None].to(device), None, shown))
        return found


@dataclass(frozen=True, kw_only=True)
class PaintingWatch:
    """Called with a step and the VQ tokenizer at it: how near to held-out scenes it paints, in dB.

    Of right codes, in full and at half size, which it paints first. Beside them a sheet,
    samples/STEP.png in folder: some scenes, and below each what is painted.
    """

    scenes: "Callable[[int], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]"
    book: PatchBook
    folder: Path
    count: int = 8

    def __call__(self, step: int, learner: VQLearner) -> Mapping[str, float]:
        training = learner.training
        learner.eval()
        found = [self.scenes(number) for number in range(FRESH, FRESH + self.count)]
        pixels = to_pixels([picture for picture, _ in found])
        places = torch.from_numpy(np.stack([lying.reshape(-1, 3) for _, lying in found]))
        codes = self.book.codes(pixels, places)
        weights = learner.vq.codebook.weight
        side = pixels.shape[-1] // learner.vq.config.stride
        try:
            with torch.inference_mode():
                rows = F.normalize(weights.float(), dim=-1)[codes.to(weights.device)]
                latents = [learner.vq.latents(row[None], side).contiguous() for row in rows]
                whole = torch.cat([learner.paint(x) for x in latents]).float().cpu()
                half = torch.cat([learner.paint(x, 1) for x in latents]).float().cpu()
        finally:
            learner.train(training)
        shown = [Image.fromarray(p) for p in (*to_uint8(pixels[:4]), *to_uint8(whole[:4]))]
        path = self.folder / "samples" / f"{step:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_image_grid(shown, rows=2).save(path)
        small = F.avg_pool2d(pixels, 2)
        return {"held-out dB": decibels(whole, pixels), "held-out dB, half": decibels(half, small)}


def decibels(painted: torch.Tensor, true: torch.Tensor) -> float:
    """The peak signal-to-noise ratio of pixels in [-1, 1]."""
    error = (painted.clamp(-1, 1) - true).square().mean()
    return float(10 * torch.log10(4 / error.clamp(min=1e-9)))
