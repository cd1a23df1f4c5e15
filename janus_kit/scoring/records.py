"""The files between the stages of a run: whole or not there, found again by what they hold.

A stage works block by block. A block's rows go into a file that is named by a digest of all that
they depend on, so a run that was killed finds what is done, another setting or another picture
finds nothing, and shards write into one folder without knowing of each other.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from janus_kit.batch.ledger import Shard
from janus_kit.errors import ScoringError

__all__ = [
    "blocks",
    "digest",
    "kept",
    "pack",
    "read_rows",
    "share",
    "to_json",
    "unpack",
    "weights_version",
    "write_rows",
    "write_whole",
]

T = TypeVar("T")
Row = dict[str, Any]


def blocks(things: Sequence[T], size: int) -> list[list[T]]:
    """The things, size together; the last block may be shorter."""
    return [list(things[start : start + size]) for start in range(0, len(things), size)]


def share(parts: Sequence[T], shard: Shard | None) -> list[T]:
    """The parts that are a shard's: every so many-th; all of them for None."""
    return list(parts if shard is None else parts[shard.index :: shard.count])


def kept(
    folder: Path, key: Mapping[str, Any], make: Callable[[], list[Row]], count: int | None = None
) -> list[Row]:
    """The rows of a block: read where they were made before by the same key, else made and kept.

    count: how many there are; a file that has another number, or is none of ours, is made again.
    """
    name = hashlib.sha256(to_json(key).encode()).hexdigest()[:24]
    path = folder / f"{name}.jsonl"
    if path.is_file():
        try:
            rows = read_rows(path)
        except ScoringError:
            rows = None
        if rows is not None and count in (None, len(rows)):
            return rows
    write_rows(path, make())
    return read_rows(path)  # a resumed run and this one see the same numbers


def digest(path: Path) -> str:
    """A file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_version(name: str, config: Any) -> str:
    """What tells the weights of a model of transformers from others of the name.

    The commit of a hub id, or ten digits of a digest of a folder's weights.
    """
    if not Path(name).is_dir():
        return str(getattr(config, "_commit_hash", None) or "")
    files = sorted(Path(name).glob("*.safetensors")) or sorted(Path(name).glob("*.bin"))
    return hashlib.sha256("".join(map(digest, files)).encode()).hexdigest()[:10]


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data.encode() if isinstance(data, str) else data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as lines of JSON."""
    write_whole(path, "".join(to_json(row) + "\n" for row in rows))


def read_rows(path: Path) -> list[Row]:
    """Rows that write_rows wrote; raises ScoringError where the file is another."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise ScoringError(f"{path}: cannot be read as lines of JSON ({error})") from error
    if not all(isinstance(row, dict) for row in rows):
        raise ScoringError(f"{path}: has a line that is no JSON object; delete the file")
    return rows


def to_json(value: object) -> str:
    """JSON with the keys in their order, in ASCII."""
    return json.dumps(value, allow_nan=False)


def pack(mask: npt.NDArray[np.bool_]) -> list[int]:
    """A mask [h, w] as run lengths, line by line, the first of them outside."""
    flat = np.concatenate([[False], mask.ravel(), [not mask.ravel()[-1]]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(run) for run in np.diff(ends, prepend=0)]


def unpack(runs: Sequence[int], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask [h, w] of run lengths."""
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(shape)
