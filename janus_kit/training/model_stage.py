"""The model stage: the language model learns to draw and to answer, in one mixed step.

Follows the second stage of Janus-Pro (Chen et al., 2025) in small: drawing and understanding side
by side, one in ten prompts dropped for guidance, the encoder and the tokenizer frozen. Muon's steps
have one size: an encoder that may move forgets what a thing is before anybody has asked.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from janus_kit.config import JanusConfig, LanguageConfig
from janus_kit.model import IGNORE, Batch, Janus, Layer
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
from janus_kit.training.quantizer import PatchBook, to_pixels
from janus_kit.training.vision_stage import Spoil, VisionLearner, half_spoilt

__all__ = [
    "Example",
    "Examples",
    "Learner",
    "answer_row",
    "collate",
    "draw_row",
    "train_model",
    "word_embeds",
]

# Scene number and random words about it → an example; the picture depends on the number alone.
Examples = Callable[[int, np.random.Generator], "Example"]

DROP = 0.1  # the share of prompts that is dropped, so that guidance has something to push from
OUTLINE = 5.0  # a code at the top of a thing counts so much: there its name shows, not beside it
SPREAD = 0.5  # of the embeds at the start
ALL, WORD, PATCH, START = 0, 1, 2, 3  # the channels of look_around's marks
MARKS = 4


@dataclass(frozen=True, kw_only=True)
class Example:
    """A picture with a prompt that asks for it and conversations that fit it."""

    pixels: "np.ndarray[Any, Any]"  # uint8 [h, w, 3]
    prompt: str
    dialogues: Sequence[Sequence[tuple[str, str]]]  # none knows of the others


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sequence and what it teaches; see model.Batch."""

    tokens: list[int]
    codes: list[int]
    text_labels: list[int]
    code_labels: list[int]
    branches: list[int]


def draw_row(
    tokenizer: Tokenizer,
    template: Template,
    prompt: str,
    codes: Sequence[int],
    *,
    drop: bool,
    hidden: Sequence[bool] | None = None,
) -> Row:
    """The prompt, then all codes but the last; each place learns the code that follows.

    hidden: the codes that are not read, a pad in place of each. What a neighbour does not tell has
    to come from the prompt: the word dropout of Bowman et al., "Generating Sentences from a
    Continuous Space" (2016), without which a small run leaves prompts unread.
    """
    ids = drawing_ids(tokenizer, template, prompt)
    if drop:
        ids = unconditional_ids(ids, tokenizer)
    read = list(codes[:-1])
    if hidden is not None:
        read = [-1 if away else code for code, away in zip(read, hidden, strict=False)]
    return Row(
        tokens=ids + [tokenizer.pad] * len(read),
        codes=[-1] * len(ids) + read,
        text_labels=[IGNORE] * (len(ids) + len(read)),
        code_labels=[IGNORE] * (len(ids) - 1) + list(codes),
        branches=[0] * (len(ids) + len(read)),
    )


def _blindness(random: np.random.Generator) -> float:
    """The share of a row's codes that is hidden: none of a third, nearly all of another third.

    Where hardly a code is seen, the words alone tell what the codes of a thing are.
    """
    return (0.0, random.random(), 1 - 0.1 * random.random())[int(random.integers(3))]


def answer_row(
    tokenizer: Tokenizer,
    template: Template,
    dialogues: Sequence[Sequence[tuple[str, str]]],
    image_tokens: int,
) -> Row:
    """Conversations about one picture, which stands in the row once; only answers are learnt.

    Each begins with the picture and is a branch of its own, so that no answer can be read off
    another's.
    """
    found = [_conversation(tokenizer, template, d, image_tokens) for d in dialogues]
    start = 1 + max(i for i, token in enumerate(found[0][0]) if token == tokenizer.image)
    row = Row(
        tokens=found[0][0][:start],
        codes=[],
        text_labels=[IGNORE] * start,
        code_labels=[],
        branches=[0] * start,
    )
    for number, (tokens, labels) in enumerate(found, 1):
        row.tokens.extend(tokens[start:-1])
        row.text_labels.extend(labels[start + 1 :])
        row.branches.extend([number] * (len(tokens) - start - 1))
    row.codes.extend([-1] * len(row.tokens))
    row.code_labels.extend([IGNORE] * len(row.tokens))
    return row


def _conversation(
    tokenizer: Tokenizer, template: Template, dialogue: Sequence[tuple[str, str]], image_tokens: int
) -> tuple[list[int], list[int]]:
    """The ids of a conversation about a picture, and the same with IGNORE outside the answers."""
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
    return tokens, labels


def collate(
    rows: Sequence[Row], tokenizer: Tokenizer, device: torch.device, pixels: Tensor | None = None
) -> Batch:
    """Rows of unequal length as one batch, padded on the right."""
    longest = max(len(row.tokens) for row in rows)

    def stack(name: str, fill: int) -> Tensor:
        values = [getattr(row, name) for row in rows]
        return torch.tensor([v + [fill] * (longest - len(v)) for v in values], device=device)

    forked = any(any(row.branches) for row in rows)
    return Batch(
        tokens=stack("tokens", tokenizer.pad),
        codes=stack("codes", -1),
        text_labels=stack("text_labels", IGNORE),
        code_labels=stack("code_labels", IGNORE),
        pixels=pixels,
        image_token=tokenizer.image,
        branches=stack("branches", -1) if forked else None,
    )


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


def word_embeds(config: LanguageConfig, seed: int) -> Tensor:
    """The embeds of words at the start, fp32 [vocab_size, hidden], of variance 1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(config.vocab_size, config.hidden, generator=generator)


@torch.no_grad()
def initialise(
    janus: Janus,
    book: PatchBook | None,
    vision: VisionLearner | None,
    tokenizer: Tokenizer,
    seed: int,
) -> None:
    """Fresh weights: small matrices, silent residual outputs, codes and words with their kin.

    The encoder and its aligner, if there are any, are taken as they are; the VQ tokenizer is left
    alone.
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
    small = 0.6 * janus.config.language.hidden**-0.5
    words = word_embeds(janus.config.language, seed)
    janus.language.embed.weight.copy_(words)
    janus.text_head.weight.copy_(words * small)
    if vision is not None:
        janus.vision.load_state_dict(vision.vision.state_dict())
        janus.vision_aligner.load_state_dict(vision.aligner.state_dict())
    if book is not None:
        janus.code_embed.weight.copy_(book.vectors(janus.config.vq.code_dim))
        janus.code_head.fc2.weight.copy_(book.traits(janus.config.language.hidden, seed) * small)
    look_around(janus, tokenizer)


@torch.no_grad()
def look_around(janus: Janus, tokenizer: Tokenizer) -> None:
    """Heads that start by looking where they will have to: beside, above, at the words, at patches.

    Positions run in one dimension, so a model has to find out that the code above is one row of
    codes back, in which column it is, and that a few words among hundreds of codes matter; from
    random weights that took most of a small run. A start that looks like what training would find
    is Trockman and Kolter's "Mimetic Initialization" (2023). Some channels of the embeds are marks:
    one is on everywhere, one for words (a pad is none), one for patches, one where pictures start.
    A head whose query reads the first and whose key reads a mark attends to all that bear it; one
    whose rotary angles differ by `back` positions attends to the place so far back; one that
    attends to the start more or less by the angle turned since then tells how far it has come.
    """
    language, side = janus.language, janus.config.side
    config = language.config
    size, half = config.head_dim, config.head_dim // 2
    mark = 0.5 * config.hidden**0.5  # beside other channels of about 1
    random = torch.Generator().manual_seed(0)
    probe = torch.randn(64, janus.config.vision.width, generator=random)
    # Codes of unequal length would be looked at unequally.
    first, second = janus.code_aligner.fc1.weight, janus.code_aligner.fc2.weight
    nn.init.orthogonal_(first, gain=8.0, generator=random)
    nn.init.orthogonal_(second, generator=random)
    # A stream of small embeds would be overturned by each step of Muon, which has one size.
    for aligner, found, marks in (
        (janus.code_aligner, janus.code_table(), (ALL,)),
        (janus.vision_aligner, janus.vision_aligner(probe), (ALL, PATCH)),
    ):
        scale = SPREAD / found.std()
        aligner.fc2.weight.mul_(scale)
        aligner.fc2.bias.mul_(scale)
        aligner.fc2.weight[:MARKS] = 0.0
        aligner.fc2.bias[:MARKS] = 0.0
        aligner.fc2.bias[list(marks)] = mark * SPREAD
    words = language.embed.weight
    words *= SPREAD / words.std()
    words[:, :MARKS] = 0.0
    words[:, [ALL, WORD]] = mark * SPREAD
    words[tokenizer.pad, WORD] = 0.0
    words[tokenizer.begin_image, START] = mark * SPREAD
    reach = mark / (1 + 2 * 0.5**2) ** 0.5  # what a mark is after the norm
    unit = size**0.25 / reach  # a query and a key of this size score 1
    rates = config.rope_theta ** -(torch.arange(half) / half)
    # Neighbours of the place then score 5 less; rates below 0.05 tell them apart too little.
    turning = torch.where(rates > 0.05, 2.5 * unit, 0.0)
    still = torch.zeros(size)
    still[half - 1] = 3 * unit  # the slowest rate hardly turns: 9 more wherever the mark is

    def aim(layer: int, head: int, query: Tensor, key: Tensor, channel: int) -> None:
        if layer >= config.layers or head >= config.kv_heads:
            return
        weight = cast(Layer, language.layers[layer]).attention.qkv.weight
        weight = weight.view(-1, size, config.hidden)
        rows = [head * (config.heads // config.kv_heads), config.heads + head]
        weight[rows] *= 0.2  # what else is read there matters little yet
        weight[rows[0], :, ALL], weight[rows[1], :, channel] = query, key

    def near(layer: int, head: int, back: int) -> None:
        ahead = torch.cat((turning, torch.zeros(half)))
        turned = torch.cat((turning * (rates * back).cos(), turning * (rates * back).sin()))
        aim(layer, head, ahead, turned, ALL)

    def come(layer: int, head: int, circle: float, phase: float) -> None:
        """Attend to the start by the cosine of positions since then, less a phase."""
        pair = int((rates - math.tau / circle).abs().argmin())
        query, key = 0.75 * still, 0.75 * still  # 5 more at the start, which is one among hundreds
        query[pair] += 2 * unit
        key[pair] += 2 * unit * math.cos(phase)
        key[half + pair] += 2 * unit * math.sin(phase)
        aim(layer, head, query, key, START)

    near(0, 0, side - 1)  # the code above the next
    come(0, 1, side, 0)  # the column
    come(0, 2, side, math.pi / 2)
    come(0, 3, 2.2 * side**2, 0)  # the row
    for head, back in enumerate((side - 1, side - 2, side)):
        near(1, head, back)
    aim(1, 3, still, still, WORD)
    for layer in range(2, config.layers):
        for head, channel in enumerate((WORD, PATCH, WORD)):
            aim(layer, head, still, still, channel)


def train_model(
    config: JanusConfig,
    book: PatchBook,
    tokenizer: Tokenizer,
    drawn: Examples,
    asked: Examples,
    folder: Path,
    schedule: Schedule,
    *,
    vision: VisionLearner | None = None,
    spoil: Spoil | None = None,
    template: Template = PRO,
    seed: int = 0,
) -> Janus:
    """Train a Janus around a trained encoder and aligner; the returned one has the mean weights.

    book: what the codes stand for; the VQ tokenizer, the encoder and its aligner stay as
    `initialise` makes them. drawn and asked: the scenes that are drawn and those that are asked
    about; no scene comes twice. schedule.batch counts drawn pictures a step; a quarter as many are
    asked about, each in several conversations, half of them spoilt by spoil.
    """
    from accelerate import PartialState

    state = PartialState()
    janus = Janus(config)
    initialise(janus, book, vision, tokenizer, seed)
    for frozen in (janus.vq, janus.vision, janus.vision_aligner):
        frozen.requires_grad_(False)
    janus.to(state.device)
    asked_a_step = max(1, schedule.batch // 4)

    def batch(step: int) -> tuple[Batch, Batch]:
        share = step * state.num_processes + state.process_index
        random = np.random.default_rng([seed, share])
        first = share * schedule.batch
        wishes = [drawn(number, random) for number in range(first, first + schedule.batch)]
        found = book.codes(to_pixels([e.pixels for e in wishes]))
        weights = 1 + (OUTLINE - 1) * book.outlines(found).float()
        rows = [
            draw_row(
                tokenizer,
                template,
                e.prompt,
                row,
                drop=bool(random.random() < DROP),
                hidden=(random.random(len(row)) < _blindness(random)).tolist(),
            )
            for e, row in zip(wishes, found.tolist(), strict=True)
        ]
        first = share * asked_a_step
        shown = [asked(number, random) for number in range(first, first + asked_a_step)]
        answers = [
            answer_row(tokenizer, template, e.dialogues, config.vision.tokens) for e in shown
        ]
        pixels = half_spoilt(to_pixels([e.pixels for e in shown]), spoil, random).to(state.device)
        drawing = collate(rows, tokenizer, state.device)
        counted = torch.ones(drawing.codes.shape)
        counted[drawing.code_labels.cpu() != IGNORE] = weights.flatten()
        return (
            replace(drawing, code_weights=counted.to(state.device)),
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
