"""What tests of the batch commands share: programs of their own, and folders to caption."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from batch_parts import picture
from conftest import Ended

SHORT = ("--max-new-tokens", "6", "--temperature", "0.5")

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
