"""What the encoder of understanding makes of things, by what training showed of them.

    python benchmarks/seeing.py -o benchmarks/results/embedded-seeing.json

Each place of a picture is near to the embeds of some names; the name that is nearest to the places
of a thing, in their mean, is what the encoder takes it for, before the language model reads it.
"""

import argparse
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import torch

from janus_kit import JanusPipeline
from janus_kit.training import painting, world
from janus_kit.training.bank.names import NAMES
from janus_kit.training.beginning import word_embeds
from janus_kit.training.evaluate import FRESH
from janus_kit.training.measures import share
from janus_kit.training.novelty import held_out
from janus_kit.training.quantizer import to_pixels
from janus_kit.training.recipe import meanings
from janus_kit.training.vision_stage import MARKS, patch_labels


def kind(split: str, thing: world.Thing) -> str:
    """What training showed of a thing."""
    if split == "train":
        seen = "shown views"
    elif thing.view.rsplit(" ", 1)[0] in painting.models():
        seen = "other views of shown models"
    else:
        seen = "other models"
    if thing.color is None:
        return f"{seen}, own colours"
    return f"{seen}, {'held-out' if held_out(thing.name, thing.color) else 'shown'} colours"


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", help="A folder; without it, the embedded model.")
    parser.add_argument("--scenes", type=int, default=240, help="Of each split.")
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    pipe = JanusPipeline.from_pretrained(asked.model, device="cpu", dtype="float32")
    words = meanings(word_embeds(pipe.config.language, 0), pipe.tokenizer, NAMES)
    words[:, :MARKS] = 0  # where its aligner tells a patch from a word
    words = torch.nn.functional.normalize(words, dim=-1)
    vision = pipe.config.vision
    side = vision.image_size // vision.patch_size
    found: dict[str, list[bool]] = defaultdict(list)
    for split in ("test", "train"):
        for number in range(FRESH + 900_000, FRESH + 900_000 + asked.scenes):
            pixels, scene = world.compose(number, split=split)
            near = pipe.model.features(to_pixels([pixels]))[0] @ words.T
            for thing in scene.things:
                alone = world.Scene((thing,), None, scene.task, scene.ground, scene.room)
                there = patch_labels(alone, NAMES, vision.patch_size, side)[0] > 0
                named = NAMES[int(near[there].mean(0).argmax())] if there.any() else None
                found[kind(split, thing)].append(named == thing.name)
    figures = {name: share(sum(right), len(right)) for name, right in sorted(found.items())}
    for name, figure in figures.items():
        print("{}: {share:.1%} ({low:.0%} to {high:.0%}) of {of}".format(name, **figure))
    if asked.output is not None:
        facts = {"model": pipe.name, "hash": pipe.model_hash, "scenes": asked.scenes}
        facts |= {"date": datetime.now(UTC).date().isoformat()}
        asked.output.write_text(json.dumps({**facts, "named": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
