"""What finds things in pictures: the protocol, opening one by name, and a test for silent garbage.

The published detector is mmdet's Mask2Former; `segmentation.py` runs transformers' copy of it,
`efficientdet.py` a small one for offline use. Any other plugs in as module:function.
"""

import importlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from PIL import Image, ImageDraw

from janus_kit.errors import OptionError, ScoringError
from janus_kit.scoring.geneval import Detection
from janus_kit.scoring.promptset import OBJECTS, check_object
from janus_kit.scoring.records import digest

__all__ = [
    "DEFAULT",
    "FLOOR",
    "Detector",
    "DetectorFacts",
    "known_pictures",
    "open_detector",
    "self_test",
]

DEFAULT = "facebook/mask2former-swin-small-coco-instance"
PHOTOGRAPHED = "cat"  # what cat.jpg shows
FLOOR = 0.05  # detections at or below this are not kept in files; no threshold may be lower


@dataclass(frozen=True, kw_only=True)
class DetectorFacts:
    """What a summary says of a detector."""

    name: str
    version: str = ""  # what tells its weights or its code from others of the name
    threshold: float = 0.3  # a thing counts above this
    counting_threshold: float = 0.9  # the same where things are counted
    names: tuple[str, ...] = OBJECTS  # that it can see at all
    notes: tuple[str, ...] = ()  # why scores by it are not comparable with published ones

    def __post_init__(self) -> None:
        for name, share in (
            ("threshold", self.threshold),
            ("counting_threshold", self.counting_threshold),
        ):
            if not FLOOR <= share <= 1:
                raise OptionError(f"{name} must be from {FLOOR} to 1, not {share}")
        for name in self.names:
            check_object(name, f"the names of {self.name}")


class Detector(Protocol):
    """Finds the things of OBJECTS in pictures."""

    @property
    def facts(self) -> DetectorFacts:
        """What a summary says of it."""
        ...

    def detect(self, images: Sequence[Image.Image]) -> list[list[Detection]]:
        """What each RGB picture shows; a picture's result does not depend on the others."""
        ...


@dataclass(frozen=True)
class _PlugIn:
    """A detector of somebody else's, with what it does not say of itself."""

    facts: DetectorFacts
    inner: Any

    def detect(self, images: Sequence[Image.Image]) -> list[list[Detection]]:
        found = [list(things) for things in self.inner.detect(images)]
        wrong = [
            type(thing).__name__
            for things in found
            for thing in things
            if not isinstance(thing, Detection)
        ]
        if len(found) != len(images) or wrong:
            raise ScoringError(
                f"{self.facts.name}: detect must return a list of Detection for each of the "
                f"{len(images)} pictures, not {wrong[0] if wrong else len(found)}"
            )
        return found


def open_detector(
    name: str = DEFAULT,
    *,
    device: Any = "auto",
    batch_size: int | None = None,
    revision: str | None = None,
) -> Detector:
    """The detector of a name.

    "efficientdet" or "efficientdet:FILE.tflite"; "module:function", a function without arguments
    that returns an object with detect(images); else a hub id or folder of an instance segmentation
    model that transformers loads. Raises ScoringError where it cannot be had.
    """
    if name == "efficientdet" or name.startswith("efficientdet:"):
        from janus_kit.scoring.efficientdet import EfficientDet

        return EfficientDet.open(name.partition(":")[2] or None)
    module, colon, function = name.partition(":")
    if colon and all(part.isidentifier() for part in (*module.split("."), function)):
        return _plug_in(name, module, function)
    from janus_kit.scoring.segmentation import Segmenter

    return Segmenter.open(name, device=device, batch_size=batch_size, revision=revision)


def _plug_in(name: str, module: str, function: str) -> Detector:
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ScoringError(
            f"{name}: cannot be imported ({error}); is its folder on PYTHONPATH?"
        ) from error
    try:
        inner = make()
    except Exception as error:  # whatever somebody else's code raises
        reason = f"{type(error).__name__}: {error}"
        raise ScoringError(f"{name}: cannot be opened ({reason}); mend the function") from error
    if not callable(getattr(inner, "detect", None)):
        raise ScoringError(f"{name}: returned {type(inner).__name__}, which has no detect(images)")
    facts = getattr(inner, "facts", None)
    if not isinstance(facts, DetectorFacts):
        facts = DetectorFacts(name=name, notes=("another detector than the published one",))
    source = getattr(sys.modules[module], "__file__", None)
    if source and not facts.version:
        facts = replace(facts, version=digest(Path(source))[:10])
    return _PlugIn(facts, inner)


def self_test(detector: Detector) -> list[str]:
    """What is suspicious about a detector's answers to known pictures; empty when nothing is.

    The commonest fault in the field is silent: weights that did not load, or kernels for another
    card, give few and weak detections, and all scores fall to zero.
    """
    drawn = known_pictures()
    found = detector.detect(list(drawn.values()))
    warnings = []
    wanted = [name for name in drawn if name in detector.facts.names]
    seen = {
        name
        for name, things in zip(drawn, found, strict=True)
        for thing in things
        if thing.label == name and thing.score > detector.facts.threshold
    }
    if wanted and not seen:
        warnings.append(f"it names none of a plain {', '.join(wanted)}")
    elif PHOTOGRAPHED in wanted and PHOTOGRAPHED not in seen:
        warnings.append(f"it sees no {PHOTOGRAPHED} in a photograph of one")
    best = [
        max((thing.score for thing in things), default=0.0)
        for name, things in zip(drawn, found, strict=True)
        if name in OBJECTS
    ]
    if best and sum(best) / len(best) < detector.facts.threshold:
        warnings.append(
            f"its best scores on known things average {sum(best) / len(best):.2f}: did all weights "
            "load?"
        )
    nothing = found[list(drawn).index("")]
    if ghosts := [thing for thing in nothing if thing.score > 0.9]:
        warnings.append(f"it sees {ghosts[0].label} in an empty picture")
    return warnings


def known_pictures() -> dict[str, Image.Image]:
    """Three drawings and a photograph by the name of what they show; "" shows nothing."""
    sky = Image.linear_gradient("L").resize((384, 384))
    plain = Image.merge("RGB", [sky.point(lambda v, a=a: 150 + a + v // 8) for a in (0, 20, 45)])
    found = {"": plain}
    for name, draw in (
        ("stop sign", _stop_sign),
        ("clock", _clock),
        ("traffic light", _traffic_light),
    ):
        found[name] = plain.copy()
        draw(ImageDraw.Draw(found[name]))
    with Image.open(Path(__file__).with_name("cat.jpg")) as photograph:  # whose it is: see NOTICE
        found[PHOTOGRAPHED] = photograph.convert("RGB")
    return found


def _stop_sign(pen: ImageDraw.ImageDraw) -> None:
    pen.rectangle((186, 250, 198, 384), fill="#888")
    pen.regular_polygon((192, 160, 112), 8, rotation=22, fill="white")
    pen.regular_polygon((192, 160, 104), 8, rotation=22, fill="#b5121b")
    pen.text((192, 160), "STOP", fill="white", anchor="mm", font_size=68, stroke_width=2)


def _clock(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((72, 72, 312, 312), fill="#222")
    pen.ellipse((84, 84, 300, 300), fill="white")
    for hour in range(12):
        x, y = math.sin(hour * math.pi / 6), -math.cos(hour * math.pi / 6)
        pen.text(
            (192 + 90 * x, 192 + 90 * y), str(hour or 12), fill="black", anchor="mm", font_size=24
        )
    pen.line((192, 192, 192, 116), fill="black", width=6)
    pen.line((192, 192, 240, 220), fill="black", width=8)


def _traffic_light(pen: ImageDraw.ImageDraw) -> None:
    pen.rectangle((184, 300, 200, 384), fill="#444")
    pen.rounded_rectangle((132, 60, 252, 320), radius=16, fill="#1b1b1b")
    for y, color in ((105, "#ff3020"), (190, "#504010"), (275, "#0a4020")):
        pen.ellipse((155, y - 37, 229, y + 37), fill=color)
