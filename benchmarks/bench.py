"""Seconds for a picture and a caption, here and in transformers, on the same weights: make bench.

All contenders run in one process on the CPU and take turns, there and back, so that a machine that
slows down slows all of them; medians count. All take the likeliest code or token, so they must
agree: where they do not, that is printed and the exit code is 1. The time of a picture includes
the decoding of its codes. transformers is given ids and pixels; janus_kit's times include making
them. Half of the caption's work and more is reading the picture, the same products of matrices in
both; the answer of 100 tokens, in which the end is not allowed, shows the writing.
"""

import argparse
import inspect
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from janus_kit import JanusPipeline
from janus_kit.engine import write_text
from janus_kit.generation.sampling import SamplingOptions
from janus_kit.pipeline import CAPTION
from janus_kit.prompts import Message, chat_ids, drawing_ids
from janus_kit.vision import images

PROMPT = "a red apple left of a blue car"
GUIDANCE = 5.0
LONG = 100  # tokens
RESULTS = Path(__file__).parent / "results"


class Ours:
    """janus_kit as its users call it."""

    def __init__(self, pipe: JanusPipeline) -> None:
        self.pipe = pipe

    def draw(self) -> tuple[list[int], Image.Image]:
        out = self.pipe(PROMPT, guidance_scale=GUIDANCE, temperature=0, seed=0)
        return out.codes[0].tolist(), out.images[0]

    def caption(self, image: Image.Image, tokens: int) -> str:
        return self.pipe.caption(image, max_new_tokens=tokens)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def caption_ids(
        self, ids: list[int], pixels: torch.Tensor, tokens: int, *, end: bool = True
    ) -> list[int]:
        """The ids behind caption, which itself gives text only; end: whether one is looked for."""
        model, tokenizer = self.pipe.model, self.pipe.tokenizer
        steps = write_text(
            model,
            [ids],
            list(model.features(pixels)),
            pad=tokenizer.pad,
            eos=tokenizer.eos if end else -1,
            image=tokenizer.image,
            noise=torch.zeros(1, tokens, dtype=torch.float64),
            options=SamplingOptions(guidance=1, temperature=0),
        )
        return [int(step) for step in steps]


class Theirs:
    """transformers' generate, given ids and pixels that are ready."""

    def __init__(self, pipe: JanusPipeline) -> None:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        from transformers import JanusForConditionalGeneration

        tokenizer = pipe.tokenizer
        self.drawing = torch.tensor([drawing_ids(tokenizer, pipe.template, PROMPT)])
        model: Any = JanusForConditionalGeneration.from_pretrained(pipe.folder, dtype=torch.float32)
        self.model = model.eval()
        # As our own folders state them; not every published folder does.
        settings = self.model.generation_config
        settings.bos_token_id, settings.eos_token_id = tokenizer.bos, tokenizer.eos
        settings.pad_token_id = tokenizer.pad
        settings.guidance_scale = GUIDANCE
        settings.generation_kwargs = {"boi_token_id": tokenizer.begin_image}

    def draw(self, **cache: Any) -> tuple[list[int], Image.Image]:
        codes = self.model.generate(
            self.drawing,
            attention_mask=torch.ones_like(self.drawing),
            generation_mode="image",
            do_sample=False,
            **cache,
        )
        with torch.inference_mode():
            pixels = self.model.decode_image_tokens(codes).permute(0, 3, 1, 2)
        return codes[0].tolist(), images.to_pil(pixels)[0]

    def draw_dynamic(self) -> tuple[list[int], Image.Image]:
        """With a cache that grows: faster on a CPU than the static one that it takes by itself."""
        from transformers import DynamicCache

        # transformers 5.24 has renamed the argument.
        names = inspect.signature(self.model.forward).parameters
        name = "cache" if "cache" in names else "past_key_values"
        return self.draw(**{name: DynamicCache()})

    def caption_ids(
        self, ids: list[int], pixels: torch.Tensor, tokens: int, *, end: bool = True
    ) -> list[int]:
        rows = torch.tensor([ids])
        found = self.model.generate(
            rows,
            attention_mask=torch.ones_like(rows),
            pixel_values=pixels,
            generation_mode="text",
            do_sample=False,
            max_new_tokens=tokens,
            min_new_tokens=0 if end else tokens,
        )
        return found[0, len(ids) :].tolist()  # type: ignore[no-any-return]


def medians(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each call; every second round runs backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            start = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: round(statistics.median(values), 4) for name, values in seconds.items()}


def agreement(ours: Sequence[int], theirs: Sequence[int]) -> dict[str, Any]:
    """Whether two sequences are equal, and else where they part."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    shorter = min(len(ours), len(theirs))
    parts = next((place for place, (a, b) in pairs if a != b), shorter)
    return {"equal": list(ours) == list(theirs), "same": parts, "of": len(theirs)}


def processor() -> str:
    """The CPU's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = named[0] if named else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def measure(pipe: JanusPipeline, rounds: int, tokens: int) -> tuple[list[Any], dict[str, Any]]:
    """Rows (task, our seconds, theirs) and what agrees; the first calls are compared."""
    ours, theirs = Ours(pipe), Theirs(pipe)
    codes, picture = ours.draw()
    same = {
        "codes": agreement(codes, theirs.draw()[0]),
        "codes, dynamic cache": agreement(codes, theirs.draw_dynamic()[0]),
    }
    drawn = medians(
        {"ours": ours.draw, "static": theirs.draw, "dynamic": theirs.draw_dynamic}, rounds
    )
    question = [Message("user", CAPTION, images=1)]
    ids = chat_ids(pipe.tokenizer, pipe.template, question, pipe.config.vision.tokens)
    pixels = images.to_pixels(picture, pipe.config.vision.image_size)[None]
    written = theirs.caption_ids(ids, pixels, tokens)
    same["caption ids"] = agreement(ours.caption_ids(ids, pixels, tokens), written)
    text = ours.caption(picture, tokens)
    expected = pipe.tokenizer.decode(written).strip()
    same["caption text"] = agreement(text.encode(), expected.encode())
    told = medians(
        {
            "ours": lambda: ours.caption(picture, tokens),
            "theirs": lambda: theirs.caption_ids(ids, pixels, tokens),
            "ours, long": lambda: ours.caption_ids(ids, pixels, LONG, end=False),
            "theirs, long": lambda: theirs.caption_ids(ids, pixels, LONG, end=False),
        },
        rounds,
    )
    rows = [
        (f"picture, {len(codes)} codes", drawn["ours"], drawn["static"]),
        ("  its dynamic cache", drawn["ours"], drawn["dynamic"]),
        (f"caption, {len(written)} tokens", told["ours"], told["theirs"]),
        (f"answer, {LONG} tokens", told["ours, long"], told["theirs, long"]),
    ]
    return rows, same


def show(rows: Sequence[tuple[str, float, float]], same: Mapping[str, Any]) -> None:
    """The tables of ratios and of what agrees."""
    print(f"{'seconds, median':<24}{'janus_kit':>12}{'transformers':>14}{'ratio':>8}")
    for task, ours, theirs in rows:
        print(f"{task:<24}{ours:>12.3f}{theirs:>14.3f}{theirs / ours:>8.2f}")
    for what, found in same.items():
        verdict = "equal" if found["equal"] else "NOT EQUAL"
        print(f"{what + ':':<24}{verdict}, {found['same']} of {found['of']}")


def main() -> int:
    parser = argparse.ArgumentParser(description="janus_kit against transformers, on the CPU")
    parser.add_argument("--model", type=Path, help="a model's folder; the embedded model if absent")
    parser.add_argument("--threads", type=int, help="threads of torch; its own choice if absent")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=24, help="the longest caption")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    pipe = JanusPipeline.from_pretrained(args.model, device="cpu", dtype="float32")
    pipe.set_progress_bar_config(disable=True)
    rows, same = measure(pipe, args.rounds, args.tokens)
    show(rows, same)
    result = {
        "command": " ".join(["python benchmarks/bench.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "device": processor(),
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "model": {"name": pipe.name, "hash": pipe.model_hash},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("janus-kit", "torch", "transformers")},
        "rounds": args.rounds,
        "seconds": [
            {
                "task": task.strip(),
                "janus_kit": ours,
                "transformers": theirs,
                "ratio": round(theirs / ours, 2),
            }
            for task, ours, theirs in rows
        ],
        "agreement": same,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"cpu-{'embedded' if args.model is None else pipe.name}.json"
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return 0 if all(found["equal"] for found in same.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
