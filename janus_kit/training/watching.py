"""What is looked at while a model trains: held-out losses, and a sheet of drawings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from janus_kit.drawing import noise
from janus_kit.engine import CodeDrawer
from janus_kit.generation.sampling import SamplingOptions, sample
from janus_kit.imaging import make_image_grid
from janus_kit.model import Janus
from janus_kit.prompts import PRO, Tokenizer, drawing_ids, unconditional_ids
from janus_kit.training.model_stage import Examples, answer_row, codes_of, collate, draw_row
from janus_kit.training.quantizer import PatchBook, to_pixels
from janus_kit.vision.images import to_uint8

__all__ = ["Watch"]

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
