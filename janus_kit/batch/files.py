"""Names that any file name survives in, and files that appear whole or not at all."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from janus_kit.errors import BatchError

__all__ = ["HIDDEN", "Scratch", "blocks", "is_full", "json_lines", "path_of", "reason", "text_of"]

HIDDEN = ".janus"  # the folder of the ledger, in the folder of the run's results
_BYTES = "bytes:"


def text_of(path: str) -> str:
    """A path as text that JSON holds: itself, or its bytes with percent signs if it is not UTF-8.

    >>> text_of("café.png"), text_of(os.fsdecode(b"bad-\\xff.png"))
    ('café.png', 'bytes:bad-%FF.png')
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return _BYTES + quote_from_bytes(os.fsencode(path))
    return _BYTES + quote_from_bytes(path.encode()) if path.startswith(_BYTES) else path


def path_of(text: str) -> str:
    """The path that text_of was given."""
    if not text.startswith(_BYTES):
        return text
    return os.fsdecode(unquote_to_bytes(text.removeprefix(_BYTES)))


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk has no room left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def reason(error: BaseException) -> str:
    """One line from an error, the system's own words where there are some."""
    known = error.strerror if isinstance(error, OSError) else None
    return " ".join(str(known or error).split())[:500] or type(error).__name__


class Scratch:
    """Where files grow before they get their names: beside the ledger, whence a rename moves them.

    Names carry the label of a shard, whose lock is held: what an earlier run left is removed.
    """

    def __init__(self, folder: Path, label: str = "") -> None:
        self.folder = folder / HIDDEN
        self.prefix = f"tmp-{label}-"
        self.numbers = count()
        for left in self.folder.glob(f"tmp-{label and label + '-'}*"):
            left.unlink(missing_ok=True)

    def write(self, target: Path, data: bytes) -> None:
        """Make target hold data: after a crash it is as before or whole."""
        with self.growing(target) as part, part.open("wb") as file:
            file.write(data)

    @contextmanager
    def growing(self, target: Path) -> Iterator[Path]:
        """A path to write to, which becomes target at the end, or goes if the work fails.

        Raises OSError as the system gives it; target is then as it was.
        """
        part = self.folder / f"{self.prefix}{next(self.numbers)}"
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            self._move(part, target)
        except FileNotFoundError as error:
            if part.exists():  # so it is the target's folder that is missing
                raise OSError(errno.ENOENT, "its folder is not there", str(target)) from error
            raise
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _move(self, part: Path, target: Path) -> None:
        """Rename; across disks, as a folder inside may be another one, by way of a copy."""
        try:
            os.replace(part, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # The name is always the same: the run that makes up for a killed one takes it over.
            near = target.with_name(f".janus-{self.prefix}copy")
            try:
                with part.open("rb") as source, near.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
                    copy.flush()
                    os.fsync(copy.fileno())
                os.replace(near, target)
            finally:
                with suppress(OSError):
                    near.unlink(missing_ok=True)


@contextmanager
def blocks(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a file that the user named into a BatchError."""
    try:
        yield
    except OSError as error:
        raise BatchError(f"{path}: cannot be read ({reason(error)}); check the path") from error
    except UnicodeDecodeError as error:
        raise BatchError(f"{path}: is not UTF-8 text; save it as UTF-8") from error


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with the numbers of their lines, from 1; empty lines are none.

    Raises BatchError, naming the line, for what is no JSON object.
    """
    with blocks(path), path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise BatchError(f"{path}: line {number} is not JSON ({error})") from error
            if not isinstance(row, dict):
                raise BatchError(f"{path}: line {number} is not a JSON object")
            yield number, row
