"""Whether letting the model judge its own drawings gives better ones, by a check that is not it.

Draws --of pictures for every --every-th of GenEval's prompts and has EfficientDet-Lite0 and the
pixel colour judge look at each, as `janus-kit train evaluate` does. Told are the share of right
pictures at random, of those that rank puts first, and of the best there are, and how often rank
prefers a right picture to a wrong one of the same prompt (0.5 is a coin).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from janus_kit import JanusPipeline
from janus_kit.answering import QUESTION, odds
from janus_kit.scoring.detectors import open_detector
from janus_kit.scoring.promptset import prompts
from janus_kit.training.evaluate import verdict

FORMS = {"vqascore": QUESTION, "is": "Is there {prompt}?", "are": "Are there {prompt}?"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--of", type=int, default=4)
    parser.add_argument("--guidance", type=float, help="Without it, the model's own.")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="The embedded model's own draws four alike."
    )
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    detector = open_detector("efficientdet")
    pipe = JanusPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    right: list[list[bool]] = []
    scores: dict[str, list[list[float]]] = {form: [] for form in FORMS}
    for number, line in enumerate(prompts()[:: given.every]):
        text = line["prompt"]
        drawn = pipe(
            text,
            num_images_per_prompt=given.of,
            seed=1000 * number,
            guidance_scale=given.guidance,
            temperature=given.temperature,
        )
        right.append([verdict(detector, line, image) for image in drawn.images])
        for form, question in FORMS.items():
            scores[form].append(odds(pipe, drawn.images, [text] * given.of, question))
        print(f"{text}: {sum(right[-1])} of {given.of} right", flush=True)
    result: dict[str, Any] = {
        "model": pipe.name,
        "hash": pipe.model_hash,
        "prompts": len(right),
        "detector": detector.facts.name,
        "of": given.of,
        "guidance": pipe.defaults.guidance if given.guidance is None else given.guidance,
        "temperature": given.temperature,
        "right at random": round(float(np.mean(right)), 4),
        "right, the best there is": round(float(np.mean([any(row) for row in right])), 4),
    }
    for form, rows in scores.items():
        first = [row[int(np.argmax(score))] for row, score in zip(right, rows, strict=True)]
        wins = [
            (good > bad) + 0.5 * (good == bad)
            for row, score in zip(right, rows, strict=True)
            for good, a in zip(score, row, strict=True)
            for bad, b in zip(score, row, strict=True)
            if a and not b
        ]
        result[form] = {
            "question": FORMS[form],
            "right, ranked first": round(float(np.mean(first)), 4),
            "right preferred to wrong": round(float(np.mean(wins)), 4) if wins else None,
            "pairs": len(wins),
        }
    print(json.dumps(result, indent=1))
    if given.output:
        given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
