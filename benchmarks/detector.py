"""What a detector makes of the picture bank: each of its cut-outs alone, on grey.

Told are the share that it names right above its threshold, by the kind of source, and the names of
which it knows no cut-out. Needs the bank of `janus-kit train data` and the detector of
`janus-kit score fetch efficientdet`.
"""

import argparse
import json
from collections import defaultdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from janus_kit.scoring.detectors import open_detector
from janus_kit.training.bank.make import bank_path
from janus_kit.training.bank.pack import Bank

SIDE, THING = 384, 288  # pixels of the picture and of the thing's longer side
GREY = (160, 160, 160)


def on_grey(pixels: np.ndarray) -> Image.Image:
    """A cut-out uint8 [h, w, 4] in the middle of a grey picture."""
    thing = Image.fromarray(pixels)
    scale = THING / max(thing.size)
    thing = thing.resize([max(1, round(n * scale)) for n in thing.size], Image.Resampling.LANCZOS)
    picture = Image.new("RGB", (SIDE, SIDE), GREY)
    picture.paste(thing, ((SIDE - thing.width) // 2, (SIDE - thing.height) // 2), thing)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="Look at every n-th cut-out.")
    parser.add_argument("--detector", default="efficientdet")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    detector, bank = open_detector(given.detector), Bank(bank_path())
    looked = bank.sprites[:: given.every]
    by_name: dict[str, list[bool]] = defaultdict(list)
    by_source: dict[str, list[bool]] = defaultdict(list)
    for sprite in looked:
        (found,) = detector.detect([on_grey(bank.pixels(sprite))])
        known = any(d.label == sprite.name and d.score > detector.facts.threshold for d in found)
        by_name[sprite.name].append(known)
        by_source[sprite.source].append(known)

    def share(rows: list[bool]) -> float:
        return round(float(np.mean(rows)), 4)

    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "janus_kit": version("janus-kit"),
        "bank": bank_path().name,
        "detector": detector.facts.name,
        "threshold": detector.facts.threshold,
        "cut-outs": len(looked),
        "named right": share([known for rows in by_name.values() for known in rows]),
        "by source": {name: share(rows) for name, rows in sorted(by_source.items())},
        "never named": sorted(name for name, rows in by_name.items() if not any(rows)),
        "by name": {name: share(rows) for name, rows in sorted(by_name.items())},
    }
    print(json.dumps(result, indent=1))
    if given.output:
        given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
