"""The files of folders, without those that runs have made."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from janus_kit.batch.files import HIDDEN, reason
from janus_kit.batch.ledger import ledgers, parse
from janus_kit.errors import BatchError

__all__ = ["shown", "walk"]

log = logging.getLogger(__name__)


def shown(path: str) -> str:
    return path if path.isprintable() else repr(path)


def walk(folder: str, recursive: bool, skip: Path | None) -> Iterator[str]:
    """The files of a folder in the order of their bytes; recursive: and of those inside.

    Links to files are followed, links to folders are not. Hidden files are left out, and so are
    skip and other folders of results, which the log tells, as it does of folders inside that
    cannot be listed. Raises BatchError if folder itself cannot be.
    """
    try:
        yield from _walk(folder, recursive, skip, set())
    except OSError as error:
        raise BatchError(f"{shown(folder)}: cannot be listed ({reason(error)})") from error


def _walk(folder: str, recursive: bool, skip: Path | None, seen: set[Any]) -> Iterator[str]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if not entry.is_dir(follow_symlinks=False):
            if not os.path.isdir(entry.path):  # entry.is_dir raises for a link to itself
                yield entry.path
        elif recursive:
            yield from _inside(entry, skip, seen)


def _inside(entry: "os.DirEntry[str]", skip: Path | None, seen: set[Any]) -> Iterator[str]:
    """The files of a folder in another."""
    try:
        state = entry.stat(follow_symlinks=False)
        if (state.st_dev, state.st_ino) in seen:  # a folder mounted inside itself
            return
        seen.add((state.st_dev, state.st_ino))
        own = skip is not None and os.path.realpath(entry.path) == os.path.realpath(skip)
        if own or _is_results(entry.path):
            log.warning(
                "%s: is a folder of results and left out; name it to caption it, too",
                shown(entry.path),
            )
            return
        yield from _walk(entry.path, True, skip, seen)
    except OSError as error:
        log.warning("%s: is left out, it cannot be listed (%s)", shown(entry.path), reason(error))


def _is_results(folder: str) -> bool:
    """Whether a run has written into a folder, of which it did not read its pictures."""
    if not os.path.isdir(os.path.join(folder, HIDDEN)):
        return False
    for path in ledgers(Path(folder)):
        with path.open("rb") as file:
            header = parse(file.readline()) or {}
        if header.get("run", {}).get("inputs") != ".":
            return True
    return False
