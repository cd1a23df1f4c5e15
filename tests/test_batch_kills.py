"""F1 to F11 for real: programs that are killed, stopped, started twice and left without disk."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from batch_parts import contents
from cli_parts import SHORT, descendants, finish, gone, lines, make, start, wait
from conftest import Run


@pytest.fixture
def many(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of 400 pictures, and a copy for a run that nothing disturbs."""
    folder = make(tmp_path / "pictures", 400)
    return folder, Path(shutil.copytree(folder, tmp_path / "calm"))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_f4_f5_a_signal_ends_a_run_between_two_steps(
    janus: Run, tmp_path: Path, number: int, code: int
) -> None:
    folder = make(tmp_path / "pictures", 80)
    calm = shutil.copytree(folder, tmp_path / "calm")
    with start("caption", folder, *SHORT) as process:
        wait(folder, 10, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "left in" in err
    assert "stopped; the same command goes on" in err
    table = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    assert 10 <= len(table) < 80
    assert len(list(folder.glob("*.txt"))) == sum("error" not in row for row in table)
    assert janus("caption", folder, *SHORT).code == 3
    assert janus("caption", calm, *SHORT).code == 3
    assert contents(folder) == contents(calm)


def test_f10_a_second_run_ends_at_once_and_does_not_disturb_the_first(
    janus: Run, tmp_path: Path
) -> None:
    folder = make(tmp_path / "pictures", 80)
    calm = shutil.copytree(folder, tmp_path / "calm")
    with start("caption", folder, *SHORT) as process:
        wait(folder, 10, process)
        process.send_signal(signal.SIGSTOP)  # in the midst of its work
        second = janus("caption", folder, *SHORT)
        part = janus("caption", folder, *SHORT, "--shard", "0/2")
        stands = janus("batch", "status", folder, "--json").records[0]
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=60)
    for ended in (second, part):
        assert ended.code == 2
        assert f"another run (process {process.pid}) is at work there" in ended.err
    assert (stands["running"], stands["done"] + stands["failed"] + stands["pending"]) == (True, 80)
    assert process.returncode == 3
    assert lines(folder) == 80
    assert janus("caption", calm, *SHORT).code == 3
    assert contents(folder) == contents(calm)


@pytest.mark.slow
def test_f6_a_second_signal_ends_at_once(janus: Run, many: tuple[Path, Path]) -> None:
    folder, _ = many
    slow = "import time; from janus_kit.writing import TextWriter; step = TextWriter.step\n"
    slow += "TextWriter.step = lambda w: (time.sleep(30), step(w))[1] if len(w.noise) else 0\n"
    with start("caption", folder, *SHORT, hook=slow) as process:
        deadline = time.monotonic() + 60
        while not (folder / ".janus/lock").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(5)  # in the sleep of a step by now
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)
    assert time.monotonic() - begun < 1
    assert process.returncode == 130


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(0, 20), (2, 5)])
def test_f1_killed_again_and_again_a_run_still_comes_to_the_same_bytes(
    janus: Run, many: tuple[Path, Path], workers: int, kills: int
) -> None:
    folder, calm = many
    draw = random.Random(1)  # noqa: S311
    for _ in range(kills):
        with start("caption", folder, *SHORT, "--workers", workers) as process:
            wait(folder, lines(folder) + draw.randrange(1, 18), process)
            time.sleep(draw.random() * 0.02)
            family = descendants(process.pid)
            assert len(family) >= workers
            process.kill()
        assert gone(family, "", 15)
    before = lines(folder)
    assert before < 400  # so that there was something left each time
    ended = finish("caption", folder, *SHORT, "--json")
    assert ended.code == 3
    assert ended.records[0]["calls"] <= 400 - before
    assert finish("caption", calm, *SHORT).code == 3
    assert contents(folder) == contents(calm)
    assert not list((folder / ".janus").glob("tmp-*"))


# Code that has a process kill itself at a chosen call of something.
KILL = """
import os, signal
from {module} import {owner}
real, calls = {owner}.{name}, 0
def call(*arguments, **options):
    global calls
    calls += 1
    if calls == {when} and not {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    found = real(*arguments, **options)
    if calls == {when}:
        os.kill(os.getpid(), signal.SIGKILL)
    return found
{owner}.{name} = call
"""


RENAME = {"module": "builtins", "owner": "os", "name": "replace"}


LEDGER = {"module": "janus_kit.batch.ledger", "owner": "Ledger", "name": "write"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "after"),
    [(LEDGER, True), (RENAME, False), (RENAME, True), (LEDGER, False)],
    ids=[
        "between line and sidecar",
        "temporary file is there",
        "after the rename",
        "before a line",
    ],
)
@pytest.mark.parametrize("task", ["caption", "generate"])
def test_f2_f3_killed_at_any_point_of_a_write_an_item_is_done_once(
    janus: Run, tmp_path: Path, task: str, place: dict[str, str], after: bool
) -> None:
    out, calm = tmp_path / "out", tmp_path / "calm"
    if task == "caption":
        make(out, 12)
        shutil.copytree(out, calm)
        commands = [("caption", folder, *SHORT) for folder in (out, calm)]
    else:
        (tmp_path / "p.txt").write_text("a cat\na dog\na bird\n")
        commands = [
            ("generate", "--prompts", tmp_path / "p.txt", "--batch-size", "1", "-o", folder)
            for folder in (out, calm)
        ]
    hook = KILL.format(**place, after=after, when=2).replace("from builtins import os\n", "")
    with start(*commands[0], hook=hook) as process:
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    parts = list((out / ".janus").glob("tmp-*"))
    assert len(parts) == (place is RENAME and not after)
    assert janus(*commands[0]).code == 0
    assert janus(*commands[1]).code == 0
    assert contents(out) == contents(calm)
    assert not list((out / ".janus").glob("tmp-*"))


@pytest.mark.slow
def test_f11_a_killed_shard_is_completed_beside_the_other(
    janus: Run, many: tuple[Path, Path]
) -> None:
    folder, calm = many
    parts = [("caption", folder, *SHORT, "--shard", f"{i}/2") for i in (0, 1)]
    with start(*parts[0]) as one, start(*parts[1]) as two:
        wait(folder, 40, one)
        one.kill()
        two.communicate()
    assert two.returncode == 3
    assert finish(*parts[0]).code == 3
    assert finish("caption", calm, *SHORT).code == 3
    assert contents(folder) == contents(calm)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_f7_a_full_disk_ends_with_code_5_and_space_completes_the_run(
    janus: Run, many: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, calm = many
    assert finish("caption", calm, "-o", tmp_path / "whole", *SHORT).code == 3
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(disk)], check=False
    )
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        out = disk / "out"
        ended = finish("caption", folder, "-o", out, *SHORT)
        assert (ended.code, "no space is left" in ended.err) == (5, True)
        assert all(path.stat().st_size for path in out.glob("*.txt"))
        assert not list((out / ".janus").glob("tmp-*"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert finish("caption", folder, "-o", out, *SHORT).code == 3
        assert contents(out) == contents(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
