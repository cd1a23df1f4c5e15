"""The commands: what they print, and what they write."""

import errno
import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import PROMPT, SHORT
from conftest import Run, original_config, tiny_config, to_original
from PIL import Image
from safetensors.torch import load_file, save_file

from janus_kit import checkpoint, config, console
from janus_kit.metadata import Settings, read_settings
from janus_kit.pipeline import JanusPipeline


def test_a_drawing_is_a_png_with_its_settings_and_its_path_is_printed(
    janus: Run, hf_folder: Path
) -> None:
    ended = janus("generate", PROMPT, "--seed", 5, "--guidance", 2, "-o", "new/folder")
    assert (ended.code, ended.out, ended.err) == (0, "new/folder/000_5.png\n", "")
    settings = read_settings(ended.lines[0])
    assert (settings.prompt, settings.seed, settings.guidance_scale) == (PROMPT, 5, 2.0)
    assert settings.model == hf_folder.name
    with Image.open(ended.lines[0]) as image:
        assert image.size == (64, 64)


def test_equal_seeds_draw_equal_bytes_whatever_is_drawn_beside(janus: Run) -> None:
    (alone,) = janus("generate", PROMPT, "--seed", 6).lines
    together = janus(
        "generate", PROMPT, "-n", 3, "--seed", 5, "--batch-size", 2, "-o", "other"
    ).lines
    assert together == ["other/000_5.png", "other/001_6.png", "other/002_7.png"]
    assert Path(together[1]).read_bytes() == Path(alone).read_bytes()
    (again,) = janus("generate", "--from", together[2], "-o", "again").lines
    assert Path(again).read_bytes() == Path(together[2]).read_bytes()


def test_without_a_seed_a_random_one_is_told(janus: Run) -> None:
    seeds = [janus("generate", PROMPT, "--json").records[0]["seed"] for _ in range(2)]
    assert seeds[0] != seeds[1]


def test_an_old_picture_is_never_replaced(janus: Run) -> None:
    first = janus("generate", PROMPT, "--seed", 1).lines
    before = Path(first[0]).read_bytes()
    assert janus("generate", "a dog", "--seed", 1).lines == ["out/001_1.png"]
    Path("out/007_9.png").write_bytes(b"a stranger's")
    assert janus("generate", PROMPT, "--seed", 1).lines == ["out/008_1.png"]
    assert Path(first[0]).read_bytes() == before


def test_a_name_that_another_process_takes_first_is_left_to_it(tmp_path: Path) -> None:
    ours, theirs = console.Album(tmp_path), console.Album(tmp_path)
    image = Image.new("RGB", (8, 8))
    names = [album.add(image, Settings(prompt="", seed=1)).name for album in (ours, theirs)]
    assert names == ["000_1.png", "001_1.png"]


def test_a_picture_that_cannot_be_written_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a.png")

    monkeypatch.setattr("janus_kit.metadata.save_png", fail)
    with pytest.raises(OSError, match="No space"):
        console.Album(tmp_path).add(Image.new("RGB", (8, 8)), Settings(prompt="", seed=1))
    assert not list(tmp_path.iterdir())


def test_json_holds_the_path_and_all_settings(janus: Run) -> None:
    (record,) = janus("generate", PROMPT, "--seed", 3, "--negative", "blue", "--json").records
    settings = Settings.from_json(json.dumps(record))
    assert settings == read_settings(record["path"])
    assert settings.negative_prompt == "blue"


def test_the_grid_shows_every_picture(janus: Run) -> None:
    assert janus("generate", PROMPT, "-n", 3, "--seed", 0, "--grid").lines[-1] == "out/grid.png"
    with Image.open("out/grid.png") as sheet:
        assert sheet.size == (128, 128)
    again = janus("generate", PROMPT, "--seed", 0, "--grid", "--json").records
    assert again[-1] == {"path": "out/grid_1.png", "pictures": 1}


def test_prompts_come_from_arguments_files_and_stdin(janus: Run) -> None:
    Path("words.txt").write_bytes(b"\xef\xbb\xbfa red cat\r\n\r\n  two dogs \r\n")
    ended = janus(
        "generate",
        "a bird",
        "@words.txt",
        "-",
        "--json",
        "--seed",
        0,
        stdin=b"mat\n\xc3\xa9t\xc3\xa9",
    )
    prompts = [record["prompt"] for record in ended.records]
    assert prompts == ["a bird", "a red cat", "two dogs", "mat", "été"]
    assert [record["seed"] for record in ended.records] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("argument", "stdin", "message"),
    [
        ("@none.txt", b"", "@none.txt: cannot be read (No such file"),
        ("@latin.txt", b"", "latin.txt: is not UTF-8"),
        ("-", b"\r\n \n", "stdin: holds no prompt"),
    ],
)
def test_prompts_that_cannot_be_read_are_wrong_use(
    run: Run, tmp_path: Path, argument: str, stdin: bytes, message: str
) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    ended = run("generate", argument, stdin=stdin)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err


def test_a_bad_prompt_does_not_stop_the_others(janus: Run) -> None:
    whole = janus("generate", PROMPT, "a dog", "--seed", 0, "-o", "whole").lines
    ended = janus("generate", PROMPT, "x" * 200_000, "a dog", "-n", 2, "--seed", 0)
    assert (ended.code, len(ended.lines), ended.err.count("\n")) == (3, 4, 1)
    assert [read_settings(path).seed for path in ended.lines] == [0, 1, 4, 5]
    assert Path(ended.lines[0]).read_bytes() == Path(whole[0]).read_bytes()
    assert janus("generate", "x" * 200_000, "-n", 2).code == 2
    records = janus("generate", PROMPT, "x" * 200_000, "-n", 2, "--json").records
    assert [("path" in record, "error" in record) for record in records] == [
        (True, False),
        (True, False),
        (False, True),
    ]
    assert records[2]["prompt"] == "x" * 200_000
    assert records[2]["error"].startswith("the text has 200000 characters")


def test_an_answer_is_what_the_pipeline_answers(janus: Run, picture: Path, hf_folder: Path) -> None:
    pipe = JanusPipeline.from_pretrained(hf_folder)
    answer = pipe.ask(picture, "what colour?", max_new_tokens=6)
    ended = janus("ask", picture, "what colour?", *SHORT)
    assert (ended.code, ended.out, ended.err) == (0, f"{answer}\n", "")
    (record,) = janus("ask", picture, "what colour?", *SHORT, "--json").records
    assert record == {"image": str(picture), "question": "what colour?", "answer": answer}


def test_a_single_caption_is_printed_alone(janus: Run, picture: Path, hf_folder: Path) -> None:
    pipe = JanusPipeline.from_pretrained(hf_folder)
    assert janus("caption", picture, *SHORT).out == f"{pipe.caption(picture, max_new_tokens=6)}\n"
    (record,) = janus("caption", picture, "--question", "how many?", *SHORT, "--json").records
    assert record["caption"] == pipe.ask(picture, "how many?", max_new_tokens=6)


def test_a_bad_file_does_not_stop_the_captions_of_the_others(janus: Run, picture: Path) -> None:
    Path("bad.png").write_bytes(picture.read_bytes()[:60])
    names = [f"{number}.png" for number in range(8)]
    for name in names:
        shutil.copy(picture, name)
    ended = janus("caption", names[0], "bad.png", *names[1:], *SHORT)
    assert ended.code == 3
    assert [line.split("\t")[0] for line in ended.lines] == names
    assert ended.err.startswith("janus-kit: bad.png: ")
    assert ended.err.count("\n") == 1
    records = janus("caption", "bad.png", names[0], *SHORT, "--json").records
    assert [(record["image"], "error" in record) for record in records] == [
        ("bad.png", True),
        (names[0], False),
    ]
    assert janus("caption", "bad.png").code == 2


def test_a_chat_answers_line_after_line(janus: Run, picture: Path, hf_folder: Path) -> None:
    pipe = JanusPipeline.from_pretrained(hf_folder)
    said: list[Mapping[str, Any]] = [{"role": "user", "content": "hello", "images": [picture]}]
    first = "".join(pipe.chat(said, stream=True, max_new_tokens=6))
    said += [{"role": "assistant", "content": first}, {"role": "user", "content": "and now?"}]
    second = "".join(pipe.chat(said, stream=True, max_new_tokens=6))
    ended = janus("chat", picture, *SHORT, stdin=b"hello\r\n\nand now?\n")
    assert (ended.code, ended.out, ended.err) == (0, f"{first}\n{second}\n", "")
    ended = janus("chat", picture, *SHORT, stdin=b"hello\n/quit\nand now?\n")
    assert (ended.code, ended.out) == (0, f"{first}\n")


def test_a_line_that_cannot_be_answered_is_left_out_of_the_chat(janus: Run) -> None:
    plain = janus("chat", *SHORT, stdin=b"hello\nand now?\n")
    ended = janus("chat", *SHORT, stdin=b"hello\n" + b"long " * 900 + b"\nand now?\n")
    assert (ended.code, ended.out) == (3, plain.out)
    assert ended.err.count("janus-kit:") == 1


def test_an_original_folder_is_converted(
    run: Run, hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The original config.json cannot say tiny.
    monkeypatch.setattr(config, "_from_original", lambda data: tiny_config())
    source = tmp_path / "source"
    source.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(hf_folder / name, source)
    (source / "config.json").write_text(json.dumps(original_config()))
    weights = load_file(hf_folder / "model.safetensors")
    save_file(to_original(weights), source / "model.safetensors")
    ended = run("convert", source, "converted")
    assert (ended.code, ended.out, ended.err) == (0, "converted\n", "")
    model, _ = checkpoint.load(Path("converted"), device=torch.device("cpu"))
    assert sum(weight.numel() for weight in model.parameters()) > 0
    assert set(load_file("converted/model.safetensors")) == set(weights)
    again = run("convert", source, "converted")
    assert (again.code, again.err.count("\n")) == (2, 1)


def test_info_names_the_machine_and_the_model(janus: Run, hf_folder: Path) -> None:
    (facts,) = janus("info", "--json", "--dtype", "bf16").records
    pipe = JanusPipeline.from_pretrained(hf_folder)
    assert facts["torch"] == torch.__version__
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"janus_kit", "transformers", "free_memory", "cache"} < set(facts)
    assert (facts["model"], facts["hash"]) == (hf_folder.name, pipe.model_hash)
    assert facts["parameters"] == sum(w.numel() for w in pipe.model.parameters())
    assert facts["dtype"] == "bfloat16"
    assert re.search(r"^free_memory: +[\d.]+ GiB$", janus("info").out, re.MULTILINE)


def test_info_says_what_it_can_without_a_model(run: Run) -> None:
    ended = run("info", "--model", "./nowhere", "--json")
    assert (ended.code, ended.records[0]["torch"]) == (4, torch.__version__)
    assert "model" not in ended.records[0]


def test_a_folder_that_is_no_model_is_one_line_and_code_4(run: Run, tmp_path: Path) -> None:
    ended = run("generate", PROMPT, "--model", tmp_path)
    assert (ended.code, ended.out) == (4, "")
    assert re.fullmatch(r"janus-kit: .*config\.json: no such file.*\n", ended.err)
    assert "Traceback" in run("generate", PROMPT, "--model", tmp_path, "-v").err


def test_weights_that_hold_nan_are_loaded_only_unverified(run: Run, hf_folder: Path) -> None:
    Path("spoilt").mkdir()
    for path in hf_folder.iterdir():
        shutil.copy(path, "spoilt")
    weights = load_file("spoilt/model.safetensors")
    weights["lm_head.weight"][0, 0] = float("nan")
    save_file(weights, "spoilt/model.safetensors")
    refused = run("info", "--model", "spoilt")
    assert (refused.code, "holds NaN" in refused.err) == (4, True)
    assert run("info", "--model", "spoilt", "--no-verify", "--json").records[0]["model"] == "spoilt"
