"""What ten million pictures take: each stage's rate is measured here, the rest is arithmetic.

Stages: decode (a core), model (the embedded one, on this CPU, in batches), and what the one writer
of a ledger does: a synced line and a synced sidecar. With --model-rate the model's rate is given,
as measured on the hardware that is to be planned for.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from captions import make

from janus_kit import JanusPipeline
from janus_kit.batch.answers import Answerer
from janus_kit.batch.files import Scratch
from janus_kit.batch.ledger import Ledger
from janus_kit.batch.loader import of_picture
from janus_kit.pipeline import CAPTION


def rates(count: int, tokens: int) -> dict[str, float]:
    """Pictures a second of each stage alone."""
    pipe = JanusPipeline.from_pretrained()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make(folder / "in", count)
        start = time.perf_counter()
        pixels = [of_picture(path, pipe.config.vision.image_size) for path in paths]
        found["decode"] = count / (time.perf_counter() - start)
        answerer = Answerer(pipe, max_new_tokens=tokens)
        start = time.perf_counter()
        for _ in answerer.run(zip(paths, pixels, strict=True), lambda path: [CAPTION]):
            pass
        found["model"] = count / (time.perf_counter() - start)
        with Ledger(folder, {}) as ledger:
            scratch = Scratch(folder)
            start = time.perf_counter()
            for path in paths:
                ledger.write([{"name": path.name, "stamp": "", "texts": {"caption": "a cat"}}])
                scratch.write(path.with_suffix(".txt"), b"a cat\n")
            found["write"] = count / (time.perf_counter() - start)
    return found


def plan(rates: dict[str, float], pictures: int, workers: int) -> dict[str, Any]:
    """Days for so many pictures by workers, with one writer (Ray) or one each (shards)."""
    worker = 1 / (1 / rates["model"] + 1 / rates["decode"])
    shards = workers / (1 / worker + 1 / rates["write"])
    ray = min(workers * worker, rates["write"])
    return {
        "workers": workers,
        "shards, days": round(pictures / shards / 86400, 2),
        "ray, days": round(pictures / ray / 86400, 2),
        "ray's limit": "the writer" if ray == rates["write"] else "the models",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="a plan of a large captioning run")
    parser.add_argument("--pictures", type=int, default=10_000_000)
    parser.add_argument("--measured", type=int, default=48, help="pictures to measure with")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--model-rate", type=float, help="pictures a second of one worker's model")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    found = rates(args.measured, args.tokens)
    found["model"] = args.model_rate or found["model"]
    plans = [plan(found, args.pictures, workers) for workers in (1, 8, 64, 512)]
    shown = {name: round(rate, 1) for name, rate in found.items()}
    print(json.dumps({"pictures a second": shown, "plans": plans}, indent=1))


if __name__ == "__main__":
    main()
