"""Pictures a second of a durable captioning run, beside transformers on the same weights.

All run in one process on the CPU, on the same picture files, taking the likeliest token, and take
turns, there and back; medians count. The loop is generate on one picture after the other, given
ids and pixels by janus_kit's own code; the pipeline is transformers' own for image-text-to-text on
batches of 8, with its processor. Ours includes the ledger, the sidecars and captions.jsonl. With
--many the resident memory of a run over that many pictures is told at its quarters.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import Theirs, medians, processor
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


class Peers:
    """transformers' two ways to captions of picture files."""

    def __init__(self, pipe: JanusPipeline, tokens: int) -> None:
        self.pipe, self.tokens = pipe, tokens
        self.model = Theirs(pipe).model
        from transformers import AutoProcessor, pipeline

        question = [Message("user", CAPTION, images=1)]
        self.ids = chat_ids(pipe.tokenizer, pipe.template, question, pipe.config.vision.tokens)
        self.text = f"<|User|>: <image_placeholder>\n{CAPTION}\n\n<|Assistant|>:"
        processor = AutoProcessor.from_pretrained(pipe.folder)
        read = processor(text=self.text, images=[Image.new("RGB", (8, 8))], return_tensors="pt")
        if read["input_ids"][0].tolist() != self.ids:
            raise SystemExit("transformers' processor asks another question")
        self.say = pipeline("image-text-to-text", model=self.model, processor=processor)

    def loop(self, paths: list[Path]) -> list[str]:
        found = []
        rows = torch.tensor([self.ids])
        tokenizer, size = self.pipe.tokenizer, self.pipe.config.vision.image_size
        for path in paths:
            written = self.model.generate(
                rows,
                attention_mask=torch.ones_like(rows),
                pixel_values=images.to_pixels(images.load(path), size)[None],
                **self._how,
            )
            row = written[0, len(self.ids) :].tolist()
            kept = row[: row.index(tokenizer.eos)] if tokenizer.eos in row else row
            found.append(tokenizer.decode(kept).strip())
        return found

    def batched(self, paths: list[Path]) -> list[str]:
        out = self.say(
            images=[[str(path)] for path in paths],
            text=[self.text] * len(paths),
            batch_size=BATCH,
            generate_kwargs=self._how,
            return_full_text=False,
        )
        return [row["generated_text"].strip() for row in out]

    @property
    def _how(self) -> dict[str, Any]:
        return {"generation_mode": "text", "do_sample": False, "max_new_tokens": self.tokens}


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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=24, help="the longest caption")
    parser.add_argument("--many", type=int, default=0, help="pictures of a run to watch memory in")
    parser.add_argument("--threads", type=int, help="threads of torch; its own choice if absent")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    pipe = JanusPipeline.from_pretrained()
    peers = Peers(pipe, args.tokens)
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make(folder / "in", args.pictures)

        def ours(number: int | None = None) -> list[str]:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                caption_folder(pipe, paths[:number], out, max_new_tokens=args.tokens)
                lines = (Path(out) / "captions.jsonl").read_text().splitlines()
            return [json.loads(line)["caption"] for line in lines]

        calls = {
            "janus-kit caption": ours,
            "a loop over generate": lambda: peers.loop(paths),
            f"transformers' pipeline in batches of {BATCH}": lambda: peers.batched(paths),
        }
        for warm in (
            lambda: ours(2),
            lambda: peers.loop(paths[:2]),
            lambda: peers.batched(paths[:2]),
        ):
            warm()

        def kept(name: str) -> None:
            found[name] = calls[name]()

        seconds = medians({name: partial(kept, name) for name in calls}, args.rounds)
    rates = {name: round(args.pictures / value, 2) for name, value in seconds.items()}
    best = rates["janus-kit caption"]
    mine = found["janus-kit caption"]
    figures: dict[str, Any] = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "pictures": args.pictures,
        "rounds": args.rounds,
        "pictures a second": rates,
        "times as fast": {name: round(best / rate, 2) for name, rate in rates.items()},
        "equal captions": {
            name: sum(a == b for a, b in zip(mine, theirs, strict=True))
            for name, theirs in found.items()
        },
    }
    if args.many:
        figures["memory"] = memory(pipe, args.many, args.tokens)
    print(json.dumps(figures, indent=1))
    if args.output:
        args.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
