"""The model stage: the language model learns to draw and to answer, in one mixed step.

Follows the second stage of Janus-Pro (Chen et al., 2025) in small: drawing and understanding side
by side, one in ten prompts dropped for guidance, the encoder and the tokenizer frozen. Muon's steps
have one size: an encoder that may move forgets what a thing is before anybody has asked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from janus_kit.config import JanusConfig
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
from janus_kit.training.beginning import initialise
from janus_kit.training.looking import Gaze, Looks, Sought, Things, looks
from janus_kit.training.loop import Schedule, Stage, optimizers, train
from janus_kit.training.quantizer import PatchBook, to_pixels
from janus_kit.training.traits import Traits
from janus_kit.training.vision_stage import Spoil, VisionLearner, some_spoilt

__all__ = [
    "Example",
    "Examples",
    "Learner",
    "answer_row",
    "codes_of",
    "collate",
    "draw_row",
    "tie_colors",
    "train_model",
]

# Scene number and random words about it → an example; the picture depends on the number alone.
Examples = Callable[[int, np.random.Generator], "Example"]

DROP = 0.1  # the share of prompts that is dropped, so that guidance has something to push from
OUTLINE = 5.0  # a code at the top of a thing counts so much: there its name shows, not beside it
LOOKED = 0.2  # how much the attention to what is asked about counts beside the codes
GROUND = 4  # one in so many codes of the ground is learnt, and counts so much
ASKED = 2.0  # scenes that are asked about, for each that is drawn
# Up to which share of the steps most of the ground is left out of what is asked about, and the
# range of the shares that stay: a row is then little more than half as long.
BARE, LEFT = 0.85, (0.05, 0.4)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A picture with a prompt that asks for it and conversations that fit it."""

    pixels: "np.ndarray[Any, Any]"  # uint8 [h, w, 3]
    prompt: str
    dialogues: Sequence[Sequence[tuple[str, str]]]  # none knows of the others
    places: "np.ndarray[Any, Any] | None" = None  # see world.places; of what could be drawn
    covered: "np.ndarray[Any, Any] | None" = None  # bool [image tokens]: where things are
    sought: Sought = field(default_factory=dict)  # by the questions of dialogues
    things: Things = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sequence and what it teaches; see model.Batch."""

    tokens: list[int]
    codes: list[int]
    text_labels: list[int]
    code_labels: list[int]
    branches: list[int]
    positions: list[int]


def draw_row(
    tokenizer: Tokenizer,
    template: Template,
    prompt: str,
    codes: Sequence[int],
    *,
    drop: bool,
    hidden: Sequence[bool] | None = None,
    skipped: Sequence[bool] | None = None,
) -> Row:
    """The prompt, then all codes but the last; each place learns the code that follows.

    skipped: the codes that are read but not learnt.

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
    learnt = list(codes)
    if skipped is not None:
        learnt = [IGNORE if away else code for code, away in zip(learnt, skipped, strict=True)]
    return Row(
        tokens=ids + [tokenizer.pad] * len(read),
        codes=[-1] * len(ids) + read,
        text_labels=[IGNORE] * (len(ids) + len(read)),
        code_labels=[IGNORE] * (len(ids) - 1) + learnt,
        branches=[0] * (len(ids) + len(read)),
        positions=list(range(len(ids) + len(read))),
    )


def codes_of(book: PatchBook, examples: Sequence[Example]) -> Tensor:
    """The codes of pictures, with the help of their places where those are known: [b, n]."""
    known = [e.places.reshape(-1, 3) for e in examples if e.places is not None]
    places = torch.from_numpy(np.stack(known)) if len(known) == len(examples) else None
    return book.codes(to_pixels([e.pixels for e in examples]), places)


def _blindness(random: np.random.Generator) -> float:
    """The share of a row's codes that is hidden: none of a third, nearly all of another third.

    Where hardly a code is seen, the words alone tell what the codes of a thing are.
    """
    return (0.0, random.random(), 1 - 0.1 * random.random())[int(random.integers(3))]


def _looked(example: Example, tokens: int, random: np.random.Generator) -> "np.ndarray[Any, Any]":
    """The places of a picture that are looked at: of things, and some of the ground."""
    found: np.ndarray[Any, Any] = random.random(tokens) < random.uniform(*LEFT)
    return found if example.covered is None else found | example.covered


def answer_row(
    tokenizer: Tokenizer,
    template: Template,
    dialogues: Sequence[Sequence[tuple[str, str]]],
    image_tokens: int,
    looked: Sequence[bool] | None = None,
) -> Row:
    """Conversations about one picture, which stands in the row once; only answers are learnt.

    Each begins with the picture and is a branch of its own, so that no answer can be read off
    another's. looked: which of the picture's tokens the row holds; they stand where they would.
    """
    found = [_conversation(tokenizer, template, d, image_tokens) for d in dialogues]
    picture = [i for i, token in enumerate(found[0][0]) if token == tokenizer.image]
    start = picture[-1] + 1
    away = set() if looked is None else {i for i, n in zip(picture, looked, strict=True) if not n}
    shown = [i for i in range(start) if i not in away]
    row = Row(
        tokens=[found[0][0][i] for i in shown],
        codes=[],
        text_labels=[IGNORE] * len(shown),
        code_labels=[],
        branches=[0] * len(shown),
        positions=shown,
    )
    for number, (tokens, labels) in enumerate(found, 1):
        row.tokens.extend(tokens[start:-1])
        row.text_labels.extend(labels[start + 1 :])
        row.branches.extend([number] * (len(tokens) - start - 1))
        row.positions.extend(range(start, len(tokens) - 1))
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
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    pixels: Tensor | None = None,
    looked: Tensor | None = None,
) -> Batch:
    """Rows of unequal length as one batch, padded on the right. looked: see Batch."""
    longest = max(len(row.tokens) for row in rows)

    def stack(name: str, fill: int) -> Tensor:
        values = [getattr(row, name) for row in rows]
        return torch.tensor([v + [fill] * (longest - len(v)) for v in values])

    forked = any(any(row.branches) for row in rows)
    return Batch(
        tokens=stack("tokens", tokenizer.pad),
        codes=stack("codes", -1),
        text_labels=stack("text_labels", IGNORE),
        code_labels=stack("code_labels", IGNORE),
        pixels=pixels,
        image_token=tokenizer.image,
        branches=stack("branches", -1) if forked else None,
        positions=stack("positions", 0) if forked else None,
        looked=looked,
    )


@torch.no_grad()
def tie_colors(janus: Janus, book: PatchBook) -> None:
    """Make what is known of a form the same in all colours, and of a colour in all forms.

    A coloured code's rows of the embeds and of the head become the sum of its form's and of its
    colour's, as a factorial design has them: what is learnt of a red form holds for the others,
    which a small run would else show too seldom.
    """
    head = janus.code_head.fc2
    for rows in (janus.code_embed.weight, head.weight, head.bias.unsqueeze(-1)):
        for run in book.families():
            whole = rows[run].view(book.colors, -1, rows.shape[1])
            form, color = whole.mean(0, keepdim=True), whole.mean(1, keepdim=True)
            whole.copy_(form + color - form.mean(1, keepdim=True))


class Learner(nn.Module):
    """Janus with its losses: forward((drawing batch, answering batch, looks)) -> figures."""

    def __init__(self, janus: Janus, text_weight: float = 1.0) -> None:
        super().__init__()
        self.janus = janus
        self.text_weight = text_weight
        self.gaze = Gaze(janus)

    def forward(self, batches: tuple[Batch, Batch, Looks]) -> dict[str, Tensor]:
        drawing, answering, wanted = batches
        code = self.janus.loss(drawing).code
        text = self.janus.loss(answering).text
        look = self.gaze.loss(answering, wanted)
        loss = code + self.text_weight * text + LOOKED * look
        return {"loss": loss, "code": code, "text": text, "look": look}


def train_model(
    config: JanusConfig,
    book: PatchBook,
    tokenizer: Tokenizer,
    drawn: Examples,
    asked: Examples,
    folder: Path,
    schedule: Schedule,
    *,
    traits: Traits | None = None,
    vision: VisionLearner | None = None,
    spoil: Spoil | None = None,
    watch: Callable[[int, Janus], Mapping[str, float]] | None = None,
    taken: Janus | None = None,
    template: Template = PRO,
    seed: int = 0,
) -> Janus:
    """Train a Janus around a trained encoder and aligner; the returned one has the mean weights.

    book: what the codes stand for. The VQ tokenizer, the encoder and its aligner stay as
    `initialise` makes them. drawn and asked: the scenes that are drawn and those that are asked
    about; no scene comes twice. schedule.batch counts drawn pictures a step; ASKED times as many
    are asked about, each in several conversations, some of them spoilt by spoil. traits: what the
    codes show, from which a fresh model begins. watch: looks at the model as it is after so many
    steps. taken: a trained model that goes on to learn.
    """
    from accelerate import PartialState

    state = PartialState()
    janus = taken or Janus(config)
    if taken is None:
        initialise(janus, traits, vision, tokenizer, seed)
    elif vision is not None:
        janus.vision.load_state_dict(vision.vision.state_dict())
    tie_colors(janus, book)
    for frozen in (janus.vq, janus.vision, janus.vision_aligner):
        frozen.requires_grad_(False)
    janus.to(state.device)
    asked_a_step = round(ASKED * schedule.batch)

    def batch(step: int) -> tuple[Batch, Batch, Looks]:
        share = step * state.num_processes + state.process_index
        random = np.random.default_rng([seed, share])
        first = share * schedule.batch
        wishes = [drawn(number, random) for number in range(first, first + schedule.batch)]
        found = codes_of(book, wishes)
        weights = 1 + (OUTLINE - 1) * book.outlines(found).float()
        # Most of a picture is ground; a quarter of it, counting four times, teaches as much.
        ground = found < book.ground
        skipped = ground & torch.from_numpy(random.random(found.shape) > 1 / GROUND)
        weights = torch.where(ground, GROUND * weights, weights)
        rows = [
            draw_row(
                tokenizer,
                template,
                e.prompt,
                row,
                drop=bool(random.random() < DROP),
                hidden=(random.random(len(row)) < _blindness(random)).tolist(),
                skipped=away,
            )
            for e, row, away in zip(wishes, found.tolist(), skipped.tolist(), strict=True)
        ]
        first = share * asked_a_step
        shown = [asked(number, random) for number in range(first, first + asked_a_step)]
        looked = None
        if step < BARE * schedule.steps:
            looked = np.stack([_looked(e, config.vision.tokens, random) for e in shown])
        answers = [
            answer_row(
                tokenizer,
                template,
                e.dialogues,
                config.vision.tokens,
                None if looked is None else looked[i].tolist(),
            )
            for i, e in enumerate(shown)
        ]
        lying = [e.places for e in shown]
        pixels = some_spoilt(to_pixels([e.pixels for e in shown]), lying, spoil, random)
        drawing = collate(rows, tokenizer)
        counted = torch.ones(drawing.codes.shape)
        counted[drawing.code_labels != IGNORE] = weights[~skipped]
        seen = None if looked is None else torch.from_numpy(looked)
        answering = collate(answers, tokenizer, pixels, seen)
        wanted = looks(
            answering,
            [e.dialogues for e in shown],
            [e.sought for e in shown],
            [e.things for e in shown],
            tokenizer,
        )
        return replace(drawing, code_weights=counted), answering, wanted

    def inside(name: str) -> bool:
        return ".layers." in name or ".blocks." in name

    learner = Learner(janus)
    stage = Stage(
        module=learner,
        optimizers=optimizers(learner, inside, schedule.rate),
        batch=batch,
        schedule=schedule,
        average=0.99,
        after=lambda step: tie_colors(janus, book),
        watch=None if watch is None else lambda step: watch(step, janus),
    )
    average = train(stage, folder)
    janus.load_state_dict({k.removeprefix("janus."): v for k, v in average.items()})
    return janus
