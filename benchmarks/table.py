"""A table in Markdown of what `janus-kit bench` has measured, one row a file's task.

python benchmarks/table.py                                      # that of the README
python benchmarks/table.py benchmarks/results/gpu-*.json
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PEERS = ("generate", "dynamic cache", "published loop")
ROW = 24  # codes
RESULTS = Path(__file__).parent / "results"
README = [
    RESULTS / f"cpu-avx512-{name}.json"
    for name in (
        "embedded",
        "embedded-compiled",
        "embedded-bfloat16",
        "embedded-int8",
        "embedded-4",
        "embedded-16",
        "embedded-64",
        "embedded-captions-32",
        "1b-bfloat16",
        "1b-compiled",
        "1b-int8",
        "1b-int4",
        "1b-bfloat16-4",
        "1b-bfloat16-16",
        "1b-bfloat16-64",
        "1b-captions-bfloat16",
        "1b-captions-int8",
        "1b-captions-32",
    )
]


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """What is held how, and how many times as fast as each peer it was done; a row a task.

    Seconds of our own are told of a GPU alone: those of a CPU depend on what else it does.
    """
    found = []
    for task, contenders in figures["seconds"].items():
        if task.endswith(" codes") and int(task.split()[-2]) < ROW:
            continue  # drawn because something must be: the prompt is most of it
        lengths = figures["agreement"].get(task, {})
        if lengths.get("ours", lengths.get("of")) != lengths.get("of"):
            continue  # captions of unequal length, by weights held otherwise
        own = contenders["janus_kit"]["wall"]
        ratios = [f"{contenders[p]['wall'] / own:.1f}" if p in contenders else "" for p in PEERS]
        if any(ratios):
            kind = figures["quantization"] or figures["dtype"]
            seconds = "" if "cores" in figures["device"] else f"{own:.3g} s"
            found.append([figures["shape"], kind, task, *ratios, seconds])
    return found


def table(files: list[Path]) -> str:
    """The lines of the table."""
    found = [row for file in files for row in rows(json.loads(file.read_text(encoding="utf-8")))]
    head = ["shape", "held in", "what", *(f"times {peer}" for peer in PEERS), "janus_kit"]
    if not any(row[-1] for row in found):
        head, found = head[:-1], [row[:-1] for row in found]
    lines = [head, ["---"] * len(head), *found]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="a table of measurements")
    parser.add_argument("files", nargs="*", type=Path, help="JSON files of janus-kit bench -o")
    print(table(parser.parse_args().files or README))


if __name__ == "__main__":
    main()
