"""How long a published shape's weights take to load, and the memory for it, beside transformers.

python benchmarks/loading.py --shape janus-pro-7b -o benchmarks/results/cpu-7b-load.json
Writes the shape with random weights once (4 or 15 GB). `janus-kit bench --load` does the same for
models that fit the memory in float32.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import torch

from janus_kit.bench.machine import asked as command
from janus_kit.bench.machine import loads, processor
from janus_kit.bench.shapes import folder_of
from janus_kit.loading import version


def main() -> None:
    parser = argparse.ArgumentParser(description="seconds and memory of loading")
    parser.add_argument("--shape", default="janus-pro-7b")
    parser.add_argument("--folder", type=Path, default=Path("runs/shapes"), help="random weights")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--quantization", help="int8 or int4; the dtype if absent")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, help="a JSON file for the figures")
    asked = parser.parse_args()
    folder = str(folder_of(asked.shape, asked.folder))
    found = [
        loads(folder, asked.dtype, asked.quantization, asked.device) for _ in range(asked.rounds)
    ]
    given = {
        "command": command(),
        "shape": asked.shape,
        "dtype": asked.dtype,
        "quantization": asked.quantization,
        "device": processor(torch.device(asked.device)),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"torch": torch.__version__, "janus_kit": version()},
    }
    text = json.dumps({**given, "rounds": found}, indent=1)
    print(text)
    if asked.output is not None:
        asked.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
