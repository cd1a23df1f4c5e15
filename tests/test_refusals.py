"""What JanusPipeline refuses, before any work and in one plain sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_parts import CAT, CONTEXT, QUESTION, codes, picture, refused, talk
from torch import Tensor

from janus_kit.errors import (
    DeviceError,
    GenerationError,
    ImageError,
    OptionError,
    PromptError,
)
from janus_kit.pipeline import JanusPipeline


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("seed", value) for value in (-1, -5, 2**63, 2**70, 1.5, "abc", float("nan"), True)],
        *[("num_images_per_prompt", value) for value in (0, -1, 1.5, "2", 10**4, None)],
        *[("batch_size", value) for value in (0, -1, 1.5, "big", 10**6, None)],
        *[("guidance_scale", value) for value in (0, -3, 1e9, 10**400, float("nan"), "5")],
        ("guidance_scale", float("inf")),
        *[("temperature", value) for value in (-1, 1e-38, float("inf"))],
        *[("top_p", value) for value in (0, 1.1)],
        *[("top_k", value) for value in (-1, "3", 2**70)],
        *[("output_type", value) for value in ("jpg", "latent", "PIL", None, 3)],
    ],
)
def test_a_bad_number_or_name_is_refused_before_any_work(
    pipe: JanusPipeline, rows: dict[str, list[int]], name: str, value: Any
) -> None:
    message = refused(OptionError, lambda: pipe(CAT, **{name: value}))
    assert message.startswith(f"{name} must be ".replace("guidance_scale", "guidance"))
    assert not rows["forward"]


def test_the_last_picture_must_have_a_seed_too(pipe: JanusPipeline) -> None:
    refused(OptionError, lambda: pipe(CAT, seed=2**63 - 1, num_images_per_prompt=2))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_list_of_generators_must_have_one_for_each_picture(
    pipe: JanusPipeline, count: int
) -> None:
    sources = [torch.Generator() for _ in range(count)]
    message = refused(OptionError, lambda: pipe(CAT, num_images_per_prompt=2, generator=sources))
    assert message == f"there are {count} generators for 2 pictures"


@pytest.mark.parametrize("value", [5, [5, 6], "ab"])
def test_what_is_no_generator_is_refused(pipe: JanusPipeline, value: Any) -> None:
    refused(OptionError, lambda: pipe(CAT, num_images_per_prompt=2, generator=value))


def test_a_seed_and_a_generator_together_are_refused(pipe: JanusPipeline) -> None:
    message = refused(OptionError, lambda: pipe(CAT, seed=1, generator=torch.Generator()))
    assert message == "give a seed or a generator, not both"


def test_negative_prompts_must_be_as_many_as_prompts(pipe: JanusPipeline) -> None:
    refused(OptionError, lambda: pipe([CAT, CAT], negative_prompt=["a", "b", "c"]))


@pytest.mark.parametrize("prompt", [[], "a\x00b", "\ud800", "x" * 2001, 5, None, [CAT, 5], b"cat"])
def test_what_cannot_be_a_prompt_is_refused(pipe: JanusPipeline, prompt: Any) -> None:
    refused(PromptError, lambda: pipe(prompt))
    if prompt and prompt != [CAT, 5]:
        refused(PromptError, lambda: pipe([CAT], negative_prompt=[prompt]))


def test_text_that_leaves_no_room_for_the_picture_is_refused(pipe: JanusPipeline) -> None:
    room = CONTEXT - 16
    words = next(n for n in range(room) if len(pipe.tokenizer.encode(" %" * n)) > room)
    message = refused(PromptError, lambda: pipe(" %" * words))
    assert f"the model reads {CONTEXT} at most" in message
    refused(PromptError, lambda: pipe(CAT, negative_prompt=" %" * words))
    refused(PromptError, lambda: pipe.chat(talk(" %" * words), max_new_tokens=1))
    refused(PromptError, lambda: pipe.chat(talk("a", *[picture(1)] * 9), max_new_tokens=1))


def test_text_that_just_fits_is_drawn_and_one_token_more_is_not(
    pipe: JanusPipeline, read: list[Tensor]
) -> None:
    codes(pipe, "%")
    frame = read[0].shape[1] - 1
    assert codes(pipe, "%" * (CONTEXT - 16 - frame)).shape == (1, 16)
    refused(PromptError, lambda: codes(pipe, "%" * (CONTEXT - 16 - frame + 1)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("max_new_tokens", value) for value in (0, -1, CONTEXT + 1, 1.5, "8")],
        *[("seed", value) for value in (-1, 2**63, "abc")],
        *[("temperature", value) for value in (-1, float("nan"))],
        *[("top_p", value) for value in (0, 1.1)],
        *[("batch_size", value) for value in (0, "big")],
    ],
)
def test_a_bad_number_for_an_answer_is_refused(pipe: JanusPipeline, name: str, value: Any) -> None:
    options = {"max_new_tokens": 1} | {name: value}
    message = refused(OptionError, lambda: pipe.ask(picture(1), QUESTION, **options))
    assert message.startswith(f"{name} must be ")


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "cat?",
        ["cat?"],
        [{"role": "user"}, {"role": "user"}],
        [{"role": "system", "content": "a"}],
        [*talk("a"), {"role": "assistant", "content": "b"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": ["a"]}],
        [{"role": "user", "content": [{"type": "video", "video": "a"}]}],
        [{"role": "user", "content": "a", "pictures": []}],
        [{"role": "user", "content": "a", "images": 5}],
        [{"role": "assistant", "content": "a", "images": [picture(1)]}, *talk("b")],
    ],
)
def test_what_cannot_be_a_conversation_is_refused(pipe: JanusPipeline, messages: Any) -> None:
    refused(PromptError, lambda: pipe.chat(messages, max_new_tokens=1))


@pytest.mark.parametrize("images", [5, None, [None], "no/such/file.png", [picture(1), 3]])
def test_what_is_no_picture_is_refused(pipe: JanusPipeline, images: Any) -> None:
    refused(ImageError, lambda: pipe.ask(images, QUESTION, max_new_tokens=1))
    refused(ImageError, lambda: pipe.encode(images))


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "tpu", "meta", "cpu!", ""])
def test_a_device_that_is_not_there_is_refused(
    hf_folder: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(DeviceError, lambda: JanusPipeline.from_pretrained(hf_folder, device=device))


@pytest.mark.parametrize("dtype", ["int3", "int8", "", torch.int64, torch.float64, None, 16])
def test_a_dtype_that_weights_cannot_have_is_refused(hf_folder: Path, dtype: Any) -> None:
    refused(
        DeviceError, lambda: JanusPipeline.from_pretrained(hf_folder, device="cpu", dtype=dtype)
    )


@pytest.mark.parametrize("temperature", [0, 1])
def test_weights_that_give_nan_are_told_not_drawn(spare: JanusPipeline, temperature: float) -> None:
    model = spare.model
    with torch.no_grad():
        model.code_head.fc2.bias[3] = float("nan")
        model.text_head.weight[3] = float("nan")
    message = refused(GenerationError, lambda: spare(CAT, temperature=temperature))
    assert "row 1 of the picture" in message
    message = refused(
        GenerationError, lambda: spare.chat(talk("a"), max_new_tokens=4, temperature=temperature)
    )
    assert "token 1 of the answer" in message


@pytest.mark.parametrize("kind", ["pil", "np", "pt"])
def test_pixels_of_nan_are_told_not_given(spare: JanusPipeline, kind: str) -> None:
    with torch.no_grad():
        spare.model.vq.decoder.conv_out.bias[0] = float("nan")
    drawn = torch.zeros(1, spare.config.codes, dtype=torch.long)
    assert "NaN" in refused(GenerationError, lambda: spare.decode(drawn, kind))


@pytest.mark.parametrize(
    "wrong", [{"output_type": "PIL"}, {"chunk": 0}, {"codes": torch.zeros(1, 16)}, {"codes": [[1]]}]
)
def test_a_wrong_argument_of_decode_is_refused(pipe: JanusPipeline, wrong: dict[str, Any]) -> None:
    given = {"codes": torch.zeros(1, 16, dtype=torch.long), **wrong}
    refused(OptionError, lambda: pipe.decode(**given))


def test_an_unknown_option_of_an_answer_is_refused_by_name(pipe: JanusPipeline) -> None:
    assert "'nonsense'" in refused(OptionError, lambda: pipe.chat(talk("a"), nonsense=1))


def test_a_wrong_device_is_told_before_anything_is_fetched() -> None:
    with pytest.raises(DeviceError):
        JanusPipeline.from_pretrained("nobody/nothing", device="tpu")


@pytest.mark.parametrize("name", ["height", "width"])
def test_another_size_is_refused_and_the_models_own_is_taken(
    pipe: JanusPipeline, name: str
) -> None:
    size = pipe.config.vision.image_size
    assert pipe(CAT, seed=1, **{name: size}).images[0].size == (size, size)
    with pytest.raises(OptionError, match="learnt no other size"):
        pipe(CAT, **{name: 2 * size})
