"""The bar of rows on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["rows_bar"]


@contextmanager
def rows_bar(pictures: int, rows: int, show: bool) -> Iterator[Callable[[int], None]]:
    """A bar over pictures × rows with the time left; yields advance(count).

    Nothing is shown when show is False or when stderr is no terminal.
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
        TextColumn("drawing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows, left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (show and console.is_terminal),
    ) as bar:
        task = bar.add_task("drawing", total=pictures * rows)
        yield lambda count: bar.advance(task, count)
