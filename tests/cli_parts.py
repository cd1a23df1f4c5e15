"""What tests of the batch commands share: programs of their own, and folders to caption."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from batch_parts import picture
from conftest import Ended

SHORT = ("--max-new-tokens", "6", "--temperature", "0.5")

# A test run in the background of a shell hands down an ignored SIGINT.
START = (
    "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from janus_kit.cli import main; main()"
)


def start(*arguments: object, hook: str = "", **options: Any) -> "subprocess.Popen[str]":
    """A command in a process of its own, in which hook has run before."""
    return subprocess.Popen(
        [sys.executable, "-c", hook + START, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(*arguments: object) -> Ended:
    with start(*arguments) as process:
        out, err = process.communicate()
    return Ended(process.returncode, out, err)


def lines(folder: Path) -> int:
    """How many inputs the ledgers of a folder tell of."""
    found = (path.read_bytes() for path in (folder / ".janus").glob("run*.jsonl"))
    return sum(data.count(b'"name"') for data in found)


def wait(folder: Path, count: int, process: "subprocess.Popen[str]") -> None:
    """Wait until the ledger has grown to count inputs, or the process has ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None and lines(folder) < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def make(folder: Path, count: int, broken: int = 20) -> Path:
    """A folder of small pictures, of which every broken-th is cut short."""
    folder.mkdir(parents=True)
    picture(folder / "0000.png", 0)
    for i in range(1, count):
        picture(folder / f"{i:04}.png", i)
        if i % broken == broken - 1:
            data = (folder / f"{i:04}.png").read_bytes()
            (folder / f"{i:04}.png").write_bytes(data[: len(data) // 2])
    return folder


def descendants(process: int) -> list[int]:
    """The processes that a process has started, and those that they have, as /proc tells."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def title(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def gone(family: list[int], word: str, seconds: float) -> bool:
    """Whether the processes of a family whose titles hold a word end within some time."""
    deadline = time.monotonic() + seconds
    while any(title(p) and word in title(p) for p in family):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True
