"""What the tabs of the page share: the model's queue, a place for files, and plain errors."""

import asyncio
import csv
import io
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image
from torch import Tensor

from janus_kit import JanusKitError, JanusPipeline, OptionError, Settings, save_png
from janus_kit.demos.jobs import Drawing, Drawn, Full, Job, Row, Stopped, Thinking, Waiting
from janus_kit.demos.worker import ModelWorker

__all__ = [
    "EMBEDDED",
    "Picture",
    "Progress",
    "Studio",
    "before_error",
    "cancels",
    "name_of",
    "parse_seed",
    "plain",
    "stoppable",
    "table_bytes",
    "whole",
]

EMBEDDED = "janus-kit-embedded"
SEEDS = 2**63
SETTLED = 0.2  # seconds in which an event that was stopped is over
T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """A drawn picture, as a session keeps it."""

    path: str
    settings: Settings
    codes: Tensor  # int64 [576]
    score: float | None = None


@dataclass
class Progress:
    """How far a job has come: a sentence for people."""

    pictures: int
    begun: float = 0.0
    rows: dict[int, int] = field(default_factory=dict)  # of each part that is being drawn
    share: float = 0.0

    def tell(self, event: Waiting | Row) -> str:
        if isinstance(event, Waiting):
            if not event.ahead:
                return "Waiting for the model …"
            jobs = "1 job is" if event.ahead == 1 else f"{event.ahead} jobs are"
            return f"Waiting: {jobs} ahead of yours."
        now = time.monotonic()
        if not self.begun:
            self.begun = now
            self._first = event.row / event.of
        self.share = (event.first + event.pictures * event.row / event.of) / self.pictures
        done = f"Row {event.row} of {event.of}"
        if event.pictures < self.pictures:
            done += f" of pictures {event.first + 1} to {event.first + event.pictures}"
        past = now - self.begun
        gone = self.share - self._first * event.pictures / self.pictures
        if gone <= 0:
            return f"{done} …"
        left = past / gone * (1 - self.share)
        return f"{done} · {_seconds(left)} left"


def _seconds(left: float) -> str:
    if left < 90:
        return f"about {max(1, round(left))} s"
    return f"about {round(left / 60)} min"


class Studio:
    """The pipeline behind the page, its queue, and where files of the page lie."""

    def __init__(self, pipe: JanusPipeline, worker: ModelWorker) -> None:
        self.pipe = pipe
        self.worker = worker
        self.embedded = pipe.name == EMBEDDED
        self._opening = ThreadPoolExecutor(2, "janus-open")

    def folder(self) -> Path:
        """A new folder in Gradio's cache, under a name that cannot be guessed.

        Gradio sweeps what the page has shown, so what is written here must be shown.
        """
        folder = Path(get_upload_folder()) / secrets.token_hex(16)
        folder.mkdir(mode=0o700, parents=True)
        return folder

    async def events(self, work: Drawing | Thinking, *, later: bool = False) -> AsyncIterator[Any]:
        """Submit work and give its events; what went wrong becomes a sentence on the page.

        Who stops listening cancels it. later: a further part of a task that has begun, which waits
        for a place where a first one would not. Long tasks go in parts, so that the jobs of others
        come in between.
        """
        try:
            job = await self._submit(work, later)
            async for event in job.events():
                yield event
        except (JanusKitError, Full, Stopped) as error:
            raise plain(error) from error

    async def _submit(self, work: Drawing | Thinking, later: bool) -> Job:
        while True:
            try:
                return self.worker.submit(work)
            except Full:
                if not later:
                    raise
                await asyncio.sleep(0.5)

    async def opened(self, work: Callable[[str], T], path: str) -> T:
        """What work makes of a file; two at a time, for one may take 200 MB while it is read."""
        return await asyncio.get_running_loop().run_in_executor(self._opening, work, path)

    def keep(self, parts: Sequence[Drawn], folder: Path) -> list[Picture]:
        """Write finished pictures as PNG with their settings inside."""
        kept = []
        for drawn in parts:
            pairs = zip(drawn.images, drawn.settings, drawn.codes, strict=True)
            for number, (image, settings, codes) in enumerate(pairs, drawn.first):
                path = folder / f"{number:03}_{settings.seed}_{name_of(settings.prompt)}.png"
                save_png(image, path, settings)
                kept.append(Picture(str(path), settings, codes.clone()))
        return kept

    async def scores(self, images: Sequence[Image.Image], prompt: str) -> AsyncIterator[float]:
        """How sure the model is of each picture, one after the other."""

        def work() -> Any:
            for image in images:
                yield self.pipe.rank(image, prompt)[0].score

        async for event in self.events(Thinking(work), later=True):
            if isinstance(event, float):
                yield event


async def before_error(updates: AsyncIterator[Any], last: dict[Any, Any]) -> AsyncIterator[Any]:
    """The updates of the page; where they end in an error, last comes before it.

    Gradio counts an event that was stopped among those that failed, so what its failure() showed
    would wipe away the word of the Stop button.
    """
    try:
        async for update in updates:
            yield update
    except Exception:
        yield last
        raise


def cancels(
    button: gr.Button,
    events: list[Any],
    last: Callable[[], dict[Any, Any]],
    outputs: Sequence[Any],
) -> None:
    """Have a button end events, and show last after all that is still on its way from them."""

    async def settled() -> dict[Any, Any]:
        await asyncio.sleep(SETTLED)
        return last()

    # Two listeners: of one that also shows something Gradio would cancel the events after that.
    button.click(None, cancels=events, queue=False, api_visibility="private")
    button.click(settled, None, outputs, queue=False, api_visibility="private")


def stoppable(
    events: list[Any], stop: gr.Button, status: gr.Markdown, outputs: Sequence[Any]
) -> None:
    """Have the Stop button end events and say so; it rests once none of them runs any more."""

    def rest() -> dict[Any, Any]:
        return {stop: gr.update(interactive=False)}

    for event in events:  # which Gradio counts among those that failed if it was stopped
        event.failure(rest, None, outputs)
    cancels(stop, events, lambda: rest() | {status: "Stopped."}, outputs)


def plain(error: Exception) -> gr.Error:
    """An error as the page shows it: its sentence, without paths of this machine."""
    text = re.sub(re.escape(get_upload_folder()) + r"\S*/", "", str(error))
    return gr.Error(
        text[:1].upper() + text[1:] + ".", title="That did not work", print_exception=False
    )


def parse_seed(text: str | None, count: int = 1) -> int:
    """The seed of a field; an empty one is random."""
    given = (text or "").strip()
    if not given:
        return secrets.randbelow(2**32)
    digits = given.isascii() and given.isdigit() and len(given) <= 100
    if not digits or int(given) > SEEDS - count:
        raise plain(
            OptionError("the seed must be a whole number from 0 on, or empty for a random one")
        )
    return int(given)


def whole(name: str, value: float | None, low: int, high: int) -> int:
    """A whole number of a slider; those that come over the API are checked here as well."""
    if value is None or value != value or not low <= value <= high or value != int(value):
        raise plain(OptionError(f"{name} must be a whole number from {low} to {high}"))
    return int(value)


def name_of(prompt: str) -> str:
    """A prompt as a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:40].strip("-") or "picture"


def table_bytes(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """A CSV that no spreadsheet takes for formulas."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    for row in (header, *rows):
        writer.writerow(["'" + cell if cell[:1] in "=+-@\t\r" and cell else cell for cell in row])
    return text.getvalue().encode("utf-8-sig")
