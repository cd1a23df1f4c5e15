"""GenEval's detector through transformers: an instance segmentation model of COCO's 80 classes.

Pictures are prepared and outputs read as mmdet 2.x does for Mask2Former, which published scores
were made with. transformers' own post-processing squeezes masks to 384×384 first, and its
preparation stretches pictures that are not square where mmdet pads them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from janus_kit import loading
from janus_kit.errors import OptionError, ScoringError
from janus_kit.scoring.detectors import DEFAULT, FLOOR, DetectorFacts
from janus_kit.scoring.geneval import Detection
from janus_kit.scoring.promptset import OBJECTS
from janus_kit.scoring.records import weights_version

__all__ = ["Prepared", "Segmenter", "instances", "prepare"]

LONG, SHORT = 1333, 800  # a picture is scaled to fit both
STRIDE = 32  # its sides are then padded to a multiple of this, right and below,
GREY = 128  # with this level
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
KINDS = ("mask2former", "maskformer")  # those that read and give what is done here
MOST = 100  # pairs of query and class that are looked at


@dataclass(frozen=True)
class Prepared:
    """A picture as the network reads it."""

    pixels: Tensor  # float32 [3, h, w], normalised and padded
    inner: tuple[int, int]  # height and width without the padding
    size: tuple[int, int]  # height and width of the picture itself


def prepare(image: Image.Image, long: int = LONG, short: int = SHORT) -> Prepared:
    """The picture at the network's scale; the sides follow mmcv's `imrescale`."""
    levels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float()
    h, w = levels.shape[1:]
    scale = min(long / max(h, w), short / min(h, w))
    inner = (max(1, int(h * scale + 0.5)), max(1, int(w * scale + 0.5)))
    scaled = F.interpolate(levels[None], inner, mode="bilinear", align_corners=False)[0]
    scaled = scaled.round()  # cv2 writes whole levels
    below, right = (-side % STRIDE for side in inner)
    padded = F.pad(scaled, (0, right, 0, below), value=float(GREY))
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return Prepared((padded - mean) / std, inner, (h, w))


def instances(
    classes: Tensor, masks: Tensor, picture: Prepared, floor: float = FLOOR
) -> list[Detection]:
    """The things with a score above floor, from class logits [q, 81] and mask logits [q, h', w'].

    Follows `instance_postprocess` and `simple_test` of mmdet's MaskFormerFusionHead: the top 100 of
    all pairs of query and class; score = probability × mean sigmoid inside the mask; no
    suppression.
    """
    shares = classes.float().softmax(-1)[:, :-1]
    best, pairs = shares.flatten().topk(min(MOST, shares.numel()))
    # A score cannot exceed its probability: what lies below the floor need not be scaled up.
    best, pairs = best[best > floor], pairs[best > floor]
    queries, labels = pairs // shares.shape[1], pairs % shares.shape[1]
    found = []
    for query in sorted(set(queries.tolist())):
        mask = _full(masks[query].float(), picture)
        inside = mask > 0
        # mmdet adds 1e-6 to the pixels that are counted.
        sure = float((mask.sigmoid() * inside).sum() / (inside.sum() + 1e-6))
        whole = inside.cpu().numpy()
        for place in (queries == query).nonzero().flatten().tolist():
            score = float(best[place]) * sure
            if score > floor:
                found.append(Detection(OBJECTS[int(labels[place])], _box(whole), score, whole))
    return sorted(found, key=lambda thing: (-thing.score, thing.label, thing.box))


def _full(mask: Tensor, picture: Prepared) -> Tensor:
    """Mask logits [h', w'] at the picture's own size: scaled up, unpadded, scaled again."""
    padded = picture.pixels.shape[1:]
    whole = F.interpolate(mask[None, None], tuple(padded), mode="bilinear", align_corners=False)
    h, w = picture.inner
    whole = whole[:, :, :h, :w]
    return F.interpolate(whole, picture.size, mode="bilinear", align_corners=False)[0, 0]


def _box(mask: "np.ndarray[Any, np.dtype[np.bool_]]") -> tuple[float, float, float, float]:
    """The tight box of a mask [h, w]; right and bottom lie outside. Of an empty one, zeros."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


class Segmenter:
    """A detector of transformers, such as Mask2Former."""

    def __init__(
        self,
        model: Any,
        facts: DetectorFacts,
        *,
        batch_size: int | None = None,
        long: int = LONG,
        short: int = SHORT,
    ) -> None:
        """Raises ScoringError for a model without 80 classes, since labels are mapped by their
        index, and for one of another kind."""
        count = int(model.config.num_labels)
        if count != len(OBJECTS):
            raise ScoringError(
                f"{facts.name}: has {count} classes, not the 80 of COCO; take a model of COCO "
                "instances"
            )
        kind = model.config.model_type
        if kind not in KINDS:
            raise ScoringError(
                f"{facts.name}: is a {kind}, and {' or '.join(KINDS)} is read; give another as "
                "module:function"
            )
        if batch_size is not None and batch_size < 1:
            raise OptionError(f"batch_size must be 1 or more, not {batch_size}")
        self.facts = facts
        self._model = model.eval()
        self._batch = batch_size
        self._limits = (long, short)

    @classmethod
    def open(
        cls,
        name: str,
        *,
        device: str | torch.device = "auto",
        batch_size: int | None = None,
        revision: str | None = None,
    ) -> "Segmenter":
        """Load a hub id or folder; raises ScoringError where that fails."""
        place = loading.device_of(device)
        try:
            from transformers import AutoModelForUniversalSegmentation
        except ImportError as error:
            raise ScoringError(f"{name}: needs transformers; install janus-kit[score]") from error
        try:
            model = AutoModelForUniversalSegmentation.from_pretrained(name, revision=revision)
        except ImportError as error:  # its loss is made at birth, and needs scipy
            raise ScoringError(f"{name}: needs scipy; install janus-kit[score]") from error
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ScoringError(
                f"{name}: cannot be loaded as a segmentation model ({reason}); check the name and "
                "the network, or take --detector efficientdet"
            ) from error
        notes = () if name == DEFAULT else ("another detector than the published one",)
        facts = DetectorFacts(name=name, version=weights_version(name, model.config), notes=notes)
        return cls(model.to(place), facts, batch_size=batch_size)

    @torch.inference_mode()
    def detect(self, images: Sequence[Image.Image]) -> list[list[Detection]]:
        """See Detector; pictures of one shape go through the network together."""
        size = self._batch or (8 if self._model.device.type == "cuda" else 1)
        found: list[list[Detection]] = [[] for _ in images]
        shapes: dict[tuple[int, ...], list[int]] = {}
        prepared = [prepare(image, *self._limits) for image in images]
        for number, picture in enumerate(prepared):
            shapes.setdefault(tuple(picture.pixels.shape), []).append(number)
        for numbers in shapes.values():
            for start in range(0, len(numbers), size):
                part = numbers[start : start + size]
                pixels = torch.stack([prepared[number].pixels for number in part])
                out = self._model(pixel_values=pixels.to(self._model.device, self._model.dtype))
                for row, number in enumerate(part):
                    found[number] = instances(
                        out.class_queries_logits[row],
                        out.masks_queries_logits[row],
                        prepared[number],
                    )
        return found
