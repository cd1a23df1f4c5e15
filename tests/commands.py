"""What tests of the commands share."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Run
from PIL import Image

from janus_kit import loading

PROMPT = "a red cat"
SHORT = ("--max-new-tokens", "6")  # the tiny model reads 256 tokens at most


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (90, 60), "red").save(path)
    return path


@pytest.fixture
def embedded(run: Run, hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As run, with the tiny model as the embedded one."""
    monkeypatch.setattr(loading, "resources", SimpleNamespace(files=lambda package: hf_folder))
    return run
