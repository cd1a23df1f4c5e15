"""The commands: what they print, what they write, and the codes that they end with."""

import errno
import json
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Run, original_config, tiny_config, to_original
from PIL import Image
from safetensors.torch import load_file, save_file

from janus_kit import checkpoint, config, console, loading
from janus_kit.cli import main
from janus_kit.errors import PromptError
from janus_kit.generation import native
from janus_kit.metadata import Settings, read_settings, save_png
from janus_kit.pipeline import JanusPipeline
from janus_kit.training import evaluate, recipe

PROMPT = "a red cat"
SHORT = ("--max-new-tokens", "6")  # the tiny model reads 256 tokens at most


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (90, 60), "red").save(path)
    return path


# Drawing


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


# Drawing again


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


@pytest.fixture
def embedded(run: Run, hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As run, with the tiny model as the embedded one."""
    monkeypatch.setattr(loading, "resources", SimpleNamespace(files=lambda package: hf_folder))
    return run


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
    other = embedded("generate", "--from", plain, "--quantization", "int4")
    assert other.code != 0
    assert f"{told.model_hash}-int4" in other.err
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


# Asking


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


# Models and machines


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


# Wrong use and misfortune


@pytest.mark.parametrize(
    "arguments",
    [
        ("paint",),
        ("generate",),
        ("generate", PROMPT, "--sed", 1),
        ("generate", PROMPT, "--seed", "one"),
        ("generate", PROMPT, "-n", 0),
        ("ask", "picture.png"),
        ("train", "everything"),
    ],
)
def test_wrong_use_is_code_2(run: Run, arguments: tuple[object, ...]) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("flag", "value"), [("--seed", -1), ("--seed", 2**63), ("--guidance", 0), ("--top-p", 2)]
)
def test_a_value_out_of_range_is_one_sentence_before_the_model_is_loaded(
    run: Run, flag: str, value: float
) -> None:
    ended = run("generate", PROMPT, flag, value, "--model", "./nowhere")
    assert (ended.code, ended.out) == (2, "")
    name = flag.strip("-").replace("-", "_")
    assert re.fullmatch(rf"janus-kit: {name} must be .*\d.*\n", ended.err)


def test_a_file_in_place_of_the_folder_is_wrong_use(run: Run, picture: Path) -> None:
    ended = run("generate", PROMPT, "-o", picture)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert str(picture) in ended.err
    inside = run("generate", PROMPT, "-o", picture / "inside", "--model", "./nowhere")
    assert (inside.code, inside.err.count("\n")) == (2, 1)


@pytest.mark.parametrize("folder", ["a" * 300, "missing/" + "a" * 300, "link", "link/in"])
def test_a_folder_that_cannot_be_made_is_wrong_use(janus: Run, folder: str) -> None:
    Path("link").symlink_to("link")
    ended = janus("generate", PROMPT, "-o", folder)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert f"{folder}: " in ended.err
    assert ended.err.endswith("; choose another file or folder\n")


def test_no_folder_is_made_before_the_model_is_loaded(run: Run, tmp_path: Path) -> None:
    assert run("generate", PROMPT, "--model", "./nowhere", "-o", "new/folder").code == 4
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/000_1.png"), 5),
        (MemoryError(), 5),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), 5),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 5),
        (PromptError("two\nlines"), 2),
    ],
)
def test_a_known_misfortune_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fail(arguments: object) -> list[str]:
        raise error

    monkeypatch.setattr(console, "read_prompts", fail)
    ended = run("generate", PROMPT)
    assert (ended.code, ended.out) == (code, "")
    assert re.fullmatch(r"janus-kit: .+\n", ended.err)


def test_a_full_disk_behind_another_error_is_still_code_5(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(arguments: object) -> list[str]:
        raise PromptError("it failed") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(console, "read_prompts", fail)
    ended = run("generate", PROMPT)
    assert (ended.code, ended.err) == (5, "janus-kit: it failed\n")


def test_an_unexpected_error_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: object) -> list[str]:
        raise ZeroDivisionError

    monkeypatch.setattr(console, "read_prompts", fail)
    monkeypatch.setattr(sys, "argv", ["janus-kit", "generate", PROMPT])
    with pytest.raises(ZeroDivisionError):  # which Python prints before it ends with code 1
        main()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_its_code(number: int, code: int) -> None:
    # A test run in the background of a shell hands down an ignored SIGINT.
    start = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from janus_kit.cli import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", start, "generate", "-", "-v"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "janus-kit: reading prompts from stdin, one a line\n"
        process.send_signal(number)
        rest = process.stderr.read()
        assert (process.wait(timeout=10), rest) == (code, "")


# Help


def test_help_costs_little_and_loads_nothing_heavy() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from janus_kit.cli import main\n"
        "try: main()\n"
        "finally: print({'torch', 'PIL', 'rich', 'numpy'} & set(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 0.3
    assert ended.stderr == "set()\n"
    assert "generate" in ended.stdout


COMMANDS = ("generate", "ask", "caption", "chat", "convert", "info", "demo", "serve")
GROUPED = ("train data", "train embedded", "train evaluate")
GROUPED += ("batch status", "batch merge", "batch repair")


@pytest.mark.parametrize("command", [*COMMANDS, *GROUPED])
def test_every_command_has_an_example_in_its_help(run: Run, command: str) -> None:
    ended = run(*command.split(), "--help")
    assert (ended.code, ended.err) == (0, "")
    assert f"\n  janus-kit {command}" in ended.out


def test_the_package_is_a_command_too() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "janus_kit", "--version"], check=True, capture_output=True, text=True
    )
    assert re.fullmatch(r"janus-kit \d+\.\d+\.\d+\n", ended.stdout)


# Training


def test_training_data_is_made_and_its_place_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(report: Callable[[str], None]) -> Path:
        report("all is there")
        return Path("cache")

    monkeypatch.setattr(recipe, "fetch_data", fetch)
    ended = run("train", "data")
    assert (ended.code, ended.out, ended.err) == (0, "cache\n", "janus-kit: all is there\n")
    assert run("train", "data", "-q").err == ""


def test_the_embedded_model_is_trained_where_it_is_wanted(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def train(folder: Path, *, target: Path | None, **given: Any) -> Path:
        calls.append((folder, given["budget"], target, given["start"]))
        return target or folder / "model"

    monkeypatch.setattr(recipe, "train_embedded", train)
    assert run("train", "embedded").out == "runs/embedded/model\n"
    installed = run("train", "embedded", "--budget", "gpu", "-o", "there", "--install").lines
    weights = Path(config.__file__).parent / "weights"
    assert installed == [str(weights)]
    run("train", "embedded", "--start", "embedded", "-o", "a")
    run("train", "embedded", "--start", "there/model", "-o", "b")
    assert calls == [
        (Path("runs/embedded"), "cpu", None, None),
        (Path("there"), "gpu", weights, None),
        (Path("a"), "cpu", None, weights),
        (Path("b"), "cpu", None, Path("there/model")),
    ]


def test_an_evaluation_is_a_table_or_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    share = {"right": 3, "of": 4, "share": 0.75, "low": 0.3, "high": 0.95}
    figures = {"model": "tiny", "tokenizer, seen": {"colour": share, "psnr": 21.5}}
    calls = []

    def measure(model: str | None, **options: Any) -> Mapping[str, Any]:
        options.pop("report")("drawing")
        calls.append((model, options))
        return figures

    monkeypatch.setattr(evaluate, "evaluate", measure)
    ended = run("train", "evaluate", "--model", "x", "--scenes", 8, "-o", "figures.json")
    assert ended.err == "janus-kit: drawing\n"
    assert "model: tiny" in ended.out
    for cell in ("tokenizer, seen", "colour", "75.0%", "30% to 95%", "psnr", "21.5"):
        assert cell in ended.out
    assert run("train", "evaluate", "--json").records == [figures]
    plain = {"scenes": 128, "samples": 4, "every": 1, "seed": 0, "guidance": None}
    plain |= {"quantization": None, "out": None}
    assert calls == [
        ("x", {**plain, "scenes": 8, "out": Path("figures.json")}),
        (None, plain),
    ]
