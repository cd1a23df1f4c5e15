"""JanusPipeline on the tiny model: a picture is its seed's, whatever is beside it."""

import io
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from janus_kit import answering
from janus_kit.errors import (
    DeviceError,
    GenerationError,
    ImageError,
    JanusKitError,
    OptionError,
    PromptError,
)
from janus_kit.generation.native import NativeStep
from janus_kit.metadata import read_settings
from janus_kit.model import Language
from janus_kit.pipeline import JanusPipeline

CAT = "a red cat"
OTHERS = ["two green dogs and 3 birds sit on a blue mat", "", "mat", "a red cat sits"]
QUESTION = "what colour is the cat?"
CONTEXT = 256  # positions of the tiny model


@pytest.fixture(scope="module")
def pipe(hf_folder: Path) -> JanusPipeline:
    return JanusPipeline.from_pretrained(hf_folder, device="cpu")


@pytest.fixture
def spare(hf_folder: Path) -> JanusPipeline:
    """A pipeline of one's own, to be changed."""
    return JanusPipeline.from_pretrained(hf_folder, device="cpu")


@pytest.fixture
def read(pipe: JanusPipeline) -> Iterator[list[Tensor]]:
    """The tokens that the model reads from now on, [b, t] a call."""
    found: list[Tensor] = []
    embed = pipe.model.language.embed
    hook = embed.register_forward_pre_hook(lambda module, given: found.append(given[0].clone()))
    yield found
    hook.remove()


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How many rows the language model reads at once, whole ("forward") and in steps ("step")."""
    found: dict[str, list[int]] = {"forward": [], "step": []}

    def spy(name: str) -> Callable[..., Tensor]:
        plain = getattr(Language, name)

        def method(self: Language, embeds: Tensor, *rest: Any, **named: Any) -> Tensor:
            found[name].append(len(embeds))
            return plain(self, embeds, *rest, **named)  # type: ignore[no-any-return]

        return method

    for name in found:
        monkeypatch.setattr(Language, name, spy(name))
    quick = NativeStep.__call__

    def native(self: NativeStep, embeds: Tensor, *rest: Any) -> Tensor:
        found["step"].append(len(embeds))
        return quick(self, embeds, *rest)

    monkeypatch.setattr(NativeStep, "__call__", native)
    whole = NativeStep.draw

    def draw(
        self: NativeStep, logits: Any, before: Any, noise: Tensor, *rest: Any, **named: Any
    ) -> Any:
        steps = noise.shape[1] - (before is None)
        found["step"] += [len(noise) * (2 if named["guided"] else 1)] * steps
        return whole(self, logits, before, noise, *rest, **named)

    monkeypatch.setattr(NativeStep, "draw", draw)
    return found


def codes(pipe: JanusPipeline, prompt: Any = CAT, **options: Any) -> Tensor:
    return pipe(prompt, output_type="tokens", **options).codes


def picture(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Random blocks of colour: pictures that a random encoder tells apart."""
    levels = torch.randint(0, 256, (8, 8, 3), generator=torch.Generator().manual_seed(seed))
    image = Image.fromarray(levels.to(torch.uint8).numpy())
    return image.resize(size, Image.Resampling.NEAREST)


def talk(text: str, *images: Image.Image) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text, "images": list(images)}]


# A picture is its seed's


def test_a_picture_is_the_same_alone_and_in_a_batch_of_eight(pipe: JanusPipeline) -> None:
    together = codes(pipe, seed=40, num_images_per_prompt=8, batch_size=8)
    assert len(together.unique(dim=0)) == 8
    for i in range(8):
        assert torch.equal(codes(pipe, seed=40 + i)[0], together[i])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 100])
def test_the_batch_size_changes_no_picture(pipe: JanusPipeline, size: int) -> None:
    expected = codes(pipe, seed=40, num_images_per_prompt=7)
    assert torch.equal(codes(pipe, seed=40, num_images_per_prompt=7, batch_size=size), expected)


def test_prompts_of_other_lengths_beside_it_change_no_picture(pipe: JanusPipeline) -> None:
    for place in range(len(OTHERS) + 1):
        prompts = [*OTHERS[:place], CAT, *OTHERS[place:]]
        found = codes(pipe, prompts, seed=60 - place)[place]
        assert torch.equal(found, codes(pipe, seed=60)[0])


def test_the_order_of_the_prompts_changes_no_picture(pipe: JanusPipeline) -> None:
    seeds = [3, 1, 4, 1]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        sources = [torch.Generator().manual_seed(seeds[i]) for i in order]
        found = codes(pipe, [OTHERS[i] for i in order], generator=sources)
        for place, i in enumerate(order):
            assert torch.equal(found[place], codes(pipe, OTHERS[i], seed=seeds[i])[0])


def test_two_threads_at_once_draw_and_answer_as_one_does(pipe: JanusPipeline) -> None:
    start = Barrier(2)

    def work(first: int) -> tuple[list[Tensor], list[str]]:
        start.wait(timeout=30)
        drawn = [codes(pipe, seed=first + i, num_images_per_prompt=2) for i in range(5)]
        said = [
            pipe.ask(picture(first + i), QUESTION, max_new_tokens=5, temperature=1, seed=first)
            for i in range(5)
        ]
        return drawn, said

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(work, [100, 200]))
    start = Barrier(1)
    for first, (drawn, said) in zip([100, 200], together, strict=True):
        alone_drawn, alone_said = work(first)
        assert said == alone_said
        assert all(torch.equal(a, b) for a, b in zip(drawn, alone_drawn, strict=True))


def test_seeds_are_counted_over_all_prompts(pipe: JanusPipeline) -> None:
    out = pipe([CAT, "mat"], seed=5, num_images_per_prompt=2, output_type="tokens")
    assert out.seeds == [5, 6, 7, 8]
    assert [s.seed for s in out.settings] == out.seeds
    assert [s.prompt for s in out.settings] == [CAT, CAT, "mat", "mat"]
    assert torch.equal(out.codes[1], codes(pipe, seed=6)[0])
    assert torch.equal(out.codes[2], codes(pipe, "mat", seed=7)[0])


def test_without_a_seed_pictures_differ_and_tell_theirs(pipe: JanusPipeline) -> None:
    first, second = (pipe(CAT, output_type="tokens") for _ in range(2))
    assert first.seeds != second.seeds
    assert torch.equal(codes(pipe, seed=first.seeds[0]), first.codes)


def test_the_largest_seed_draws(pipe: JanusPipeline) -> None:
    out = pipe(CAT, seed=2**63 - 2, num_images_per_prompt=2, output_type="tokens")
    assert out.seeds == [2**63 - 2, 2**63 - 1]


def test_generators_draw_what_their_seeds_draw(pipe: JanusPipeline) -> None:
    sources = [torch.Generator().manual_seed(seed) for seed in (8, 3)]
    found = pipe(CAT, num_images_per_prompt=2, generator=sources, output_type="tokens")
    assert found.seeds == [8, 3]
    assert torch.equal(found.codes[0], codes(pipe, seed=8)[0])
    assert torch.equal(found.codes[1], codes(pipe, seed=3)[0])


def test_one_generator_goes_on_from_picture_to_picture(pipe: JanusPipeline) -> None:
    def source() -> torch.Generator:
        return torch.Generator().manual_seed(8)

    out = pipe(CAT, num_images_per_prompt=2, generator=source(), output_type="tokens")
    together = out.codes
    assert out.seeds[0] == 8 != out.seeds[1]
    for seed, row in zip(out.seeds, together, strict=True):
        assert torch.equal(codes(pipe, seed=seed)[0], row)
    one = source()
    assert torch.equal(codes(pipe, generator=one), together[:1])
    assert torch.equal(codes(pipe, generator=one), together[1:])
    assert not torch.equal(together[0], together[1])


def test_no_global_random_state_is_used_or_changed(pipe: JanusPipeline) -> None:
    def states() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())

    before = states()
    codes(pipe, num_images_per_prompt=2)
    pipe.ask(picture(1), QUESTION, max_new_tokens=3, temperature=1)
    assert states() == before


def test_a_model_saved_and_loaded_again_draws_the_same(pipe: JanusPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "saved")
    again = JanusPipeline.from_pretrained(tmp_path / "saved", device="cpu")
    assert torch.equal(codes(again, [CAT, *OTHERS], seed=1), codes(pipe, [CAT, *OTHERS], seed=1))
    assert again.ask(picture(1), QUESTION, max_new_tokens=5) == pipe.ask(
        picture(1), QUESTION, max_new_tokens=5
    )


# Guidance


def test_a_negative_prompt_changes_the_picture(pipe: JanusPipeline) -> None:
    plain = codes(pipe, seed=1)
    assert not torch.equal(codes(pipe, seed=1, negative_prompt="a green dog"), plain)
    assert pipe(CAT, seed=1, negative_prompt="dog").settings[0].negative_prompt == "dog"


@pytest.mark.parametrize("negative", [None, "", [None], [""]])
def test_without_a_negative_prompt_guidance_reads_the_published_pads(
    pipe: JanusPipeline, read: list[Tensor], negative: Any
) -> None:
    found = codes(pipe, [CAT], seed=1, negative_prompt=negative)
    tokens, words = pipe.tokenizer, read[0].shape[1] - 2
    assert read[0][1].tolist() == [tokens.bos, *[tokens.pad] * words, tokens.begin_image]
    assert torch.equal(found, codes(pipe, seed=1))


def test_every_prompt_can_have_a_negative_prompt_of_its_own(pipe: JanusPipeline) -> None:
    found = codes(pipe, [CAT, CAT, "mat"], negative_prompt=["dog", None, "a blue bird"], seed=1)
    assert torch.equal(found[0], codes(pipe, seed=1, negative_prompt="dog")[0])
    assert torch.equal(found[1], codes(pipe, seed=2)[0])
    assert torch.equal(found[2], codes(pipe, "mat", seed=3, negative_prompt="a blue bird")[0])


@pytest.mark.parametrize(("guidance", "copies"), [(1, 1), (5, 2)])
def test_guidance_one_runs_half_the_rows(
    pipe: JanusPipeline, rows: dict[str, list[int]], guidance: float, copies: int
) -> None:
    codes(pipe, [CAT, "mat", "two green dogs"], guidance_scale=guidance, batch_size=3)
    assert rows["forward"] == [3 * copies]
    assert rows["step"] == [3 * copies] * 15


def test_equal_prompts_are_read_once(pipe: JanusPipeline, rows: dict[str, list[int]]) -> None:
    codes(pipe, num_images_per_prompt=8, batch_size=8)
    assert rows["forward"] == [2]
    assert rows["step"] == [16] * 15
    codes(pipe, num_images_per_prompt=6, batch_size=2)
    assert rows["forward"] == [2, 2]  # once for three batches
    codes(pipe, [CAT, CAT, "a dog"], batch_size=2)
    assert rows["forward"] == [2, 2, 2, 2]  # the batches differ


def test_options_reach_the_choice_of_codes(pipe: JanusPipeline) -> None:
    greedy = codes(pipe, temperature=0, seed=1)
    assert torch.equal(codes(pipe, temperature=0, seed=2), greedy)
    assert torch.equal(codes(pipe, top_k=1), greedy)
    assert torch.equal(codes(pipe, top_p=1e-6), greedy)
    assert not torch.equal(codes(pipe, seed=1), greedy)


# What comes out


def test_the_output_types_agree(pipe: JanusPipeline) -> None:
    found = {
        kind: pipe(CAT, seed=1, num_images_per_prompt=2, output_type=kind)
        for kind in ("pil", "np", "pt", "tokens")
    }
    assert all(torch.equal(out.codes, found["tokens"].codes) for out in found.values())
    assert torch.equal(found["tokens"].images, found["tokens"].codes)
    array, tensor = found["np"].images, found["pt"].images
    assert array.shape == (2, 64, 64, 3)
    assert array.dtype == np.float32
    assert tensor.shape == (2, 3, 64, 64)
    assert 0 <= array.min() < array.max() <= 1
    assert np.array_equal(tensor.permute(0, 2, 3, 1).numpy(), array)
    for image, values in zip(found["pil"].images, array, strict=True):
        assert image.size == (64, 64)
        assert np.array_equal(np.asarray(image), (values * 255).astype(np.uint8))


def test_a_saved_picture_tells_how_to_draw_it_again(pipe: JanusPipeline, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "guidance_scale": 3,
        "temperature": 0.9,
        "top_k": 30,
        "top_p": 0.95,
        "negative_prompt": "dog",
    }
    out = pipe([CAT, "mat"], seed=7, **given)
    paths = out.save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["000_7.png", "001_8.png"]
    for path, settings, image in zip(paths, out.settings, out.images, strict=True):
        assert read_settings(path) == settings
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(image))
    found = read_settings(paths[1])
    assert (found.model_hash, found.dtype) == (pipe.model_hash, "float32")
    again = pipe(
        found.prompt,
        negative_prompt=found.negative_prompt,
        seed=found.seed,
        guidance_scale=found.guidance_scale,
        temperature=found.temperature,
        top_k=found.top_k or 0,
        top_p=found.top_p or 1.0,
    )
    assert torch.equal(again.codes[0], out.codes[1])


def test_only_pil_pictures_can_be_saved(pipe: JanusPipeline, tmp_path: Path) -> None:
    for kind in ("np", "pt", "tokens"):
        with pytest.raises(OptionError, match='output_type="pil"'):
            pipe(CAT, seed=1, output_type=kind).save(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_dtype_draws_answers_and_encodes_on_a_cpu(hf_folder: Path, dtype: str) -> None:
    pipe = JanusPipeline.from_pretrained(hf_folder, device="cpu", dtype=dtype)
    out = pipe([CAT, "mat"], seed=1, output_type="pt")
    assert out.settings[0].dtype == dtype == str(pipe.dtype).removeprefix("torch.")
    assert out.images.isfinite().all()
    assert out.images.std() > 0.01
    assert pipe(CAT, temperature=0, guidance_scale=1).images[0].size == (64, 64)
    answers = pipe.ask([picture(1), picture(2, (40, 64))], QUESTION, max_new_tokens=5)
    assert len(answers) == 2
    assert pipe.encode(picture(1)).shape == (1, 16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_decodes_to_nearly_the_same_pixels(
    pipe: JanusPipeline, spare: JanusPipeline, dtype: torch.dtype
) -> None:
    drawn = codes(pipe, num_images_per_prompt=2, seed=1)
    found = spare.to("cpu", dtype).decode(drawn, "pt")
    assert (found - pipe.decode(drawn, "pt")).abs().mean() < 0.02


def test_a_model_moved_draws_as_one_loaded_there(hf_folder: Path, spare: JanusPipeline) -> None:
    codes(spare, seed=1)
    loaded = JanusPipeline.from_pretrained(hf_folder, device="cpu", dtype="bfloat16")
    assert torch.equal(codes(spare.to("cpu", torch.bfloat16), seed=1), codes(loaded, seed=1))


# Rows and stopping


def test_the_callback_gets_every_row_of_every_batch(pipe: JanusPipeline) -> None:
    seen: list[tuple[int, int, list[int]]] = []

    def look(given: JanusPipeline, row: int, place: int, state: dict[str, Any]) -> None:
        assert given is pipe
        seen.append((row, place, list(state["codes"].shape)))

    codes(pipe, num_images_per_prompt=3, batch_size=2, callback_on_step_end=look)
    assert seen == [(i, 4 * i + 4, [b, 4 * i + 4]) for b in (2, 1) for i in range(4)]


def test_the_callback_sees_the_codes_that_the_call_returns(pipe: JanusPipeline) -> None:
    seen: list[Tensor] = []

    def look(given: JanusPipeline, row: int, place: int, state: dict[str, Any]) -> bool:
        seen.append(state["codes"].clone())
        return True

    found = codes(pipe, seed=1, callback_on_step_end=look)
    assert all(torch.equal(part, found[:, : part.shape[1]]) for part in seen)


def stop_at(row: int) -> Callable[..., bool]:
    return lambda pipe, at, place, state: at != row


def test_a_stopped_picture_is_grey_where_it_is_unfinished(pipe: JanusPipeline) -> None:
    whole = codes(pipe, seed=1)
    out = pipe(CAT, seed=1, callback_on_step_end=stop_at(1))
    assert torch.equal(out.codes[:, :8], whole[:, :8])
    assert (out.codes[:, 8:] == -1).all()
    levels = np.asarray(out.images[0])
    assert (levels[32:] == 127).all()
    assert levels[:32].std() > 5
    assert np.array_equal(np.asarray(pipe.decode(out.codes[:, :8])[0]), levels)


@pytest.mark.parametrize(("row", "drawn"), [(0, 4), (2, 12), (3, 16)])
def test_a_stop_ends_the_whole_call(pipe: JanusPipeline, row: int, drawn: int) -> None:
    calls: list[int] = []

    def stop(given: JanusPipeline, at: int, place: int, state: dict[str, Any]) -> bool:
        calls.append(at)
        return at != row

    out = pipe(CAT, seed=1, num_images_per_prompt=5, batch_size=2, callback_on_step_end=stop)
    assert calls == list(range(row + 1))
    assert ((out.codes >= 0).sum(1) == drawn).all()
    assert len(out.codes) == len(out.images) == len(out.settings) == 2  # none that never began
    assert out.seeds == [1, 2]


def test_a_part_of_a_row_decodes_grey_after_its_last_code(pipe: JanusPipeline) -> None:
    found = pipe.decode(codes(pipe, seed=1)[:, :6], "pt")[0]
    grey = found == 0.5
    assert grey[:, 16:32, 32:].all()
    assert grey[:, 32:].all()
    assert not grey[:, :16].all(0).any()
    assert not grey[:, 16:32, :32].all(0).any()


def test_no_codes_at_all_decode_to_grey(pipe: JanusPipeline) -> None:
    assert (pipe.decode(torch.full((2, 16), -1), "np") == 0.5).all()


def test_the_size_of_a_chunk_changes_no_pixel(pipe: JanusPipeline) -> None:
    drawn = codes(pipe, num_images_per_prompt=5, seed=1)
    one, four = (pipe.decode(drawn, "pt", chunk=chunk) for chunk in (1, 4))
    torch.testing.assert_close(one, four, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "bad",
    [
        torch.full((1, 16), 64),
        torch.full((1, 16), -2),
        torch.full((1, 17), 1),
        torch.full((16,), 1),
        torch.full((0, 16), 1),
        torch.full((1, 0), 1),
    ],
)
def test_what_cannot_be_codes_is_not_decoded(pipe: JanusPipeline, bad: Tensor) -> None:
    for kind in ("pil", "tokens"):
        with pytest.raises(OptionError, match=r"^codes must "):
            pipe.decode(bad, kind)


def test_pictures_are_encoded_to_codes_in_the_book(pipe: JanusPipeline, tmp_path: Path) -> None:
    images = [picture(1), picture(2, (100, 64)), picture(3, (30, 90)), *map(picture, (4, 5))]
    found = pipe.encode(images)
    assert found.shape == (5, 16)
    assert found.dtype == torch.int64
    assert 0 <= found.min() < found.max() < 64
    images[1].save(tmp_path / "wide.png")
    assert torch.equal(pipe.encode(tmp_path / "wide.png"), found[1:2])
    assert torch.equal(pipe.encode(images[:1]), pipe.encode(images[0]))


# Answers


def test_a_list_of_pictures_is_answered_as_each_alone(pipe: JanusPipeline) -> None:
    images = [picture(i, (64, 30 + 9 * i)) for i in range(10)]
    together = pipe.ask(images, QUESTION, max_new_tokens=8)
    assert together == [pipe.ask(image, QUESTION, max_new_tokens=8) for image in images]
    assert len(set(together)) > 2
    assert pipe.ask(images, QUESTION, max_new_tokens=8, batch_size=3) == together


def test_chats_of_different_lengths_are_answered_as_each_alone(pipe: JanusPipeline) -> None:
    chats = [
        talk("cat?"),
        talk(QUESTION, picture(1)),
        [*talk("a", picture(2)), {"role": "assistant", "content": "red"}, *talk("b", picture(3))],
        talk("two green dogs and 3 birds"),
    ]
    for options in (
        {},
        {"temperature": 1.0, "seed": 4},
        {"temperature": 0.8, "top_p": 0.9, "seed": 1},
    ):
        together = pipe.answer(chats, max_new_tokens=8, **options)
        assert together == [pipe.chat(chat, max_new_tokens=8, **options) for chat in chats]
        assert len(set(together)) > 1


def test_a_chat_has_several_turns_and_pictures(pipe: JanusPipeline, read: list[Tensor]) -> None:
    turns = [
        *talk("a", picture(1), picture(2)),
        {"role": "assistant", "content": "red"},
        {
            "role": "user",
            "content": [{"type": "image", "image": picture(3)}, {"type": "text", "text": "b"}],
        },
    ]
    options: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.5, "seed": 1}
    answer = pipe.chat(turns, **options)
    assert (read[0] == pipe.tokenizer.image).sum() == 3 * 16
    turns[0]["images"].reverse()
    assert pipe.chat(turns, **options) != answer  # every picture counts


def test_a_caption_is_the_answer_to_describe_the_image(pipe: JanusPipeline) -> None:
    expected = pipe.ask(picture(1), "Describe the image.", max_new_tokens=8)
    assert pipe.caption(picture(1), max_new_tokens=8) == expected
    assert pipe.caption([picture(1)], max_new_tokens=8) == [expected]


def test_the_pieces_of_a_stream_are_the_answer(pipe: JanusPipeline) -> None:
    answers = []
    for seed in range(25):
        options: dict[str, Any] = {"max_new_tokens": 9, "temperature": 1.5, "seed": seed}
        pieces = list(pipe.chat(talk("cat?", picture(1)), stream=True, **options))
        assert all(pieces)
        answers.append(pipe.chat(talk("cat?", picture(1)), **options))
        assert "".join(pieces) == answers[-1]
    assert len(set(answers)) == 25


@pytest.mark.parametrize("text", [" \n red  cat \n ", " \n ", "", " \n\xf0"])
def test_blanks_around_an_answer_are_not_streamed(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    ids = pipe.tokenizer.encode(text)
    ids = ids[:-1] if text.endswith("\xf0") else ids  # ends inside a character
    monkeypatch.setattr(answering, "write_text", lambda *_, **__: iter(torch.tensor(ids)[:, None]))
    answer = pipe.chat(talk("a"), max_new_tokens=1)
    pieces = list(pipe.chat(talk("a"), max_new_tokens=1, stream=True))
    assert "".join(pieces) == answer == pipe.tokenizer.decode(ids).strip()
    assert all(pieces)


def test_a_sampled_answer_is_its_seeds(pipe: JanusPipeline) -> None:
    def say(seed: int) -> str:
        return str(pipe.ask(picture(1), "cat?", max_new_tokens=9, temperature=1, seed=seed))

    assert say(1) == say(1) != say(2)


def test_an_answer_ends_with_the_end_of_sentence(spare: JanusPipeline) -> None:
    ids = [int(token) for token in answering._tokens(spare, [talk("cat?")], max_new_tokens=8)[0]]
    spare.tokenizer.eos = ids[5]
    expected = spare.tokenizer.decode(ids[: ids.index(ids[5])]).strip()
    assert expected
    assert spare.chat(talk("cat?"), max_new_tokens=8) == expected
    assert "".join(spare.chat(talk("cat?"), max_new_tokens=8, stream=True)) == expected


CONTROL = [
    "<image_placeholder>",
    "<begin_of_image>",
    "<｜end▁of▁sentence｜>",
    "<｜▁pad▁｜>",
    "<|User|>",
]


@pytest.mark.parametrize("string", CONTROL)
def test_text_never_changes_the_number_of_control_ids(
    pipe: JanusPipeline, read: list[Tensor], string: str
) -> None:
    control = torch.tensor(sorted(pipe.tokenizer.control_ids))
    counts: list[list[int]] = []
    for text in ("cat", string, f"cat{string}{string} cat"):
        read.clear()
        codes(pipe, text, guidance_scale=1)
        drawing = read[0]
        read.clear()
        pipe.ask(picture(1), text, max_new_tokens=1)
        counts.append([int(torch.isin(ids, control).sum()) for ids in (drawing, read[0])])
    # BOS, user, assistant, begin of image; for a chat also end of image and the places of 16 codes.
    assert counts == [[4, 4 + 1 + 16]] * 3


# What is refused


def refused(kind: type[JanusKitError], call: Callable[[], Any]) -> str:
    """The message of the error that call raises: one plain sentence."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert len(message) < 300
    return message


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


def test_no_images_are_as_good_as_an_empty_list(pipe: JanusPipeline) -> None:
    without = {"role": "user", "content": "cat?"}
    expected = pipe.chat([without], max_new_tokens=4)
    for images in ([], (), None):
        assert pipe.chat([without | {"images": images}], max_new_tokens=4) == expected


@pytest.mark.parametrize("images", [5, None, [None], "no/such/file.png", [picture(1), 3]])
def test_what_is_no_picture_is_refused(pipe: JanusPipeline, images: Any) -> None:
    refused(ImageError, lambda: pipe.ask(images, QUESTION, max_new_tokens=1))
    refused(ImageError, lambda: pipe.encode(images))


def test_asking_about_no_pictures_gives_no_answers(pipe: JanusPipeline) -> None:
    assert pipe.ask([], QUESTION) == []


def test_only_a_chat_is_streamed(pipe: JanusPipeline) -> None:
    refused(OptionError, lambda: pipe.chat(talk("a"), stream=True, temperature=-1))
    refused(OptionError, lambda: pipe.ask(picture(1), QUESTION, stream=True))


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


def test_a_picture_may_be_an_array_or_the_bytes_of_a_file(pipe: JanusPipeline) -> None:
    image = picture(1)
    file = io.BytesIO()
    image.save(file, "PNG")
    expected = pipe.ask(image, QUESTION, max_new_tokens=4)
    array = np.asarray(image)
    assert pipe.ask(array, QUESTION, max_new_tokens=4) == expected
    assert pipe.ask(file.getvalue(), QUESTION, max_new_tokens=4) == expected
    assert pipe.ask(array[None], QUESTION, max_new_tokens=4) == [expected]


def test_a_dtype_may_be_given_to_to_alone_or_by_name(spare: JanusPipeline) -> None:
    assert spare.to(torch.bfloat16).dtype == torch.bfloat16
    assert spare.to("cpu", "float32").dtype == torch.float32
    refused(DeviceError, lambda: spare.to("cpu", "int8"))


def test_a_model_whose_folder_has_gone_still_draws(
    hf_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(hf_folder, tmp_path / "model"))
    loaded = JanusPipeline.from_pretrained(folder, device="cpu")
    loaded.set_progress_bar_config(disable=True)
    shutil.rmtree(folder)
    out = loaded(CAT, seed=1)
    assert out.settings[0].model_hash == ""
    assert "hash" in caplog.text


def test_a_call_that_was_stopped_is_finished_by_its_seeds(pipe: JanusPipeline) -> None:
    whole = codes(pipe, [CAT, *OTHERS], seed=20)

    def stop(_: JanusPipeline, row: int, place: int, found: dict[str, Any]) -> bool:
        seen.append(row)
        return len(seen) < 6

    seen: list[int] = []
    prompts = [CAT, *OTHERS]
    cut = pipe(prompts, seed=20, batch_size=1, output_type="tokens", callback_on_step_end=stop)
    done = [row for row in cut.codes if bool((row >= 0).all())]
    assert 0 < len(done) < len(whole)
    rest = codes(pipe, prompts[len(done) :], seed=20 + len(done))
    assert torch.equal(torch.cat((torch.stack(done), rest)), whole)


def test_a_pictures_pixels_do_not_depend_on_those_beside_it(pipe: JanusPipeline) -> None:
    together = pipe(CAT, seed=40, num_images_per_prompt=4, output_type="pt").images
    alone = pipe(CAT, seed=42, output_type="pt").images
    assert torch.equal(together[2], alone[0])


def test_an_answer_takes_what_room_there_is_unless_told(pipe: JanusPipeline) -> None:
    limit = pipe.config.language.max_positions
    messages = [{"role": "user", "content": "word " * 10}]
    assert isinstance(pipe.chat(messages), str)
    with pytest.raises(PromptError, match="shorten"):
        pipe.chat(messages, max_new_tokens=limit)


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
