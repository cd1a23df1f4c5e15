"""What is asked of the model's worker, and the events by which it answers."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from janus_kit import Settings

__all__ = [
    "BROKEN",
    "Drawing",
    "Drawn",
    "Full",
    "Job",
    "Lane",
    "Preview",
    "Row",
    "Stopped",
    "Thinking",
    "Waiting",
]

Lane = Literal["draw", "think"]
BROKEN = "something broke here; the program's log has more"  # what users hear of unforeseen errors


class Full(Exception):
    """The queue takes no more jobs; retry_after is a guess in whole seconds."""

    def __init__(self, sentence: str, retry_after: int) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


class Stopped(Exception):
    """The server ends before the job could be done."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Pictures of one prompt. Those with an equal kind may share a batch with other drawings."""

    prompt: str
    seeds: Sequence[int]  # one a picture
    negative_prompt: str = ""
    guidance_scale: float | None = None  # the model's own
    temperature: float | None = None
    top_k: int = 0
    top_p: float = 1.0
    initial_codes: Tensor | None = None  # int64 [k], what every picture begins with
    preview_rows: frozenset[int] = frozenset()  # rows, from 1, after which to show what is there
    live: bool = False  # also show others, as often as a quarter of the time allows

    @property
    def options(self) -> dict[str, float | None]:
        """What a batch has in common."""
        return {
            "guidance_scale": self.guidance_scale,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
        }

    @property
    def kind(self) -> tuple[object, ...]:
        begun = 0 if self.initial_codes is None else len(self.initial_codes)
        return (*self.options.values(), begun)


@dataclass(frozen=True)
class Thinking:
    """Work that yields its results one by one; between two of them it can be stopped."""

    work: Callable[[], Iterator[Any]]


@dataclass(frozen=True)
class Waiting:
    """So many jobs come before this one."""

    ahead: int


@dataclass(frozen=True)
class Row:
    """Some pictures of a job, first of them its picture number first, have so many rows."""

    first: int
    pictures: int
    row: int
    of: int


@dataclass(frozen=True)
class Preview:
    """What those pictures show after a row; grey below it."""

    first: int
    row: int
    images: list[Image.Image]


@dataclass(frozen=True)
class Drawn:
    """Finished pictures of a job, from its picture number first on."""

    first: int
    images: list[Image.Image]
    codes: Tensor  # int64 [b, 576]
    settings: list[Settings]


_END = object()


class Job:
    """Work that waits for the model, and its events as they come. Made by ModelWorker.submit."""

    def __init__(self, work: Drawing | Thinking) -> None:
        self.work = work
        self.lane: Lane = "draw" if isinstance(work, Drawing) else "think"
        self.cancelled = threading.Event()
        self.taken = 0  # of its pictures, by batches
        self.ended = False
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[object] = asyncio.Queue()

    def cancel(self) -> None:
        """Stop within a row or a token; what is waiting is taken out of the queue."""
        self.cancelled.set()

    def put(self, event: object) -> None:
        """Hand over an event, from any thread."""
        with suppress(RuntimeError):  # the loop has ended, and nobody listens
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def end(self, error: BaseException | None = None) -> None:
        """Close the events; what comes later is not heard."""
        if not self.ended:
            self.ended = True
            self.put(error or _END)

    async def events(self) -> AsyncIterator[Any]:
        """What happens to the job, to its end; raises its error. Leaving early cancels it."""
        try:
            while True:
                event = await self._events.get()
                if event is _END:
                    return
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            self.cancel()
