"""Pictures a second of a durable captioning run, beside transformers on the same weights.

All run in one process on the CPU, on the same picture files, taking the likeliest token, and take
turns, there and back. Medians count; where other work goes on, the best rounds tell more. The loop
is generate on one picture after the other, given ids and pixels by janus_kit's own code; the
pipeline is transformers' own for image-text-to-text on batches of 8, with its processor. Ours
includes the ledger, the sidecars and captions.jsonl. With --many the resident memory of a run over
that many pictures is told at its quarters; --rounds 0 does nothing else. What is not measured keeps
its place in the file of figures.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from janus_kit import JanusPipeline, caption_folder
from janus_kit.bench.machine import processor
from janus_kit.bench.peers import Theirs
from janus_kit.pipeline import CAPTION
from janus_kit.prompts import Message, chat_ids
from janus_kit.training import world
from janus_kit.vision import images

BATCH = 8


def make(folder: Path, count: int) -> list[Path]:
    """Pictures of the world that the embedded model knows; needs `janus-kit train data`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:05}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(world.compose(i)[0]).save(path)
    return paths


class Peers:
    """transformers' two ways to captions of picture files."""

    def __init__(self, pipe: JanusPipeline, tokens: int) -> None:
        self.pipe, self.tokens = pipe, tokens
        self.model = Theirs(pipe, pipe.dtype).model
        from transformers import AutoProcessor, pipeline

        question = [Message("user", CAPTION, images=1)]
        self.ids = chat_ids(pipe.tokenizer, pipe.template, question, pipe.config.vision.tokens)
        self.text = f"<|User|>: <image_placeholder>\n{CAPTION}\n\n<|Assistant|>:"
        load: Any = AutoProcessor.from_pretrained
        reader = load(pipe.folder)
        read = reader(text=self.text, images=[Image.new("RGB", (8, 8))], return_tensors="pt")
        if read["input_ids"][0].tolist() != self.ids:
            raise SystemExit("transformers' processor asks another question")
        self.say: Any = pipeline("image-text-to-text", model=self.model, processor=reader)

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


def rates(
    pictures: int, seconds: Mapping[str, list[float]], which: Callable[[list[float]], float]
) -> dict[str, dict[str, float]]:
    """Pictures a second by one round of each, and how many times as fast the first one is."""
    chosen = {name: which(values) for name, values in seconds.items()}
    first = next(iter(chosen.values()))
    return {
        name: {"a second": round(pictures / value, 2), "first is faster": round(value / first, 2)}
        for name, value in chosen.items()
    }


def resident(process: int) -> int:
    """Bytes of a process in memory; 0 where it has ended."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGESIZE")


def helpers() -> list[int]:
    """The processes that this one has started, and those that they have."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = [os.getpid()]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def memory(pipe: JanusPipeline, count: int, tokens: int) -> dict[str, Any]:
    """Resident MiB when each quarter of a run over count pictures is done, and of what decodes."""
    levels: dict[str, tuple[int, int]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, count)
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.5):
                done = sum(1 for _ in folder.glob("*.txt"))
                if done and (quarter := f"{25 * (4 * done // count)} %") not in levels:
                    levels[quarter] = resident(os.getpid()), sum(map(resident, helpers()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        outcome = caption_folder(pipe, folder, max_new_tokens=tokens)
        seconds = time.perf_counter() - start
        ended.set()
        watcher.join()
    end = resident(os.getpid())
    return {
        "pictures": count,
        "done": outcome.done,
        "seconds": round(seconds, 1),
        "resident MiB": {key: own >> 20 for key, (own, _) in levels.items()} | {"end": end >> 20},
        "resident MiB of its helpers": {key: other >> 20 for key, (_, other) in levels.items()},
    }


def about() -> dict[str, Any]:
    """What a figure depends on."""
    return {
        "command": " ".join(["python benchmarks/captions.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "device": processor(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("janus-kit", "torch", "transformers")},
    }


def throughput(pipe: JanusPipeline, pictures: int, rounds: int, tokens: int) -> dict[str, Any]:
    """Pictures a second of each, in turns, and whether all say the same."""
    peers = Peers(pipe, tokens)
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make(folder / "in", pictures)

        def ours(number: int | None = None) -> list[str]:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                caption_folder(pipe, paths[:number], out, max_new_tokens=tokens)
                lines = (Path(out) / "captions.jsonl").read_text().splitlines()
            return [json.loads(line)["caption"] for line in lines]

        calls: dict[str, Callable[[], list[str]]] = {
            "janus-kit caption": ours,
            "a loop over generate": lambda: peers.loop(paths),
            f"transformers' pipeline in batches of {BATCH}": lambda: peers.batched(paths),
        }
        ours(2)
        peers.loop(paths[:2])
        peers.batched(paths[:2])

        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(rounds):
            for name in list(calls)[:: -1 if number % 2 else 1]:
                start = time.perf_counter()
                found[name] = calls[name]()
                seconds[name].append(time.perf_counter() - start)
    mine = found["janus-kit caption"]
    words = [len(pipe.tokenizer.encode(text)) for text in mine]
    return {
        "pictures": pictures,
        "rounds": rounds,
        "tokens of a caption": round(statistics.mean(words), 1),
        "medians": rates(pictures, seconds, statistics.median),
        "best rounds": rates(pictures, seconds, min),
        "seconds": {name: [round(one, 2) for one in each] for name, each in seconds.items()},
        "equal captions": {
            name: sum(a == b for a, b in zip(mine, theirs, strict=True))
            for name, theirs in found.items()
        },
    }


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
    figures: dict[str, Any] = {}
    if args.output and args.output.is_file():
        figures = json.loads(args.output.read_text())
    if args.rounds:
        measured = throughput(pipe, args.pictures, args.rounds, args.tokens)
        figures["throughput"] = about() | measured
    if args.many:
        figures["memory"] = about() | memory(pipe, args.many, args.tokens)
    print(json.dumps(figures, indent=1))
    if args.output:
        args.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
