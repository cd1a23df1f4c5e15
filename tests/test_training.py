"""The training loop and recipe: they resume exactly."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from training_parts import Fit, fit, fit_batch, learn

from janus_kit import JanusPipeline
from janus_kit.config import PRESETS
from janus_kit.errors import CheckpointError, OptionError
from janus_kit.prompts import PRO
from janus_kit.training.bank.names import NAMES
from janus_kit.training.begun import keep_to
from janus_kit.training.budgets import BUDGETS
from janus_kit.training.evaluate import evaluate
from janus_kit.training.lessons import texts
from janus_kit.training.loop import Schedule, Stage, optimizers, train
from janus_kit.training.muon import Muon32
from janus_kit.training.recipe import train_embedded


def test_a_killed_run_goes_on_to_the_very_same_weights(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", 20)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", 20, stop=13)
    again = fit(tmp_path / "cut", 20)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_what_a_run_gives_back_is_the_mean_of_its_weights(tmp_path: Path) -> None:
    module = Fit()
    seen: list[dict[str, torch.Tensor]] = []

    def watch(step: int) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in module.state_dict().items()})
        return {}

    found = learn(tmp_path, 8, watch=watch, module=module, watch_every=1)
    mean = {name: value.clone() for name, value in Fit().state_dict().items()}
    for step, weights in enumerate(seen):
        decay = min(0.9, (step + 1) / (step + 10))
        for name, value in weights.items():
            mean[name] = decay * mean[name] + (1 - decay) * value
    for name, value in found.items():
        torch.testing.assert_close(value, mean[name])
        assert not torch.equal(value, seen[-1][name])


def test_kernels_learn_the_same_with_their_channels_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("janus_kit.training.loop.quick_in_half", lambda device: False)
    begun = Fit().state_dict()
    plain = learn(tmp_path / "plain", 8)
    module = Fit().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert not module.inside.weight.is_contiguous()
    last = learn(tmp_path / "last", 8, module=module)
    for name, weights in plain.items():
        assert torch.allclose(last[name], weights, atol=1e-5)
        assert not torch.equal(weights, begun[name])


def test_a_kernel_that_no_matrix_can_show_is_refused() -> None:
    module = Fit()
    module.inside.weight.data = (
        module.inside.weight.data.transpose(0, 2).contiguous().transpose(0, 2)
    )
    with pytest.raises(ValueError, match="no matrix can be a view of it"):
        optimizers(module, lambda name: name.startswith("inside"), 1e-2)


def test_what_a_kill_in_the_middle_of_a_save_left_behind_goes(tmp_path: Path) -> None:
    (tmp_path / ".state.pt.123").write_bytes(b"half")
    fit(tmp_path, 2)
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_what_takes_no_part_in_a_step_stays_as_it_is(tmp_path: Path) -> None:
    class Turns(Fit):
        """The kernel takes part in every fourth step alone."""

        def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            turn = len(seen)
            seen.append(self.inside.weight.detach().clone())
            loss = super().forward(batch)["loss"] if turn % 4 == 0 else self.outside.weight.sum()
            return {"loss": loss + 0 * sum(p.sum() for p in self.parameters())}

    seen: list[torch.Tensor] = []
    learn(tmp_path, 13, module=Turns())
    kept = [torch.equal(before, after) for before, after in pairwise(seen)]
    assert kept == [step % 4 != 0 for step in range(12)]


def test_the_loop_learns_and_both_optimizers_move_their_parameters(tmp_path: Path) -> None:
    start = {k: v.clone() for k, v in Fit().state_dict().items()}
    end = fit(tmp_path, 60)
    assert all(not torch.allclose(start[name], end[name]) for name in start)
    module = Fit()
    module.load_state_dict(end)
    losses = [module(fit_batch(900 + i))["loss"].item() for i in range(8)]
    fresh = [Fit()(fit_batch(900 + i))["loss"].item() for i in range(8)]
    assert np.mean(losses) < 0.7 * np.mean(fresh)


def test_what_is_watched_is_logged_and_changes_nothing(tmp_path: Path) -> None:
    seen = []

    def watch(step: int) -> dict[str, float]:
        seen.append(step)
        return {"held-out": 1.5}

    watched = learn(tmp_path / "watched", 20, watch=watch, watch_every=8)
    assert seen == [8, 16, 20]
    lines = [json.loads(x) for x in (tmp_path / "watched/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "held-out" in line] == [7, 15, 19]
    plain = fit(tmp_path / "plain", 20)
    assert all(torch.equal(watched[name], plain[name]) for name in plain)


@pytest.mark.filterwarnings("default")  # tensorboard's own
def test_figures_are_curves_too_where_tensorboard_is_installed(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    learn(tmp_path, 41, watch=lambda step: {"held out": float(step)}, watch_every=20)
    (folder,) = {path.parent for path in (tmp_path / "board").rglob("events*")}
    found = events.EventAccumulator(str(folder)).Reload()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "held out"):
        curve = [(point.step, round(point.value, 4)) for point in found.Scalars(name)]
        assert curve == [(row["step"], row[name]) for row in rows if name in row]
        assert len(curve) == 3


def test_muon_without_bfloat16_moves_as_pytorchs_does() -> None:
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator) for shape in ((6, 20), (20, 6))]
    moved = []
    for kind in (torch.optim.Muon, Muon32):
        rows = [nn.Parameter(start.clone()) for start in starts]
        optimizer = kind(rows, lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        pulls = torch.Generator().manual_seed(1)
        for _ in range(3):
            for row in rows:
                row.grad = torch.randn(row.shape, generator=pulls)
            optimizer.step()
        moved.append([row.detach() - start for row, start in zip(rows, starts, strict=True)])
    for theirs, ours in zip(*moved, strict=True):
        assert (theirs - ours).norm() < 0.02 * theirs.norm()
    with pytest.raises(TypeError, match="closure"):
        Muon32([nn.Parameter(starts[0])]).step(lambda: 0)


def test_half_precision_is_left_to_machines_that_have_it(tmp_path: Path) -> None:
    class Watched(Fit):
        def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(batch)

    seen: list[bool] = []
    module = Watched()
    stage = Stage(
        module=module,
        optimizers=optimizers(module, lambda name: name.startswith("inside"), 3e-2),
        batch=fit_batch,
        schedule=Schedule(steps=1, batch=4, rate=1e-2, warmup=1),
    )
    for has in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("janus_kit.training.loop.quick_in_half", lambda _, has=has: has)
            train(stage, tmp_path / str(has))
    assert seen == [True, False]


def test_a_state_of_another_stage_is_refused_with_its_file_named(tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match=r"state\.pt: not a state of this stage"):
        fit(tmp_path, 5)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 0}, {"rate": 0.0}])
def test_an_impossible_schedule_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Schedule(**{"steps": 1, "batch": 1, "rate": 1.0, **wrong})


def test_the_rate_rises_holds_and_falls() -> None:
    scale = Schedule(steps=100, batch=1, rate=1.0, warmup=10, hold=0.5, floor=0.1).scale
    assert scale(0) == pytest.approx(0.1)
    assert scale(10) == scale(50) == 1.0
    assert scale(75) == pytest.approx(0.55)
    assert scale(99) < 0.13


def test_an_unknown_budget_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="budget must be cpu"):
        train_embedded(tmp_path, budget="huge")


def test_new_codes_take_the_place_of_a_start_s_and_have_to_be_learnt(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="new codes take the place of those of a start"):
        train_embedded(tmp_path, budget="small", new_codes=True)
    with pytest.raises(OptionError, match="learnt by both the stages vq and model"):
        train_embedded(tmp_path, budget="small", start=tmp_path, stages=["model"], new_codes=True)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (["sound"], "stages must be some of vq, vision, model, not 'sound'"),
        ([], "stages must be some of vq, vision, model"),
        (["model", "vq"], "with model, vq alone the rest has to come from a start"),
    ],
)
def test_stages_that_cannot_learn_are_refused(
    tmp_path: Path, stages: list[str], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        train_embedded(tmp_path, budget="small", stages=stages)


def test_the_world_can_be_told_in_the_words_of_the_tokenizer() -> None:
    lines = texts(NAMES)
    assert PRO.system in lines
    assert any("left of" in line for line in lines)
    assert all(any(name in line.lower() for line in lines) for name in NAMES)
    assert not any("<|" in line for line in lines)


@pytest.mark.slow
@pytest.mark.usefixtures("pictures")
def test_the_whole_recipe_runs_and_its_model_loads_in_transformers(tmp_path: Path) -> None:
    from transformers import JanusForConditionalGeneration

    folder = train_embedded(tmp_path, budget="small")
    pipe = JanusPipeline.from_pretrained(folder)
    assert pipe("a red cup", seed=1, output_type="tokens").codes.shape == (1, 576)
    assert "zebra" in (folder / "words.txt").read_text().split()
    lines = (tmp_path / "model_stage/log.jsonl").read_text().splitlines()
    (held_out,) = [json.loads(line) for line in lines if "held-out" in line]
    assert held_out["held-out code"] > 0 < held_out["held-out text"]
    with Image.open(tmp_path / "model_stage/samples/000004.png") as sheet:
        assert sheet.size == (768, 768)
    JanusForConditionalGeneration.from_pretrained(folder)
    longer = train_embedded(tmp_path / "longer", budget="small", start=folder)
    for name in ("tokenizer.json", "patches.safetensors"):
        assert (longer / name).read_bytes() == (folder / name).read_bytes()
    old, new = (JanusPipeline.from_pretrained(path).model.state_dict() for path in (folder, longer))
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert {"language", "vision", "vq", "code_head"} <= {name.split(".")[0] for name in moved}
    silent = ("vq.encoder", "vq.decoder.levels.4")  # not named in so few steps; begins silent
    kernels = {name for name in old if name.startswith("vq.") and name.endswith("conv1.weight")}
    assert {name for name in kernels if not name.startswith(silent)} <= moved
    near = torch.nn.functional.cosine_similarity
    name = "language.layers.0.attention.qkv.weight"
    assert near(old[name].flatten(), new[name].flatten(), dim=0) > 0.99  # not begun anew
    told = train_embedded(tmp_path / "told", budget="small", start=longer, stages=["model"], seed=1)
    relaid = train_embedded(tmp_path / "relaid", budget="small", start=longer, new_codes=True)
    assert JanusPipeline.from_pretrained(relaid)("a cup", output_type="tokens").codes.max() < 11264
    books = [(folder / "patches.safetensors").read_bytes() for folder in (relaid, longer)]
    assert books[0] != books[1]
    with pytest.raises(CheckpointError, match="relaid: its run was begun with new_codes True"):
        train_embedded(tmp_path / "relaid", budget="small", start=longer)
    after = JanusPipeline.from_pretrained(told).model.state_dict()
    moved = {name.split(".")[0] for name in new if not torch.equal(new[name], after[name])}
    assert "language" in moved
    assert not moved & {"vision", "vision_aligner", "vq"}


def test_a_folder_holds_its_run_to_what_it_was_begun_with(tmp_path: Path) -> None:
    keep_to(tmp_path / "run", {"seed": 0, "minutes": None})
    keep_to(tmp_path / "run", {"seed": 0, "minutes": None})
    with pytest.raises(CheckpointError, match="its run was begun with seed 0, not 1; go on"):
        keep_to(tmp_path / "run", {"seed": 1, "minutes": None})
    for text in ("[]", "{"):
        (tmp_path / "run/run.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"run\.json: cannot be read"):
            keep_to(tmp_path / "run", {"seed": 0})


def test_every_budget_uses_a_known_preset() -> None:
    assert {budget.preset for budget in BUDGETS.values()} <= set(PRESETS)


def test_an_evaluation_fetches_what_its_check_needs_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise OptionError("the detector cannot be had")

    monkeypatch.setattr("janus_kit.training.evaluate.fetch_efficientdet", refuse)
    with pytest.raises(OptionError, match="cannot be had"):
        evaluate(scenes=1)
