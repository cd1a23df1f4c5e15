"""What is done to ledgers between runs: shards become one, damage is cut out, counts are told."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from janus_kit.batch.files import HIDDEN, reason
from janus_kit.batch.ledger import (
    Account,
    Known,
    encoded,
    ledgers,
    parse,
    refusal,
    sync_folder,
    tell,
    united,
)
from janus_kit.batch.locks import Lock, running
from janus_kit.errors import BatchError

__all__ = ["merge", "repair", "status"]


def merge(folder: Path, *, restart: bool = False) -> Path:
    """Make one ledger of those of all shards. Killed half-way, it can be called again.

    restart: what belongs to runs with older settings goes. Raises BatchError while a run is at
    work, for a folder without ledgers, or when they belong to runs with different settings.
    """
    with _alone(folder) as paths:
        accounts = [tell(path, i) for i, path in enumerate(paths)]
        newest = _newest(accounts)
        for path, told in zip(paths, accounts, strict=True):
            if told.settings != newest.settings and told.known and not restart:
                raise refusal(path, told, newest.settings or {})
        target = folder / HIDDEN / "run.jsonl"
        _replace(target, _merged(paths, accounts, newest))
        for path in paths:
            if path != target:
                path.unlink()
        return target


def _merged(paths: Sequence[Path], accounts: Sequence[Account], newest: Account) -> Iterator[bytes]:
    """The lines of one ledger that tells what several do. Chunks keep their numbers."""
    known, loose = _together(accounts, newest)
    top = max(told.chunk for told in accounts)
    yield encoded({"run": newest.settings or {}, "chunk": newest.begun})
    inputs, expected = _inputs(paths, accounts, newest)
    yield encoded({"inputs": inputs or 0, "chunk": expected})
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in paths]

        def line(name: str) -> bytes:
            file = files[known[name].file]
            file.seek(known[name].offset)
            return file.readline()

        yield from (line(name) for name in sorted(known) if name not in loose)
        yield encoded({"end": True})
        yield from (encoded({**json.loads(line(name)), "chunk": top}) for name in sorted(loose))


def _newest(accounts: Sequence[Account]) -> Account:
    """That of the run which was begun last: results with other settings are of the past."""
    return max(accounts, key=lambda told: told.begun, default=Account())


def _together(
    accounts: Sequence[Account], newest: Account
) -> tuple[dict[str, Known], dict[str, Known]]:
    """What ledgers with the newest settings say of each input, and which results may be missing."""
    known: dict[str, Known] = {}
    loose: dict[str, Known] = {}
    for told in accounts:
        if told.settings == newest.settings:
            known = united(known, told.known)
            loose |= told.loose
    return known, {name: place for name, place in loose.items() if known[name] == place}


def _inputs(
    paths: Sequence[Path], accounts: Sequence[Account], newest: Account
) -> tuple[int | None, int]:
    """How many inputs the last run has, all of its shards together, and in which chunk it says so.

    Shards into another number of parts belong to another run.
    """
    heard = [
        (told.expected, path.stem.rpartition("-of-")[2], told.inputs)
        for path, told in zip(paths, accounts, strict=True)
        if told.inputs is not None and told.settings == newest.settings
    ]
    if not heard:
        return None, 0
    expected, parts, _ = max(heard, key=lambda one: one[0])
    return sum(inputs for _, shards, inputs in heard if shards == parts), expected


def _replace(path: Path, data: Iterable[bytes]) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.writelines(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    sync_folder(path.parent)


def repair(folder: Path) -> int:
    """Drop the lines of a folder's ledgers that cannot be read; how many those were.

    The old file stays beside the new one, with .damaged behind its name.
    """
    with _alone(folder) as paths:
        dropped = 0
        for path in paths:
            with path.open("rb") as file:
                bad = sum(parse(line) is None for line in file)
            if bad:
                dropped += bad
                _keep(path)
                with path.open("rb") as file:
                    _replace(path, _good(file))
        return dropped


def _good(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines that can be read. In place of settings there are none, so that no run goes on."""
    for number, line in enumerate(lines):
        if parse(line) is not None:
            yield line
        elif not number or b'"run":' in line:
            yield encoded({"run": {}})


def _keep(path: Path) -> None:
    """Give a damaged ledger a second name that is free."""
    for number in count(1):
        with suppress(FileExistsError):
            os.link(path, f"{path}.damaged{f'-{number}' if number > 1 else ''}")
            return


def status(folder: Path) -> dict[str, Any]:
    """How a folder's run stands: done, failed, pending (None if not known), reasons, running."""
    _check(folder, begun=True)
    paths, accounts = _told(folder)
    newest = _newest(accounts)
    known, _ = _together(accounts, newest)
    inputs, _ = _inputs(paths, accounts, newest)
    failed = [found.error for found in known.values() if found.error is not None]
    return {
        "folder": str(folder),
        "done": len(known) - len(failed),
        "failed": len(failed),
        "pending": None if inputs is None else max(0, inputs - len(known)),
        "running": running(folder),
        "reasons": failed[:10],
    }


def _told(folder: Path, tries: int = 9) -> tuple[list[Path], list[Account]]:
    """The ledgers of a folder where runs may be at work, and what they tell."""
    paths = ledgers(folder)
    try:
        return paths, [tell(path, i) for i, path in enumerate(paths)]
    except FileNotFoundError:  # shards that have ended are merged right now
        if not tries:
            raise
        return _told(folder, tries - 1)


@contextmanager
def _alone(folder: Path) -> Iterator[list[Path]]:
    """The ledgers of a folder, while no run is at work there."""
    _check(folder)
    lock = Lock(folder, brief=True)
    try:
        yield _check(folder)
    finally:
        lock.release()


def _check(folder: Path, *, begun: bool = False) -> list[Path]:
    """The ledgers of a folder, which must have some; begun: or a run that is about to have one."""
    try:
        found = ledgers(folder)
    except OSError as error:
        raise BatchError(f"{folder}: cannot be read ({reason(error)})") from error
    if not found and not (begun and running(folder)):
        raise BatchError(f"{folder}: holds no run (no {HIDDEN}/run.jsonl); name a run's --output")
    return found
