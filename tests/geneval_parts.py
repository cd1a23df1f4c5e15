"""What tests of GenEval share: small prompts, detections, pictures, and complaints."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from janus_kit.errors import JanusKitError
from janus_kit.scoring.geneval import Detection, prompts

LINES = prompts()
BOX = (0.0, 0.0, 10.0, 10.0)


def thing(
    label: str = "dog",
    box: Sequence[float] = BOX,
    score: float = 0.95,
    color: str | None = None,
) -> Detection:
    return Detection(label, tuple(box), score, color=color)


def clause(name: str = "dog", count: int = 1, **more: Any) -> dict[str, Any]:
    return {"class": name, "count": count, **more}


def wish(*include: dict[str, Any], tag: str = "two_object", **more: Any) -> dict[str, Any]:
    return {"tag": tag, "include": list(include), "prompt": "a photo", **more}


def complains(call: Callable[[], object], kind: type[JanusKitError], words: Sequence[str]) -> None:
    with pytest.raises(kind) as caught:
        call()
    said = str(caught.value)
    assert [word for word in words if word not in said] == []
    assert "\n" not in said
    assert len(said) < 400


COORDINATE = st.integers(-40, 40).map(lambda value: value / 2)
BOXES = st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE)


def checkered(width: int = 12, height: int = 10) -> Image.Image:
    """A picture of which every pixel has its own color."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 20, y * 20, x + y], -1).astype(np.uint8))
