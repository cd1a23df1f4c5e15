"""How many steps fit into a number of minutes: measured on the machine before a run is begun."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from janus_kit.bench.machine import processor
from janus_kit.errors import CheckpointError, OptionError
from janus_kit.training.loop import Schedule

__all__ = ["STAGES", "fitted", "measured", "sized"]

log = logging.getLogger(__name__)

STAGES = ("vq", "vision", "model")
SHARES = (0.3, 0.2, 0.5)  # of the time
COUNTED, TIMED = 7, 14  # steps; of seven, the VQ stage spends some on each kind of exercise

Schedules = Mapping[str, Schedule]


@dataclass(frozen=True)
class Rate:
    """What a step of a stage costs on this machine."""

    seconds: float
    gigaflop: float  # forward and back; a product and a sum are two


def sized(
    schedules: Schedules,
    minutes: float,
    folder: Path,
    run: Callable[[Schedules, Path], Mapping[str, Path]],
) -> Schedules:
    """The schedules with as many steps as fit; written to folder/plan.json and read from there.

    run: runs a whole recipe by schedules in a folder, and says where each stage keeps its log. A
    trial of a few steps is run first. minutes are those of steps alone: what lays out codes, reads
    and writes takes its own. Under several processes all follow the plan of the first.

    Raises OptionError where the minutes are too few for one step of each stage, CheckpointError for
    a plan.json of something else.
    """
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    path = folder / "plan.json"
    if path.exists():
        return _read(schedules, path)
    state = PartialState()
    if state.is_main_process:  # a trial that was killed has steps of both kinds
        shutil.rmtree(folder / "trial", ignore_errors=True)
    state.wait_for_everyone()
    rates = measured(schedules, folder / "trial", run)
    plan = broadcast_object_list([fitted(rates, minutes)])[0]
    if state.is_main_process:
        report = {
            "minutes": minutes,
            "device": processor(state.device),
            "processes": state.num_processes,
            "torch": torch.__version__,
            "date": datetime.now(UTC).date().isoformat(),
            "stages": {
                name: {
                    "steps": plan[name],
                    "batch": schedules[name].batch,
                    "seconds a step": rate.seconds,
                    "gigaflop a step": rate.gigaflop,
                    "gigaflop a second": round(rate.gigaflop / rate.seconds, 1),
                }
                for name, rate in rates.items()
            },
        }
        part = path.with_name(".plan.json")
        part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
        shutil.rmtree(folder / "trial", ignore_errors=True)
    state.wait_for_everyone()
    log.info("%g minutes: %s steps", minutes, ", ".join(f"{n} {k}" for n, k in plan.items()))
    return _with_steps(schedules, plan)


def measured(
    schedules: Schedules, folder: Path, run: Callable[[Schedules, Path], Mapping[str, Path]]
) -> dict[str, Rate]:
    """What a step of each stage costs, by a trial in folder: counted first, then timed."""

    def trial(steps: int, counted: bool) -> dict[str, dict[str, Any]]:
        short = {
            name: replace(plan, steps=steps, warmup=2, counted=counted, save_every=steps)
            for name, plan in schedules.items()
        }
        logs = run(short, folder)
        lines = {name: (at / "log.jsonl").read_text("utf-8") for name, at in logs.items()}
        rows = {name: [json.loads(x) for x in text.splitlines()] for name, text in lines.items()}
        return {
            name: next(r for r in reversed(found) if "loss" in r) for name, found in rows.items()
        }

    counted = trial(COUNTED, True)
    timed = trial(COUNTED + TIMED, False)
    return {n: Rate(timed[n]["seconds"], counted[n]["gigaflop"]) for n in schedules}


def fitted(rates: Mapping[str, Rate], minutes: float) -> dict[str, int]:
    """Steps of each stage that take minutes in all, each its share of those that learn."""
    shares = {n: share for n, share in zip(STAGES, SHARES, strict=True) if n in rates}
    all_of_them = sum(shares.values())
    steps = {
        name: int(60 * minutes * share / all_of_them / rates[name].seconds)
        for name, share in shares.items()
    }
    if min(steps.values()) < 1:
        slowest = max(rates.values(), key=lambda rate: rate.seconds).seconds
        raise OptionError(
            f"{minutes:g} minutes are too few: a step takes up to {slowest:.1f} s on this machine"
        )
    return steps


def _with_steps(schedules: Schedules, steps: Mapping[str, int]) -> Schedules:
    return {
        name: replace(plan, steps=steps[name], warmup=min(plan.warmup, max(1, steps[name] // 10)))
        for name, plan in schedules.items()
    }


def _read(schedules: Schedules, path: Path) -> Schedules:
    try:
        stages = json.loads(path.read_text("utf-8"))["stages"]
        return _with_steps(schedules, {name: int(stages[name]["steps"]) for name in schedules})
    except (KeyError, TypeError, ValueError, OptionError) as error:
        raise CheckpointError(
            f"{path}: not the plan of a run ({error}); remove its folder to start anew"
        ) from None
