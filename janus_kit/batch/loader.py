"""Pictures decoded ahead of the model, by threads or by processes that may die."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from janus_kit.batch import inputs
from janus_kit.batch.files import reason
from janus_kit.errors import ImageError
from janus_kit.vision import images

__all__ = ["Pixels", "ahead", "of_item", "of_picture", "workers_for"]

T = TypeVar("T")
Pixels = npt.NDArray[np.float32]  # [3, size, size] in ±1
MANY = 256  # pictures from which on processes are worth the seconds of their start
NO_MEMORY = "there is not enough memory to decode it"
PATIENCE = 60  # seconds for a forked process to say that it is there

log = logging.getLogger(__name__)


def workers_for(wanted: int | None, count: int) -> int:
    """Processes that decode count pictures; 0 stands for a thread of this process."""
    if wanted is not None:
        return wanted
    return min(8, max(1, (os.cpu_count() or 2) - 1)) if count >= MANY else 0


def of_picture(picture: Any, size: int) -> Pixels | str:
    """What the encoder reads of a picture, or why there is nothing to read."""
    try:
        return images.to_pixels(images.load(picture), size).numpy()
    except (ImageError, OSError) as error:
        return reason(error)
    except MemoryError:
        return NO_MEMORY


def of_item(item: inputs.Item, size: int) -> Pixels | str:
    """of_picture for an input of a run, whose file must not change meanwhile.

    An error does not name the file again: a run says the same wherever its folder lies.
    """
    try:
        found = of_picture(inputs.read(item), size)
        inputs.check(item)
    except (ImageError, OSError) as error:
        found = reason(error)
    except MemoryError:  # reading a row takes its neighbours along
        found = NO_MEMORY
    if isinstance(found, str):
        for place in (item.source.path, repr(item.source.path), "the image bytes"):
            found = found.removeprefix(f"{place}: ")
    return found


def _begin(level: int) -> None:
    """In a new process: log as the parent does, leave Ctrl-C to it, and end where it has ended."""
    logging.basicConfig(format="janus-kit: %(message)s")
    logging.getLogger("janus_kit").setLevel(level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:  # a killed parent does not close the queue that its children wait at
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Nameless(ModuleType):
    """A program's main module without the file or name by which it could be run again."""

    def __init__(self, main: ModuleType) -> None:
        super().__init__(main.__name__)
        self._main = main

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":
            raise AttributeError(name)
        return getattr(self._main, name)  # what other threads pickle meanwhile is found there


class _Worker(ForkServerProcess):
    """A process that does not run the program's main module once more.

    multiprocessing has every new process do so, for what may be defined there. Nothing that decodes
    is, and a script on stdin cannot be run again, and one without a guard would load its model.
    """

    _starting = threading.Lock()

    def start(self) -> None:
        with self._starting:
            main = sys.modules["__main__"]
            sys.modules["__main__"] = _Nameless(main)
            try:
                super().start()
            finally:
                sys.modules["__main__"] = main


class _Context(ForkServerContext):
    # A fork of a process with torch's threads may hang. The server has none, and imports once what
    # its forks need.
    Process = _Worker


def _pool(workers: int) -> Executor:
    if not workers:
        return ThreadPoolExecutor(1)
    context = _Context()
    context.set_forkserver_preload([__name__])
    level = logging.getLogger("janus_kit").getEffectiveLevel()
    return ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(level,))


def _started(workers: int) -> Executor:
    """_pool, of which a process has answered; a thread where none does."""
    others = set(multiprocessing.active_children())
    pool = None
    try:
        pool = _pool(workers)
        pool.submit(os.getpid).result(PATIENCE)
        return pool
    # Also: no server to ask (OSError, EOFError), no semaphores (NotImplementedError, ImportError).
    except (
        BrokenProcessPool,
        TimeoutError,
        OSError,
        EOFError,
        NotImplementedError,
        ImportError,
    ) as e:
        why = str(e) or type(e).__name__
        log.warning("no process to decode in can be started (%s); a thread decodes", why)
    for child in set(multiprocessing.active_children()) - others:
        if isinstance(child, _Worker):
            child.kill()  # the interpreter would wait for it at its end
    if pool is not None:
        pool.shutdown(wait=False, cancel_futures=True)
    return _pool(0)


def ahead(
    work: Callable[[T, int], Pixels | str], items: Iterable[T], size: int, workers: int, room: int
) -> Generator[tuple[T, Pixels | str], None, None]:
    """work(item, size) for each item, in order, up to room of them ahead of the reader.

    A process that dies takes nothing along: what was being done is done again item by item, and
    the item with which it dies a second time gets an error. Where no process can be started at all,
    a thread works and the log says so.
    """
    pool = _started(workers)
    waiting: deque[tuple[T, Future[Any]]] = deque()
    source = iter(items)
    try:
        while True:
            while len(waiting) < room and (item := next(source, None)) is not None:
                waiting.append((item, _submit(pool, work, item, size)))
            if not waiting:
                return
            item, future = waiting.popleft()
            try:
                found = future.result()
            except BrokenProcessPool:
                pool.shutdown(wait=False)
                suspects = [item, *(other for other, _ in waiting)]
                waiting.clear()
                yield from _singly(work, suspects, size)
                pool = _started(workers)
            else:
                yield item, found
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _submit(pool: Executor, work: Callable[..., Any], *given: Any) -> Future[Any]:
    try:
        return pool.submit(work, *given)
    except BrokenProcessPool as error:  # its reader starts a new pool
        broken: Future[Any] = Future()
        broken.set_exception(error)
        return broken


def _singly(
    work: Callable[[T, int], Pixels | str], items: Iterable[T], size: int
) -> Generator[tuple[T, Pixels | str], None, None]:
    """work one after the other in one process; an error for an item that kills it twice.

    And for all where no process can be started any more: one of them has just killed one, and a
    thread would take the whole run along.
    """
    pool = _started(1)
    try:
        for item in items:
            found: Pixels | str = (
                "a process that decoded died, and no other can be started; try again"
            )
            for last in (False, True):  # one of them may have died of another's doing
                if isinstance(pool, ThreadPoolExecutor):
                    break
                try:
                    found = pool.submit(work, item, size).result()
                    break
                except BrokenProcessPool:
                    if last:
                        found = (
                            "the process that decoded it died, twice; is the file meant to do harm?"
                        )
                    pool.shutdown(wait=False)
                    pool = _started(1)
            yield item, found
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
