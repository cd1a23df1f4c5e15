"""One thread owns the model; jobs wait for it in two lanes, and drawings share batches."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from janus_kit import GenerationError, JanusKitError, JanusPipeline
from janus_kit.demos.jobs import (
    BROKEN,
    Drawing,
    Drawn,
    Full,
    Job,
    Lane,
    Preview,
    Row,
    Stopped,
    Thinking,
    Waiting,
)

__all__ = ["Counts", "ModelWorker"]

log = logging.getLogger(__name__)

LANES: tuple[Lane, Lane] = ("draw", "think")


@dataclass
class _Part:
    """Some pictures of a job, in one batch."""

    job: Job
    work: Drawing
    first: int
    count: int


@dataclass
class Counts:
    """What the worker has done since it began; read by /metrics and the load test."""

    started: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    pictures: int = 0
    rows: int = 0
    batches: dict[int, int] = field(default_factory=dict)  # how many of which size


class ModelWorker:
    """The queue before a model and the one thread that calls it.

    Drawings and thoughts (answers, captions, ranks) wait in a lane each, first come first served;
    the lanes take turns, so that a question waits for one batch of pictures, not for all of them.
    A batch begins with the first drawing of its lane and takes on the next ones while their
    settings are equal and there is room. Pictures that nobody waits for any more are left
    out from the next row on; on a GPU, whose steps have one shape, they end with their batch.
    """

    def __init__(self, pipe: JanusPipeline, *, cap: int = 32, max_batch: int = 8) -> None:
        self.pipe = pipe
        self.cap = cap  # jobs that may wait
        self.max_batch = max_batch  # pictures
        self.counts = Counts()
        self.busy = False
        self._lanes: dict[Lane, deque[Job]] = {lane: deque() for lane in LANES}
        self._last: Lane = "think"
        self._running: list[Job] = []
        self._closing = False
        self._changed = threading.Condition()
        self._seconds = 2.0  # of a recent turn, for Retry-After
        self._thread = threading.Thread(target=self._run, name="janus-model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    @property
    def closing(self) -> bool:
        return self._closing

    def submit(self, work: Drawing | Thinking) -> Job:
        """Put work into the queue. Call it in an event loop; raises Full or Stopped at once."""
        job = Job(work)
        with self._changed:
            self._check()
            self._lanes[job.lane].append(job)
            self._tell_places()
            self._changed.notify()
        return job

    def check(self, coming: int = 0) -> None:
        """Raise Full or Stopped as submit would, were so many more jobs waiting."""
        with self._changed:
            self._check(coming)

    def _check(self, coming: int = 0) -> None:
        if self._closing:
            raise Stopped("the server is stopping; try again later")
        self._forget_cancelled()
        if self.waiting + coming >= self.cap:
            self.counts.refused += 1
            wait = max(1, round(self._seconds * self.cap / 2))
            raise Full(
                f"the queue is full: {self.waiting + coming} jobs are waiting; "
                f"try again in {wait} s",
                wait,
            )

    def close(self, seconds: float = 30.0) -> bool:
        """Take no more jobs, do those that are there, and end; False if time ran out."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        ended = not self._thread.is_alive()
        if not ended:
            with self._changed:
                left = [*self._running, *(job for lane in self._lanes.values() for job in lane)]
                for lane in self._lanes.values():
                    lane.clear()
            for job in left:
                job.cancel()
                job.end(Stopped("the server is stopping; try again later"))
            self._thread.join(10)
        return ended

    def _forget_cancelled(self) -> None:
        for lane in self._lanes.values():
            for job in [job for job in lane if job.cancelled.is_set()]:
                lane.remove(job)
                self._finish(job)

    def _tell_places(self) -> None:
        """Tell every waiting job how many come before it, as the lanes take turns."""
        order = self._order()
        for place, job in enumerate(order):
            job.put(Waiting(place + len(self._running)))

    def _order(self) -> list[Job]:
        """The waiting jobs in the order in which they will begin, were each a turn of its own."""
        lanes = {lane: list(jobs) for lane, jobs in self._lanes.items()}
        turn, order = self._last, []
        while any(lanes.values()):
            other: Lane = "think" if turn == "draw" else "draw"
            turn = other if lanes[other] else turn
            order.append(lanes[turn].pop(0))
        return order

    def _next(self) -> list[_Part] | Job | None:
        """Wait for work and take it; None when the worker has to end."""
        with self._changed:
            while True:
                self._forget_cancelled()
                if self.waiting or self._closing:
                    break
                self._changed.wait()
            if not self.waiting:
                return None
            other: Lane = "think" if self._last == "draw" else "draw"
            lane: Lane = other if self._lanes[other] else self._last
            self._last = lane
            if lane == "think":
                job = self._lanes[lane].popleft()
                self._running = [job]
                self.counts.started += 1
                self._tell_places()
                return job
            parts = self._batch()
            self._running = [part.job for part in parts]
            self._tell_places()
            return parts

    def _batch(self) -> list[_Part]:
        """The first drawing and those behind it that can share its batch."""
        lane = self._lanes["draw"]
        parts: list[_Part] = []
        room = self.max_batch
        while lane and room:
            job = lane[0]
            work = job.work
            assert isinstance(work, Drawing)
            if parts and work.kind != parts[0].work.kind:
                break
            if not job.taken:
                self.counts.started += 1
            count = min(room, len(work.seeds) - job.taken)
            parts.append(_Part(job, work, job.taken, count))
            job.taken += count
            room -= count
            if job.taken == len(work.seeds):
                lane.popleft()
        return parts

    def _run(self) -> None:
        while (turn := self._next()) is not None:
            self.busy = True
            begun = time.monotonic()
            if isinstance(turn, Job):
                self._think(turn)
            else:
                self._draw(turn)
            self._seconds = 0.7 * self._seconds + 0.3 * (time.monotonic() - begun)
            self.busy = False
            with self._changed:
                self._running = []

    def _think(self, job: Job) -> None:
        assert isinstance(job.work, Thinking)
        try:
            work = job.work.work()
            try:
                for event in work:
                    if job.cancelled.is_set():
                        break
                    job.put(event)
            finally:
                if isinstance(work, Iterator) and hasattr(work, "close"):
                    work.close()
        except Exception as error:  # noqa: BLE001 - the thread must outlive every job
            self._fail(job, error)
        else:
            self._finish(job)

    def _draw(self, parts: list[_Part]) -> None:
        try:
            self._draw_batch(parts)
        except Exception as error:  # noqa: BLE001 - the thread must outlive every job
            if len(parts) > 1:  # whose fault it is shows when each is drawn alone
                if not isinstance(error, JanusKitError):
                    log.warning("a batch of %d failed (%s); each goes alone", len(parts), error)
                for part in parts:
                    self._draw([part])
                return
            job = parts[0].job
            with self._changed, suppress(ValueError):
                self._lanes["draw"].remove(job)  # its other pictures would fail as well
            self._fail(job, error)

    def _draw_batch(self, parts: list[_Part]) -> None:
        """Draw the pictures of the parts as one batch, and hand each job its own."""
        pipe = self.pipe
        starts = [sum(p.count for p in parts[:i]) for i in range(len(parts))]
        size = sum(part.count for part in parts)
        shown = {"at": 0.0, "cost": 0.0}  # when the last preview ended, and what it took

        def on_row(_: object, row: int, place: int, state: dict[str, Any]) -> list[bool]:
            wanted = [i for i, part in enumerate(parts) if not part.job.cancelled.is_set()]
            self.counts.rows += 1
            rows = pipe.config.side
            begun = time.monotonic()
            free = begun - shown["at"] >= 3 * shown["cost"]  # a quarter of the time at most
            for i in wanted:
                part = parts[i]
                part.job.put(Row(part.first, part.count, row + 1, rows))
                due = row + 1 in part.work.preview_rows or (part.work.live and free)
                if due and row + 1 < rows:
                    codes = state["codes"][starts[i] : starts[i] + part.count]
                    images = pipe.decode(codes.clone())
                    part.job.put(Preview(part.first, row + 1, images))
                    shown["at"] = time.monotonic()
                    shown["cost"] = shown["at"] - begun
            return [i in wanted for i, part in enumerate(parts) for _ in range(part.count)]

        beginnings = [part.work.initial_codes for part in parts for _ in range(part.count)]
        drawn = pipe(
            [part.work.prompt for part in parts for _ in range(part.count)],
            negative_prompt=[p.work.negative_prompt for p in parts for _ in range(p.count)],
            generator=[
                torch.Generator().manual_seed(seed)
                for part in parts
                for seed in part.work.seeds[part.first : part.first + part.count]
            ],
            initial_codes=None if beginnings[0] is None else torch.stack(beginnings),  # type: ignore[arg-type]
            callback_on_step_end=on_row,
            batch_size=size,
            **parts[0].work.options,  # type: ignore[arg-type]
        )
        self.counts.batches[size] = self.counts.batches.get(size, 0) + 1
        for start, part in zip(starts, parts, strict=True):
            if part.job.cancelled.is_set():
                self._finish(part.job)
                continue
            rows = slice(start, start + part.count)
            self.counts.pictures += part.count
            part.job.put(
                Drawn(part.first, drawn.images[rows], drawn.codes[rows], drawn.settings[rows])
            )
            if part.first + part.count == len(part.work.seeds):
                self._finish(part.job)

    def _finish(self, job: Job) -> None:
        if job.ended:
            return
        if job.cancelled.is_set():
            self.counts.cancelled += 1
        else:
            self.counts.done += 1
        job.end()

    def _fail(self, job: Job, error: Exception) -> None:
        """End a job with its error; one that nobody foresaw is for the log, not for users."""
        self.counts.failed += not job.ended
        if not isinstance(error, JanusKitError):
            log.error("a job failed", exc_info=error)
            error = GenerationError(BROKEN)
        job.end(error)
