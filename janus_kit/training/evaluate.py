"""What the embedded model can do, in figures: `janus-kit train evaluate`."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from janus_kit.loading import version
from janus_kit.pipeline import JanusPipeline
from janus_kit.training import sprites, world
from janus_kit.training.judge import see
from janus_kit.training.quantizer import to_pixels
from janus_kit.vision.images import to_uint8

__all__ = ["evaluate"]

FRESH = 10_000_000  # scene numbers from here on are in no training run
GUIDANCE = 2.5  # to the eye the embedded model draws best here; the published 5 is too much yet


def evaluate(
    model: str | None = None,
    *,
    prompts: int = 64,
    seed: int = 0,
    guidance: float = GUIDANCE,
    quantization: str | None = None,
    out: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Mapping[str, Any]:
    """Measure a model of the training world: {section: {figure: {right, of, share, low, high}}}.

    prompts: how many pictures are drawn and how many scenes are asked about, for seen and for
    held-out combinations each. Drawn are the sizes and places of the steady world, asked about
    those of the whole. low and high: Wilson's 95 % interval. Scenes and seeds follow from
    seed, none of them is in training. out: a JSON file for the result. Fetches the picture sets if
    they are not there yet; raises OptionError when they cannot be had.
    """
    sprites.fetch()  # the check knows things by their outlines
    pipe = JanusPipeline.from_pretrained(model, quantization=quantization)
    pipe.set_progress_bar_config(disable=True)
    names = sprites.NAMES
    result: dict[str, Any] = {
        "model": pipe.name,
        "hash": pipe.model_hash,
        "prompts": prompts,
        "seed": seed,
        "guidance": guidance,
        "quantization": quantization,
        "date": datetime.now(UTC).date().isoformat(),
        "device": pipe.device.type,
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "janus_kit": version(),
    }
    for split in ("train", "test"):
        kind = {"train": "seen combinations", "test": "held-out combinations"}[split]
        scenes = [
            world.compose(FRESH + seed * 100_000 + i, names=names, split=split, steady=True)
            for i in range(prompts)
        ]
        report(f"{kind}: the check itself on {prompts} true pictures")
        result[f"check, {kind}"] = _facts(
            (see(p, names), world.facts(s), s.task) for p, s in scenes
        )
        report(f"{kind}: tokenizer")
        rebuilt = _round_trip(pipe, [p for p, _ in scenes])
        result[f"tokenizer, {kind}"] = {
            **_facts(
                (see(p, names), world.facts(s), s.task)
                for p, (_, s) in zip(rebuilt, scenes, strict=True)
            ),
            "psnr": round(_psnr([p for p, _ in scenes], rebuilt), 2),
        }
        report(f"{kind}: drawing {prompts} pictures")
        words = np.random.default_rng([seed, 1])
        asked = [world.prompt(scene, words) for _, scene in scenes]
        drawn = pipe(asked, seed=seed, guidance_scale=guidance).images
        seen = [see(np.asarray(image), names) for image in drawn]
        result[f"drawing, {kind}"] = _facts(
            (shown, world.parse(text), scene.task)
            for shown, text, (_, scene) in zip(seen, asked, scenes, strict=True)
        )
        report(f"{kind}: captions of its own pictures")
        told = pipe.caption(drawn, max_new_tokens=48)
        result[f"round trip, {kind}"] = _facts(
            (world.parse(said), world.parse(text), scene.task)
            for said, text, (_, scene) in zip(told, asked, scenes, strict=True)
        )
        report(f"{kind}: captions and answers")
        fresh = [
            world.compose(FRESH + seed * 100_000 + 50_000 + i, names=names, split=split)
            for i in range(prompts)
        ]
        pictures = [Image.fromarray(p) for p, _ in fresh]
        told = pipe.caption(pictures, max_new_tokens=48)
        result[f"captions, {kind}"] = _facts(
            (world.parse(said), world.facts(scene), scene.task)
            for said, (_, scene) in zip(told, fresh, strict=True)
        )
        result[f"answers, {kind}"] = _answers(pipe, pictures, [s for _, s in fresh], names, seed)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(f".{out.name}.partial")
        partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        partial.replace(out)
    return result


def share(right: int, of: int) -> dict[str, float]:
    """A share with Wilson's 95 % interval (Wilson, 1927)."""
    if not of:
        return {"right": 0, "of": 0, "share": 0.0, "low": 0.0, "high": 1.0}
    z, p = 1.96, right / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    spread = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return {
        "right": right,
        "of": of,
        "share": round(p, 4),
        "low": round(max(0.0, middle - spread), 4),
        "high": round(min(1.0, middle + spread), 4),
    }


def _facts(rows: Iterable[tuple[world.Facts, world.Facts, str]]) -> dict[str, Any]:
    """Shares of what is shown against what was asked: aspect by aspect, by task, all at once."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for shown, asked, task in rows:
        had, wanted = shown[0], asked[0]

        def bag(facts: tuple[world.Fact, ...], place: int) -> list[Any]:
            return sorted(fact[place] for fact in facts for _ in range(fact[0]))

        counts["colour"].append(set(bag(had, 1)) == set(bag(wanted, 1)))
        counts["shape"].append(set(bag(had, 2)) == set(bag(wanted, 2)))
        counts["count"].append(sum(f[0] for f in had) == sum(f[0] for f in wanted))
        if asked[1] is not None:
            # Whether the colours lie as asked, whatever the things are.
            places = [[(f[0], f[1]) for f in facts] for facts in (had, wanted)]
            counts["position"].append(shown[1] == asked[1] and places[0] == places[1])
        right = world.matches(asked, shown)
        counts[f"task {task}"].append(right)
        counts["all right"].append(right)
    return {name: share(sum(found), len(found)) for name, found in sorted(counts.items())}


def _answers(
    pipe: JanusPipeline,
    pictures: list[Image.Image],
    scenes: list[world.Scene],
    names: tuple[str, ...],
    seed: int,
) -> dict[str, Any]:
    """Exact matches by the first words of the question; one question of each scene's is drawn."""
    words = np.random.default_rng([seed, 2])
    counts: dict[str, list[bool]] = defaultdict(list)
    chats, truths = [], []
    for picture, scene in zip(pictures, scenes, strict=True):
        asked = [pair for pair in world.questions(scene, words, names) if "picture" not in pair[0]]
        for place in words.permutation(len(asked))[:2]:
            question, truth = asked[place]
            chats.append([{"role": "user", "images": [picture], "content": question}])
            truths.append((question, truth))
    said = pipe.answer(chats, max_new_tokens=32)
    for answer, (question, truth) in zip(said, truths, strict=True):
        kind = " ".join(question.split()[:2]).replace("colour", "color").lower()
        counts[kind].append(answer == truth)
        counts["all"].append(answer == truth)
    return {name: share(sum(found), len(found)) for name, found in sorted(counts.items())}


@torch.inference_mode()
def _round_trip(pipe: JanusPipeline, pictures: list[Any]) -> list[Any]:
    """Pictures through the tokenizer and back, uint8."""
    rebuilt: list[Any] = []
    for start in range(0, len(pictures), 4):
        codes = pipe.model.vq.encode(to_pixels(pictures[start : start + 4]).to(pipe.device))
        rebuilt += list(to_uint8(pipe.model.vq.decode(codes).float().cpu()))
    return rebuilt


def _psnr(true: list[Any], rebuilt: list[Any]) -> float:
    """Mean peak signal-to-noise ratio in dB."""
    errors = [
        float(np.mean((a.astype(float) - b.astype(float)) ** 2))
        for a, b in zip(true, rebuilt, strict=True)
    ]
    return float(np.mean([10 * math.log10(255**2 / max(e, 1e-9)) for e in errors]))
