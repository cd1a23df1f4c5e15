"""Training by two processes, as torchrun and accelerate launch start them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training_parts import Fit, fit_batch

from janus_kit import JanusPipeline
from janus_kit.training.loop import Schedule, Stage, train


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


def fit_by_descent(folder: Path, batch: Callable[[int], torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fit a line by plain steps: Muon's, in bfloat16, make much of the last digit of a gradient."""
    module = Fit()
    stage = Stage(
        module=module,
        optimizers=(torch.optim.SGD(module.parameters(), lr=0.1),),
        batch=batch,
        schedule=Schedule(steps=6, batch=4, rate=0.1, warmup=1),
        average=0.5,
    )
    return train(stage, folder, precision="no")


@pytest.mark.slow
def test_two_processes_train_as_one_that_sees_the_scenes_of_both(tmp_path: Path) -> None:
    in_two(
        tmp_path,
        "from training_parts import fit_batch\n"
        "from test_training_in_two import fit_by_descent\n"
        "share = lambda step: fit_batch(2 * step + state.process_index)\n"
        "weights = fit_by_descent(folder / 'two', share)\n"
        "torch.save(weights, folder / f'{state.process_index}.pt')\n",
    )
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)

    def both(step: int) -> torch.Tensor:
        return torch.cat([fit_batch(2 * step), fit_batch(2 * step + 1)])

    def half(step: int) -> torch.Tensor:
        return fit_batch(2 * step)

    alone = fit_by_descent(tmp_path / "one", both)
    own = fit_by_descent(tmp_path / "half", half)
    for name, values in first.items():
        torch.testing.assert_close(values, alone[name])
    # What the first would make of its own share is far away.
    assert max(float((first[name] - own[name]).abs().max()) for name in first) > 1e-2
