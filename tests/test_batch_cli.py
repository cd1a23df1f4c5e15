"""Long runs as users start them: commands, signals, kill −9, full disks and several processes."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

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


def table(folder: Path) -> dict[str, str | None]:
    """What captions.jsonl says of each input; None for one that failed."""
    found = map(json.loads, (folder / "captions.jsonl").read_text().splitlines())
    return {row["file_name"]: row.get("caption") for row in found}


def test_options_choose_what_is_captioned(janus: Run, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", 2)
    make(folder / "sub", 1)
    Image.new("RGB", (20, 20), "red").save(folder / "b.jpg")
    flat, deep = ["0000.png", "0001.png", "b.jpg"], ["sub/0000.png"]
    (folder / "list").write_text("in/0001.png\nin/sub/0000.png\n")
    (folder / "rows.jsonl").write_text('{"image": "none.png", "pic": "0001.png"}\n')
    for number, (arguments, names) in enumerate(
        {
            ("in",): flat,
            ("in", "--recursive"): flat + deep,
            ("in", "--glob", "*.jpg"): ["b.jpg"],
            ("in", "--recursive", "--glob", "sub/*"): deep,
            ("--filelist", "in/list"): ["0001.png", *deep],
            ("in/b.jpg", "--filelist", "in/list"): ["b.jpg", "0001.png", *deep],
            ("in/rows.jsonl", "--column", "pic"): ["rows.jsonl/0"],
        }.items()
    ):
        out = tmp_path / f"out{number}"
        ended = janus("caption", *arguments, "-o", out, *SHORT)
        assert ended.code == 0, ended.err
        found = table(out)
        assert list(found) == names
        assert None not in found.values()
    alone = janus("caption", "in/0001.png", *SHORT)
    assert found == {"rows.jsonl/0": alone.out.removesuffix("\n")}


def test_files_with_any_ending_are_captioned_but_not_results(janus: Run, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", 2)
    (folder / "0001.png").rename(folder / "photo")
    (folder / "data.bin").write_bytes(b"no picture")
    for call in range(3):  # from the second on there are captions and tables
        ended = janus("caption", folder, "--all-files", "--json", "--format", "txt,csv", *SHORT)
        record = ended.records[0]
        assert (ended.code, record["done"], record["failed"]) == (3, 2, 1), ended.err
        assert record["calls"] == (0 if call else 2)
        found = table(folder)
        assert list(found) == ["0000.png", "data.bin", "photo"]
        assert found["data.bin"] is None
    assert {path.name for path in folder.glob("*.txt")} == {"0000.txt", "photo.txt"}


def test_texts_go_around_captions_into_files_of_any_ending(janus: Run, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", 1)
    plain = janus("caption", folder / "0000.png", *SHORT).out.removesuffix("\n")
    around = ("--prefix", "{name}: ", "--suffix", ", in {directory}", "--ext", ".caption")
    assert janus("caption", folder, *around, *SHORT).code == 0
    assert table(folder) == {"0000.png": f"0000: {plain}, in in"}
    text = " ".join(f"0000: {plain}, in in".split())
    assert (folder / "0000.caption").read_text() == f"{text}\n"
    assert not (folder / "0000.txt").exists()


@pytest.mark.parametrize(
    ("existing", "form"),
    [("skip", "old"), ("overwrite", "{}"), ("append", "old, {}"), ("prepend", "{}, old")],
)
def test_captions_that_are_there_are_treated_as_asked(
    janus: Run, tmp_path: Path, existing: str, form: str
) -> None:
    folder = make(tmp_path / "in", 2)
    (folder / "0000.txt").write_text("old\n")
    plain = " ".join(janus("caption", folder / "0000.png", *SHORT).out.split())
    for _ in range(2):
        assert janus("caption", folder, "--existing", existing, *SHORT).code == 0
        assert (folder / "0000.txt").read_text() == f"{form.format(plain)}\n"
        assert (folder / "0001.txt").exists()


def test_what_has_failed_is_tried_again_if_that_is_asked(janus: Run, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", 2)
    (folder / "0000.txt").mkdir()
    assert janus("caption", folder, *SHORT).code == 3
    (folder / "0000.txt").rmdir()
    again = janus("caption", folder, *SHORT, "--json")
    assert (again.code, again.records[0]["calls"]) == (3, 0)
    tried = janus("caption", folder, "--retry-failed", *SHORT, "--json")
    assert (tried.code, tried.records[0]["calls"], tried.records[0]["done"]) == (0, 1, 2)
    assert (folder / "0000.txt").is_file()


@pytest.mark.parametrize("command", [("caption", "in"), ("generate", "--prompts", "p.txt")])
@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("/proc/out", "No such file or directory"),  # as a read-only disk, for root too
        ("empty/out", "Not a directory|is a file"),
        ("empty", "is a file"),
        ("readonly/out", "Read-only file system"),
        ("n" * 300, "File name too long"),
    ],
)
def test_an_output_that_cannot_be_is_one_sentence_before_any_work(
    janus: Run,
    tmp_path: Path,
    command: tuple[str, ...],
    output: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make(tmp_path / "in", 1)
    (tmp_path / "p.txt").write_text("a cat\n")
    (tmp_path / "empty").write_text("")
    (tmp_path / "readonly").mkdir()
    real = os.mkdir

    def mkdir(path: Any, *given: Any) -> None:
        if "readonly" in str(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        real(path, *given)

    def load(*arguments: object, **options: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr("janus_kit.pipeline.JanusPipeline.from_pretrained", load)
    ended = janus(*command, "-o", output)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
    assert any(part in ended.err for part in why.split("|")), ended.err
    assert output.split("/")[0] in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing",), "missing: "),
        (("in", "--format", "imagefolder"), "in/metadata.jsonl: would be replaced"),
        (("set/captions.jsonl", "-o", "set"), "set/captions.jsonl: is an input, and a result"),
        (("in/t.tar", "-o", "in"), "in/t.tar: is a file where a folder of results must be"),
        (("in", "--prompt", "@long"), "the text has 10000000 characters; at most 100000"),
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
    folder = make(tmp_path / "in", 2)
    (tmp_path / "empty").write_text("")
    (tmp_path / "long").write_text("x" * 10_000_000)
    (folder / "metadata.jsonl").write_text("by a person")
    with tarfile.open(folder / "t.tar", "w") as tar:
        tar.add(folder / "0000.png", "0000.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/captions.jsonl").write_text('{"path": "../in/0000.png"}\n')
    before = contents(tmp_path)
    ended = janus("caption", *arguments)
    assert contents(tmp_path) == before
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
    other = janus("generate", "--prompts", "p.txt", "--samples", 2, "--seed", 4)
    assert (other.code, "had seed 3, now it is 4" in other.err) == (2, True)
    assert contents(tmp_path / "out") == before
    overwrite = ("--existing", "overwrite")
    assert janus("generate", "--prompts", "p.txt", "--seed", 4, *overwrite).code == 0
    names = ["000000_4.png", "000001_5.png", "index.jsonl", "sheet.png"]
    assert sorted(contents(tmp_path / "out")) == names
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
