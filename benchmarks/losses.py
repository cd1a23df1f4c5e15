"""Where a drawing is lost on its way from the true scene to what the embedded model draws.

GenEval's prompts are staged as true scenes, and EfficientDet-Lite0 and the pixel colour judge look,
as in `janus-kit train evaluate`, at the scene, at the scene at half size, at the patches of its
codes, at what the VQ tokenizer paints from them, and at what the model draws from the prompt.

    python benchmarks/losses.py --every 4 -o benchmarks/results/embedded-losses.json
"""

import argparse
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from janus_kit import JanusPipeline
from janus_kit.scoring.detectors import open_detector
from janus_kit.scoring.promptset import TASKS, prompts
from janus_kit.training import language, world
from janus_kit.training.evaluate import verdict
from janus_kit.training.quantizer import PatchBook, to_pixels
from janus_kit.training.recipe import patches_of
from janus_kit.vision.images import to_pil


def main() -> None:
    """Judge every stage of every --every-th prompt and print the shares that pass."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", help="A model that janus-kit train embedded made.")
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    detector = open_detector("efficientdet")
    pipe = JanusPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)
    book = PatchBook.load(patches_of(pipe.folder))
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    errors: dict[str, list[float]] = defaultdict(list)
    for seed, line in enumerate(prompts()[:: options.every]):
        kinds, relation = language.parse(line["prompt"])
        picture, scene = world.staged(kinds, relation, seed)
        true = to_pixels([picture])
        codes = book.codes(true, torch.from_numpy(np.reshape(world.places(scene), (1, -1, 3))))
        with torch.inference_mode():
            painted = pipe.model.vq.decode(codes).float().clamp(-1, 1)
        stages = {
            "scene": true,
            "at half size": F.interpolate(F.avg_pool2d(true, 2), scale_factor=2, mode="bilinear"),
            "patches of its codes": book.paint(codes),
            "painted from its codes": painted,
        }
        shown: dict[str, Image.Image] = {name: to_pil(p)[0] for name, p in stages.items()}
        shown["drawn by the model"] = pipe(line["prompt"], seed=seed).images[0]
        for name, image in shown.items():
            right[name][line["tag"]].append(verdict(detector, line, image))
        for name, pixels in stages.items():
            errors[name].append(float(F.mse_loss(pixels, true)))
    result: dict[str, dict[str, float]] = {}
    for name, tasks in right.items():
        shares = {task: round(fmean(tasks[task]), 3) for task in TASKS if tasks[task]}
        result[name] = {**shares, "overall": round(fmean(shares.values()), 3)}
        if name in errors:
            result[name]["square error"] = round(fmean(errors[name]), 5)
        print(f"{name}: " + ", ".join(f"{task} {share:g}" for task, share in result[name].items()))
    if options.output is not None:
        about = {
            "model": pipe.name,
            "hash": pipe.model_hash,
            "every": options.every,
            "detector": detector.facts.name,
            "date": datetime.now(UTC).date().isoformat(),
        }
        options.output.write_text(json.dumps(about | result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
