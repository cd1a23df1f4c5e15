"""The ledger of a run: what has become of every input, one line of JSON each, only appended to.

A line is written and synced before the work counts as done, so a run that is killed goes on from
its ledger. A line that a crash cut short is cut away; of two lines about one input the last counts.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from janus_kit.batch.files import HIDDEN
from janus_kit.batch.locks import Lock
from janus_kit.errors import BatchError

__all__ = [
    "Account",
    "Known",
    "Ledger",
    "Record",
    "Shard",
    "encoded",
    "ledgers",
    "parse",
    "refusal",
    "sync_folder",
    "tell",
    "united",
]

Record = dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """One of count parts, the first of which is 0; has says by its name whose an input is."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise BatchError(
                f"shard {self.index}/{self.count} is none of 0/{self.count} to "
                f"{self.count - 1}/{self.count}; the first is 0"
            )

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard that i/n names."""
        index, slash, count = text.partition("/")
        if not (slash and index.isascii() and index.isdigit() and count.isdigit()):
            raise BatchError(f"a shard is written i/n, such as 0/4, not {text!r}")
        return cls(int(index), int(count))

    @property
    def label(self) -> str:
        return "" if self.count == 1 else f"{self.index}-of-{self.count}"

    def has(self, name: str) -> bool:
        digest = hashlib.sha256(name.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index


class Known(NamedTuple):
    """What the ledger says of an input; its whole line lies at offset of a file."""

    error: str | None
    stamp: str
    file: int
    offset: int
    chunk: int


@dataclass
class Account:
    """What one ledger tells of its last run. Chunks count on through all ledgers of a folder."""

    settings: Record | None = None
    begun: int = 0  # the chunk of the line with the settings
    inputs: int | None = None
    expected: int = 0  # the chunk of the line with the number of inputs
    chunk: int = 0  # the last one
    known: dict[str, Known] = field(default_factory=dict)
    loose: dict[str, Known] = field(default_factory=dict)  # their results may not be written


def tell(path: Path, file: int, *, mend: bool = False) -> Account:
    """Read one ledger, the file-th of its folder; mend as in lines."""
    told = Account()
    for offset, record in lines(path, mend=mend):
        chunk = record.get("chunk", 0)
        if "run" in record:  # all that was done before is to be done again
            told = Account(record["run"], begun=chunk)
        elif "name" in record:
            stamp = record.get("stamp", "")
            known = Known(record.get("error"), stamp, file, offset, chunk)
            if chunk != told.chunk:
                told.loose = {}
            told.known[record["name"]] = told.loose[record["name"]] = known
        elif "inputs" in record:
            told.inputs, told.expected = record["inputs"], chunk
        elif "end" in record:
            told.loose = {}
        told.chunk = max(told.chunk, chunk)
    return told


def united(one: dict[str, Known], other: dict[str, Known]) -> dict[str, Known]:
    """What two ledgers say together; one may be changed for it.

    The later line counts, but no failure above a success with the same input.
    """
    for name, found in other.items() if one else ():
        before = one.setdefault(name, found)
        if before.stamp == found.stamp and (before.error is None) != (found.error is None):
            newer = found.error is None
        else:
            newer = found.chunk > before.chunk
        if newer:
            one[name] = found
    return one or other


def ledgers(folder: Path) -> list[Path]:
    """The ledgers of a folder: run.jsonl, then those of shards by name."""
    return sorted((folder / HIDDEN).glob("run*.jsonl"), key=lambda path: (len(path.name), path))


def lines(path: Path, *, mend: bool = False) -> Iterator[tuple[int, Record]]:
    """The offset and the record of every line. A torn end is left out; mend also cuts it off.

    Raises BatchError for a line that cannot be read but has readable ones behind it.
    """
    good, bad = 0, None
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            record = parse(line)
            if record is None:
                bad = bad or number
                if not line.endswith(b"\n"):
                    break  # a run may be about to write the rest of it
            elif bad is not None:
                raise BatchError(
                    f"{path}: line {bad} is damaged; janus-kit batch repair "
                    f"{path.parent.parent} drops such lines, whose inputs are then done again"
                )
            else:
                yield good, record
                good += len(line)
    if mend and bad is not None:
        os.truncate(path, good)


def parse(line: bytes) -> Record | None:
    """A line's record; None for a line that is damaged or not ended."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def encoded(record: Mapping[str, Any]) -> bytes:
    """The line of a record; what is no Unicode text, as in some file names, is escaped."""
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


class Ledger:
    """The open ledger of a run or of one of its shards; the lock of its folder is held."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        shard: Shard | None = None,
        *,
        restart: bool = False,
        brief: bool = False,
    ) -> None:
        """Open the ledger of a folder for a run with these settings, or prepare to begin it.

        restart: what was done with other settings is done again; else that is a BatchError. brief:
        as in Lock. Nothing is written before the first result: what cannot begin leaves no trace.
        """
        self.folder = folder
        self.label = (shard or Shard()).label
        self.settings: Record = json.loads(json.dumps(dict(settings)))
        (folder / HIDDEN).mkdir(parents=True, exist_ok=True)
        self.lock = Lock(folder, self.label, brief=brief)
        self._readers: dict[int, BinaryIO] = {}
        try:
            self.path = folder / HIDDEN / f"run{self.label and '-'}{self.label}.jsonl"
            self.known: dict[str, Known] = {}
            self.chunk = 0
            self.begun = False  # whether our own file ends with a run of these settings
            self.held: list[Record] = []  # lines that are written with the first result
            self.files = [*dict.fromkeys([*ledgers(folder), self.path])]
            loose: dict[str, Known] = {}
            for index, path in enumerate(self.files):
                if path.exists():
                    loose |= self._read(index, restart)
            self.file: BinaryIO | None = None
            self.loose = [self.record(name) for name in loose if self.known[name] == loose[name]]
        except BaseException:
            self.lock.release()
            raise

    def _read(self, index: int, restart: bool) -> dict[str, Known]:
        """Take in one ledger; the inputs whose results it is on this run to write."""
        path = self.files[index]
        own = path == self.path
        told = tell(path, index, mend=own)
        self.chunk = max(self.chunk, told.chunk)
        if told.settings != self.settings:
            if told.known and not restart:
                raise refusal(path, told, self.settings)
            return {}
        self.begun = self.begun or own
        self.known = united(self.known, told.known)
        # Another shard's run may be about to write its own.
        return told.loose if own or not self.label else {}

    def state(self, name: str, stamp: str) -> str:
        """done, failed or pending; an input that has changed since is pending."""
        known = self.known.get(name)
        if known is None or known.stamp != stamp:
            return "pending"
        return "done" if known.error is None else "failed"

    def expect(self, inputs: int) -> None:
        """Note how many inputs this run has, for those who ask how it stands."""
        self.chunk += 1
        self.held = [{"inputs": inputs, "chunk": self.chunk}]
        if self.begun:
            self._append([])

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append what has become of some inputs, and sync it. Raises OSError, nothing written."""
        self.chunk += 1
        self._append([{**record, "chunk": self.chunk} for record in records])

    def end(self) -> None:
        """Note that every result is written where it belongs."""
        if self.begun:
            self._append([{"end": True}])

    def _append(self, records: list[Record]) -> None:
        head = [] if self.begun else [{"run": self.settings, "chunk": self.chunk}]
        records = [*head, *self.held, *records]
        if self.file is None:
            self.file = self.path.open("ab", buffering=0)
        start = self.path.stat().st_size
        data = [encoded(record) for record in records]
        try:
            view = memoryview(b"".join(data))
            while view:
                view = view[self.file.write(view) :]
            os.fsync(self.file.fileno())
        except BaseException:
            with suppress(OSError):  # half a line is cut away by the next run, too
                os.truncate(self.path, start)
            raise
        if not self.begun:
            sync_folder(self.path.parent)
        self.begun, self.held = True, []
        own = self.files.index(self.path)
        for record, line in zip(records, data, strict=True):
            if "name" in record:
                said = record.get("error"), record.get("stamp", "")
                self.known[record["name"]] = Known(*said, own, start, record["chunk"])
            start += len(line)

    def record(self, name: str) -> Record:
        """The whole line about an input."""
        known = self.known[name]
        if known.file not in self._readers:
            self._readers[known.file] = self.files[known.file].open("rb")
        file = self._readers[known.file]
        file.seek(known.offset)
        found: Record = json.loads(file.readline())
        return found

    def close(self) -> None:
        for file in (self.file, *self._readers.values()):
            if file is not None:
                file.close()
        self.lock.release()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def refusal(path: Path, told: Account, wanted: Mapping[str, Any]) -> BatchError:
    """Why a run with the wanted settings cannot go on with a ledger of others."""
    folder, old = path.parent.parent, told.settings
    if not old:
        return BatchError(
            f"{path}: the settings of its run are lost; delete it to do its inputs again, or "
            "choose another --output"
        )
    for name in sorted({*old, *wanted}):
        was, now = old.get(name), wanted.get(name)
        if was != now:
            return BatchError(
                f"{folder}: the run there had {name} {was!r:.80}, now it is {now!r:.80}; go on "
                "with the old settings, choose another --output, or do all again with --existing "
                "overwrite"
            )
    return BatchError(f"{folder}: the run there had other settings")


def sync_folder(folder: Path) -> None:
    """Make a new file's name last through a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
