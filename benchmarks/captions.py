"""Pictures a second of a durable captioning run, beside loops over transformers' generate.

All three run in one process on the CPU, on the same weights and pictures, taking the likeliest
token. transformers is given ids and pixels by janus_kit's own code; "batched" is generate on
batches of 8, which is what its pipelines do. With --many the resident memory of a run over that
many pictures is told at its quarters.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import Theirs, processor
from PIL import Image

from janus_kit import JanusPipeline, caption_folder
from janus_kit.pipeline import CAPTION
from janus_kit.prompts import Message, chat_ids
from janus_kit.vision import images

BATCH = 8


def make(folder: Path, count: int) -> list[Path]:
    """Pictures of one coloured thing on another colour."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(count):
        picture = np.empty((384, 384, 3), dtype=np.uint8)
        picture[:] = draw.integers(0, 256, 3)
        x, y, side = draw.integers(0, 200), draw.integers(0, 200), draw.integers(40, 180)
        picture[y : y + side, x : x + side] = draw.integers(0, 256, 3)
        paths.append(folder / f"{i:05}.png")
        Image.fromarray(picture).save(paths[-1])
    return paths


def theirs(pipe: JanusPipeline, other: Theirs, paths: list[Path], size: int, tokens: int) -> Any:
    """The captions of transformers' generate, size pictures at once."""
    question = [Message("user", CAPTION, images=1)]
    ids = chat_ids(pipe.tokenizer, pipe.template, question, pipe.config.vision.tokens)
    found = []
    for start in range(0, len(paths), size):
        part = paths[start : start + size]
        pixels = [
            images.to_pixels(images.load(path), pipe.config.vision.image_size) for path in part
        ]
        rows = torch.tensor([ids] * len(part))
        written = other.model.generate(
            rows,
            attention_mask=torch.ones_like(rows),
            pixel_values=torch.stack(pixels),
            generation_mode="text",
            do_sample=False,
            max_new_tokens=tokens,
        )
        for row in written[:, len(ids) :].tolist():
            kept = row[: row.index(pipe.tokenizer.eos)] if pipe.tokenizer.eos in row else row
            found.append(pipe.tokenizer.decode(kept).strip())
    return found


def resident() -> float:
    """MiB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def memory(pipe: JanusPipeline, count: int, tokens: int) -> dict[str, Any]:
    """Resident MiB when each quarter of a run over count pictures is done."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, count)
        levels: dict[int, float] = {}
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.2):
                done = sum(1 for _ in folder.glob("*.txt"))
                levels.setdefault(4 * done // count, resident())

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        caption_folder(pipe, folder, max_new_tokens=tokens)
        seconds = time.perf_counter() - start
        ended.set()
        watcher.join()
    quarters = {f"{25 * quarter} %": round(level) for quarter, level in sorted(levels.items())}
    return {"pictures": count, "seconds": round(seconds, 1), "resident MiB": quarters}


def main() -> None:
    parser = argparse.ArgumentParser(description="durable captioning against loops, on the CPU")
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=24, help="the longest caption")
    parser.add_argument("--many", type=int, default=0, help="pictures of a run to watch memory in")
    parser.add_argument("--threads", type=int, help="threads of torch; its own choice if absent")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    pipe = JanusPipeline.from_pretrained()
    other = Theirs(pipe)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make(folder / "in", args.pictures)
        caption_folder(pipe, paths[:2], folder / "warm", max_new_tokens=args.tokens)
        theirs(pipe, other, paths[:2], 1, args.tokens)
        seconds: dict[str, float] = {}
        start = time.perf_counter()
        caption_folder(pipe, folder / "in", folder / "out", max_new_tokens=args.tokens)
        seconds["janus-kit caption"] = time.perf_counter() - start
        start = time.perf_counter()
        loop = theirs(pipe, other, paths, 1, args.tokens)
        seconds["a loop over generate"] = time.perf_counter() - start
        start = time.perf_counter()
        theirs(pipe, other, paths, BATCH, args.tokens)
        seconds["generate in batches of 8"] = time.perf_counter() - start
        lines = (folder / "out" / "captions.jsonl").read_text().splitlines()
        ours = [json.loads(line)["caption"] for line in lines]
    rates = {name: round(args.pictures / value, 2) for name, value in seconds.items()}
    best = rates["janus-kit caption"]
    figures: dict[str, Any] = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "pictures": args.pictures,
        "pictures a second": rates,
        "times as fast": {name: round(best / rate, 2) for name, rate in rates.items()},
        "equal captions": sum(a == b for a, b in zip(ours, loop, strict=True)),
    }
    if args.many:
        figures["memory"] = memory(pipe, args.many, args.tokens)
    print(json.dumps(figures, indent=1))
    if args.output:
        args.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
