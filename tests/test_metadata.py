"""Settings inside PNG files: what is written is read, and what is read is never trusted."""

import json
import os
import time
from contextlib import suppress
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from janus_kit.errors import ImageError, OptionError
from janus_kit.metadata import Settings, read_settings, save_png

PICTURE = Image.new("RGB", (4, 4), (10, 20, 30))
FULL = Settings(
    prompt="a red cat,\non a mat",
    negative_prompt="dogs: none\nand no birds",
    seed=2**63 - 1,
    guidance_scale=5.0,
    temperature=0.7,
    top_k=50,
    top_p=0.95,
    size=(384, 384),
    model='folder, with "quotes": and\nlines',
    model_hash="4711ff4dd2",
    dtype="bfloat16",
    device="cuda:0",
    torch_version="2.13.0+cpu",
    version="0.1.0",
)
WEB_UI = (
    "masterpiece, (cat:1.2)\nBREAK on a mat\n"
    "Negative prompt: blurry,\nbad\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x768, "
    'Model hash: 4711ff4dd2, Model: v1-5, Lora hashes: "a: 12, b: 34", Version: v1.10.1'
)
finite = st.floats(-1e9, 1e9)
anything = st.builds(
    Settings,
    prompt=st.text(),
    negative_prompt=st.text(),
    seed=st.none() | st.integers(-1, 2**63),
    guidance_scale=finite,
    temperature=finite,
    top_k=st.none() | st.integers(0, 20_000),
    top_p=st.none() | finite,
    size=st.tuples(st.integers(1, 4_096), st.integers(1, 4_096)),
    model=st.text(),
    model_hash=st.text(),
    dtype=st.text(),
    device=st.text(),
    torch_version=st.text(),
    version=st.text(),
)
SLOW = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def with_chunks(path: Path, **chunks: str) -> Path:
    """A PNG at path that carries these text chunks."""
    info = PngImagePlugin.PngInfo()
    for name, text in chunks.items():
        info.add_text(name, text)
    PICTURE.save(path, pnginfo=info)
    return path


def test_the_infotext_is_the_one_image_tools_read() -> None:
    shown = Settings(
        prompt="a cat", seed=1, model="Janus-Pro-1B", model_hash="ab12", version="0.1.0"
    )
    assert shown.to_infotext() == (
        "a cat\nSteps: 576, Sampler: Janus, CFG scale: 5.0, Seed: 1, Size: 384x384, "
        "Model hash: ab12, Model: Janus-Pro-1B, Temperature: 1.0, Version: janus_kit 0.1.0"
    )
    lines = replace(shown, negative_prompt="dogs", model='a, "b": c\nd').to_infotext().split("\n")
    assert lines[1] == "Negative prompt: dogs"
    assert r'Model: "a, \"b\": c\nd", ' in lines[2]


@given(anything)
@example(FULL)
@example(Settings(prompt="a\nNegative prompt: b\nSteps: 1, Seed: 2, Size: 3x3", seed=7))
@example(Settings(prompt="lone \udcff, NUL \0, ESC \x1b, \r\n, \u2028 and \u202e"))
@SLOW
def test_a_png_gives_back_every_text(tmp_path_factory: pytest.TempPathFactory, made: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "round.png"
    save_png(PICTURE, path, made)
    assert read_settings(path) == made
    with Image.open(path) as image:
        assert image.tobytes() == PICTURE.tobytes()


@given(anything)
def test_json_is_one_ascii_line_and_gives_back_every_text(made: Settings) -> None:
    text = made.to_json()
    assert text.isascii()
    assert text.isprintable()
    assert Settings.from_json(text) == made


@given(anything)
@example(FULL)
def test_the_infotext_gives_back_all_but_odd_prompts(made: Settings) -> None:
    assert Settings.from_infotext(FULL.to_infotext()) == FULL
    read = Settings.from_infotext(replace(made, prompt="a\nb", negative_prompt="c").to_infotext())
    assert read == replace(made, prompt="a\nb", negative_prompt="c")


def test_settings_of_another_program_are_read(tmp_path: Path) -> None:
    read = read_settings(with_chunks(tmp_path / "a.png", parameters=WEB_UI))
    assert read == Settings(
        prompt="masterpiece, (cat:1.2)\nBREAK on a mat",
        negative_prompt="blurry,\nbad",
        seed=965400086,
        guidance_scale=7.0,
        size=(512, 768),
        model="v1-5",
        model_hash="4711ff4dd2",
        version="v1.10.1",
    )


def test_our_own_chunk_is_believed_before_the_infotext(tmp_path: Path) -> None:
    path = with_chunks(tmp_path / "a.png", parameters=WEB_UI, janus_kit=FULL.to_json())
    assert read_settings(str(path)) == FULL
    newer = json.dumps({"prompt": "from a newer version", "steps": 3})
    path = with_chunks(tmp_path / "b.png", janus_kit=newer)
    assert read_settings(path) == Settings(prompt="from a newer version")


BAD_JSON = {
    "broken": ("{", "not JSON"),
    "deep": ("[" * 100_000, "not JSON"),
    "a huge number": ('{"prompt": "a", "seed": ' + "9" * 5_000 + "}", "not JSON"),
    "a list": ("[1]", "no prompt"),
    "without a prompt": ('{"seed": 1}', "no prompt"),
    "a number as prompt": ('{"prompt": 1}', "prompt must be text, not '1'"),
    "nothing as model": ('{"prompt": "", "model": null}', "model must be text"),
    "a text as seed": ('{"prompt": "", "seed": "1"}', "seed must be a whole number or None"),
    "a truth as seed": ('{"prompt": "", "seed": true}', "seed must be"),
    "a fraction as seed": ('{"prompt": "", "seed": 1.5}', "seed must be"),
    "a long seed": ('{"prompt": "", "seed": 1' + "0" * 30 + "}", "seed must be"),
    "a truth as guidance": ('{"prompt": "", "guidance_scale": true}', "a finite number"),
    "NaN": ('{"prompt": "", "temperature": NaN}', "temperature must be a finite number"),
    "infinity": ('{"prompt": "", "top_p": -Infinity}', "top_p must be a finite number or None"),
    "one side": ('{"prompt": "", "size": [384]}', r"size must be \(width, height\)"),
    "no width": ('{"prompt": "", "size": [0, 384]}', "size must be"),
    "a text as size": ('{"prompt": "", "size": "384x384"}', "size must be"),
}
BAD_LINES = {
    "nothing": ("", "no settings"),
    "a prompt alone": ("a cat\non a mat", "no settings"),
    "two pairs": ("a cat\nSteps: 1, Seed: 2", "no settings"),
    "a word as seed": ("a\nSteps: 1, Seed: one, Size: 1x1", "seed is no number: 'one'"),
    "a long seed": ("a\nSteps: 1, Size: 1x1, Seed: " + "9" * 5_000, "seed is no number"),
    "a word as guidance": ("a\nSteps: 1, Seed: 2, CFG scale: high", "guidance_scale is no number"),
    "NaN as guidance": ("a\nSteps: 1, Seed: 2, CFG scale: nan", "must be a finite number"),
    "one side": ("a\nSteps: 1, Seed: 2, Size: 384", "size must be"),
    "no width": ("a\nSteps: 1, Seed: 2, Size: 0x384", "size must be"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_json_is_refused_with_the_name_of_the_file(case: str, tmp_path: Path) -> None:
    text, words = BAD_JSON[case]
    path = with_chunks(tmp_path / "a.png", janus_kit=text, parameters=WEB_UI)
    with pytest.raises(ImageError, match=f"a.png: .*{words}"):
        read_settings(path)


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_settings_line_is_refused_with_the_name_of_the_file(
    case: str, tmp_path: Path
) -> None:
    text, words = BAD_LINES[case]
    with pytest.raises(ImageError, match=f"a.png: .*{words}"):
        read_settings(with_chunks(tmp_path / "a.png", parameters=text))


@given(st.text() | st.lists(st.sampled_from('ab:," \\\n{}[]1x')).map("".join))
def test_any_text_is_settings_or_an_image_error(text: str) -> None:
    for read in (Settings.from_infotext, Settings.from_json):
        try:
            found = read(text)
        except ImageError:
            continue
        assert isinstance(found, Settings)


@pytest.mark.parametrize("piece", ["a", " ", "aa:", 'aa:"\\', "aa: ", "aa:1,", '"', "a-"])
def test_a_long_hostile_line_is_read_in_linear_time(piece: str) -> None:
    def seconds(text: str) -> float:
        begin = time.process_time()
        with suppress(ImageError):
            Settings.from_infotext(text)
        return time.process_time() - begin

    assert seconds(piece * (200_000 // len(piece))) < 2


def test_a_broken_quoted_value_is_kept_as_it_is() -> None:
    read = Settings.from_infotext('a\nSteps: 1, Seed: 2, Model: "a\\q b", Device: "cpu')
    assert read.model == '"a\\q b"'
    assert read.device == '"cpu'


def test_settings_are_frozen_and_checked_at_birth() -> None:
    with pytest.raises(FrozenInstanceError):
        FULL.seed = 1  # type: ignore[misc]
    with pytest.raises(OptionError, match="seed must be a whole number or None, not '1'"):
        Settings(prompt="", seed="1")  # type: ignore[arg-type]
    assert Settings(prompt="", guidance_scale=5) == Settings(prompt="", guidance_scale=5.0)


def test_a_file_without_settings_is_refused(tmp_path: Path) -> None:
    plain, other, pipe = tmp_path / "a.png", tmp_path / "a.jpg", tmp_path / "p.png"
    PICTURE.save(plain, dpi=(72, 72))
    PICTURE.save(other)
    os.mkfifo(pipe)
    with pytest.raises(ImageError, match=r"a\.png: carries no settings; programs that save"):
        read_settings(plain)
    with pytest.raises(
        ImageError, match=r"a\.jpg: is not a readable PNG; only PNG files carry settings"
    ):
        read_settings(other)
    for path in (pipe, tmp_path, tmp_path / "never.png", "a\0b"):
        with pytest.raises(ImageError, match="is not a file; check the path"):
            read_settings(path)


def test_a_damaged_or_hostile_png_is_refused(tmp_path: Path) -> None:
    path = with_chunks(tmp_path / "a\nb.png", parameters=WEB_UI)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Steps", b"stepS"))  # its checksum no longer fits
    with pytest.raises(ImageError, match=r"a\\nb\.png': is not a readable PNG"):
        read_settings(path)
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a" * 30_000_000, zip=True)
    PICTURE.save(path, pnginfo=info)
    with pytest.raises(ImageError, match=r"cannot be read .*too large.*; is the file damaged"):
        read_settings(path)


def test_a_picture_saved_again_by_another_program_has_lost_its_settings(tmp_path: Path) -> None:
    save_png(PICTURE, tmp_path / "a.png", FULL)
    with Image.open(tmp_path / "a.png") as image:
        image.save(tmp_path / "b.png")
    with pytest.raises(ImageError, match="often drop them"):
        read_settings(tmp_path / "b.png")


def test_a_picture_replaces_another_whole_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".png")
    save_png(PICTURE, path, replace(FULL, seed=1))
    save_png(PICTURE, str(path), FULL)
    assert read_settings(path) == FULL
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode == with_chunks(tmp_path / "plain.png").stat().st_mode


def test_the_same_picture_and_settings_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save_png(PICTURE, tmp_path / name, FULL)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("step", ["fsync", "replace", "save"])
def test_a_failed_write_leaves_the_file_of_before(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    save_png(PICTURE, path, FULL)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr({"fsync": os, "replace": Path, "save": Image.Image}[step], step, full)
        with pytest.raises(OSError, match="No space left"):
            save_png(PICTURE, path, replace(FULL, seed=1))
    assert read_settings(path) == FULL
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        save_png(PICTURE, tmp_path / "no" / "a.png", FULL)
