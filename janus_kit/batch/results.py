"""Which files of a folder are results of runs. Only those are ever replaced."""

import os
from collections.abc import Iterable
from pathlib import Path

from janus_kit.batch.files import HIDDEN, is_full, reason
from janus_kit.errors import BatchError

__all__ = ["claim", "claimed", "guard", "ready", "refuse", "room"]

_CLAIMS = "results"  # the file beside the ledger


def claimed(folder: Path) -> set[str]:
    """The names of results, or patterns of them, that runs have claimed in a folder."""
    try:
        return set((folder / HIDDEN / _CLAIMS).read_text(encoding="utf-8").splitlines())
    except (FileNotFoundError, NotADirectoryError):
        return set()


def claim(folder: Path, names: Iterable[str]) -> None:
    """Note, before the first of them is written, that files of these names are results."""
    new = sorted({*names} - claimed(folder))
    if new:
        with (folder / HIDDEN / _CLAIMS).open("a", encoding="utf-8") as file:
            file.write("".join(f"{name}\n" for name in new))
            file.flush()
            os.fsync(file.fileno())


def guard(folder: Path, names: Iterable[str], inputs: Iterable[str | Path]) -> None:
    """Raise BatchError if a result would replace an input, or a file that no run has written.

    names: of the results; they may be patterns, as glob takes them.
    """
    there = [(name, path) for name in names for path in sorted(folder.glob(name))]
    read = {os.path.realpath(path) for path in inputs}
    for _, path in there:
        if os.path.realpath(path) in read:
            raise BatchError(
                f"{path}: is an input, and a result would replace it; choose another --output"
            )
    ours = claimed(folder)
    for name, path in there:
        if name not in ours:
            refuse(path)


def refuse(path: Path) -> None:
    """Raise BatchError if there is a file that no run has written where a result would go."""
    if os.path.lexists(path):
        raise BatchError(
            f"{path}: would be replaced, and is no result of a run; move it, or choose another "
            "--output"
        )


def room(folders: Iterable[Path]) -> None:
    """Raise BatchError if a file is where a folder of results must be."""
    for place in folders:
        while not os.path.lexists(place) and place != place.parent:
            place = place.parent
        if not os.path.isdir(place):
            raise BatchError(
                f"{place}: is a file where a folder of results must be; choose another --output"
            )


def ready(folder: Path) -> None:
    """Make the folder of the results; BatchError where there can be none."""
    try:
        (folder / HIDDEN).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_full(error):
            raise
        raise BatchError(
            f"{folder}: cannot be written ({reason(error)}); choose another --output"
        ) from error
