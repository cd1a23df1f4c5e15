"""What we draw and answer equals what transformers' Janus does with the same weights.

Greedy runs are equal token for token. Sampling is compared with a slow re-statement and with the
probabilities themselves, since the two libraries spend their random numbers differently.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_config
from PIL import Image
from test_checkpoint import make_original, write, write_parts
from torch import Tensor

from janus_kit import config
from janus_kit.generation.sampling import SamplingOptions, choose, guide, uniforms
from janus_kit.pipeline import JanusPipeline
from janus_kit.prompts import PRO, Message, chat_ids, drawing_ids
from janus_kit.vision import images
from janus_kit.writing import write_text

PROMPTS = ["a red cat", "two green dogs and 3 birds sit on a blue mat", "cat"]
QUESTION = "what colour is the cat?"
STEPS = 12  # tokens of an answer
GREEDY = SamplingOptions(guidance=1, temperature=0)


@pytest.fixture(scope="module")
def ours(hf_folder: Path) -> JanusPipeline:
    return JanusPipeline.from_pretrained(hf_folder, device="cpu")


@pytest.fixture(scope="module")
def theirs(hf_folder: Path, ours: JanusPipeline) -> Any:
    from transformers import JanusForConditionalGeneration

    model = JanusForConditionalGeneration.from_pretrained(hf_folder).eval()
    settings = model.generation_config
    settings.bos_token_id, settings.eos_token_id = ours.tokenizer.bos, ours.tokenizer.eos
    settings.pad_token_id = ours.tokenizer.pad
    settings.generation_kwargs = {"boi_token_id": ours.tokenizer.begin_image}
    return model


def picture(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Random blocks of colour: pictures that a random encoder tells apart."""
    levels = torch.randint(0, 256, (8, 8, 3), generator=torch.Generator().manual_seed(seed))
    image = Image.fromarray(levels.to(torch.uint8).numpy())
    return image.resize(size, Image.Resampling.NEAREST)


def inputs(rows: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    gaps = [max(map(len, rows)) - len(row) for row in rows]
    tokens = [[pad] * gap + list(row) for gap, row in zip(gaps, rows, strict=True)]
    mask = [[0] * gap + [1] * len(row) for gap, row in zip(gaps, rows, strict=True)]
    return {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(mask)}


# Pictures


def their_codes(theirs: Any, ours: JanusPipeline, prompts: Sequence[str]) -> Tensor:
    rows = [drawing_ids(ours.tokenizer, PRO, prompt) for prompt in prompts]
    return theirs.generate(  # type: ignore[no-any-return]
        **inputs(rows, ours.tokenizer.pad),
        generation_mode="image",
        do_sample=False,
        guidance_scale=5,
        max_new_tokens=16,
    )


def our_codes(ours: JanusPipeline, prompts: Sequence[str]) -> Tensor:
    return ours(prompts, temperature=0, output_type="tokens").images  # type: ignore[no-any-return]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_codes_of_one_prompt_are_theirs(
    ours: JanusPipeline, theirs: Any, prompt: str
) -> None:
    codes = our_codes(ours, [prompt])
    assert torch.equal(codes, their_codes(theirs, ours, [prompt]))
    assert len(codes.unique()) > 2  # else equality would mean little


def test_greedy_codes_of_prompts_of_different_lengths_are_theirs(
    ours: JanusPipeline, theirs: Any
) -> None:
    codes = our_codes(ours, PROMPTS)
    assert torch.equal(codes, their_codes(theirs, ours, PROMPTS))
    assert len(codes.unique(dim=0)) == len(PROMPTS)


def test_greedy_codes_of_equal_prompts_are_theirs(ours: JanusPipeline, theirs: Any) -> None:
    expected = their_codes(theirs, ours, PROMPTS[:1] * 3)
    assert torch.equal(our_codes(ours, PROMPTS[:1] * 3), expected)
    copies = ours(PROMPTS[0], num_images_per_prompt=3, temperature=0, output_type="tokens")
    assert torch.equal(copies.codes, expected)


# Answers


def our_ids(
    ours: JanusPipeline, rows: Sequence[Sequence[int]], pixels: Tensor | None, eos: int
) -> Tensor:
    with torch.inference_mode():
        steps = write_text(
            ours.model,
            rows,
            [] if pixels is None else list(ours.model.features(pixels)),
            pad=ours.tokenizer.pad,
            eos=eos,
            image=ours.tokenizer.image,
            noise=uniforms([0] * len(rows), STEPS),
            options=GREEDY,
        )
        return torch.stack(list(steps), 1)


def their_ids(
    theirs: Any, rows: Sequence[Sequence[int]], pixels: Tensor | None, pad: int, eos: int
) -> Tensor:
    read = inputs(rows, pad)
    more = {} if pixels is None else {"pixel_values": pixels}
    found = theirs.generate(
        **read,
        **more,
        generation_mode="text",
        do_sample=False,
        max_new_tokens=STEPS,
        eos_token_id=eos,
        pad_token_id=eos,  # as we fill the rows that have ended
    )
    return found[:, read["input_ids"].shape[1] :]  # type: ignore[no-any-return]


def rows_of(ours: JanusPipeline, shown: Sequence[int]) -> tuple[list[list[int]], Tensor | None]:
    """Short conversations with the given numbers of pictures, and their pixels."""
    rows = []
    for i, images_shown in enumerate(shown):
        turns = [Message("user", f"{PROMPTS[i]} {QUESTION}"[: 8 + 9 * i], images_shown)]
        rows.append(chat_ids(ours.tokenizer, PRO, turns, ours.config.vision.tokens))
    count = sum(shown)
    pixels = [images.to_pixels(picture(i), 64) for i in range(count)]
    return rows, torch.stack(pixels) if pixels else None


@pytest.mark.parametrize("shown", [[0], [1], [2], [1, 1, 1], [2, 0, 1], [0, 0, 0]])
def test_greedy_ids_of_answers_are_theirs(
    ours: JanusPipeline, theirs: Any, shown: list[int]
) -> None:
    rows, pixels = rows_of(ours, shown)
    assert len({len(row) for row in rows}) == len(rows)  # so that a batch is padded
    eos = ours.tokenizer.eos
    found = our_ids(ours, rows, pixels, eos)
    assert torch.equal(found, their_ids(theirs, rows, pixels, ours.tokenizer.pad, eos))
    assert len(found.unique()) > 4


def test_a_row_that_ends_before_the_others_ends_as_theirs(ours: JanusPipeline, theirs: Any) -> None:
    rows, pixels = rows_of(ours, [1, 1, 1])
    free = our_ids(ours, rows, pixels, ours.tokenizer.eos)
    # A token that one row says after its first and another row never says.
    eos = next(
        token
        for token in free[0, 1:].tolist()
        if token not in free[1].tolist() and token != free[0, 0]
    )
    found = our_ids(ours, rows, pixels, eos)
    assert torch.equal(found, their_ids(theirs, rows, pixels, ours.tokenizer.pad, eos))
    end = free[0].tolist().index(eos)
    assert (found[0, end:] == eos).all()
    assert torch.equal(found[1], free[1])


def test_an_answer_about_a_picture_is_the_text_of_their_ids(
    ours: JanusPipeline, theirs: Any
) -> None:
    shown = picture(3)
    turns = [Message("user", QUESTION, 1)]
    row = chat_ids(ours.tokenizer, PRO, turns, ours.config.vision.tokens)
    pixels = images.to_pixels(shown, 64)[None]
    ids = their_ids(theirs, [row], pixels, ours.tokenizer.pad, ours.tokenizer.eos)[0].tolist()
    expected = ours.tokenizer.decode(ids).strip()
    assert ours.ask(shown, QUESTION, max_new_tokens=STEPS) == expected
    assert expected


# The original layout


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("parts", [False, True])
def test_the_original_layout_draws_and_answers_the_same(
    ours: JanusPipeline,
    hf_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pickled: bool,
    parts: bool,
) -> None:
    # The original config.json cannot say tiny: whatever it says, read the tiny shapes.
    monkeypatch.setattr(config, "_from_original", lambda data: tiny_config())
    state = make_original(tmp_path, hf_folder)
    if parts:
        write_parts(tmp_path, state, pickled)
    else:
        write(state, tmp_path / ("pytorch_model.bin" if pickled else "model.safetensors"))
    again = JanusPipeline.from_pretrained(tmp_path, device="cpu")
    assert torch.equal(our_codes(again, PROMPTS), our_codes(ours, PROMPTS))
    answers = [
        pipe.ask([picture(1), picture(2)], QUESTION, max_new_tokens=STEPS) for pipe in (again, ours)
    ]
    assert answers[0] == answers[1]


# Sampling


def slow_choice(logits: list[float], uniform: float, options: SamplingOptions) -> int:
    """One code, as a person would draw it: probabilities, cuts, then a walk along the codes."""
    if options.temperature == 0:
        return max(range(len(logits)), key=lambda code: logits[code])
    ordered = sorted(range(len(logits)), key=lambda code: -logits[code])
    kept = set(ordered[: options.top_k or None])

    def chances() -> list[float]:
        powers = [math.exp(x / options.temperature) * (c in kept) for c, x in enumerate(logits)]
        return [power / sum(powers) for power in powers]

    before, among = 0.0, chances()
    for code in ordered:
        if before >= options.top_p:
            kept.discard(code)
        before += among[code]
    left = uniform
    for code, chance in enumerate(chances()):
        left -= chance
        if left < 0:
            return code
    raise AssertionError("the probabilities do not reach 1")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0},
        {"temperature": 0.3},
        {"temperature": 3.0},
        {"top_k": 5},
        {"top_p": 0.6},
        {"temperature": 0.7, "top_k": 9, "top_p": 0.8},
    ],
)
def test_a_choice_is_that_of_a_slow_restatement(options: dict[str, Any]) -> None:
    rows = 200
    settings = SamplingOptions(**options)
    logits = torch.randn(rows, 64, generator=torch.Generator().manual_seed(6)) * 2
    noise = uniforms([9], rows)[0]
    found = choose(logits, noise, settings).tolist()
    pairs = zip(logits.tolist(), noise.tolist(), strict=True)
    assert found == [slow_choice(row, uniform, settings) for row, uniform in pairs]


def test_the_frequencies_of_many_draws_are_the_probabilities() -> None:
    draws, size = 20_000, 64
    both = torch.randn(2, size, generator=torch.Generator().manual_seed(7)) * 0.2
    logits = guide(both, 5.0)
    expected = draws * logits.double().softmax(-1)[0]
    assert expected.min() > 5  # below that the statistic means little
    noise = uniforms([11], draws)[0]
    found = choose(logits.expand(draws, size), noise, SamplingOptions()).bincount(minlength=size)
    # χ² of 63 degrees exceeds 115 once in ten thousand times.
    assert ((found - expected) ** 2 / expected).sum() < 115


def test_guidance_is_theirs() -> None:
    from transformers.generation.logits_process import ClassifierFreeGuidanceLogitsProcessor

    both = torch.randn(6, 64, generator=torch.Generator().manual_seed(8))
    for weight in (1.5, 5.0):
        theirs = ClassifierFreeGuidanceLogitsProcessor(weight)(torch.zeros(3, 1).long(), both)
        assert torch.equal(guide(both, weight), theirs)
        assert torch.equal(guide(both, weight), both[3:] + weight * (both[:3] - both[3:]))
