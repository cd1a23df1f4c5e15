"""The ledger of a run: what has become of every input, one line of JSON each, only appended to.

A line is written and synced before the work counts as done, so a run that is killed goes on from
its ledger. A line that a crash cut short is cut away; of two lines about one input the last counts.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from janus_kit.batch.files import HIDDEN
from janus_kit.errors import BatchError

__all__ = [
    "Busy",
    "Ledger",
    "Lock",
    "Record",
    "Shard",
    "difference",
    "ledgers",
    "lines",
    "parse",
    "sync_folder",
]

Record = dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """One of count parts of the inputs. The name of an input says which part it belongs to."""

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


class Busy(BatchError):
    """Another run is at work in the folder."""


class Lock:
    """A folder's run. One run has all of it, or each shard's run its part; a crash frees both."""

    def __init__(self, folder: Path, label: str = "") -> None:
        """Raises Busy when another run holds it."""
        self.files: list[BinaryIO] = []
        wanted = [("lock", fcntl.LOCK_SH if label else fcntl.LOCK_EX)]
        wanted += [(f"lock-{label}", fcntl.LOCK_EX)] if label else []
        for name, kind in wanted:
            file = (folder / HIDDEN / name).open("a+b")
            self.files.append(file)
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                who = file.read(40).decode("ascii", "replace").strip() or "of a shard"
                self.release()
                raise Busy(
                    f"{folder}: another run ({who}) is at work there; wait for it, or choose "
                    "another folder with --output"
                ) from error
            if kind == fcntl.LOCK_EX:
                file.truncate(0)
                file.write(f"process {os.getpid()}".encode())
                file.flush()

    def release(self) -> None:
        for file in self.files:
            file.close()
        self.files = []


class Known(NamedTuple):
    """What the ledger says of an input; its whole line lies at offset of a file."""

    done: bool
    stamp: str
    file: int
    offset: int


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


class Ledger:
    """The open ledger of a run or of one of its shards; the lock of its folder is held."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        shard: Shard | None = None,
        *,
        restart: bool = False,
    ) -> None:
        """Open or begin the ledger of a folder for a run with these settings.

        restart: what was done with other settings is done again; else that is a BatchError.
        """
        self.folder = folder
        self.label = (shard or Shard()).label
        (folder / HIDDEN).mkdir(parents=True, exist_ok=True)
        self.lock = Lock(folder, self.label)
        try:
            self.path = folder / HIDDEN / f"run{self.label and '-'}{self.label}.jsonl"
            self.known: dict[str, Known] = {}
            self.chunk = 0
            self.loose: list[Record] = []  # of the last chunk: their results may not be written
            self.files = [*dict.fromkeys([*ledgers(folder), self.path])]
            self._readers: dict[int, BinaryIO] = {}
            wanted = json.loads(json.dumps(dict(settings)))
            read = [self._read(i, wanted, restart) for i in range(len(self.files))]
            self.file = self.path.open("ab", buffering=0)
            if not all(read) or not self.path.stat().st_size:
                self._append([{"run": wanted}])
                sync_folder(self.path.parent)
        except BaseException:
            self.lock.release()
            raise

    def _read(self, index: int, wanted: Record, restart: bool) -> bool:
        """Take in one ledger; False where its last run had other settings."""
        path = self.files[index]
        own = path == self.path
        header = wanted
        known: dict[str, Known] = {}
        chunk, loose = 0, list[Record]()
        if not path.exists():
            return True
        for offset, record in lines(path, mend=own):
            if "run" in record:  # all that was done before is to be done again
                header, known, loose = record["run"], {}, []
            elif "name" in record:
                done = record.get("error") is None
                known[record["name"]] = Known(done, record.get("stamp", ""), index, offset)
                loose = [*loose, record] if record["chunk"] == chunk else [record]
                chunk = record["chunk"]
            elif "end" in record:
                loose = []
        if own:
            self.chunk = chunk
        if header != wanted:
            if not restart:
                raise BatchError(f"{self.folder}: {difference(header, wanted)}")
            return not own
        for name, found in known.items():
            before = self.known.get(name)
            if before is None or found.done or not before.done:
                self.known[name] = found
        if own or not self.label:  # another shard's run may be about to write its own
            self.loose += loose
        return True

    def state(self, name: str, stamp: str) -> str:
        """done, failed or pending; an input that has changed since is pending."""
        known = self.known.get(name)
        if known is None or known.stamp != stamp:
            return "pending"
        return "done" if known.done else "failed"

    def expect(self, inputs: int) -> None:
        """Note how many inputs this run has, for those who ask how it stands."""
        self._append([{"inputs": inputs}])

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append what has become of some inputs, and sync it. Raises OSError, nothing written."""
        self.chunk += 1
        self._append([{**record, "chunk": self.chunk} for record in records])

    def end(self) -> None:
        """Note that every result is written where it belongs."""
        self._append([{"end": True}])

    def _append(self, records: list[Record]) -> None:
        start = self.path.stat().st_size
        data, places = b"", []
        for record in records:
            places.append((record, start + len(data)))
            data += json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace")
            data += b"\n"
        try:
            view = memoryview(data)
            while view:
                view = view[self.file.write(view) :]
            os.fsync(self.file.fileno())
        except BaseException:
            with suppress(OSError):  # half a line is cut away by the next run, too
                os.truncate(self.path, start)
            raise
        own = self.files.index(self.path)
        for record, offset in places:
            if "name" in record:
                done = record.get("error") is None
                self.known[record["name"]] = Known(done, record.get("stamp", ""), own, offset)

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
            file.close()
        self.lock.release()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What is not as it was, for people."""
    for name in sorted({*old, *new}):
        was, now = old.get(name), new.get(name)
        if was != now:
            return (
                f"the run there had {name} {was!r:.80}, now it is {now!r:.80}; go on with the old "
                "settings, choose another --output, or do all again with --existing overwrite"
            )
    return "the run there had other settings"


def sync_folder(folder: Path) -> None:
    """Make a new file's name last through a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
