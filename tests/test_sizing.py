"""A run is sized to minutes: its steps are counted and timed on the machine, and kept in a file."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from janus_kit.errors import CheckpointError, OptionError
from janus_kit.train import app
from janus_kit.training.budgets import BUDGETS
from janus_kit.training.loop import Schedule, Stage, optimizers, train
from janus_kit.training.recipe import train_embedded
from janus_kit.training.sizing import COUNTED, STAGES, TIMED, Rate, fitted, sized

ROWS = {"vq": 40, "vision": 20, "model": 10}  # of the matrix that a stage multiplies


class Product(nn.Module):
    def __init__(self, rows: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(rows, 50))
        self.level = nn.Parameter(torch.zeros(()))

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (batch @ self.weight.T + self.level).square().mean()}


runs: list[Mapping[str, Schedule]] = []


def run(schedules: Mapping[str, Schedule], folder: Path) -> Mapping[str, Path]:
    """A recipe of three stages, each one product."""
    runs.append(schedules)
    for name, schedule in schedules.items():
        module = Product(ROWS[name])
        stage = Stage(
            module=module,
            optimizers=optimizers(module, lambda name: name == "weight", schedule.rate),
            batch=lambda step: torch.ones(1000, 50),
            schedule=schedule,
        )
        train(stage, folder / name, precision="no")
    return {name: folder / name for name in schedules}


def test_a_run_is_sized_by_a_trial_and_remembers_its_plan(tmp_path: Path) -> None:
    plan = Schedule(steps=5, batch=1, rate=1e-3, warmup=20)
    schedules = {name: replace(plan, batch=2 if name == "vq" else 1) for name in STAGES}
    runs.clear()
    found = sized(schedules, 0.5, tmp_path, run)
    assert [trial["vq"].steps for trial in runs] == [COUNTED, COUNTED + TIMED]
    assert [trial["vq"].counted for trial in runs] == [True, False]
    report = json.loads((tmp_path / "plan.json").read_text())
    assert report["minutes"] == 0.5
    assert report["processes"] == 1
    for name, rows in ROWS.items():
        kept = report["stages"][name]
        # One product forward, and one back: nothing asks for the batch's own gradient.
        assert kept["gigaflop a step"] == pytest.approx(2 * 2 * 1000 * 50 * rows / 1e9, rel=0.02)
        assert kept["steps"] == found[name].steps > TIMED
    took = sum(kept["steps"] * kept["seconds a step"] for kept in report["stages"].values())
    assert took == pytest.approx(30, rel=0.1)
    assert found["vq"].batch == 2
    assert not (tmp_path / "trial").exists()
    assert sized(schedules, 7, tmp_path, run) == found
    assert len(runs) == 2


def test_a_trial_that_was_killed_is_made_anew(tmp_path: Path) -> None:
    plan = Schedule(steps=5, batch=1, rate=1e-3, warmup=20)
    schedules = dict.fromkeys(STAGES, plan)

    def killed(given: Mapping[str, Schedule], folder: Path) -> Mapping[str, Path]:
        if given["vq"].counted:
            return run(given, folder)
        run({"vq": given["vq"]}, folder)  # and no other stage
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sized(schedules, 0.5, tmp_path, killed)
    assert sized(schedules, 0.5, tmp_path, run)["model"].steps > TIMED


def test_too_few_minutes_and_another_file_are_refused(tmp_path: Path) -> None:
    rates = {name: Rate(seconds=2.0, gigaflop=1.0) for name in STAGES}
    steps = fitted(rates, 100)
    assert sum(steps.values()) == 3000
    with pytest.raises(OptionError, match=r"0\.05 minutes are too few: a step takes up to 2\.0 s"):
        fitted(rates, 0.05)
    (tmp_path / "plan.json").write_text('{"stages": {"vq": {}}}')
    with pytest.raises(CheckpointError, match=r"plan\.json: not the plan of a run"):
        train_embedded(tmp_path, budget="small", minutes=1)


def test_the_command_line_says_how_long_and_a_budget_goes_by_other_schedules() -> None:
    shown = CliRunner().invoke(app, ["embedded", "--help"], terminal_width=120)
    assert "--minutes" in shown.output
    plan = BUDGETS["small"]
    other = replace(plan.vision, steps=77)
    changed = plan.by({**plan.schedules, "vision": other})
    assert changed.vision is other
    assert (changed.vq, changed.model, changed.scenes) == (plan.vq, plan.model, plan.scenes)


@pytest.mark.parametrize(("command", "extra"), [("embedded", "train"), ("evaluate", "score")])
def test_a_package_that_is_missing_is_named_with_its_extra_at_once(
    monkeypatch: pytest.MonkeyPatch, command: str, extra: str
) -> None:
    monkeypatch.setattr("janus_kit.options.importlib.util.find_spec", lambda name: None)
    ended = CliRunner().invoke(app, [command])
    assert isinstance(ended.exception, OptionError)
    assert f"pip install 'janus-kit[{extra}]'" in str(ended.exception)
