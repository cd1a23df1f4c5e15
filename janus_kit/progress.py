"""Bars and lines of progress on stderr."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

__all__ = ["items_line", "rows_bar", "steps_bar"]

LINE_EVERY = 10.0  # seconds between lines where there is no bar


def rows_bar(pictures: int, rows: int, show: bool) -> AbstractContextManager[Callable[[int], None]]:
    """A bar over the rows of codes of some pictures; see steps_bar."""
    return steps_bar("drawing", "rows", pictures * rows, show)


@contextmanager
def steps_bar(
    what: str, unit: str, total: int, show: bool = True
) -> Iterator[Callable[[int], None]]:
    """A bar over total units with the time left; yields advance(count).

    A line every ten seconds where stderr is no terminal; nothing when show is False.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    with Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}, left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (show and console.is_terminal),
    ) as bar:
        task = bar.add_task(what, total=total)
        done, start = 0, time.monotonic()
        said = start

        def advance(count: int) -> None:
            nonlocal done, said
            done += count
            bar.advance(task, count)
            if show and not console.is_terminal and time.monotonic() - said >= LINE_EVERY:
                said = time.monotonic()
                left = (said - start) * (total - done) / done
                console.print(f"{what}: {done} of {total} {unit}, {left:.0f} s left")

        yield advance


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, behind the days that a long run has."""
    days, rest = divmod(round(seconds), 86_400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock


@contextmanager
def items_line(verb: str, show: bool) -> Iterator[Callable[[int, int, int, float], None]]:
    """One line that tells how many items are done; yields draw(done, failed, left, a second).

    A line every ten seconds where stderr is no terminal; nothing when show is False.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    said = time.monotonic()
    live = Live(Text(verb), console=console, transient=True, refresh_per_second=4)
    on_screen = show and console.is_terminal

    def draw(done: int, failed: int, left: int, rate: float) -> None:
        nonlocal said
        eta = _duration(left / rate) if left and rate else "-"
        line = (
            f"{verb}: {done} done, {failed} failed, {left} left, {rate:.1f} a second, {eta} to go"
        )
        if on_screen:
            live.update(Text(line, no_wrap=True))
        elif show and time.monotonic() - said >= LINE_EVERY:
            said = time.monotonic()
            console.print(line, highlight=False, soft_wrap=True)

    if on_screen:
        live.start()
    try:
        yield draw
    finally:
        if on_screen:
            live.stop()
