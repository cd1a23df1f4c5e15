"""EfficientDet-Lite as a detector for offline use: a small file, boxes in place of masks.

The weights are Google's (Apache-2.0). They are no part of this package; fetch.py gets Lite0 once.
Files come in two kinds: some pick the boxes themselves, others give every anchor's numbers.
"""

import os
from collections.abc import Sequence
from functools import cache
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

NAME = "efficientdet"
SIDES = {320: "lite0", 384: "lite1", 448: "lite2", 512: "lite3", 640: "lite4"}  # side → name
OVERLAP = 0.5  # of two boxes of one name that overlap more, the weaker is another sight of the same
THRESHOLD = 0.3  # for counting too: 0.9 is Mask2Former's scale, which no box here reaches
MOST = 100  # the best of so many (anchor, class) pairs are looked at, as Mask2Former's are

# It knows all 80 names. Of these, Lite0 named none of the picture bank's cut-outs above THRESHOLD:
# benchmarks/detector.py. Its larger kin were not measured.
UNSEEN = ("train", "backpack", "handbag", "broccoli", "hair drier")
# COCO's 91 ids less those without pictures are the 80 classes in order.
_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
_CLASSES = dict(zip((i for i in range(1, 91) if i not in _GAPS), OBJECTS, strict=True))

_Floats = npt.NDArray[np.float32]


class EfficientDet:
    """The detector of a .tflite file of the EfficientDet-Lite family, of either kind."""

    def __init__(self, interpreter: Any, file: str = "") -> None:
        """file: what tells it from others. Raises ScoringError for other inputs or outputs."""
        self._run = interpreter
        interpreter.allocate_tensors()
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        shape = tuple(int(side) for side in inputs[0]["shape"])
        read = len(shape) == 4 and shape[3] == 3 and inputs[0]["dtype"] == np.uint8
        if not read or len(outputs) not in (2, 4) or (len(outputs) == 2 and shape[1] != shape[2]):
            raise ScoringError(
                f"{file or NAME}: reads {list(shape)} and gives {len(outputs)} outputs; needed is "
                "a detector of COCO that reads uint8 [1, h, w, 3] and gives two or four"
            )
        self._input, self._size = inputs[0]["index"], (shape[2], shape[1])
        self._outputs = [output["index"] for output in outputs]
        kind = f"{NAME}-{SIDES.get(shape[1], shape[1])}"
        self.facts = DetectorFacts(
            name=f"{kind} {file}".strip(),
            threshold=THRESHOLD,
            counting_threshold=THRESHOLD,
            names=tuple(n for n in OBJECTS if n not in UNSEEN or not kind.endswith("lite0")),
            notes=(f"{kind} with boxes in place of masks: {NOT_COMPARABLE}",),
        )

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
        return cls(made, digest(file)[:10])

    def detect(self, images: Sequence[Image.Image]) -> list[list[Detection]]:
        """See Detector; one picture at a time."""
        return [self._one(image) for image in images]

    def _one(self, image: Image.Image) -> list[Detection]:
        picture = image.convert("RGB")
        squeezed = picture.resize(self._size, Image.Resampling.BILINEAR)
        self._run.set_tensor(self._input, np.asarray(squeezed, np.uint8)[None])
        self._run.invoke()
        outputs = [np.asarray(self._run.get_tensor(index)) for index in self._outputs]
        boxes, classes, scores = _named(outputs) if len(outputs) == 4 else self._decode(outputs)
        w, h = picture.size
        found = []
        for box, number, score in zip(boxes, classes, scores, strict=True):
            name = _CLASSES.get(int(number) + 1)
            if name and score > 0:
                top, left, bottom, right = (float(side) for side in box)
                inside = (left * w, top * h, right * w, bottom * h)
                found.append(Detection(name, inside, float(score)))
        return suppress(found)

    def _decode(self, outputs: Sequence[npt.NDArray[Any]]) -> tuple[_Floats, _Floats, _Floats]:
        """As `_named`, of a file that gives every anchor's 90 scores and its box's offsets."""
        side = self._size[0]
        anchors = _anchors(side)
        wanted = {(1, len(anchors), 90), (1, len(anchors), 4)}
        if {out.shape for out in outputs} != wanted:
            shapes = ", ".join(str(list(out.shape)) for out in outputs)
            raise ScoringError(
                f"{self.facts.name}: gave {shapes}; needed are [1, {len(anchors)}, 90] scores and "
                f"[1, {len(anchors)}, 4] boxes"
            )
        offsets, scores = sorted((out[0] for out in outputs), key=lambda out: out.shape[1])
        best = np.argsort(-scores, axis=None, kind="stable")[:MOST]
        rows, classes = np.unravel_index(best, scores.shape)
        (y, x, h, w), (dy, dx, dh, dw) = anchors[rows].T, offsets[rows].T
        middle = np.stack([y + dy * h, x + dx * w], axis=1)
        half = np.stack([h * np.exp(dh), w * np.exp(dw)], axis=1) / 2
        boxes = np.concatenate([middle - half, middle + half], axis=1) / side
        return np.clip(boxes, 0, 1), classes.astype(np.float32), scores[rows, classes]


@cache
def _anchors(side: int) -> _Floats:
    """Center y, center x, height and width of every anchor, in pixels of the input: [n, 4].

    As google/automl's efficientdet lays them for its Lite models: on levels 3 to 7, at each place
    three sizes of three shapes.
    """
    found = []
    for stride in (8, 16, 32, 64, 128):
        sizes = [3 * stride * 2 ** (octave / 3) for octave in range(3)]
        shapes = [(s / r**0.5, s * r**0.5) for s in sizes for r in (1.0, 2.0, 0.5)]  # r: w by h
        places = (np.arange(-(-side // stride)) + 0.5) * stride
        found += [(y, x, h, w) for y in places for x in places for h, w in shapes]
    return np.array(found, np.float32)


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
