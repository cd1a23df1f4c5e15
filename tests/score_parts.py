"""What tests of janus-kit score share: commands, and what a run has left."""

import json
from pathlib import Path
from typing import Any

GENEVAL = ("score", "geneval", "--detector", "sees:Sees", "--colors", "pixels", "--quiet")
SMALL = (*GENEVAL, "--tasks", "colors,position", "--samples", 2, "--limit", 3)
MORE = (*GENEVAL, "--tasks", "colors,position", "--samples", 2, "--limit", 5)


def summary(folder: str) -> dict[str, Any]:
    """A summary without what differs from run to run."""
    found: dict[str, Any] = json.loads(Path(folder, "summary.json").read_text())
    assert found.pop("run").keys() == {"date", "speed"}
    return found


def results(folder: str) -> bytes:
    return Path(folder, "results.jsonl").read_bytes()


def pictures(folder: str) -> dict[str, bytes]:
    root = Path(folder, "images")
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.png"))}
