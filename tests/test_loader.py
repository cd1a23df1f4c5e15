"""Processes that decode: programs that cannot be run again, and machines that start none."""

import logging
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from batch_parts import contents
from cli_parts import SHORT, finish
from conftest import Run
from PIL import Image

from janus_kit import JanusPipeline
from janus_kit.batch import loader

# As a notebook's user writes it: no guard. It tells every time that it is run.
SCRIPT = """
from pathlib import Path
import multiprocessing, sys
from janus_kit import JanusPipeline, caption_folder

told, model, folder = sys.argv[1:]
with open(told, "a") as file:
    file.write("run\\n")
{before}
pipe = JanusPipeline.from_pretrained(model)
short = {{"max_new_tokens": 6, "temperature": 0.5, "seed": 0}}
print(caption_folder(pipe, folder, workers=2, **short))
"""


def execute(
    how: str, tmp_path: Path, model: Path, folder: Path, before: str = ""
) -> "subprocess.CompletedProcess[str]":
    """The script on stdin or from a file; the number of its runs stands in tmp_path / "told"."""
    text = SCRIPT.format(before=before)
    file = tmp_path / "script.py"
    file.write_text(text)
    name = "-" if how == "stdin" else str(file)
    return subprocess.run(
        [sys.executable, name, str(tmp_path / "told"), str(model), str(folder)],
        input=text if how == "stdin" else None,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stdin", "a file without a guard"])
def test_processes_decode_for_a_program_that_cannot_be_run_again(
    how: str, folder: Path, hf_folder: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    ended = execute(how, tmp_path, hf_folder, folder)
    assert (ended.returncode, ended.stderr) == (0, "")  # no line about a thread
    assert ended.stdout == "18 done, 2 failed, 0 left\n"
    assert (tmp_path / "told").read_text() == "run\n"
    assert contents(folder) == undisturbed


@pytest.mark.slow
def test_a_thread_decodes_where_no_process_can_be_started(
    folder: Path, hf_folder: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    broken = 'multiprocessing.set_executable("/bin/false")'
    ended = execute("stdin", tmp_path, hf_folder, folder, broken)
    assert ended.stdout == "18 done, 2 failed, 0 left\n"
    assert ended.stderr.count("no process to decode in can be started") == 1
    assert contents(folder) == undisturbed


@pytest.mark.slow
def test_processes_that_decode_log_as_the_command_does(janus: Run, tmp_path: Path) -> None:
    for name, quiet in (("loud", ()), ("quiet", ("-q",))):
        (tmp_path / name).mkdir()
        frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
        frames[0].save(tmp_path / name / "a.gif", save_all=True, append_images=frames[1:])
        ended = finish("caption", tmp_path / name, *SHORT, "--workers", "1", *quiet)
        place = tmp_path / name / "a.gif"
        told = f"janus-kit: {place}: holds several frames; only the first is read\n"
        assert (ended.code, told in ended.err) == (0, not quiet)
        assert ended.err == "" or not quiet


def sleeps(level: int) -> None:
    time.sleep(600)


def doubled(item: int, size: int) -> loader.Pixels:
    return np.full((3, size, size), 2 * item, np.float32)


@pytest.mark.slow
def test_a_process_that_never_answers_is_ended_and_a_thread_decodes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loader, "_begin", sleeps)
    monkeypatch.setattr(loader, "PATIENCE", 1)
    with caplog.at_level(logging.WARNING):
        found = list(loader.ahead(doubled, range(5), 2, 2, 3))
    assert [item for item, _ in found] == list(range(5))
    assert [np.mean(pixels) for _, pixels in found if not isinstance(pixels, str)] == [
        0,
        2,
        4,
        6,
        8,
    ]
    assert len(caplog.records) == 1
    assert "a thread decodes" in caplog.text
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert multiprocessing.active_children() == []


def killed_by_three(item: int, size: int) -> loader.Pixels:
    if item == 3:
        assert multiprocessing.parent_process() is not None, "the run itself would have ended"
        os._exit(1)
    return doubled(item, size)


def test_what_has_killed_a_process_is_not_decoded_by_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, started = loader._started, iter(["a process", "none left"])

    def once(workers: int) -> loader.Executor:
        return start(workers if next(started, None) == "a process" else 0)

    monkeypatch.setattr(loader, "_started", once)
    found = dict(loader.ahead(killed_by_three, range(12), 1, 1, 4))
    assert list(found) == list(range(12))
    lost = [item for item, result in found.items() if isinstance(result, str)]
    assert 3 in lost
    assert len(lost) <= 4  # those that were under way together
    assert "no other can be started" in str(found[3])
    assert all(isinstance(found[item], np.ndarray) for item in range(12) if item not in lost)


def test_a_worker_sees_no_main_module_to_run_but_threads_find_what_is_in_it() -> None:
    main = sys.modules["__main__"]
    hidden = loader._Nameless(main)
    assert hidden.__name__ == "__main__"
    assert hidden.__spec__ is None
    assert not hasattr(hidden, "__file__")
    main.thing = JanusPipeline  # type: ignore[attr-defined]
    try:
        assert hidden.thing is JanusPipeline
    finally:
        del main.thing
