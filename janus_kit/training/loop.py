"""The one training loop: accelerate underneath, resumable from any kill, a log line as it goes."""

import ctypes
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from janus_kit.errors import CheckpointError, OptionError
from janus_kit.linears import quick_in_half
from janus_kit.training.muon import Muon32

__all__ = [
    "Average",
    "Schedule",
    "Stage",
    "optimizers",
    "save_atomically",
    "train",
]

log = logging.getLogger(__name__)

AHEAD = 2  # batches that a worker makes ahead
PERIOD = 5  # steps in which all kinds of batches come
SHARED = Path("/dev/shm")  # where Linux keeps what processes share


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast a stage learns; steps of one optimiser update each."""

    steps: int
    batch: int
    rate: float
    warmup: int = 50
    floor: float = 0.02  # the last learning rate, as a share of rate
    hold: float = 0.4  # the share of the steps that runs at the full rate
    save_every: int = 100
    watch_every: int = 500
    workers: int = 0  # processes that make batches ahead; never more than there are CPUs to spare
    counted: bool = False  # logs the operations of a step too, for which it is slower

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not self.rate > 0:
            raise OptionError(f"steps, batch and rate must be above 0, not {self}")

    def scale(self, step: int) -> float:
        """The factor on rate at a step: linear warm-up, a plateau, then linear decay."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        start = max(self.warmup, int(self.hold * self.steps))
        left = (self.steps - step) / max(1, self.steps - start)
        return self.floor + (1 - self.floor) * min(1.0, max(0.0, left))


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one stage trains: a module whose forward(batch) gives {"loss": …, more figures}."""

    module: nn.Module
    optimizers: tuple[torch.optim.Optimizer, ...]
    # Step → what forward takes, on the CPU; must depend on nothing but step.
    batch: Callable[[int], Any]
    schedule: Schedule
    after: Callable[[int], None] = lambda step: None  # runs after each update, on every process
    average: float = 0.995  # decay of the running mean of the weights
    # Looks at held-out data, on the main process, without changing anything: step → figures.
    watch: Callable[[int], Mapping[str, float]] | None = None


class Average:
    """The exponential moving mean of a module's parameters, kept in fp32."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone().float() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module; early steps move faster, so that the start is forgotten."""
        decay = min(self.decay, (step + 1) / (step + 10))
        for name, value in module.state_dict().items():
            self.values[name].lerp_(value.float(), 1 - decay)


def optimizers(
    module: nn.Module, inside: Callable[[str], bool], rate: float
) -> tuple[torch.optim.Optimizer, ...]:
    """Muon (Jordan et al., 2024) for the matrices and kernels inside, AdamW for all else.

    Muon moves a kernel as the matrix [out, in·h·w], its columns in the order in which they lie in
    memory. It needs fewer steps than AdamW, and steps are what a CPU has few of.
    """
    kernels = [
        p for n, p in module.named_parameters() if p.requires_grad and p.dim() > 1 and inside(n)
    ]
    chosen = {id(p) for p in kernels}
    others = [p for p in module.parameters() if p.requires_grad and id(p) not in chosen]
    views = [nn.Parameter(_matrix(p.data, p)) for p in kernels]
    if any(v.data_ptr() != p.data_ptr() for v, p in zip(views, kernels, strict=True)):
        raise ValueError("a kernel lies in memory such that no matrix can be a view of it")

    def lend_gradients(*_: Any) -> None:
        for view, kernel in zip(views, kernels, strict=True):
            view.grad = None if kernel.grad is None else _matrix(kernel.grad, kernel)

    quick = all(quick_in_half(kernel.device) for kernel in kernels)
    chosen_muon = torch.optim.Muon if quick else Muon32
    muon = chosen_muon(views, lr=rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    muon.register_step_pre_hook(lend_gradients)
    return muon, torch.optim.AdamW(others, lr=rate / 2, betas=(0.9, 0.95), weight_decay=0.0)


def _matrix(values: Tensor, kernel: Tensor) -> Tensor:
    """A kernel's values, or its gradient's, as rows whose order is that of the kernel's memory."""
    last = kernel.dim() == 4 and not kernel.is_contiguous()  # its channels
    return (values.permute(0, 2, 3, 1) if last else values).flatten(1)


def save_atomically(data: Any, path: Path) -> None:
    """torch.save that leaves either the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        torch.save(data, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _keep_memory() -> None:
    """Have glibc keep what is freed: a step's large tensors would be asked for and given back."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is not None and hasattr(library, "mallopt"):
        for threshold in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            library.mallopt(threshold, 2**31 - 1)


def train(stage: Stage, folder: Path, *, precision: str = "bf16") -> dict[str, Tensor]:
    """Run a stage to its end, going on from folder/state.pt if there is one.

    Returns the running mean of the weights, by parameter name. Killed at any moment, the same call
    goes on from the last save and, on one machine, gives the same weights as an undisturbed run.
    Runs under torchrun or accelerate launch too: stage.batch(step) must then return the share of
    the process (accelerate's PartialState names it). precision: "no" or "bf16" (autocast, except
    on a CPU that would only imitate it).
    Figures go to the log, to folder/log.jsonl and, where tensorboard is installed, to folder/board.
    """
    from accelerate import Accelerator
    from accelerate.utils import is_tensorboard_available, send_to_device

    _keep_memory()
    board = "tensorboard" if is_tensorboard_available() else None
    # accelerate fixes its own precision once a process; stages may differ.
    accelerator = Accelerator(mixed_precision="no", log_with=board, project_dir=folder)
    if board:
        accelerator.init_trackers("board")
    half = torch.autocast(
        accelerator.device.type,
        torch.bfloat16,
        enabled=precision == "bf16" and quick_in_half(accelerator.device),
    )
    if accelerator.device.type == "cuda":  # cuDNN's attention plans anew for each length of rows
        torch.backends.cuda.enable_cudnn_sdp(False)
    module, *optimizers = accelerator.prepare(stage.module, *stage.optimizers)
    plain = accelerator.unwrap_model(module)
    average = Average(plain, stage.average)
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "state.pt"
    if accelerator.is_main_process:
        for left in folder.glob(f".{state.name}.*"):  # of a run that was killed while it saved
            left.unlink(missing_ok=True)
    first = _resume(state, plain, optimizers, average) if state.exists() else 0
    base = [[group["lr"] for group in optimizer.param_groups] for optimizer in stage.optimizers]
    schedule = stage.schedule
    counter = FlopCounterMode(display=False) if schedule.counted else nullcontext()
    operations = 0
    batches = _batches(stage, first)
    for step, seconds in _steps(first, schedule.steps):
        scale = schedule.scale(step)
        for optimizer, rates in zip(stage.optimizers, base, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * scale
        batch = send_to_device(next(batches), accelerator.device)
        with counter:
            with half:
                figures = module(batch)
            accelerator.backward(figures["loss"])
        if isinstance(counter, FlopCounterMode):  # each step counts from 0
            operations += counter.get_total_flops()
        accelerator.clip_grad_norm_(plain.parameters(), 1.0)
        _rest(plain)
        for optimizer in optimizers:
            optimizer.step()
        module.zero_grad(set_to_none=True)
        stage.after(step)
        average.update(plain, step)
        if not torch.isfinite(figures["loss"]):
            raise CheckpointError(f"step {step}: the loss is {figures['loss'].item()}")
        last = step + 1 == schedule.steps
        if accelerator.is_main_process and (step % 20 == 0 or last):
            values = {name: round(value.detach().item(), 4) for name, value in figures.items()}
            if operations:
                values["gigaflop"] = round(operations / 1e9 / (step + 1 - first), 4)
            _log(folder, step, schedule.steps, seconds, values)
            accelerator.log(values, step)
        watched = stage.watch is not None and ((step + 1) % schedule.watch_every == 0 or last)
        if accelerator.is_main_process and watched and stage.watch is not None:
            found = {name: round(value, 4) for name, value in stage.watch(step + 1).items()}
            _log(folder, step, schedule.steps, seconds, found)
            accelerator.log(found, step)
        if accelerator.is_main_process and ((step + 1) % schedule.save_every == 0 or last):
            save_atomically(_state(step + 1, plain, stage.optimizers, base, average), state)
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:  # end_training would also end what processes talk by
        tracker.finish()
    accelerator.free_memory()
    return average.values


def _rest(module: nn.Module) -> None:
    """Drop gradients that are zero throughout: what took no part in a step is not moved by it.

    Muon's updates have one size, so it would go on as it last did, for as long as nothing comes.
    """
    moved = [(p, p.grad) for p in module.parameters() if p.grad is not None]
    norms = torch.stack(torch._foreach_norm([grad for _, grad in moved])).tolist()
    for (parameter, _), norm in zip(moved, norms, strict=True):
        if norm == 0:
            parameter.grad = None


class _Lessons(Dataset[Any]):
    """The batches from a step on."""

    def __init__(self, batch: Callable[[int], Any], first: int, last: int) -> None:
        self.batch, self.first, self.last = batch, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, number: int) -> Any:
        return self.batch(self.first + number)


def _batches(stage: Stage, first: int) -> Iterator[Any]:
    """The batches of the steps that are left, in order, made ahead where there are workers."""
    schedule = stage.schedule
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    workers = min(schedule.workers, (os.cpu_count() or 1) // processes - 1)
    if workers > 0:
        workers = min(workers, _with_room(stage, first, workers, processes))
    if workers < 1:
        return (stage.batch(step) for step in range(first, schedule.steps))
    lessons = _Lessons(stage.batch, first, schedule.steps)
    # Forked, since batch is a function within a function; workers touch no device.
    loader = DataLoader(
        lessons,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        collate_fn=_as_it_is,
        multiprocessing_context="fork",
    )
    return iter(loader)


def _with_room(stage: Stage, first: int, workers: int, processes: int) -> int:
    """How many workers the memory through which processes hand over tensors has room for.

    A container may have 64 MB of it, and a process that writes past its end is killed. Two batches
    more are in the hands of the training process.
    """
    if not SHARED.is_dir() or not (usage := shutil.disk_usage(SHARED)).total:  # it has no end
        return workers
    free = 0.8 * usage.free / processes
    largest = 1
    for step in range(first, min(first + PERIOD, stage.schedule.steps)):
        largest = max(largest, _bytes(stage.batch(step)))
        if free > 4 * largest * (workers * AHEAD + 2):
            return workers  # whatever the others are like
    fits = max(0, int(free / largest - 2) // AHEAD)
    if fits < workers:
        log.warning(
            "%s has room for batches of %d of %d workers, %.0f MB each: training will be slower",
            *(SHARED, fits, workers, largest / 1e6),
        )
    return fits


def _bytes(batch: Any) -> int:
    """Of all tensors of a batch."""
    if isinstance(batch, Tensor):
        return batch.nbytes
    if is_dataclass(batch):
        return sum(_bytes(getattr(batch, part.name)) for part in fields(batch))
    if isinstance(batch, Mapping):
        return sum(map(_bytes, batch.values()))
    return sum(map(_bytes, batch)) if isinstance(batch, tuple | list) else 0


def _as_it_is(batch: Any) -> Any:
    return batch


def _steps(first: int, last: int) -> Iterator[tuple[int, float]]:
    """Steps with the mean seconds that one has taken so far in this process."""
    start = time.monotonic()
    for step in range(first, last):
        yield step, (time.monotonic() - start) / max(1, step - first)


def _state(
    step: int,
    module: nn.Module,
    optimizers: tuple[torch.optim.Optimizer, ...],
    base: list[list[float]],
    average: Average,
) -> dict[str, Any]:
    saved = []
    for optimizer, rates in zip(optimizers, base, strict=True):
        entry = optimizer.state_dict()
        for group, rate in zip(entry["param_groups"], rates, strict=True):
            group["lr"] = rate  # the schedule multiplies it anew
        saved.append(entry)
    return {
        "step": step,
        "module": module.state_dict(),
        "optimizers": saved,
        "average": average.values,
    }


def _resume(state: Path, module: nn.Module, optimizers: list[Any], average: Average) -> int:
    try:
        data = torch.load(state, map_location="cpu", weights_only=True)
        module.load_state_dict(data["module"])
        for optimizer, entry in zip(optimizers, data["optimizers"], strict=True):
            optimizer.load_state_dict(entry)
        average.values = {k: v.to(average.values[k].device) for k, v in data["average"].items()}
        step = int(data["step"])
    except torch.OutOfMemoryError:
        raise
    except (KeyError, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"{state}: not a state of this stage ({error}); remove it to start anew"
        ) from error
    log.info("%s: going on at step %d", state, step)
    return step


def _log(folder: Path, step: int, steps: int, seconds: float, values: Mapping[str, float]) -> None:
    left = (steps - step) * seconds / 60
    text = " ".join(f"{name} {value:g}" for name, value in values.items())
    log.info("step %d/%d  %s  %.2f s a step, %.0f min left", step, steps, text, seconds, left)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "seconds": round(seconds, 6), **values}) + "\n")
