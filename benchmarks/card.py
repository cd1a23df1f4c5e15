"""Print what `janus-kit train evaluate -o FILE` measured as the tables of a model card.

python benchmarks/card.py benchmarks/results/embedded-evaluate.json
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLUMNS = (
    "drawing",
    "ceiling",
    "drawing, names the detector sees",
    "ceiling, names the detector sees",
    "drawing, seen combinations",
    "drawing, held-out combinations",
    "published, Janus-Pro-7B",
)


def cell(value: Any) -> str:
    """A share with its interval, or a bare one, in per cent."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        parts = (value["share"], value["low"], value["high"])
        return "{} % ({} to {})".format(*(round(100 * part) for part in parts))
    return f"{round(100 * value)} %"


def main() -> None:
    found = json.loads(Path(sys.argv[1]).read_text())
    columns = [name for name in COLUMNS if name in found]
    print("|" + "|".join(["", *columns]) + "|")
    print("|---" * (len(columns) + 1) + "|")
    for task in (*TASKS, "overall"):
        print("|" + "|".join([task, *(cell(found[name].get(task)) for name in columns)]) + "|")
    tokenizer = found["tokenizer"]
    print("\n| understanding of held-out scenes | |\n|---|---|")
    for kind, value in found["answers"].items():
        print(f"| answers word for word, {kind} | {cell(value)} of {value['of']} |")
    for section in ("captions", "details", "told back"):
        facts = ", ".join(f"{k} {cell(v)}" for k, v in found[section].items())
        print(f"| {section}: facts | {facts} |")
    for name, section in found.items():
        if name.startswith("foreign"):
            print(f"| {name} | {cell(section['names right'])} of {section['names right']['of']} |")
    print(f"| tokenizer there and back | {tokenizer['psnr']} dB, SSIM {tokenizer['ssim']} |")
    for name in ("codes used", "things found before", "of these, found again"):
        print(f"| tokenizer, {name} | {cell(tokenizer[name])} of {tokenizer[name]['of']} |")
    for name in ("picture", "caption"):
        cost = found.get("cost", {}).get(name)
        if cost:
            print(f"| a {name}, beside transformers' generate | {cost['ratio']} times as fast |")
    print(f"| size | {found['megabytes']} MB |")


if __name__ == "__main__":
    main()
