"""The queue before the model: order, batches, stopping, errors; on the tiny model."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from janus_kit.demos.jobs import (
    Drawing,
    Drawn,
    Full,
    Job,
    Preview,
    Row,
    Stopped,
    Thinking,
    Waiting,
)
from janus_kit.demos.worker import ModelWorker
from janus_kit.engine import CodeDrawer
from janus_kit.errors import GenerationError, PromptError
from janus_kit.pipeline import JanusPipeline

T = TypeVar("T")


@pytest.fixture(scope="module")
def pipe(hf_folder: Path) -> JanusPipeline:
    pipe = JanusPipeline.from_pretrained(hf_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def worker(pipe: JanusPipeline) -> Iterator[ModelWorker]:
    worker = ModelWorker(pipe, cap=6, max_batch=4)
    yield worker
    worker.close(20)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 60))


async def all_of(job: Job) -> list[Any]:
    return [event async for event in job.events()]


class Gate:
    """A thought that keeps the model busy until it is let go."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self) -> Iterator[str]:
        self.begun.set()
        yield "begun"
        assert self.open.wait(30)
        yield "ended"


async def held(worker: ModelWorker) -> tuple[Gate, Job]:
    """The model kept busy, so that what comes now waits together."""
    gate = Gate()
    job = worker.submit(Thinking(gate))
    await asyncio.to_thread(gate.begun.wait, 30)
    return gate, job


def test_a_drawing_gives_its_rows_and_the_picture_that_the_pipeline_draws(
    worker: ModelWorker, pipe: JanusPipeline
) -> None:
    async def draw() -> list[Any]:
        drawing = Drawing(prompt="a red cat", seeds=[5, 9], preview_rows=frozenset({2}))
        return await all_of(worker.submit(drawing))

    events = run(draw())
    rows = [event for event in events if isinstance(event, Row)]
    assert [(row.row, row.of, row.pictures) for row in rows] == [(i, 4, 2) for i in (1, 2, 3, 4)]
    (preview,) = [event for event in events if isinstance(event, Preview)]
    assert (preview.row, len(preview.images)) == (2, 2)
    lower = preview.images[0].crop((0, 32, 64, 64))
    assert len(lower.getcolors()) == 1
    assert len(preview.images[0].crop((0, 0, 64, 32)).getcolors(9999)) > 1
    (drawn,) = [event for event in events if isinstance(event, Drawn)]
    for place, seed in enumerate((5, 9)):
        alone = pipe("a red cat", seed=seed)
        assert drawn.images[place] == alone.images[0]
        assert drawn.settings[place] == alone.settings[0]
        assert torch.equal(drawn.codes[place], alone.codes[0])


def test_a_live_drawing_shows_itself_without_being_asked_for_a_row(worker: ModelWorker) -> None:
    async def draw() -> list[Any]:
        return await all_of(worker.submit(Drawing(prompt="a", seeds=[1], live=True)))

    shown = [event for event in run(draw()) if isinstance(event, Preview)]
    assert shown[0].row == 1  # after the first row, and never for the whole
    assert all(preview.row < 4 for preview in shown)


def test_drawings_that_wait_together_share_batches_and_keep_their_own_pictures(
    worker: ModelWorker, pipe: JanusPipeline
) -> None:
    async def draw() -> list[list[Any]]:
        gate, _ = await held(worker)
        jobs = [
            worker.submit(Drawing(prompt="a red cat", seeds=[1])),
            worker.submit(Drawing(prompt="two dogs", seeds=[2, 3, 4, 5, 6], negative_prompt="x")),
            worker.submit(Drawing(prompt="a bird", seeds=[7], guidance_scale=2.0)),
            worker.submit(Drawing(prompt="a mat", seeds=[8], guidance_scale=2.0)),
        ]
        gate.open.set()
        return [await all_of(job) for job in jobs]

    every = run(draw())
    # 1 + 3 of the five, then the two that are left of them, then the pair of another guidance.
    assert worker.counts.batches == {4: 1, 2: 2}
    expected = [
        ("a red cat", [1], {}),
        ("two dogs", [2, 3, 4, 5, 6], {"negative_prompt": "x"}),
        ("a bird", [7], {"guidance_scale": 2.0}),
        ("a mat", [8], {"guidance_scale": 2.0}),
    ]
    for events, (prompt, seeds, options) in zip(every, expected, strict=True):
        parts = [event for event in events if isinstance(event, Drawn)]
        images = [image for part in parts for image in part.images]
        assert [part.first for part in parts] == ([0, 3] if len(seeds) == 5 else [0])
        alone = [pipe(prompt, seed=seed, **options).images[0] for seed in seeds]
        assert images == alone


def test_the_lanes_take_turns_and_each_is_first_come_first_served(worker: ModelWorker) -> None:
    order: list[str] = []

    def work() -> Iterator[str]:
        yield "done"

    async def play() -> None:
        gate, _ = await held(worker)
        # Unequal guidance: no two of them share a batch.
        draws = [
            worker.submit(Drawing(prompt="a", seeds=[1], guidance_scale=2.0 + i)) for i in range(3)
        ]
        thoughts = [worker.submit(Thinking(work)) for _ in range(2)]

        async def follow(name: str, job: Job) -> None:
            async for event in job.events():
                if isinstance(event, Drawn) or event == "done":
                    order.append(name)

        gate.open.set()
        names = ("draw 1", "draw 2", "draw 3", "first", "second")
        await asyncio.gather(*map(follow, names, [*draws, *thoughts]))

    run(play())
    assert order == ["draw 1", "first", "draw 2", "second", "draw 3"]


def test_a_waiting_job_is_told_how_many_come_before_it(worker: ModelWorker) -> None:
    async def play() -> list[int]:
        gate, _ = await held(worker)
        worker.submit(Drawing(prompt="a", seeds=[1], guidance_scale=2))
        last = worker.submit(Drawing(prompt="b", seeds=[1], guidance_scale=3))
        gate.open.set()
        return [event.ahead for event in await all_of(last) if isinstance(event, Waiting)]

    assert run(play()) == [2, 1]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(worker: ModelWorker) -> None:
    async def play() -> None:
        gate, _ = await held(worker)
        jobs = [worker.submit(Drawing(prompt="a", seeds=[i])) for i in range(6)]
        with pytest.raises(Full, match="the queue is full: 6 jobs are waiting") as caught:
            worker.submit(Drawing(prompt="a", seeds=[1]))
        assert caught.value.retry_after >= 1
        jobs[3].cancel()  # who leaves makes room
        jobs.append(worker.submit(Drawing(prompt="a", seeds=[9])))
        gate.open.set()
        for job in jobs:
            await all_of(job)

    run(play())
    assert (worker.counts.refused, worker.counts.cancelled) == (1, 1)
    assert worker.counts.done == 7


def test_a_cancelled_drawing_stops_within_a_row(
    worker: ModelWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Job.put

    def leave(job: Job, event: object) -> None:
        put(job, event)
        if isinstance(event, Row):
            job.cancel()

    async def play() -> list[Any]:
        return await all_of(worker.submit(Drawing(prompt="a", seeds=[1])))

    monkeypatch.setattr(Job, "put", leave)
    events = run(play())
    assert [event.row for event in events if isinstance(event, Row)] == [1]
    assert not any(isinstance(event, Drawn) for event in events)
    assert worker.counts.rows == 2  # in the second nobody was left
    assert (worker.counts.cancelled, worker.counts.done) == (1, 0)


def test_leaving_the_events_of_a_job_cancels_it(worker: ModelWorker) -> None:
    async def play() -> Job:
        job = worker.submit(Drawing(prompt="a", seeds=[1]))
        events = job.events()
        await anext(events)
        await events.aclose()  # type: ignore[attr-defined]
        return job

    assert run(play()).cancelled.is_set()


def test_whoever_leaves_a_shared_batch_is_left_out_and_does_not_stop_the_others(
    worker: ModelWorker, pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[list[int]] = []
    leaving: list[Job] = []
    keep, put = CodeDrawer.keep, Job.put

    def leave(job: Job, event: object) -> None:
        put(job, event)
        if isinstance(event, Row):
            leaving[0].cancel()

    def told(drawer: CodeDrawer, rows: torch.Tensor) -> bool:
        left.append(rows.tolist())
        return keep(drawer, rows)

    monkeypatch.setattr(CodeDrawer, "keep", told)
    monkeypatch.setattr(Job, "put", leave)

    async def play() -> Drawn:
        gate, _ = await held(worker)
        leaving.append(worker.submit(Drawing(prompt="a", seeds=[1])))
        stays = worker.submit(Drawing(prompt="two dogs", seeds=[2]))
        gate.open.set()
        async for event in stays.events():
            if isinstance(event, Drawn):
                found = event
        return found

    assert run(play()).images[0] == pipe("two dogs", seed=2).images[0]
    assert left == [[1]]


def test_a_prompt_that_cannot_be_drawn_fails_alone_in_a_shared_batch(worker: ModelWorker) -> None:
    async def play() -> tuple[Any, ...]:
        gate, _ = await held(worker)
        jobs = [worker.submit(Drawing(prompt=prompt, seeds=[1, 2])) for prompt in ("a", "x" * 2001)]
        gate.open.set()
        return tuple(await asyncio.gather(*map(all_of, jobs), return_exceptions=True))

    good, bad = run(play())
    assert isinstance(good[-1], Drawn)
    assert isinstance(bad, PromptError)
    assert (worker.counts.done, worker.counts.failed) == (2, 1)


def test_an_error_that_nobody_foresaw_ends_its_job_only(
    worker: ModelWorker, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError("by nobody's intent")

    async def play() -> list[Any]:
        with pytest.raises(GenerationError, match="something broke here") as caught:
            await all_of(worker.submit(Thinking(broken)))
        assert "intent" not in str(caught.value)
        return await all_of(worker.submit(Drawing(prompt="a", seeds=[1])))

    assert isinstance(run(play())[-1], Drawn)
    assert "by nobody's intent" in caplog.text


def test_closing_drains_the_queue_and_takes_nothing_more(pipe: JanusPipeline) -> None:
    worker = ModelWorker(pipe, cap=6, max_batch=2)

    async def play() -> list[Any]:
        jobs = [worker.submit(Drawing(prompt="a", seeds=[i])) for i in range(5)]
        ended = asyncio.create_task(asyncio.to_thread(worker.close, 60))
        await asyncio.sleep(0.05)
        with pytest.raises(Stopped, match="stopping"):
            worker.submit(Drawing(prompt="a", seeds=[1]))
        found = [await all_of(job) for job in jobs]
        assert await ended
        return [events[-1] for events in found]

    assert all(isinstance(event, Drawn) for event in run(play()))


def test_closing_stops_what_takes_too_long(pipe: JanusPipeline) -> None:
    worker = ModelWorker(pipe)

    async def play() -> None:
        gate, _ = await held(worker)
        waits = worker.submit(Drawing(prompt="a", seeds=[1]))
        ended = asyncio.create_task(asyncio.to_thread(worker.close, 0.1))
        with pytest.raises(Stopped):
            await all_of(waits)
        gate.open.set()
        assert not await ended

    run(play())


def test_a_varied_drawing_keeps_its_beginning(worker: ModelWorker, pipe: JanusPipeline) -> None:
    whole = pipe("a", seed=1).codes[0]

    async def play() -> list[Any]:
        gate, _ = await held(worker)
        jobs = [
            worker.submit(Drawing(prompt="a", seeds=[s], initial_codes=whole[:k]))
            for s, k in ((4, 8), (5, 8), (6, 4))
        ]
        gate.open.set()
        return [(await all_of(job))[-1] for job in jobs]

    drawn = run(play())
    assert worker.counts.batches == {2: 1, 1: 1}
    for event, kept in zip(drawn, (8, 8, 4), strict=True):
        assert torch.equal(event.codes[0, :kept], whole[:kept])
