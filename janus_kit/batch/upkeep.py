"""What is done to ledgers between runs: shards become one, damage is cut out, counts are told."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from janus_kit.batch.files import HIDDEN, reason
from janus_kit.batch.ledger import (
    Busy,
    Lock,
    Record,
    difference,
    ledgers,
    lines,
    parse,
    sync_folder,
)
from janus_kit.errors import BatchError

__all__ = ["merge", "repair", "status"]


def _replace(path: Path, records: Iterable[Record]) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    sync_folder(path.parent)


def merge(folder: Path) -> Path:
    """Make one ledger of those of all shards. Killed half-way, it can be called again.

    Raises BatchError while a run is at work, for a folder without ledgers, or when they belong to
    runs with different settings.
    """
    _check_folder(folder)
    lock = Lock(folder)
    try:
        header: Record | None = None
        best: dict[str, Record] = {}
        inputs: dict[Path, int] = {}
        loose: set[str] = set()  # as in Ledger: whose results may not be written
        for path in ledgers(folder):
            own: Record | None = None
            found, last, chunk = dict[str, Record](), set[str](), -1
            for _, record in lines(path):
                if "run" in record:
                    own, found, last = record, {}, set()
                elif "name" in record:
                    found[record["name"]] = record
                    last = {*last, record["name"]} if record["chunk"] == chunk else {record["name"]}
                    chunk = record["chunk"]
                elif "inputs" in record:
                    inputs[path] = record["inputs"]
                elif "end" in record:
                    last = set()
            if own is not None and header is not None and own["run"] != header["run"]:
                raise BatchError(f"{path}: {difference(header['run'], own['run'])}")
            header = own or header
            for name, record in found.items():
                if name not in best or "error" in best[name] or "error" not in record:
                    best[name] = record
            loose |= last
        target = folder / HIDDEN / "run.jsonl"
        total = {"inputs": inputs.get(target, sum(inputs.values()))}
        settled = [{**best[name], "chunk": 0} for name in sorted(best) if name not in loose]
        rest = [{**best[name], "chunk": 1} for name in sorted(loose)]
        _replace(target, [header or {"run": {}}, total, *settled, {"end": True}, *rest])
        for path in ledgers(folder):
            if path != target:
                path.unlink()
        return target
    finally:
        lock.release()


def repair(folder: Path) -> int:
    """Drop the lines of a folder's ledgers that cannot be read; how many those were.

    The old file stays beside the new one, with .damaged behind its name.
    """
    _check_folder(folder)
    lock = Lock(folder)
    try:
        dropped = 0
        for path in ledgers(folder):
            with path.open("rb") as file:
                parsed = [parse(line) for line in file]
            good = [record for record in parsed if record is not None]
            if len(good) < len(parsed):
                dropped += len(parsed) - len(good)
                with suppress(FileExistsError):
                    os.link(path, path.with_suffix(".jsonl.damaged"))
                _replace(path, good)
        return dropped
    finally:
        lock.release()


def status(folder: Path) -> dict[str, Any]:
    """How a folder's run stands: done, failed, pending (None if not known), reasons, running."""
    _check_folder(folder)
    state: dict[str, Record] = {}
    inputs: dict[str, int] = {}
    for path in ledgers(folder):
        for _, record in lines(path):
            if "inputs" in record:
                inputs[path.name] = record["inputs"]
            elif "name" in record:
                before = state.get(record["name"])
                if before is None or "error" in before or "error" not in record:
                    state[record["name"]] = {k: record[k] for k in ("error",) if k in record}
    failed = [record["error"] for record in state.values() if "error" in record]
    running = False
    try:
        Lock(folder).release()
    except Busy:
        running = True
    total = inputs.get("run.jsonl", sum(inputs.values()))
    return {
        "folder": str(folder),
        "done": len(state) - len(failed),
        "failed": len(failed),
        "pending": max(0, total - len(state)) if inputs else None,
        "running": running,
        "reasons": failed[:10],
    }


def _check_folder(folder: Path) -> None:
    try:
        there = bool(ledgers(folder))
    except OSError as error:
        raise BatchError(f"{folder}: cannot be read ({reason(error)})") from error
    if not there:
        raise BatchError(f"{folder}: holds no run (no {HIDDEN}/run.jsonl); name a run's --output")
