"""Print what `janus-kit train evaluate -o FILE` measured as the tables of a model card.

python benchmarks/card.py benchmarks/results/embedded-evaluate.json
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
PARTS = ("", ", names the detector sees", ", seen combinations", ", held-out combinations")
PUBLISHED = "published, Janus-Pro-7B"


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
    for part in PARTS:
        columns = [f"drawing{part}", f"ceiling{part}", f"of the ceiling{part}"]
        columns += [PUBLISHED] if not part else []
        count = found["prompts"][part[2:] or "all"]
        head = [f"{count} prompts{part}", "drawing", "true scenes", "of these", *columns[3:]]
        print("|" + "|".join(head) + "|")
        print("|---" * len(head) + "|")
        for task in (*TASKS, "overall"):
            if task in found[columns[0]]:
                cells = (cell(found[name].get(task)) for name in columns)
                print("|" + "|".join([task, *cells]) + "|")
        print()
    tokenizer = found["tokenizer"]
    print("| understanding of held-out scenes | |\n|---|---|")
    for kind, value in found["answers"].items():
        print(f"| answers word for word, {kind} | {cell(value)} of {value['of']} |")
    for section in ("captions", "details", "told back"):
        facts = ", ".join(f"{k} {cell(v)}" for k, v in found[section].items())
        print(f"| {section}: facts | {facts} |")
    for name, section in found.items():
        if name.startswith("foreign"):
            print(f"| {name} | {cell(section['names right'])} of {section['names right']['of']} |")
    near = ["{mean} ({low} to {high})".format(**tokenizer[name]) for name in ("psnr", "ssim")]
    print(f"| tokenizer there and back | {near[0]} dB, SSIM {near[1]} |")
    for name in ("things found before", "of these, found again"):
        print(f"| tokenizer, {name} | {cell(tokenizer[name])} of {tokenizer[name]['of']} |")
    for where, used in ((f"{found['scenes']} scenes", tokenizer), ("drawings", found)):
        codes = used["codes used"]
        pictures = codes.get("pictures")
        where = f"{pictures} {where}" if pictures else where
        print(f"| codes used in {where} | {codes['right']} of {codes['of']} |")
    for name in ("picture", "caption"):
        cost = found.get("cost", {}).get(name)
        if cost:
            ratio = "{ratio} times as fast ({low} to {high} in single rounds)".format(**cost)
            print(f"| a {name}, beside transformers' generate | {ratio} |")
    print(f"| to load | {found['seconds to load']} s |")
    print(f"| size | {found['megabytes']} MB |")


if __name__ == "__main__":
    main()
