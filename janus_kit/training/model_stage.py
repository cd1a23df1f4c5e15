"""Stage two: everything but the VQ tokenizer learns to draw and to answer, in one mixed batch.

Follows the recipe of Janus-Pro (Chen et al., 2025) in small: drawing and understanding side by
side, one in ten prompts dropped for guidance, the tokenizer frozen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_kit.config import JanusConfig
from janus_kit.generation.vq import VQTokenizer
from janus_kit.model import IGNORE, Batch, Janus
from janus_kit.prompts import (
    PRO,
    Message,
    Template,
    Tokenizer,
    chat_ids,
    drawing_ids,
    unconditional_ids,
)
from janus_kit.training.loop import Schedule, Stage, optimizers, train
from janus_kit.vision.encoder import VisionEncoder

__all__ = [
    "Example",
    "Examples",
    "Learner",
    "answer_rows",
    "collate",
    "draw_row",
    "encode_scenes",
    "train_model",
]

# Scene number and random words about it → an example; the picture depends on the number alone.
Examples = Callable[[int, np.random.Generator], "Example"]

DROP = 0.1  # the share of prompts that is dropped, so that guidance has something to push from


@dataclass(frozen=True, kw_only=True)
class Example:
    """A picture with a prompt that asks for it and questions that it answers."""

    pixels: "np.ndarray[Any, Any]"  # uint8 [h, w, 3]
    prompt: str
    dialogue: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sequence and what it teaches; see model.Batch."""

    tokens: list[int]
    codes: list[int]
    text_labels: list[int]
    code_labels: list[int]


def draw_row(
    tokenizer: Tokenizer, template: Template, prompt: str, codes: Sequence[int], *, drop: bool
) -> Row:
    """The prompt, then all codes but the last; each place learns the code that follows."""
    ids = drawing_ids(tokenizer, template, prompt)
    if drop:
        ids = unconditional_ids(ids, tokenizer)
    read = list(codes[:-1])
    return Row(
        tokens=ids + [tokenizer.pad] * len(read),
        codes=[-1] * len(ids) + read,
        text_labels=[IGNORE] * (len(ids) + len(read)),
        code_labels=[IGNORE] * (len(ids) - 1) + list(codes),
    )


def answer_rows(
    tokenizer: Tokenizer, template: Template, dialogue: Sequence[tuple[str, str]], image_tokens: int
) -> Row:
    """A conversation about one picture; only the answers, each with its end, are learnt."""
    messages: list[Message] = []
    tokens: list[int] = []
    labels: list[int] = []
    for question, answer in dialogue:
        messages.append(Message("user", question, images=0 if messages else 1))
        before = chat_ids(tokenizer, template, messages, image_tokens)
        messages.append(Message("assistant", answer))
        after = chat_ids(tokenizer, template, messages, image_tokens)
        labels += [IGNORE] * (len(before) - len(tokens)) + after[len(before) :]
        tokens = after
    return Row(
        tokens=tokens[:-1],
        codes=[-1] * (len(tokens) - 1),
        text_labels=labels[1:],
        code_labels=[IGNORE] * (len(tokens) - 1),
    )


def collate(
    rows: Sequence[Row], tokenizer: Tokenizer, device: torch.device, pixels: Tensor | None = None
) -> Batch:
    """Rows of unequal length as one batch, padded on the right."""
    longest = max(len(row.tokens) for row in rows)

    def stack(name: str, fill: int) -> Tensor:
        values = [getattr(row, name) for row in rows]
        return torch.tensor([v + [fill] * (longest - len(v)) for v in values], device=device)

    return Batch(
        tokens=stack("tokens", tokenizer.pad),
        codes=stack("codes", -1),
        text_labels=stack("text_labels", IGNORE),
        code_labels=stack("code_labels", IGNORE),
        pixels=pixels,
        image_token=tokenizer.image,
    )


def to_pixels(pictures: Sequence["np.ndarray[Any, Any]"]) -> Tensor:
    """uint8 pictures [h, w, 3] -> fp32 [n, 3, h, w] in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def encode_scenes(
    vq: VQTokenizer, example: Examples, count: int, path: Path
) -> "np.ndarray[Any, Any]":
    """Codes of examples 0 … count - 1, int32 [count, 576]; kept in path, continued from there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = np.load(path) if path.exists() else np.zeros((0, 0), np.int32)
    while len(done) < count:
        seeds = range(len(done), min(len(done) + 256, count))
        found = []
        words = np.random.default_rng(0)
        for start in range(0, len(seeds), 8):
            pictures = [example(seed, words).pixels for seed in seeds[start : start + 8]]
            device = vq.codebook.weight.device
            with torch.autocast(device.type, torch.bfloat16):
                found.append(vq.encode(to_pixels(pictures).to(device)).cpu().numpy())
        fresh = np.concatenate(found).astype(np.int32)
        done = np.concatenate([done, fresh]) if len(done) else fresh
        partial = path.with_name(f".{path.name}")
        with partial.open("wb") as file:
            np.save(file, done)
        partial.replace(path)
    return done[:count]


class Learner(nn.Module):
    """Janus with its losses: forward((drawing batch, answering batch)) -> figures."""

    def __init__(self, janus: Janus, text_weight: float = 0.5) -> None:
        super().__init__()
        self.janus = janus
        self.text_weight = text_weight

    def forward(self, batches: tuple[Batch, Batch]) -> dict[str, Tensor]:
        drawing, answering = batches
        code = self.janus.loss(drawing).code
        text = self.janus.loss(answering).text
        return {"loss": code + self.text_weight * text, "code": code, "text": text}


@torch.no_grad()
def initialise(janus: Janus, vq: VQTokenizer, vision: VisionEncoder | None, seed: int) -> None:
    """Fresh weights: small matrices, silent residual outputs, code embeds from the codebook.

    The tokenizer and, if there is one, the encoder are taken as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in janus.named_parameters():
        if name.startswith("vq."):
            continue
        if parameter.dim() == 1:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            fan = parameter[0].numel()
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan**-0.5 * 0.6)
        if name.endswith(("attention.out.weight", "down.weight", "out.weight", "fc2.weight")) and (
            ".layers." in name or ".blocks." in name
        ):
            parameter.zero_()
    janus.vq.load_state_dict(vq.state_dict())
    if vision is not None:
        janus.vision.load_state_dict(vision.state_dict())
    janus.code_embed.weight.copy_(F.normalize(vq.codebook.weight, dim=-1))


def train_model(
    config: JanusConfig,
    vq: VQTokenizer,
    tokenizer: Tokenizer,
    example: Examples,
    folder: Path,
    schedule: Schedule,
    *,
    scenes: int,
    vision: VisionEncoder | None = None,
    template: Template = PRO,
    seed: int = 0,
) -> Janus:
    """Train a Janus around a trained tokenizer and encoder; the returned one has the mean weights.

    schedule.batch counts drawn pictures a step; as many others are asked about. scenes:
    how many pictures are encoded once and drawn again and again, each time with another prompt.
    """
    from accelerate import PartialState

    state = PartialState()
    janus = Janus(config)
    initialise(janus, vq, vision, seed)
    janus.vq.requires_grad_(False)
    janus.to(state.device)
    pool = encode_scenes(janus.vq, example, scenes, folder / "codes.npy")

    def batch(step: int) -> tuple[Batch, Batch]:
        share = step * state.num_processes + state.process_index
        random = np.random.default_rng([seed, share])
        rows = []
        for i in range(schedule.batch):
            place = (share * schedule.batch + i) * 7919 % scenes  # 7919 is prime: every scene comes
            codes = pool[place].tolist()
            prompt = example(place, random).prompt
            drop = bool(random.random() < DROP)
            rows.append(draw_row(tokenizer, template, prompt, codes, drop=drop))
        fresh = random.integers(scenes, 2**31, schedule.batch)
        asked = [example(int(place), random) for place in fresh]
        answers = [
            answer_rows(tokenizer, template, e.dialogue, config.vision.tokens) for e in asked
        ]
        pixels = to_pixels([e.pixels for e in asked]).to(state.device)
        return (
            collate(rows, tokenizer, state.device),
            collate(answers, tokenizer, state.device, pixels),
        )

    def inside(name: str) -> bool:
        return ".layers." in name or ".blocks." in name

    learner = Learner(janus)
    stage = Stage(
        module=learner,
        optimizers=optimizers(learner, inside, schedule.rate),
        batch=batch,
        schedule=schedule,
        average=0.99,
    )
    average = train(stage, folder)
    janus.load_state_dict({k.removeprefix("janus."): v for k, v in average.items()})
    return janus
