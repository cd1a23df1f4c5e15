"""Long runs as users start them: commands, signals, kill −9, full disks and several processes."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from batch_parts import contents
from cli_parts import SHORT, finish, make, start, wait
from conftest import Run
from PIL import Image

from janus_kit.batch.ledger import Ledger
from janus_kit.batch.run import ranks
from janus_kit.errors import BatchError

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


def test_an_error_leaves_no_thread_behind(janus: Run, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    before = set(threading.enumerate())
    ended = janus("caption", "text.png", *SHORT)
    assert ended.code == 2, ended.err
    # Told to end, a thread of a busy machine takes a moment; one that waits stays for ever.
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before


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
def test_two_ranks_of_torchrun_share_a_folder(janus: Run, tmp_path: Path) -> None:
    folder = make(tmp_path / "pictures", 400)
    calm = Path(shutil.copytree(folder, tmp_path / "calm"))
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
