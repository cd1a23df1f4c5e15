"""EfficientDet-Lite2 as a detector for offline use: a small file, boxes in place of masks.

The weights are Google's (Apache-2.0). They are no part of this package; fetch.py gets them once.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from janus_kit.errors import ScoringError
from janus_kit.scoring.colors import NOT_COMPARABLE
from janus_kit.scoring.detectors import DetectorFacts
from janus_kit.scoring.fetch import efficientdet_file
from janus_kit.scoring.geneval import Detection
from janus_kit.scoring.promptset import OBJECTS
from janus_kit.scoring.records import digest

__all__ = ["EfficientDet", "suppress"]

NAME = "efficientdet-lite2"
OVERLAP = 0.5  # of two boxes of one name that overlap more, the weaker is another sight of the same
THRESHOLD = 0.3  # for counting too: 0.9 is Mask2Former's scale, which few boxes here reach

# It knows all 80 names; of these no drawing or render that was tried got a score above THRESHOLD.
UNSEEN = (
    *("parking meter", "backpack", "handbag", "skis", "baseball glove", "knife", "spoon"),
    *("broccoli", "pizza", "toaster", "book", "hair drier"),
)
# COCO's 91 ids less those without pictures are the 80 classes in order.
_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
_CLASSES = dict(zip((i for i in range(1, 91) if i not in _GAPS), OBJECTS, strict=True))

_Floats = npt.NDArray[np.float32]


class EfficientDet:
    """The detector of a .tflite file whose outputs are boxes, classes, scores and their count."""

    def __init__(self, interpreter: Any, name: str = NAME) -> None:
        """Raises ScoringError for a file with another input or other outputs."""
        self.facts = DetectorFacts(
            name=name,
            threshold=THRESHOLD,
            counting_threshold=THRESHOLD,
            names=tuple(name for name in OBJECTS if name not in UNSEEN),
            notes=(f"{NAME} with boxes in place of masks: {NOT_COMPARABLE}",),
        )
        self._run = interpreter
        interpreter.allocate_tensors()
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        shape = tuple(int(side) for side in inputs[0]["shape"])
        if len(shape) != 4 or shape[3] != 3 or inputs[0]["dtype"] != np.uint8 or len(outputs) != 4:
            raise ScoringError(
                f"{name}: reads {list(shape)} and gives {len(outputs)} outputs; needed is a "
                "detector of COCO that reads uint8 [1, h, w, 3] and gives four"
            )
        self._input, self._size = inputs[0]["index"], (shape[2], shape[1])
        self._outputs = [output["index"] for output in outputs]

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None) -> "EfficientDet":
        """Load a file, or the one that was fetched; raises ScoringError where that fails."""
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ScoringError(
                "efficientdet: needs ai-edge-litert; install janus-kit[score]"
            ) from error
        file = Path(path) if path else efficientdet_file()
        if not file.is_file():
            remedy = "give a .tflite file" if path else "run janus-kit score fetch efficientdet"
            raise ScoringError(f"{file}: there is no such file; {remedy}")
        try:
            made = Interpreter(model_path=str(file), num_threads=os.cpu_count() or 1)
        except (ValueError, RuntimeError) as error:
            raise ScoringError(f"{file}: is no .tflite model ({error})") from error
        return cls(made, f"{NAME} {digest(file)[:10]}")

    def detect(self, images: Sequence[Image.Image]) -> list[list[Detection]]:
        """See Detector; one picture at a time."""
        return [self._one(image) for image in images]

    def _one(self, image: Image.Image) -> list[Detection]:
        picture = image.convert("RGB")
        squeezed = picture.resize(self._size, Image.Resampling.BILINEAR)
        self._run.set_tensor(self._input, np.asarray(squeezed, np.uint8)[None])
        self._run.invoke()
        boxes, classes, scores = _named(
            [np.asarray(self._run.get_tensor(index)) for index in self._outputs]
        )
        w, h = picture.size
        found = []
        for (top, left, bottom, right), number, score in zip(boxes, classes, scores, strict=True):
            name = _CLASSES.get(int(number) + 1)
            if name and score > 0:
                box = (left * w, top * h, right * w, bottom * h)
                found.append(Detection(name, box, float(score)))
        return suppress(found)


def _named(outputs: Sequence[npt.NDArray[Any]]) -> tuple[_Floats, _Floats, _Floats]:
    """Boxes [n, 4], classes [n] and scores [n] of the four outputs, whose order differs by file."""
    boxes = [out[0] for out in outputs if out.ndim == 3 and out.shape[-1] == 4]
    rows = [out.ravel() for out in outputs if out.ndim == 2 and out.size > 1]
    counts = [out for out in outputs if out.size == 1]
    if len(boxes) != 1 or len(rows) != 2 or len(counts) != 1:
        shapes = ", ".join(str(list(out.shape)) for out in outputs)
        raise ScoringError(
            f"{NAME}: gave {shapes}; needed are boxes [1, n, 4], twice [1, n], and one number"
        )
    count = int(counts[0].ravel()[0])
    # Classes are whole numbers. Scores are too where there is nothing: then they are zeros.
    whole = [bool((row == np.round(row)).all()) for row in rows]
    swapped = rows[1].sum() > rows[0].sum() if all(whole) else whole[1]
    classes, scores = rows[::-1] if swapped else rows
    return boxes[0][:count], classes[:count], scores[:count]


def suppress(things: Sequence[Detection], overlap: float = OVERLAP) -> list[Detection]:
    """The things, the best first, less those that overlap a better one of their name more."""
    kept: list[Detection] = []
    for thing in sorted(things, key=lambda thing: -thing.score):
        if all(other.label != thing.label or _shared(other, thing) <= overlap for other in kept):
            kept.append(thing)
    return kept


def _shared(a: Detection, b: Detection) -> float:
    """Intersection over union of two boxes."""
    w = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    h = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    inner = max(w, 0.0) * max(h, 0.0)
    sizes = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a.box, b.box)]
    union = sum(sizes) - inner
    return inner / union if union > 0 else 0.0
