"""The bar of rows on stderr."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["rows_bar"]

LINE_EVERY = 10.0  # seconds between lines where there is no bar


@contextmanager
def rows_bar(pictures: int, rows: int, show: bool) -> Iterator[Callable[[int], None]]:
    """A bar over pictures × rows with the time left; yields advance(count).

    A line every ten seconds where stderr is no terminal; nothing when show is False.
    """
    total = pictures * rows
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
        TextColumn("drawing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows, left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (show and console.is_terminal),
    ) as bar:
        task = bar.add_task("drawing", total=total)
        done, start = 0, time.monotonic()
        said = start

        def advance(count: int) -> None:
            nonlocal done, said
            done += count
            bar.advance(task, count)
            if show and not console.is_terminal and time.monotonic() - said >= LINE_EVERY:
                said = time.monotonic()
                left = (said - start) * (total - done) / done
                console.print(f"drawing: {done} of {total} rows, {left:.0f} s left")

        yield advance
