"""What JanusPipeline gives back: pictures, codes and rows as they come, decoded and saved."""

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pipeline_parts import CAT, OTHERS, QUESTION, codes, picture
from torch import Tensor

from janus_kit import drawing
from janus_kit.errors import GenerationError, ImageError, OptionError
from janus_kit.metadata import read_settings
from janus_kit.pipeline import JanusPipeline

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


@pytest.mark.parametrize("kind", ["pil", "np", "pt", "tokens"])
def test_a_batch_is_decoded_while_the_next_is_drawn(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    given: dict[str, Any] = {"seed": 1, "batch_size": 2, "output_type": kind}
    one_by_one = pipe([CAT] * 5, **given)
    decoded, rows = threading.Semaphore(0), []
    to_pictures = drawing.to_pictures

    def decode(*args: Any) -> Any:
        pictures = to_pictures(*args)
        decoded.release()
        return pictures

    def on_row(_: object, row: int, place: int, state: dict[str, Tensor]) -> bool:
        rows.append(row)
        if row == 0 and rows.count(0) > 1:
            assert decoded.acquire(timeout=60), "the batch before was not decoded meanwhile"
        return True

    monkeypatch.setattr(drawing, "to_pictures", decode)
    monkeypatch.setattr(drawing, "replays", lambda model: True)
    beside = pipe([CAT] * 5, **given, callback_on_step_end=on_row)
    assert rows.count(0) == 3
    assert torch.equal(beside.codes, one_by_one.codes)
    assert type(beside.images) is type(one_by_one.images)
    assert len(beside.images) == 5
    for found, expected in zip(beside.images, one_by_one.images, strict=True):
        assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_what_fails_beside_the_drawing_fails_the_call(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Any:
        raise GenerationError("the pixels hold NaN")

    monkeypatch.setattr(drawing, "to_pictures", fail)
    monkeypatch.setattr(drawing, "replays", lambda model: True)
    before = threading.active_count()
    with pytest.raises(GenerationError, match="NaN"):
        pipe([CAT] * 3, seed=1, batch_size=1)
    assert threading.active_count() == before


def test_only_pil_pictures_can_be_saved(pipe: JanusPipeline, tmp_path: Path) -> None:
    for kind in ("np", "pt", "tokens"):
        with pytest.raises(OptionError, match='output_type="pil"'):
            pipe(CAT, seed=1, output_type=kind).save(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "{seed}.png", "{index}{more}.png", "{index", "{}.png"])
def test_names_must_tell_the_pictures_apart(pipe: JanusPipeline, tmp_path: Path, name: str) -> None:
    generators = [torch.Generator().manual_seed(4) for _ in range(2)]
    drawn = pipe(CAT, num_images_per_prompt=2, generator=generators)
    with pytest.raises(OptionError, match=r"^name"):
        drawn.save(tmp_path / "new", name)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in drawn.save(tmp_path, "{index}.png")] == ["0.png", "1.png"]


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


def test_only_what_is_there_is_decoded(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[torch.Size] = []
    decode = pipe.model.vq.decode
    monkeypatch.setattr(
        pipe.model.vq, "decode", lambda codes, side: read.append(codes.shape) or decode(codes, side)
    )
    drawn = codes(pipe, seed=1)
    upper, whole = (pipe.decode(drawn[:, :count], "np")[0] for count in (4, 16))
    assert read == [(1, 12), (1, 16)]  # of a row and two below, and of all four
    assert upper.shape == whole.shape


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
    with pytest.raises(ImageError, match="no picture to encode"):
        pipe.encode([])


def test_a_picture_may_be_an_array_or_the_bytes_of_a_file(pipe: JanusPipeline) -> None:
    image = picture(1)
    file = io.BytesIO()
    image.save(file, "PNG")
    expected = pipe.ask(image, QUESTION, max_new_tokens=4)
    array = np.asarray(image)
    assert pipe.ask(array, QUESTION, max_new_tokens=4) == expected
    assert pipe.ask(file.getvalue(), QUESTION, max_new_tokens=4) == expected
    assert pipe.ask(array[None], QUESTION, max_new_tokens=4) == [expected]


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


@pytest.mark.parametrize("begun", [None, 6])
def test_pictures_of_a_batch_are_left_one_by_one(pipe: JanusPipeline, begun: int | None) -> None:
    plain = codes(pipe, seed=1, num_images_per_prompt=3)
    initial = None if begun is None else plain[:, :begun]
    wanted = codes(pipe, seed=1, num_images_per_prompt=3, initial_codes=initial)
    side = pipe.config.side

    def look(_: JanusPipeline, row: int, place: int, state: dict[str, Any]) -> list[bool]:
        assert state["codes"].shape == (3, place)
        return [row < 1, True, row < 2]

    found = codes(
        pipe, seed=1, num_images_per_prompt=3, initial_codes=initial, callback_on_step_end=look
    )
    assert torch.equal(found[1], wanted[1])
    for which, rows in ((0, 2), (2, 3)):
        assert torch.equal(found[which, : rows * side], wanted[which, : rows * side])
        assert (found[which, rows * side :] == -1).all()
    out = pipe(CAT, seed=1, num_images_per_prompt=2, callback_on_step_end=lambda *_: [False, False])
    assert (out.codes[:, side:] == -1).all()
    for no in (np.bool_(False), torch.tensor(False), np.array([False, False])):
        out = pipe(CAT, seed=1, num_images_per_prompt=2, callback_on_step_end=lambda *_, no=no: no)
        assert (out.codes[:, side:] == -1).all()
    out = pipe(CAT, seed=1, callback_on_step_end=lambda *_: None)
    assert (out.codes >= 0).all()
    with pytest.raises(OptionError, match="answered for 1 pictures; the batch has 2"):
        pipe(CAT, seed=1, num_images_per_prompt=2, callback_on_step_end=lambda *_: [True])
