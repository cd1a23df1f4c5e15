"""What the embedded model can do, in figures: `janus-kit train evaluate`."""

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from janus_kit import loading
from janus_kit.bench.machine import processor
from janus_kit.bench.peers import Ours, Theirs, agreement
from janus_kit.bench.run import difference, medians
from janus_kit.options import needs
from janus_kit.pipeline import CAPTION, JanusPipeline
from janus_kit.prompts import Message, chat_ids
from janus_kit.scoring.colors import PixelColors
from janus_kit.scoring.detectors import Detector, open_detector
from janus_kit.scoring.fetch import fetch_efficientdet
from janus_kit.scoring.geneval import judge
from janus_kit.scoring.promptset import TASKS, prompts
from janus_kit.scoring.published import GENEVAL
from janus_kit.training import language, painting, world
from janus_kit.training.foreign import SETS, foreign
from janus_kit.training.language import Facts, matches, unrelated
from janus_kit.training.measures import by_task, faster, middle, of_ceiling, psnr, share, ssim
from janus_kit.training.novelty import is_novel
from janus_kit.training.quantizer import to_pixels
from janus_kit.variants import measuring
from janus_kit.vision.images import to_uint8

__all__ = ["evaluate", "verdict"]

FRESH = 10_000_000  # scene numbers from here on are in no training run
THRESHOLD = 0.3  # of the detector, for counting too: 0.9 is Mask2Former's
MARK = "Janus-Pro-7B"  # the published row that is shown beside
ROUNDS = 5  # of the timing
ANSWER, TOLD = 24, 96  # tokens of an answer and of a description at most

Report = Callable[[str], None]
Pictures = Sequence["np.ndarray[Any, Any]"]


def evaluate(
    model: str | None = None,
    *,
    scenes: int = 128,
    samples: int = 4,
    every: int = 1,
    seed: int = 0,
    guidance: float | None = None,
    quantization: str | None = None,
    out: Path | None = None,
    report: Report = lambda line: None,
) -> Mapping[str, Any]:
    """Measure a model of the training world: {section: {figure: value or share with interval}}.

    scenes: how many held-out scenes are rebuilt and asked about. samples: pictures of each of
    GenEval's 553 prompts, of which every `every`-th is drawn. Shares carry Wilson's 95 % interval.
    Drawn pictures are judged by EfficientDet-Lite0 and the pixel colour judge, both fetched or
    built in, by GenEval's verdict, with counting at the threshold of the rest. Nothing looked at is
    in training. out: a JSON file for the result.

    Raises JanusKitError where transformers, the picture bank, the detector or the foreign sets
    cannot be had.
    """
    needs("transformers", "score")  # which the costs are measured beside
    fetch_efficientdet()
    drawings = {name: foreign(name) for name in SETS}
    detector = open_detector("efficientdet")
    begin = time.perf_counter()
    with measuring():
        pipe = JanusPipeline.from_pretrained(model, quantization=quantization)
    loaded = time.perf_counter() - begin
    pipe.set_progress_bar_config(disable=True)
    size = sum(f.stat().st_size for f in pipe.folder.iterdir() if f.is_file())
    result: dict[str, Any] = {
        "model": pipe.name,
        "hash": pipe.model_hash,
        "scenes": scenes,
        "samples": samples,
        "every": every,
        "seed": seed,
        "guidance": pipe.defaults.guidance if guidance is None else guidance,
        "temperature": pipe.defaults.temperature,
        "quantization": quantization,
        "detector": detector.facts.name,
        "threshold": THRESHOLD,
        "date": datetime.now(UTC).date().isoformat(),
        "device": pipe.device.type,
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "janus_kit": loading.version(),
        "megabytes": round(size / 1e6, 1),
        "seconds to load": round(loaded, 2),
    }
    result["tokenizer"] = _tokenizer(pipe, detector, scenes, seed, report)
    result |= _understanding(pipe, scenes, seed, report)
    result |= _foreign(pipe, drawings, report)
    result |= _drawing(pipe, detector, samples, every, seed, guidance, report)
    if quantization is None:  # transformers has the same weights, but none of our quantizations
        result["cost"] = _cost(pipe, report)
    else:
        plain = JanusPipeline.from_pretrained(model, dtype="float32")
        plain.set_progress_bar_config(disable=True)
        result["logits' difference"] = difference(pipe, plain, Ours(plain).draw(pipe.config.codes))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(f".{out.name}.partial")
        partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        partial.replace(out)
    return result


# The cost


def _cost(pipe: JanusPipeline, report: Report) -> dict[str, Any]:
    """Median seconds of a picture and its caption beside transformers' generate, in turns.

    Both take the likeliest code or token each time, on the same weights and processor.
    """
    report(f"cost: {ROUNDS} pictures and captions, beside transformers")
    ours, theirs = Ours(pipe), Theirs(pipe, pipe.dtype)
    count = pipe.config.codes
    drawn = ours.draw(count)
    ids = chat_ids(
        pipe.tokenizer,
        pipe.template,
        [Message("user", CAPTION, images=1)],
        pipe.config.vision.tokens,
    )
    pixels = pipe.decode(torch.tensor(drawn), "pt").float().cpu() * 2 - 1
    asked = {"tokens": ANSWER, "end": True}
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "picture": (lambda: ours.draw(count), lambda: theirs.draw(count)),
        "caption": (
            lambda: ours.answer(ids, pixels, **asked),  # type: ignore[arg-type]
            lambda: theirs.answer(ids, pixels, **asked),  # type: ignore[arg-type]
        ),
    }
    result: dict[str, Any] = {"device": processor(pipe.device), "threads": torch.get_num_threads()}
    for name, (one, other) in pairs.items():
        same = agreement(one(), other())["equal"]
        taken = medians({"janus_kit": one, "transformers": other}, ROUNDS)
        result[name] = {
            **{who: figures["wall"] for who, figures in taken.items()},
            **faster(taken["janus_kit"], taken["transformers"]),
            "equal": same,
        }
    return result


# The tokenizer


def _tokenizer(
    pipe: JanusPipeline, detector: Detector, count: int, seed: int, report: Report
) -> dict[str, Any]:
    """Pictures of held-out steady scenes through the codes and back."""
    report(f"tokenizer: {count} pictures there and back")
    found = [
        world.compose(FRESH + seed * 100_000 + i, split="test", steady=True) for i in range(count)
    ]
    true = [picture for picture, _ in found]
    rebuilt, used = _round_trip(pipe, true)
    seen = [[_named(detector, p, scene) for p, (_, scene) in zip(side, found, strict=True)]
            for side in (true, rebuilt)]  # fmt: skip
    before, after = ([right for row in rows for right in row] for rows in seen)
    still = [b for a, b in zip(before, after, strict=True) if a]
    return {
        "psnr": middle([psnr(a, b) for a, b in zip(true, rebuilt, strict=True)], 2),
        "ssim": middle([ssim(a, b) for a, b in zip(true, rebuilt, strict=True)], 4),
        "codes used": {"of": pipe.config.vq.codebook_size, "right": len(used)},
        "things found before": share(sum(before), len(before)),
        "things found after": share(sum(after), len(after)),
        "of these, found again": share(sum(still), len(still)),
    }


@torch.inference_mode()
def _round_trip(pipe: JanusPipeline, true: Pictures) -> tuple[list[Any], set[int]]:
    """Pictures through the tokenizer and back, uint8, and the codes that they took."""
    rebuilt: list[Any] = []
    used: set[int] = set()
    for start in range(0, len(true), 4):
        codes = pipe.model.vq.encode(to_pixels(list(true[start : start + 4])).to(pipe.device))
        used |= set(codes.flatten().tolist())
        rebuilt += list(to_uint8(pipe.model.vq.decode(codes).float().cpu()))
    return rebuilt, used


def _named(detector: Detector, picture: Any, scene: world.Scene) -> list[bool]:
    """Whether the detector names each thing of the scene where it is."""
    (found,) = detector.detect([Image.fromarray(picture)])
    right = []
    for thing in scene.things:
        x, y = (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2
        right.append(
            any(
                d.label == thing.name
                and d.score > THRESHOLD
                and d.box[0] < x < d.box[2]
                and d.box[1] < y < d.box[3]
                for d in found
            )
        )
    return right


# Understanding


def _understanding(pipe: JanusPipeline, count: int, seed: int, report: Report) -> dict[str, Any]:
    """Captions of held-out scenes, and answers to all that is asked about them."""
    first = FRESH + seed * 100_000 + 50_000
    composed = [world.compose(first + i, split="test") for i in range(count)]
    pictures, scenes = [Image.fromarray(p) for p, _ in composed], [s for _, s in composed]
    result: dict[str, Any] = {}
    report(f"understanding: {count} held-out scenes")
    truths = [language.facts(scene) for scene in scenes]
    for name, question in (("captions", language.DESCRIBE[0]), ("details", language.IN_DETAIL[0])):
        told = pipe.caption(pictures, question, max_new_tokens=TOLD)
        found = [language.parse(text) for text in told]
        result[name] = _facts(found, truths, name == "captions") | _by_models(found, scenes)
    words = np.random.default_rng([seed, 2])
    # Few scenes hold what can be compared: as many more are asked about that alone.
    more = [world.compose(first + count + i, split="test", task="dense") for i in range(count)]
    pictures += [Image.fromarray(p) for p, _ in more]
    chats, expected = [], []
    scenes += [scene for _, scene in more]
    for number, (picture, scene) in enumerate(zip(pictures, scenes, strict=True)):
        for question, truth in dict.fromkeys(language.questions(scene, words)):
            kind = _kind(question)
            if number < count or kind == "compare":
                chats.append([{"role": "user", "images": [picture], "content": question}])
                expected.append((kind, truth))
    report(f"understanding: {len(chats)} questions")
    said = pipe.answer(chats, max_new_tokens=ANSWER)
    counts: dict[str, list[bool]] = defaultdict(list)
    for answer, (kind, truth) in zip(said, expected, strict=True):
        counts[kind].append(answer == truth)
        counts["all"].append(answer == truth)
    result["answers"] = {name: share(sum(c), len(c)) for name, c in sorted(counts.items())}
    return result


def _foreign(
    pipe: JanusPipeline, sets: Mapping[str, Sequence[tuple[str, Any]]], report: Report
) -> dict[str, Any]:
    """How often a caption names what the drawings of other hands show."""
    result = {}
    for name, drawn in sets.items():
        report(f"understanding: {len(drawn)} drawings of {name}")
        told = pipe.caption([Image.fromarray(p) for _, p in drawn], max_new_tokens=TOLD)
        right = [
            thing in {fact[2] for fact in language.parse(text)[0]}
            for text, (thing, _) in zip(told, drawn, strict=True)
        ]
        result[f"foreign, {name}"] = {"names right": share(sum(right), len(right))}
    return result


def _kind(question: str) -> str:
    """what, color, count, where, compare or yes-no."""
    kinds = {
        r"what colou?r": "color", "how many": "count", "where": "where", "what": "what",
        "are there more": "compare",
    }  # fmt: skip
    return next((k for p, k in kinds.items() if re.match(p, question, re.IGNORECASE)), "yes-no")


def _facts(
    told: Sequence[Facts], truths: Sequence[Facts], relations: bool, alike: float = 1
) -> dict[str, Any]:
    """Precision and recall of (count, colour, name), and how often all is right."""
    right = said = there = whole = 0
    for had, wanted in zip(told, truths, strict=True):
        right += len(set(had[0]) & set(wanted[0]))
        said += len(had[0])
        there += len(wanted[0])
        whole += matches(wanted, had) if relations else unrelated(had) == unrelated(wanted)
    return {
        "precision": share(right, said, alike),
        "recall": share(right, there, alike),
        "all right": share(whole, len(told), alike),
    }


def _by_models(told: Sequence[Facts], scenes: Sequence[world.Scene]) -> dict[str, Any]:
    """The recall of facts about models that training shows, from other sides, and of others."""
    found: dict[bool, list[bool]] = {True: [], False: []}
    for had, scene in zip(told, scenes, strict=True):
        for fact in language.facts(scene)[0]:
            views = [thing.view for thing in scene.things if (thing.color, thing.name) == fact[1:]]
            known = all(view.rsplit(" ", 1)[0] in painting.models() for view in views)
            found[known].append(fact in had[0])
    return {
        "recall, known models": share(sum(found[True]), len(found[True])),
        "recall, unknown models": share(sum(found[False]), len(found[False])),
    }


# Drawing


def _drawing(
    pipe: JanusPipeline,
    detector: Detector,
    samples: int,
    every: int,
    seed: int,
    guidance: float | None,
    report: Report,
) -> dict[str, Any]:
    """GenEval's prompts, the same scenes composed as the ceiling, and the pictures told back."""
    lines = prompts()[::every]
    rows: dict[str, list[tuple[dict[str, Any], bool]]] = {"drawing": [], "ceiling": []}
    kept: list[tuple[Facts, Facts]] = []
    used: set[int] = set()
    begin = time.monotonic()
    for number, line in enumerate(lines):
        text = line["prompt"]
        wanted = language.parse(text)
        output = pipe(
            text,
            num_images_per_prompt=samples,
            seed=seed + number * samples,
            guidance_scale=guidance,
        )
        drawn = output.images
        used |= set(output.codes.flatten().tolist())
        relation = wanted[1]
        true = [
            Image.fromarray(world.staged(wanted[0], relation, seed + i)[0]) for i in range(samples)
        ]
        for name, images in (("drawing", drawn), ("ceiling", true)):
            rows[name] += [(line, verdict(detector, line, image)) for image in images]
        told = pipe.caption(list(drawn), max_new_tokens=TOLD)
        kept += [(language.parse(said), wanted) for said in told]
        if number % 20 == 19:
            left = (time.monotonic() - begin) / (number + 1) * (len(lines) - number - 1)
            report(f"drawing: {number + 1} of {len(lines)} prompts, {left / 60:.0f} min left")
    unseen = {name for name in world.NAMES if name not in detector.facts.names}
    parts: dict[str, Callable[[Mapping[str, Any]], bool]] = {
        "": lambda line: True,
        ", names the detector sees": lambda line: not _names(line) & unseen,
        # A single thing has no combination; without it the two are alike.
        ", seen combinations": lambda line: line["tag"] != TASKS[0] and not _is_novel(line),
        ", held-out combinations": lambda line: line["tag"] != TASKS[0] and _is_novel(line),
    }
    result: dict[str, Any] = {"prompts": {"all": len(lines)}}
    for part, holds in parts.items():
        chosen = {name: [row for row in found if holds(row[0])] for name, found in rows.items()}
        for name, found in chosen.items():
            result[name + part] = by_task(found)
        result[f"of the ceiling{part}"] = of_ceiling(chosen["drawing"], chosen["ceiling"])
        if part:
            result["prompts"][part[2:]] = sum(map(holds, lines))
    result["codes used"] = {
        "right": len(used),
        "of": pipe.config.vq.codebook_size,
        "pictures": len(lines) * samples,
    }
    result[f"published, {MARK}"] = dict(
        zip((*TASKS, "overall"), (n / 100 for n in GENEVAL[MARK]), strict=True)
    )
    result["told back"] = _facts(
        [told for told, _ in kept], [asked for _, asked in kept], True, samples
    )
    return result


def verdict(detector: Detector, line: Mapping[str, Any], image: Image.Image) -> bool:
    """GenEval's verdict on one picture, by its pixels' colours and with one threshold."""
    (found,) = detector.detect([image])
    return judge(
        line,
        found,
        color_of=PixelColors(image),
        threshold=THRESHOLD,
        counting_threshold=THRESHOLD,
    ).correct


def _names(line: Mapping[str, Any]) -> set[str]:
    return {clause["class"] for clause in line["include"]}


def _is_novel(line: Mapping[str, Any]) -> bool:
    asked = language.parse(line["prompt"])[0]
    return is_novel([(name, color) for n, color, name in asked for _ in range(n)])
