"""Who is at work in a folder: one run, or runs of its shards; and who only sums up or tidies."""

import fcntl
import logging
import os
import time
from pathlib import Path
from typing import BinaryIO

from janus_kit.batch.files import HIDDEN
from janus_kit.errors import BatchError

__all__ = ["Busy", "Lock", "running"]

PATIENCE = 0.3  # seconds to try for a lock, which one who only looks has for a moment
SOON = ", soon done"  # behind the name of a process that only sums up or tidies

log = logging.getLogger(__name__)


class Busy(BatchError):
    """Another run is at work in the folder."""


class Lock:
    """A folder's run. One run has all of it, or each shard's run its part; a crash frees both."""

    def __init__(self, folder: Path, label: str = "", *, brief: bool = False) -> None:
        """Raises Busy when another run holds it; but who holds it briefly is waited for.

        brief: to sum up or to tidy, which a run waits for. Such a one waits for nobody.
        """
        self.files: list[BinaryIO] = []
        wanted = [("lock", fcntl.LOCK_SH if label else fcntl.LOCK_EX)]
        wanted += [(f"lock-{label}", fcntl.LOCK_EX)] if label else []
        deadline, told = time.monotonic() + PATIENCE, False
        for name, kind in wanted:
            file = (folder / HIDDEN / name).open("a+b", buffering=0)
            self.files.append(file)
            while (who := _holder(file, kind)) is not None:
                if who.endswith(SOON) and not brief:
                    if not told:
                        log.warning("%s: waiting for %s", folder, who)
                    # Whoever comes after it has not yet written its name for a moment.
                    told, deadline = True, time.monotonic() + PATIENCE
                elif time.monotonic() > deadline:
                    self.release()
                    raise Busy(
                        f"{folder}: another run ({who or 'of a shard'}) is at work there; wait "
                        "for it, or choose another folder with --output"
                    )
                time.sleep(0.02)
            file.truncate(0)  # whoever is named there is gone
            if kind == fcntl.LOCK_EX:
                file.write(f"process {os.getpid()}{SOON if brief else ''}".encode())

    def release(self) -> None:
        for file in self.files:
            file.close()
        self.files = []


def _holder(file: BinaryIO, kind: int) -> str | None:
    """None once the file is locked; else who holds it, as far as it says."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(file.fileno(), 60, 0).decode("ascii", "replace").strip()
    return None


def running(folder: Path) -> bool:
    """Whether a run is at work in a folder."""
    for path in (folder / HIDDEN).glob("lock*"):
        with path.open("rb") as file:
            if _holder(file, fcntl.LOCK_SH) is not None:  # a shard holds its own file alone
                return True
    return False
