"""GenEval's judges of color: CLIP by transformers as published, and pixels for offline use."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from janus_kit import loading
from janus_kit.errors import ScoringError
from janus_kit.scoring.colors import (
    NOT_COMPARABLE,
    PixelColors,
    classify_color,
    color_texts,
    crop_for_color,
)
from janus_kit.scoring.geneval import Detection
from janus_kit.scoring.records import weights_version

__all__ = ["PUBLISHED", "ClipColors", "ColorJudge", "Pixels", "clip_pixels", "open_colors"]

PUBLISHED = "openai/clip-vit-large-patch14"  # its config asks for QuickGELU, as the weights need
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

Thing = tuple[Image.Image, Detection]  # a detection and the upright picture that it lies in


class ColorJudge(Protocol):
    """Tells the colors of things."""

    name: str
    version: str  # what tells its weights from others of the name; empty for none
    mark: str  # what it says against comparing with published scores; empty for nothing

    def colors(self, things: Sequence[Thing]) -> list[str]:
        """The color of each thing, of COLORS."""
        ...


class Pixels:
    """Hue and lightness inside the mask or the box; no weights."""

    name = "pixels"
    version = ""
    mark = NOT_COMPARABLE

    def colors(self, things: Sequence[Thing]) -> list[str]:
        """See ColorJudge."""
        return [PixelColors(image)(thing) for image, thing in things]


def clip_pixels(image: Image.Image, side: int) -> Tensor:
    """A crop as CLIP reads it, float32 [3, side, side]: the shorter side scaled, the middle cut.

    The rounding is that of torchvision's Resize and CenterCrop, which open_clip uses.
    """
    w, h = image.size
    short, long = min(w, h), max(w, h)
    new = int(side * long / short)
    size = (side, new) if w <= h else (new, side)
    scaled = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (round((scaled.size[axis] - side) / 2) for axis in (0, 1))
    levels = np.asarray(scaled.crop((left, top, left + side, top + side)), np.float32) / 255
    normal = (levels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(normal).permute(2, 0, 1)


class ClipColors:
    """A CLIP of transformers; the published one is openai's ViT-L/14."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        *,
        version: str = "",
        batch_size: int = 32,
        background: str = "#999",
        crop: bool = True,
    ) -> None:
        self.name = name
        self.version = version
        usual = name == PUBLISHED and background == "#999" and crop
        self.mark = "" if usual else NOT_COMPARABLE
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._batch = batch_size
        self._options: dict[str, Any] = {"background": background, "crop": crop}
        self._texts: dict[str, npt.NDArray[np.float32]] = {}

    @classmethod
    def open(cls, name: str = PUBLISHED, *, device: str | torch.device = "auto") -> "ClipColors":
        """Load a hub id or folder; raises ScoringError where that fails."""
        place = loading.device_of(device)
        try:
            from transformers import AutoTokenizer, CLIPModel
        except ImportError as error:
            raise ScoringError(f"{name}: needs transformers; install janus-kit[score]") from error
        try:
            model: Any = CLIPModel.from_pretrained(name)
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ScoringError(
                f"{name}: cannot be loaded as a CLIP model ({reason}); check the name and the "
                "network, or take --colors pixels"
            ) from error
        version = weights_version(name, model.config)
        return cls(model.to(place), tokenizer, name, version=version)

    @torch.inference_mode()
    def colors(self, things: Sequence[Thing]) -> list[str]:
        """See ColorJudge; crops go through the network together."""
        side = int(self._model.config.vision_config.image_size)
        found = []
        for start in range(0, len(things), self._batch):
            part = things[start : start + self._batch]
            crops = [
                crop_for_color(image, thing.box, thing.mask, **self._options)
                for image, thing in part
            ]
            pixels = torch.stack([clip_pixels(crop, side) for crop in crops])
            seen = _embeddings(self._model.get_image_features(pixels.to(self._model.device)))
            for row, (_, thing) in zip(seen, part, strict=True):
                found += classify_color(row[None], self._words(thing.label))
        return found

    def _words(self, name: str) -> npt.NDArray[np.float32]:
        """The text embeddings of a thing in every color: [10, 3, d]."""
        if name not in self._texts:
            texts = [text for lines in color_texts(name).values() for text in lines]
            read = self._tokenizer(texts, padding=True, return_tensors="pt")
            read = read.to(self._model.device)
            out = self._model.get_text_features(
                input_ids=read["input_ids"], attention_mask=read["attention_mask"]
            )
            self._texts[name] = _embeddings(out).reshape(10, 3, -1)
        return self._texts[name]


def _embeddings(out: Any) -> npt.NDArray[np.float32]:
    """Features as numpy; newer versions of transformers wrap them."""
    tensor = out if isinstance(out, Tensor) else out.pooler_output
    found: npt.NDArray[np.float32] = tensor.float().cpu().numpy()
    return found


def open_colors(name: str = PUBLISHED, *, device: Any = "auto") -> ColorJudge:
    """The judge of a name: "pixels", or a hub id or folder of a CLIP model."""
    return Pixels() if name == "pixels" else ClipColors.open(name, device=device)
