"""What several tests of JanusPipeline share."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from janus_kit.errors import (
    JanusKitError,
)
from janus_kit.pipeline import JanusPipeline

CAT = "a red cat"


OTHERS = ["two green dogs and 3 birds sit on a blue mat", "", "mat", "a red cat sits"]


QUESTION = "what colour is the cat?"


CONTEXT = 256  # positions of the tiny model


def codes(pipe: JanusPipeline, prompt: Any = CAT, **options: Any) -> Tensor:
    return pipe(prompt, output_type="tokens", **options).codes


def picture(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Random blocks of colour: pictures that a random encoder tells apart."""
    levels = torch.randint(0, 256, (8, 8, 3), generator=torch.Generator().manual_seed(seed))
    image = Image.fromarray(levels.to(torch.uint8).numpy())
    return image.resize(size, Image.Resampling.NEAREST)


def talk(text: str, *images: Image.Image) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text, "images": list(images)}]


# What is refused


def refused(kind: type[JanusKitError], call: Callable[[], Any]) -> str:
    """The message of the error that call raises: one plain sentence."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert len(message) < 300
    return message
