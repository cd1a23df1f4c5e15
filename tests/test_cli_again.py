"""Pictures that are drawn again from the settings inside them, on the command line."""

import re
from pathlib import Path
from typing import Any

import pytest
from commands import PROMPT, SHORT
from conftest import Run
from PIL import Image

from janus_kit import loading
from janus_kit.generation import native
from janus_kit.metadata import Settings, read_settings, save_png


def test_a_picture_is_drawn_again_from_what_is_inside_it(janus: Run) -> None:
    (first,) = janus(
        *("generate", "two dogs", "--seed", 9, "--negative", "blue", "--guidance", 3),
        *("--temperature", 0.8, "--top-k", 20, "--top-p", 0.9, "-o", "first"),
    ).lines
    ended = janus("generate", "--from", first)
    assert (ended.code, ended.out, ended.err) == (0, "out/000_9.png\n", "")
    assert Path(ended.lines[0]).read_bytes() == Path(first).read_bytes()


def test_what_is_given_goes_before_what_the_picture_says(janus: Run) -> None:
    (first,) = janus("generate", "two dogs", "--seed", 9, "--top-k", 20).lines
    (record,) = janus(
        "generate", "a cat", "--from", first, "--seed", 0, "--top-k", 0, "--json"
    ).records
    assert (record["prompt"], record["seed"], record["top_k"]) == ("a cat", 0, 0)
    numbers = janus("generate", "--from", first, "-n", 2, "--json").records
    assert [(n["prompt"], n["seed"], n["top_k"]) for n in numbers] == [
        ("two dogs", 9, 20),
        ("two dogs", 10, 20),
    ]


def test_what_differs_from_the_first_drawing_is_named(janus: Run, tmp_path: Path) -> None:
    old = Settings(prompt=PROMPT, seed=1, model="Janus-Pro-1B", model_hash="aa", version="0.0.1")
    save_png(Image.new("RGB", (8, 8)), "old.png", old)
    ended = janus("generate", "--from", "old.png")
    named = re.findall(r"janus-kit: (\w+) differs: (\S+) then, (\S+) now", ended.err)
    assert [pair[:2] for pair in named] == [
        ("model", "Janus-Pro-1B"),
        ("model_hash", "aa"),
        ("version", "0.0.1"),
    ]
    assert janus("generate", "--from", "old.png", "--quiet").err == ""


def test_the_dtype_and_the_embedded_model_are_taken_from_the_picture(embedded: Run) -> None:
    (first,) = embedded("generate", PROMPT, "--seed", 2, "--dtype", "bf16", "-o", "first").lines
    again = embedded("generate", "--from", first)
    assert (again.code, again.err) == (0, "")
    assert Path(again.lines[0]).read_bytes() == Path(first).read_bytes()
    other = embedded("generate", "--from", first, "--dtype", "auto")
    assert read_settings(other.lines[0]).dtype == "float32"
    assert "dtype differs: bfloat16 then, float32 now" in other.err


@pytest.mark.skipif(not native.available(), reason="no C compiler was there")
def test_quantized_weights_draw_other_pictures_and_the_picture_remembers(embedded: Run) -> None:
    plain = embedded("generate", PROMPT, "--seed", 2, "-o", "plain").lines[0]
    (first,) = embedded("generate", PROMPT, "--seed", 2, "--quantization", "int8").lines
    told, packed = read_settings(plain), read_settings(first)
    assert packed.model_hash == f"{told.model_hash}-int8"
    again = embedded("generate", "--from", first)
    assert (again.code, again.err) == (0, "")
    assert Path(again.lines[0]).read_bytes() == Path(first).read_bytes()
    other = embedded("generate", "--from", plain, "--quantization", "int8")
    assert other.code != 0
    assert f"{told.model_hash}-int8" in other.err
    wrong = embedded("generate", PROMPT, "--quantization", "int3")
    assert wrong.code == 2
    assert "must be int8, int4, fp8" in wrong.err


@pytest.mark.skipif(not native.available(), reason="no C compiler was there")
def test_a_run_of_captions_does_not_mix_weights_of_other_bits(embedded: Run) -> None:
    picture = embedded("generate", PROMPT, "--seed", 2, "-o", "photos").lines[0]
    assert Path(picture).exists()
    assert embedded("caption", "photos", "-o", "told", *SHORT).code == 0
    ended = embedded("caption", "photos", "-o", "told", "--quantization", "int8", *SHORT)
    assert ended.code == 2
    assert "-int8" in ended.err


def test_the_hub_id_is_taken_from_the_picture_unless_it_is_a_folder(
    embedded: Run, hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def download(repository: str, **options: Any) -> str:
        fetched.append(repository)
        return str(hf_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    (first,) = embedded("generate", PROMPT, "--seed", 2, "--model", "some/model").lines
    again = embedded("generate", "--from", first)
    assert (again.code, again.err, set(fetched)) == (0, "", {"some/model"})
    assert Path(again.lines[0]).read_bytes() == Path(first).read_bytes()
    fetched.clear()
    Path("some/model").mkdir(parents=True)
    again = embedded("generate", "--from", first)
    assert read_settings(again.lines[0]).model == loading.EMBEDDED  # of an equal hash here
    assert not fetched


@pytest.mark.parametrize("name", ["Janus-Pro-1B", loading.EMBEDDED, ""])
def test_a_picture_of_another_model_is_drawn_again_only_with_a_model_named(
    embedded: Run, hf_folder: Path, name: str
) -> None:
    old = Settings(prompt=PROMPT, seed=1, model=name, model_hash="aabbccddee")
    save_png(Image.new("RGB", (8, 8)), "old.png", old)
    ended = embedded("generate", "--from", "old.png")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith("janus-kit: old.png: was drawn by ")
    assert "the hash aabbccddee, but" in ended.err
    assert ended.err.endswith("; name the model that drew it with --model\n")
    assert not Path("out").exists()
    named = embedded("generate", "--from", "old.png", "--model", hf_folder)
    assert (named.code, "model_hash differs: aabbccddee then" in named.err) == (0, True)


def test_a_picture_that_names_no_hash_is_drawn_by_the_embedded_model(embedded: Run) -> None:
    save_png(Image.new("RGB", (8, 8)), "old.png", Settings(prompt=PROMPT, seed=1))
    assert embedded("generate", "--from", "old.png").code == 0


def test_a_picture_without_settings_cannot_be_drawn_again(run: Run, picture: Path) -> None:
    ended = run("generate", "--from", picture)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "carries no settings" in ended.err
