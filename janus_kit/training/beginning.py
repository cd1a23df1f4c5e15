"""What a model is before its first step: small, silent, and looking where it will have to look."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from janus_kit.config import LanguageConfig
from janus_kit.model import Janus, Layer
from janus_kit.prompts import Tokenizer
from janus_kit.training.traits import Traits
from janus_kit.training.vision_stage import MARKS, VisionLearner

__all__ = ["initialise", "word_embeds"]

SPREAD = 0.5  # of the embeds at the start
ALL, WORD, PATCH, START = 0, 1, 2, 3  # the channels of look_around's marks


def word_embeds(config: LanguageConfig, seed: int) -> Tensor:
    """The embeds of words at the start, fp32 [vocab_size, hidden], of variance 1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(config.vocab_size, config.hidden, generator=generator)


@torch.no_grad()
def initialise(
    janus: Janus,
    traits: Traits | None,
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
    if traits is not None:
        hidden = janus.config.language.hidden
        janus.code_embed.weight.copy_(traits.embeds(janus.config.vq.code_dim, seed))
        janus.code_head.fc2.weight.copy_(traits.vectors(hidden, seed) * small)
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
