"""Wrong use and misfortune on the command line: one sentence, and the right code."""

import errno
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import PROMPT
from conftest import Run

from janus_kit import console
from janus_kit.cli import main
from janus_kit.errors import PromptError


@pytest.mark.parametrize(
    "arguments",
    [
        ("paint",),
        ("generate",),
        ("generate", PROMPT, "--sed", 1),
        ("generate", PROMPT, "--seed", "one"),
        ("generate", PROMPT, "-n", 0),
        ("generate", PROMPT, "--shard", "0/2"),
        ("generate", PROMPT, "--existing", "overwrite"),
        ("generate", "--prompts", "prompts.txt", "--grid"),
        ("caption", "photos", "--address", "auto"),
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
