"""Batches that other processes make ahead, and the memory through which they come."""

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from training_parts import Fit, fit, fit_batch, learn

from janus_kit.training import loop


def test_batches_made_ahead_by_workers_give_the_very_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(tmp_path / "whole", 20)
    seen = tmp_path / "seen"
    seen.mkdir()

    def batch(step: int) -> torch.Tensor:
        (seen / f"{step} {os.getpid()}").touch()
        return fit_batch(step)

    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", 20, stop=13)
    again = learn(tmp_path / "cut", 20, batch, workers=9)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    made = [path.name.split() for path in seen.iterdir()]
    made = [(step, process) for step, process in made if process != str(os.getpid())]
    assert sorted(int(step) for step, _ in made) == list(range(10, 20))
    assert len({process for _, process in made}) == 2
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    again = learn(tmp_path / "alone", 20, batch, workers=9)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert len(list(seen.iterdir())) == 30


@dataclass(frozen=True)
class Lesson:
    """A batch as the stages make them."""

    pixels: torch.Tensor
    more: tuple[dict[str, torch.Tensor], ...] = ()


@pytest.mark.parametrize(
    ("room", "workers"), [(1e9, 2), (6 * 1600, 2), (4 * 1600, 1), (4 * 1000, 0)]
)
def test_as_many_workers_make_batches_as_shared_memory_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: float, workers: int
) -> None:
    made: list[int] = []
    loader = loop.DataLoader

    def noted(*given: Any, **options: Any) -> Any:
        made.append(options["num_workers"])
        return loader(*given, **options)

    monkeypatch.setattr(loop, "DataLoader", noted)
    monkeypatch.setattr(loop, "SHARED", tmp_path)
    monkeypatch.setattr(
        loop.shutil, "disk_usage", lambda _: SimpleNamespace(free=room / 0.8, total=1)
    )
    monkeypatch.setattr(os, "cpu_count", lambda: 3)

    def batch(step: int) -> Any:
        pixels = fit_batch(step)  # 800 bytes, and the second is twice as large
        return Lesson(pixels, ({"more": pixels},) if step == 1 else ())

    class Taught(Fit):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            return super().forward(batch.pixels)

    found = learn(tmp_path / "ahead", 3, batch, module=Taught(), workers=15)
    assert made == ([workers] if workers else [])
    plain = learn(tmp_path / "plain", 3)
    assert all(torch.equal(found[name], plain[name]) for name in plain)
