"""Training by two processes, as torchrun and accelerate launch start them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from janus_kit import JanusPipeline


def in_two(folder: Path, work: str) -> None:
    """Have two processes do some lines, in which folder is one for both and state who they are."""
    script = folder / "job.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from accelerate import PartialState\n"
        "state, folder = PartialState(cpu=True), Path(sys.argv[1])\n"
        "assert state.num_processes == 2, state.num_processes\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + work
    )
    launch = ["torch.distributed.run", "--nproc_per_node=2", "--master_port=29517"]
    done = subprocess.run(
        [sys.executable, "-m", *launch, str(script), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.usefixtures("pictures")
def test_two_processes_run_the_whole_recipe_and_write_its_model_once(tmp_path: Path) -> None:
    in_two(
        tmp_path,
        "from janus_kit.training.recipe import train_embedded\n"
        "made = train_embedded(folder / 'run', budget='small')\n"
        "assert (made / 'patches.safetensors').exists()\n",
    )
    made = tmp_path / "run/model"
    assert JanusPipeline.from_pretrained(made)("a cup", output_type="tokens").codes.shape[1] == 576
    assert [path.name for path in (tmp_path / "run").rglob(".*")] == []


@pytest.mark.slow
def test_two_processes_train_as_one_and_the_world_size_is_two(tmp_path: Path) -> None:
    in_two(
        tmp_path,
        "from test_training import fit\n"
        "weights = fit(folder, 4)\n"
        "torch.save(weights, folder / f'{state.process_index}.pt')\n",
    )
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
