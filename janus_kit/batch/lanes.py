"""Threads in which a small model reads pictures side by side, each with one thread of torch.

Two cores that share the products of one small picture wait for each other a good part of the time;
with a picture each they do not. What a row's numbers are does not depend on it: see Answerer.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch

from janus_kit.model import Janus

__all__ = ["Lanes", "lanes_for"]

SMALL = 1024  # hidden size up to which a picture's products are too small for many threads


def lanes_for(model: Janus) -> int:
    """How many pictures are read side by side; 0: one after the other, with all threads."""
    small = model.device.type == "cpu" and model.config.language.hidden <= SMALL
    return torch.get_num_threads() if small else 0


class Lanes:
    """A pool of threads that use one thread of torch each; to be closed."""

    def __init__(self, count: int) -> None:
        self.count = count
        if not count:
            return
        all_there = threading.Barrier(count + 1)

        def begin() -> None:
            torch.set_num_threads(1)
            torch.get_num_threads()  # a thread's first use of its number takes the one set last
            all_there.wait()

        self._pool = ThreadPoolExecutor(count, "lane", initializer=begin)
        before = torch.get_num_threads()
        for _ in range(count):
            self._pool.submit(int)
        all_there.wait()
        torch.set_num_threads(before)  # threads that are started later take the number set last

    def submit(self, work: Callable[..., Any], *given: Any) -> Future[Any]:
        return self._pool.submit(work, *given)

    def __enter__(self) -> "Lanes":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.count:
            self._pool.shutdown(cancel_futures=True)
