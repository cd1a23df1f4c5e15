"""The package where no C compiler is: it is built all the same, and draws the same."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from janus_kit import JanusPipeline
from janus_kit.generation.native import available

ROOT = Path(__file__).parents[1]
DRAW = """
from janus_kit import JanusPipeline
pipe = JanusPipeline.from_pretrained(device="cpu")
pipe.set_progress_bar_config(disable=True)
print(pipe("a bench", seed=1).codes[0].tolist())
"""


@pytest.mark.slow
@pytest.mark.skipif(not available(), reason="the native step was not built")
def test_without_a_compiler_the_package_is_built_and_draws_the_same(tmp_path: Path) -> None:
    source, wheels, site = (tmp_path / name for name in ("source", "wheels", "site"))
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith(("tests/", "docs/", "benchmarks/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    build = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "-w", str(wheels)]
    none = {**os.environ, "CC": "/bin/false"}
    subprocess.run([*build, "--no-build-isolation", "-q"], env=none, check=True)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        assert not [name for name in wheel.namelist() if name.endswith(".so")]
        wheel.extractall(site)
    drawn = subprocess.run(
        [sys.executable, "-c", DRAW],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the native step was not built; drawing goes on in PyTorch" in drawn.stderr
    pipe = JanusPipeline.from_pretrained(device="cpu")
    pipe.set_progress_bar_config(disable=True)
    assert drawn.stdout.strip() == str(pipe("a bench", seed=1).codes[0].tolist())
