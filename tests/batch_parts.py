"""What tests of long runs share: pictures, what a run leaves, and deaths at a chosen moment."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from janus_kit.batch.run import Outcome

# The tiny model reads 256 tokens at most; drawn tokens tell pictures apart, likeliest ones hardly.
SHORT = {"max_new_tokens": 6, "temperature": 0.5, "seed": 0}


def picture(path: Path, seed: int) -> None:
    """Noise in large patches: each picture is its own, and small."""
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (4, 4, 3), generator=draw, dtype=torch.uint8).numpy()
    Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(path)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the ledger's."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".janus" not in path.parts
    }


def counts(outcome: Outcome) -> tuple[int, int, int]:
    return outcome.done, outcome.failed, outcome.left


def rows(folder: Path) -> list[dict[str, str]]:
    text = (folder / "captions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n")[:-1]]


class Killed(BaseException):
    """Stands for kill −9 where a test must choose the moment; test_batch_cli.py kills for real."""


def dies_at(place: Any, name: str, when: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the when-th call of place.name raise Killed, before it does its work."""
    real: Callable[..., Any] = getattr(place, name)
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == when:
            raise Killed
        return real(*arguments, **options)

    monkeypatch.setattr(place, name, call)
