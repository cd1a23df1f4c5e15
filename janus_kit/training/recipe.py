"""How the embedded model is made, from nothing to a folder: `janus-kit train embedded`."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from janus_kit import checkpoint
from janus_kit.config import PRESETS, JanusConfig
from janus_kit.errors import OptionError
from janus_kit.generation.vq import VQTokenizer
from janus_kit.model import Janus
from janus_kit.prompts import PRO, Tokenizer
from janus_kit.training import sprites, world
from janus_kit.training.loop import Schedule, save_atomically
from janus_kit.training.model_stage import Example, train_model
from janus_kit.training.tokenizer import train_tokenizer
from janus_kit.training.vision_stage import train_vision
from janus_kit.training.vq_stage import train_vq

__all__ = ["BUDGETS", "Budget", "fetch_data", "train_embedded"]

log = logging.getLogger(__name__)

DESCRIBE = (
    "Describe the image.",
    "Describe the picture.",
    "What is in this image?",
    "Caption this picture.",
    "Describe the image in detail.",
)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much one run learns."""

    vq: Schedule
    vision: Schedule
    model: Schedule
    scenes: int  # pictures encoded once, and drawn with many prompts
    preset: str = "tiny"
    names: tuple[str, ...] = sprites.NAMES
    steady: bool = True  # for the model; the other stages see things of every size and place


BUDGETS: Mapping[str, Budget] = {
    # Some two hours on two CPU cores, by the step times of its stages; most of it in the last.
    "cpu": Budget(
        vq=Schedule(steps=900, batch=4, rate=4e-3, warmup=20),
        vision=Schedule(steps=350, batch=16, rate=3e-3, warmup=20),
        model=Schedule(steps=2000, batch=8, rate=1.5e-3, warmup=40),
        scenes=1024,
    ),
    # Meant for ten minutes of one H200-class GPU; not run yet.
    "gpu": Budget(
        vq=Schedule(steps=6000, batch=32, rate=3e-3, warmup=100, save_every=500),
        vision=Schedule(steps=2000, batch=128, rate=3e-3, warmup=100, save_every=500),
        model=Schedule(steps=8000, batch=128, rate=2e-3, warmup=200, save_every=500),
        scenes=60_000,
        steady=False,
    ),
    # Minutes; shows that everything runs and draws nothing worth seeing.
    "small": Budget(
        vq=Schedule(steps=4, batch=1, rate=1e-3, warmup=2, save_every=2),
        vision=Schedule(steps=4, batch=2, rate=1e-3, warmup=2, save_every=2),
        model=Schedule(steps=4, batch=2, rate=1e-3, warmup=2, save_every=2),
        scenes=4,
        preset="tiny",
        names=sprites.DRAWN,
    ),
}


def fetch_data(report: Callable[[str], None]) -> Path:
    """Fetch and pack the picture sets; returns the folder that holds them."""
    path = sprites.fetch()
    report(f"{len(sprites.NAMES)} things are in {path}")
    return path.parent


def example(names: tuple[str, ...], steady: bool, seed: int, words: np.random.Generator) -> Example:
    """Scene number seed of the training world, with a prompt and a dialogue by words."""
    pixels, scene = world.compose(seed, names=names, steady=steady)
    asked = world.questions(scene, words, names)
    first = (DESCRIBE[int(words.integers(len(DESCRIBE)))], world.caption(scene))
    rest = [asked[i] for i in words.permutation(len(asked))[:4]]
    dialogue = [first, *rest] if words.random() < 0.5 else [*rest, first]
    return Example(pixels=pixels, prompt=world.prompt(scene, words), dialogue=dialogue)


def texts(names: tuple[str, ...]) -> list[str]:
    """What the tokenizer is made from: the language of the world and the system prompt."""
    words = np.random.default_rng(0)
    lines = [PRO.system] * 50
    for seed in range(2000):
        _, scene = world.compose(seed, names=names)
        lines += [world.prompt(scene, words), *DESCRIBE]
        lines += [line for pair in world.questions(scene, words, names) for line in pair]
    return lines


def train_embedded(folder: Path, *, budget: str = "cpu", target: Path | None = None) -> Path:
    """Train the embedded model in folder, resuming what is there; returns the finished model.

    The stages are the tokenizer of texts, the VQ tokenizer, the understanding encoder and the
    model; each keeps its state in a folder of its own. The finished model, in bfloat16, goes to
    target, or folder/model. Runs under torchrun or accelerate launch too. Raises OptionError for an
    unknown budget.
    """
    if budget not in BUDGETS:
        raise OptionError(f"budget must be {', '.join(BUDGETS)}, not {budget!r}")
    plan = BUDGETS[budget]
    if set(plan.names) - set(sprites.DRAWN):
        sprites.fetch()
    config = PRESETS[plan.preset]
    folder.mkdir(parents=True, exist_ok=True)
    words = folder / "tokenizer"
    if not (words / "tokenizer.json").exists():
        train_tokenizer(texts(plan.names), config.language.vocab_size, words)
    tokenizer = Tokenizer.from_folder(words, config.language.vocab_size)
    vq = _vq(config, plan, folder / "vq")
    vision = train_vision(
        config.vision,
        partial(world.compose, names=plan.names),
        plan.names,
        folder / "vision",
        plan.vision,
    )
    janus = train_model(
        config,
        vq,
        tokenizer,
        partial(example, plan.names, plan.steady),
        folder / "model_stage",
        plan.model,
        scenes=plan.scenes,
        vision=vision,
    )
    return export(janus, words, target or folder / "model")


def _vq(config: JanusConfig, plan: Budget, folder: Path) -> VQTokenizer:
    """The trained tokenizer; from folder/vq.pt if the stage has ended."""
    done = folder / "vq.pt"
    if done.exists():
        vq = VQTokenizer(config.vq)
        vq.load_state_dict(torch.load(done, map_location="cpu", weights_only=True))
        return vq
    scenes = partial(_picture, plan.names)
    vq = train_vq(config.vq, scenes, folder, plan.vq).cpu()
    save_atomically(vq.state_dict(), done)
    return vq


def _picture(names: tuple[str, ...], seed: int) -> "np.ndarray[Any, Any]":
    return world.compose(seed, names=names)[0]


def export(janus: Janus, tokenizer: Path, target: Path) -> Path:
    """Write the model in bfloat16 to target, in transformers' layout."""
    janus = janus.cpu().to(torch.bfloat16)
    # transformers' encoder compares raw vectors, so the codebook is kept on the unit sphere.
    book = janus.vq.codebook.weight
    book.data = F.normalize(book.data.float(), dim=-1).to(book.dtype)
    checkpoint.save(janus, target, tokenizer_folder=tokenizer)
    log.info("%s: the model is ready", target)
    return target
