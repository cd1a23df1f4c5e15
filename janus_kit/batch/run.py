"""What captioning and drawing share: the course of a run, how it is stopped, and how it shows."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from janus_kit.batch.ledger import Ledger, Shard
from janus_kit.batch.locks import Busy
from janus_kit.batch.upkeep import merge
from janus_kit.errors import BatchError
from janus_kit.progress import items_line

__all__ = ["Named", "Outcome", "Stop", "Tally", "Task", "complete", "ranks", "tally"]


@dataclass(frozen=True)
class Outcome:
    """How a run stands at its end. Every input is in exactly one of done, failed and left.

    Counted are the inputs of this call: a shard's, or all where it was the last shard to end.
    """

    folder: Path
    done: int
    failed: int
    left: int  # pending: a run that was stopped, or inputs beyond --limit
    calls: int  # questions answered or pictures drawn by the model in this call
    signal: int = 0  # that stopped it
    table: Path | None = None  # the file that lists everything, when it was written

    def record(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.done} done, {self.failed} failed, {self.left} left"


class Stop:
    """SIGINT and SIGTERM as a wish to stop, which is true from the first on; a second one ends at
    once.
    """

    def __init__(self) -> None:
        self.number = 0

    def __bool__(self) -> bool:
        return self.number > 0

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Take the signals over, but for one that is ignored, as SIGINT behind nohup is."""

        def heard(number: int, frame: object) -> None:
            if self.number:
                # Not an exception: what would clean up after it may be what hangs.
                os._exit(128 + number)
            self.number = number

        watched = [
            s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN
        ]
        before = {number: signal.signal(number, heard) for number in watched}
        try:
            yield self
        finally:
            for number, old in before.items():
                signal.signal(number, old)


@dataclass
class Tally:
    """The numbers of a run in progress."""

    total: int
    done: int = 0
    failed: int = 0
    fresh: int = 0  # of them, those of this call, by which the speed is told
    show: Callable[["Tally"], None] = lambda tally: None

    def add(self, done: int, failed: int, fresh: bool = True) -> None:
        self.done += done
        self.failed += failed
        self.fresh += (done + failed) * fresh
        self.show(self)


@contextmanager
def tally(verb: str, total: int, show: bool) -> Iterator[Tally]:
    """A tally with one line on stderr that follows it."""
    with items_line(verb, show) as draw:
        start = time.monotonic()

        def follow(now: Tally) -> None:
            rate = now.fresh / max(time.monotonic() - start, 1e-9)
            draw(now.done, now.failed, max(0, total - now.done - now.failed), rate)

        yield Tally(total, show=follow)


def ranks(world: int | None = None, environment: Mapping[str, str] = os.environ) -> Shard | None:
    """The shard of this process among those that torchrun, accelerate or srun started; None alone.

    world: how many there must be, since a launcher that starts one process where many were asked
    for would leave most inputs undone. Raises BatchError for another number.
    """
    found = None
    # SLURM's task variables are also set in a batch script outside of srun, where one process runs.
    names = [("RANK", "WORLD_SIZE")]
    names += [("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")] if "SLURM_STEP_ID" in environment else []
    for rank, size in names:
        if rank in environment and size in environment:
            try:
                found = Shard(int(environment[rank]), int(environment[size]))
            except ValueError as error:
                raise BatchError(
                    f"{rank}={environment[rank]!r} and {size}={environment[size]!r} are no rank "
                    "and number of processes; unset them or start by torchrun or srun"
                ) from error
            break
    there = 1 if found is None else found.count
    if world is not None and there != world:
        raise BatchError(
            f"{world} processes were to run, but the launcher started {there}; torchrun "
            f"--nproc-per-node {world} starts that many"
        )
    return None if found is None or found.count == 1 else found


class Named(Protocol):
    """An input, as the ledger knows it."""

    @property
    def name(self) -> str: ...
    @property
    def stamp(self) -> str: ...


T = TypeVar("T", bound=Named)


class Task(Protocol[T]):
    """What a kind of run does with its inputs, through an open ledger."""

    calls: int  # of the model, so far

    def settle(self) -> None:
        """Make up for what a killed run has noted but may not have written."""

    def plan(self, items: Sequence[T], count: Tally) -> list[T]:
        """The items that the model must see; the others are counted."""

    def work(self, pipe: Any, items: Sequence[T], count: Tally, stop: object) -> None:
        """Bring items to done or failed in the ledger, until stop becomes true."""

    def write_tables(self, items: Sequence[T], whole: bool) -> Path:
        """Write what lists all results; whole: nothing is left. Returns the main file."""


def complete(
    begin: Callable[[Ledger], Task[T]],
    open_pipe: Callable[[], Any],
    items: Sequence[T],
    target: Path,
    settings: Mapping[str, Any],
    *,
    verb: str,
    shard: Shard | None = None,
    restart: bool = False,
    progress: bool = False,
    stop: object = False,
) -> Outcome:
    """Bring every item, or every one of the shard, to done or failed, as far as stop stays false.

    open_pipe, of a pipeline or what stands for one, is called only if there is something to do.
    """
    mine = [item for item in items if shard is None or shard.has(item.name)]
    with Ledger(target, settings, shard, restart=restart) as ledger:
        task = begin(ledger)
        task.settle()
        ledger.expect(len(mine))
        with tally(verb, len(mine), progress) as count:
            todo = task.plan(mine, count)
            if todo and not stop:
                task.work(open_pipe(), todo, count, stop)
        ledger.end()
        done, failed = _states(ledger, mine)
        left = len(mine) - done - failed
        number = int(getattr(stop, "number", 0))
        outcome = Outcome(target, done, failed, left, task.calls, number)
        if shard is None:
            return replace(outcome, table=task.write_tables(items, left == 0))
    # The shard that ends last makes one table and one ledger of all.
    try:
        with Ledger(target, settings, restart=restart, brief=True) as ledger:
            task = begin(ledger)
            task.settle()
            done, failed = _states(ledger, items)
            if done + failed < len(items):
                return outcome
            table = task.write_tables(items, True)
            ledger.end()
    except Busy:
        return outcome
    with suppress(Busy):  # a run that has just begun, or another that merges
        merge(target, restart=restart)
    return replace(outcome, done=done, failed=failed, table=table)


def _states(ledger: Ledger, items: Sequence[Named]) -> tuple[int, int]:
    """How many items are done, and how many failed."""
    states = [ledger.state(item.name, item.stamp) for item in items]
    return states.count("done"), states.count("failed")
