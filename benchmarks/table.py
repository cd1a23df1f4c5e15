"""A table in Markdown of what `janus-kit bench` has measured, one row a file's task.

python benchmarks/table.py benchmarks/results/cpu-avx512-embedded*.json
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PEERS = ("generate", "dynamic cache", "published loop")


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """What, how held, our seconds, and how many times as fast as each peer; a row a task."""
    found = []
    for task, contenders in figures["seconds"].items():
        own = contenders["janus_kit"]["wall"]
        ratios = [f"{contenders[p]['wall'] / own:.1f}" if p in contenders else "" for p in PEERS]
        if any(ratios):
            kind = figures["quantization"] or figures["dtype"]
            found.append([figures["shape"], kind, task, f"{own:.2f} s", *ratios])
    return found


def table(files: list[Path]) -> str:
    """The lines of the table."""
    head = ["shape", "held in", "what", "janus_kit", *(f"times {peer}" for peer in PEERS)]
    lines = [head, ["---"] * len(head)]
    for file in files:
        lines += rows(json.loads(file.read_text(encoding="utf-8")))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="a table of measurements")
    parser.add_argument("files", nargs="+", type=Path, help="JSON files of janus-kit bench -o")
    print(table(parser.parse_args().files))


if __name__ == "__main__":
    main()
