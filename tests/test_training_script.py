"""The script that trains on a lent GPU, on this machine and at the smallest size."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from janus_kit import JanusPipeline

SCRIPT = Path(__file__).parents[1] / "benchmarks/train_gpu.sh"


@pytest.mark.slow
def test_a_run_of_a_stage_comes_back_in_pieces_that_go_on(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    settings = {"BUDGET": "small", "MINUTES": "0.2", "STAGES": "model", "PYTHON": sys.executable}
    places = {
        "OUT": str(out),
        "RESULTS": str(tmp_path / "results"),
        "XDG_CACHE_HOME": str(pictures),
    }
    ended = subprocess.run(
        ["bash", SCRIPT, tmp_path / "run"],
        env={**os.environ, **settings, **{name: str(path) for name, path in places.items()}},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    plan = json.loads((tmp_path / "results/training-plan.json").read_text())
    assert plan["minutes"] == 0.2
    assert list(plan["stages"]) == ["model"]
    pieces = sorted(out.iterdir())
    assert 2 < len(pieces) <= 8
    assert max(piece.stat().st_size for piece in pieces) <= 16 * 2**20
    whole = tmp_path / "model.tar"
    whole.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    with tarfile.open(whole) as archive:
        archive.extractall(tmp_path / "back", filter="data")
    back = tmp_path / "back/model"
    assert JanusPipeline.from_pretrained(back)("a cup", output_type="tokens").codes.shape[1] == 576
    assert (back / "patches.safetensors").exists()  # without it no training could go on
