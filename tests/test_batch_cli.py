"""Long runs as users start them: commands, signals, kill −9, full disks and several processes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, Run
from PIL import Image
from test_captioning import contents, picture

from janus_kit.batch.ledger import Ledger
from janus_kit.batch.run import ranks
from janus_kit.errors import BatchError

SHORT = ("--max-new-tokens", "6", "--temperature", "0.5")
# A test run in the background of a shell hands down an ignored SIGINT.
START = (
    "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from janus_kit.cli import main; main()"
)


def start(*arguments: object, hook: str = "", **options: Any) -> "subprocess.Popen[str]":
    """A command in a process of its own, in which hook has run before."""
    return subprocess.Popen(
        [sys.executable, "-c", hook + START, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(*arguments: object) -> Ended:
    with start(*arguments) as process:
        out, err = process.communicate()
    return Ended(process.returncode, out, err)


def lines(folder: Path) -> int:
    """How many inputs the ledgers of a folder tell of."""
    found = (path.read_bytes() for path in (folder / ".janus").glob("run*.jsonl"))
    return sum(data.count(b'"name"') for data in found)


def wait(folder: Path, count: int, process: "subprocess.Popen[str]") -> None:
    """Wait until the ledger has grown to count inputs, or the process has ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None and lines(folder) < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def descendants(process: int) -> list[int]:
    """The processes that a process has started, and those that they have, as /proc tells."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def title(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def gone(family: list[int], word: str, seconds: float) -> bool:
    """Whether the processes of a family whose titles hold a word end within some time."""
    deadline = time.monotonic() + seconds
    while any(title(p) and word in title(p) for p in family):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


@pytest.fixture
def janus(run: Run, hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("JANUS_KIT_MODEL", str(hf_folder))
    return run


def make(folder: Path, count: int, broken: int = 20) -> Path:
    """A folder of small pictures, of which every broken-th is cut short."""
    folder.mkdir(parents=True)
    picture(folder / "0000.png", 0)
    for i in range(1, count):
        picture(folder / f"{i:04}.png", i)
        if i % broken == broken - 1:
            data = (folder / f"{i:04}.png").read_bytes()
            (folder / f"{i:04}.png").write_bytes(data[: len(data) // 2])
    return folder


@pytest.fixture
def many(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of 400 pictures, and a copy for a run that nothing disturbs."""
    folder = make(tmp_path / "pictures", 400)
    return folder, Path(shutil.copytree(folder, tmp_path / "calm"))


# Commands


def test_a_folder_is_captioned_and_the_second_time_nothing_is_asked(
    janus: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "in", 6, broken=5)
    ended = janus("caption", folder, *SHORT)
    assert (ended.code, ended.out) == (3, f"{folder}/captions.jsonl\n")
    assert ended.err == f"janus-kit: 5 done, 1 failed, 0 left in {folder}\n"
    before = contents(folder)

    def load(*arguments: object, **options: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("janus_kit.pipeline.JanusPipeline.from_pretrained", load)
    again = janus("caption", folder, *SHORT, "--json", "--format", "txt,csv")
    assert again.code == 3
    (record,) = again.records
    assert {name: record[name] for name in ("done", "failed", "left", "calls")} == {
        "done": 5,
        "failed": 1,
        "left": 0,
        "calls": 0,
    }
    assert {k: v for k, v in contents(folder).items() if k != "captions.csv"} == before


def test_files_alone_are_printed_and_leave_no_file(janus: Run, tmp_path: Path) -> None:
    make(tmp_path / "in", 3)
    before = contents(tmp_path)
    ended = janus("caption", "in/0000.png", "in/0001.png", *SHORT)
    assert [line.split("\t")[0] for line in ended.lines] == ["in/0000.png", "in/0001.png"]
    assert contents(tmp_path) == before
    assert not list(tmp_path.rglob(".janus"))


def test_parts_of_a_folder_are_left_and_told(janus: Run, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", 6)
    listed = janus("caption", folder, "--dry-run", "--limit", 2)
    assert (listed.code, listed.lines) == (0, ["0000.png", "0001.png"])
    assert not (folder / ".janus").exists()
    assert janus("caption", folder, "-o", "out", "--limit", 2, *SHORT).code == 0
    assert janus("batch", "status", "out", "--json").records[0]["done"] == 2
    shown = janus("caption", folder, "-o", "out", "--shard", "0/2", *SHORT)
    assert (shown.code, shown.out) == (0, "")
    assert janus("caption", folder, "-o", "out", "--shard", "1/2", *SHORT).out == (
        "out/captions.jsonl\n"
    )
    status = janus("batch", "status", "out")
    assert "done:             6" in status.out
    assert janus("batch", "merge", "out").out == "out/.janus/run.jsonl\n"
    assert janus("batch", "repair", "out").out == "0\n"


def test_prompts_come_from_files_and_fill_columns(janus: Run, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", 2)
    (tmp_path / "q.txt").write_bytes(b"\xef\xbb\xbfwhat colour?\r\n")
    janus("caption", folder, "-o", "out", "--prompt", "@q.txt", "--prompt", "n=how many?", *SHORT)
    row = json.loads((tmp_path / "out/captions.jsonl").read_text().splitlines()[0])
    assert list(row) == ["file_name", "caption", "n"]
    alone = janus("caption", folder / "0000.png", "--prompt", "@q.txt", *SHORT)
    assert alone.out == f"{row['caption']}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing",), "missing: "),
        (("in", "--format", "xml"), "--format must be some of"),
        (("in", "--existing", "keep"), "--existing must be one of"),
        (("in", "--sidecar-name", "x"), "--sidecar-name must be stem or full"),
        (("in", "--shard", "3/2"), "shard 3/2 is none of"),
        (("in", "--prompt", "@missing"), "missing: cannot be read"),
        (("in", "--prompt", "@empty"), "empty: is empty"),
        (("in", "--prompt", "@in/0000.png"), "is not UTF-8 text"),
        (("in", "--batch-size", "many"), "batch_size must be"),
        (("in/*.png", "in/0000.png", "--format", "csv"), "else name --output"),
        (("in", "-o", "empty"), "is a file; --output names"),
        (("in", "--world", "2"), "2 processes were to run, but the launcher started 1"),
        (("in/0000.png", "--prompt", "a", "--prompt", "b"), "several questions fill a table"),
    ],
)
def test_wrong_use_is_one_sentence_and_code_2(
    janus: Run, tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    make(tmp_path / "in", 2)
    (tmp_path / "empty").write_text("")
    ended = janus("caption", *arguments)
    assert (ended.code, ended.err.count("\n"), message in ended.err) == (2, 1, True), ended.err


def test_f10_a_second_run_in_a_folder_ends_at_once(janus: Run, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", 2)
    assert janus("caption", folder, *SHORT).code == 0
    settings = json.loads((folder / ".janus/run.jsonl").read_text().splitlines()[0])["run"]
    with Ledger(folder, settings):
        ended = janus("caption", folder, *SHORT)
        assert (ended.code, "is at work there" in ended.err) == (2, True)
        assert janus("batch", "status", folder, "--json").records[0]["running"] is True
    assert janus("caption", folder, *SHORT).code == 0


def test_a_file_of_prompts_is_drawn_and_the_second_time_nothing(janus: Run, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat\na dog\n")
    ended = janus("generate", "--prompts", "p.txt", "--samples", 2, "--seed", 3)
    assert (ended.code, ended.out) == (0, "out/index.jsonl\n")
    before = contents(tmp_path / "out")
    assert sorted(before) == [
        *(f"{i:06}_{3 + i}.png" for i in range(4)),
        "index.jsonl",
        "sheet.png",
    ]
    (one,) = janus("generate", "a cat", "--seed", 3, "-o", "one").lines
    assert (tmp_path / one).read_bytes() == before["000000_3.png"]
    again = janus("generate", "--prompts", "p.txt", "--samples", 2, "--seed", 3, "--json")
    assert again.records[0]["calls"] == 0
    assert contents(tmp_path / "out") == before
    assert janus("generate", "a cat", "--prompts", "p.txt").code == 2


# Ranks


def test_ranks_are_read_from_the_launchers_environment() -> None:
    both = {"RANK": "1", "WORLD_SIZE": "3"}
    found = ranks(3, both)
    assert found is not None
    assert (found.index, found.count) == (1, 3)
    slurm = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_ID": "0"}
    found = ranks(None, slurm)
    assert found is not None
    assert (found.index, found.count) == (2, 4)
    del slurm["SLURM_STEP_ID"]  # a batch script outside of srun
    assert ranks(None, slurm) is None
    assert ranks(None, {}) is None
    with pytest.raises(BatchError, match="3 processes were to run, but the launcher started 1"):
        ranks(3, {"RANK": "0", "WORLD_SIZE": "1"})
    with pytest.raises(BatchError, match="are no rank"):
        ranks(None, {"RANK": "x", "WORLD_SIZE": "2"})


@pytest.mark.slow
def test_two_ranks_of_torchrun_share_a_folder(
    janus: Run, hf_folder: Path, many: tuple[Path, Path]
) -> None:
    folder, calm = many
    assert finish("caption", calm, *SHORT, "-q").code == 3
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    command = ["caption", str(folder), *SHORT, "--world", "2", "-q"]
    here = [sys.executable, "-m", "janus_kit", *command]
    ended = subprocess.run([*launch, *here], check=False, capture_output=True, text=True)
    # The last rank ends with 3, for broken pictures; the first must not, it would end the other.
    assert ended.returncode == 1
    assert "exitcode  : 3" in ended.stderr
    assert contents(folder) == contents(calm)
    single = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", "--no-python"]
    ended = subprocess.run([*single, *here], check=False, capture_output=True, text=True)
    assert "2 processes were to run, but the launcher started 1" in ended.stderr


# Signals and kills


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


@pytest.mark.slow
def test_f6_a_second_signal_ends_at_once(janus: Run, many: tuple[Path, Path]) -> None:
    folder, _ = many
    slow = "import time; from janus_kit.engine import TextWriter; step = TextWriter.step\n"
    slow += "TextWriter.step = lambda w: (time.sleep(30), step(w))[1] if len(w.noise) else 0\n"
    with start("caption", folder, *SHORT, hook=slow) as process:
        deadline = time.monotonic() + 60
        while not (folder / ".janus/run.jsonl").exists() and time.monotonic() < deadline:
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


@pytest.mark.slow
def test_two_thousand_pictures_with_five_percent_broken_lose_nothing(
    janus: Run, tmp_path: Path
) -> None:
    folder = make(tmp_path / "in", 2000)
    calm = Path(shutil.copytree(folder, tmp_path / "calm"))
    with start("caption", folder, *SHORT) as process:
        wait(folder, 700, process)
        process.kill()
    ended = finish("caption", folder, *SHORT, "--json")
    record = ended.records[0]
    assert (ended.code, record["done"], record["failed"], record["left"]) == (3, 1900, 100, 0)
    again = finish("caption", folder, *SHORT, "--json")
    assert again.records[0]["calls"] == 0
    whole = finish("caption", calm, *SHORT, "--json")
    assert whole.records[0]["calls"] == 1900
    assert contents(folder) == contents(calm)
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == [f"{i:04}.png" for i in range(2000)]


def test_a_run_without_a_terminal_writes_plain_lines(
    janus: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("janus_kit.progress.LINE_EVERY", 0.0)
    folder = make(tmp_path / "in", 3)
    ended = janus("caption", folder, *SHORT)
    assert "captioning: 3 done, 0 failed, 0 left, " in ended.err
    assert "\x1b" not in ended.err
    assert janus("caption", folder, *SHORT, "-q").err == ""


def test_a_picture_is_never_opened_twice_by_name(janus: Run, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", 2)
    with Image.open(folder / "0000.png") as image:
        image.save(folder / "0000.webp")
    ended = janus("caption", folder, *SHORT)
    assert (ended.code, "would share 0000.txt" in ended.err) == (2, True)
