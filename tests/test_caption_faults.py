"""F2 to F20: what a caption run loses when it is killed, starved or broken: nothing."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_parts import (
    SHORT,
    Killed,
    contents,
    counts,
    dies_at,
    picture,
    rows,
)

from janus_kit import JanusPipeline, caption_folder
from janus_kit.batch import answers, captioning, inputs, loader, upkeep
from janus_kit.batch.ledger import Shard
from janus_kit.errors import BatchError, OptionError
from janus_kit.writing import TextWriter


@pytest.mark.parametrize("place", ["between", "inside"])
def test_f2_f3_a_run_that_dies_between_ledger_and_sidecar_is_completed(
    folder: Path,
    pipe: JanusPipeline,
    undisturbed: dict[str, bytes],
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        if place == "between":
            dies_at(captioning.Job, "_write", 3, patch)
        else:
            patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)  # nor cleans up
            dies_at(os, "replace", 5, patch)
        with pytest.raises(Killed):
            caption_folder(pipe, folder, batch_size=2, **SHORT)
    left = list((folder / ".janus").glob("tmp-*"))
    assert len(left) == (place == "inside")
    outcome = caption_folder(pipe, folder, **SHORT)
    assert counts(outcome) == (18, 2, 0)
    assert contents(folder) == undisturbed
    assert list((folder / ".janus").glob("tmp-*")) == []


@pytest.mark.parametrize("existing", ["append", "prepend"])
def test_f2_a_caption_is_appended_once_even_if_its_run_dies(
    folder: Path, pipe: JanusPipeline, existing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(20):
        (folder / f"{i:02}.txt").write_text(f"old {i}\n")
    calm = Path(shutil.copytree(folder, folder.parent / "calm"))
    caption_folder(pipe, calm, existing=existing, **SHORT)
    for when in (2, 5):
        with monkeypatch.context() as patch:
            dies_at(os, "replace", when, patch)
            with pytest.raises(Killed):
                caption_folder(pipe, folder, batch_size=2, existing=existing, **SHORT)
    caption_folder(pipe, folder, existing=existing, **SHORT)
    assert contents(folder) == contents(calm)
    caption = rows(folder)[0]["caption"]
    both = f"old 0, {caption}" if existing == "append" else f"{caption}, old 0"
    assert (folder / "00.txt").read_text() == " ".join(both.split()) + "\n"
    assert (folder / "07.txt").read_text() == "old 7\n"  # of a broken picture


def test_f7_a_full_disk_stops_the_run_and_loses_nothing(
    folder: Path,
    pipe: JanusPipeline,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = os.replace
    calls = 0

    def full(old: Any, new: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(new))
        real(old, new)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(OSError, match="No space left"):
            caption_folder(pipe, folder, **SHORT)
    assert list((folder / ".janus").glob("tmp-*")) == []
    assert all(path.stat().st_size for path in folder.glob("*.txt"))
    caption_folder(pipe, folder, **SHORT)
    assert contents(folder) == undisturbed


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
def test_f8_a_sidecar_that_cannot_be_written_fails_alone(
    folder: Path,
    pipe: JanusPipeline,
    undisturbed: dict[str, bytes],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = os.replace

    def broken(old: Any, new: Any) -> None:
        if Path(new).name == "04.txt":
            raise OSError(code, os.strerror(code), str(new))
        real(old, new)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", broken)
        outcome = caption_folder(pipe, folder, **SHORT)
    assert counts(outcome) == (17, 3, 0)
    assert rows(folder)[4]["error"] == f"04.txt: cannot be written ({os.strerror(code)})"
    outcome = caption_folder(pipe, folder, retry_failed=True, **SHORT)
    assert counts(outcome) == (18, 2, 0)
    assert contents(folder) == undisturbed


def out_of_memory_above(rows: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps of more than some rows run out of memory; gives the sizes that were tried."""
    real = TextWriter.step
    sizes: list[int] = []

    def step(writer: TextWriter) -> Any:
        live = len(writer.names) - writer.free
        if not sizes or sizes[-1] != len(writer.names):
            sizes.append(len(writer.names))
        if live > rows:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough")
        return real(writer)

    monkeypatch.setattr(TextWriter, "step", step)
    return sizes


def test_f12_out_of_memory_halves_the_batch_and_changes_no_caption(
    folder: Path,
    pipe: JanusPipeline,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = out_of_memory_above(2, monkeypatch)
    outcome = caption_folder(pipe, folder, batch_size=8, **SHORT)
    assert counts(outcome) == (18, 2, 0)
    assert contents(folder) == undisturbed
    assert sizes[:3] == [8, 4, 2]  # and the size that worked is remembered
    assert max(sizes[3:], default=0) <= 2


@pytest.mark.parametrize("place", ["_begin", "_writer"])
def test_f12_a_row_that_is_alone_in_a_batch_of_many_is_tried_in_a_batch_of_one(
    folder: Path,
    pipe: JanusPipeline,
    undisturbed: dict[str, bytes],
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = getattr(answers.Answerer, place)

    def tight(self: Any, first: Any, *others: Any) -> Any:
        rows = first if place == "_writer" else len(first.names)
        if rows > 1:  # what takes the memory are rows that nobody uses
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, first, *others)

    monkeypatch.setattr(answers.Answerer, place, tight)
    one = caption_folder(pipe, folder, batch_size=64, limit=1, **SHORT)
    assert counts(one) == (1, 0, 0)
    assert counts(caption_folder(pipe, folder, batch_size=64, **SHORT)) == (18, 2, 0)
    assert contents(folder) == undisturbed


def test_f12_a_larger_batch_is_tried_again_later() -> None:
    size = answers.Size(8)
    size.halve()
    size.halve()
    assert size.now == 2
    changed = [size.worked(2) for _ in range(50)]
    assert (changed.count(True), changed[-1], size.now) == (1, True, 4)
    assert not any(size.worked(4) for _ in range(49))
    assert (size.worked(4), size.now) == (True, 8)
    assert not any(size.worked(8) for _ in range(200))


def breaks_at(name: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the model raise whenever a row of this picture is read."""
    real = answers.Answerer._begin

    def begin(self: Any, writer: TextWriter, rows: Any) -> None:
        if any(row.item.name == name for row in rows):
            raise error
        real(self, writer, rows)

    monkeypatch.setattr(answers.Answerer, "_begin", begin)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory with this picture alone"),
        (ValueError("a row too many"), "ValueError: a row too many"),
    ],
    ids=["f13", "f14"],
)
def test_f13_f14_a_picture_that_breaks_the_model_fails_alone(
    folder: Path,
    pipe: JanusPipeline,
    undisturbed: dict[str, bytes],
    error: Exception,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        breaks_at("05.png", error, patch)
        outcome = caption_folder(pipe, folder, batch_size=4, **SHORT)
    assert counts(outcome) == (17, 3, 0)
    assert rows(folder)[5]["error"].startswith(reason)
    caption_folder(pipe, folder, retry_failed=True, **SHORT)
    assert contents(folder) == undisturbed


def test_f14_a_model_that_breaks_at_everything_ends_the_run(
    folder: Path, pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*arguments: object) -> None:
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(answers.Answerer, "_begin", begin)
    monkeypatch.setattr(answers, "PATIENCE", 5)
    with pytest.raises(RuntimeError, match="device-side"):
        caption_folder(pipe, folder, **SHORT)


def deadly(item: inputs.Item, size: int) -> Any:
    """Decode, but die at one picture, and at another the first time only."""
    if item.name == "03.png":
        os._exit(11)
    mark = Path(item.source.path).with_suffix(".seen")
    if item.name == "05.png" and not mark.exists():
        mark.touch()
        os._exit(11)
    return loader.of_item(item, size)


@pytest.mark.slow
def test_f15_a_decoder_that_dies_takes_only_its_own_picture_along(
    folder: Path, pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captioning, "of_item", deadly)
    outcome = caption_folder(pipe, folder, workers=2, **SHORT)
    assert counts(outcome) == (17, 3, 0)
    errors = {row["file_name"]: row["error"] for row in rows(folder) if "error" in row}
    assert sorted(errors) == ["03.png", "07.png", "13.png"]
    assert errors["03.png"].startswith("the process that decoded it died, twice")


@pytest.mark.parametrize("what", ["gone", "changed"])
def test_f18_a_picture_that_is_not_what_was_listed_fails_and_is_done_by_the_next_run(
    folder: Path,
    pipe: JanusPipeline,
    undisturbed: dict[str, bytes],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = folder / "10.png"
    data = target.read_bytes()
    real = inputs.find

    def find(*arguments: Any, **options: Any) -> Any:
        found = real(*arguments, **options)
        target.unlink()
        if what == "changed":
            picture(target, 99)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(inputs, "find", find)
        outcome = caption_folder(pipe, folder, **SHORT)
    assert counts(outcome) == (17, 3, 0)
    assert f"has {what} since it was listed; run the command again" in rows(folder)[10]["error"]
    target.write_bytes(data)
    outcome = caption_folder(pipe, folder, **SHORT)  # without --retry-failed: it is another input
    assert (counts(outcome), outcome.calls) == ((18, 2, 0), 1)
    assert contents(folder) == undisturbed


def test_f18_a_picture_that_changes_later_is_captioned_again(
    folder: Path, pipe: JanusPipeline
) -> None:
    caption_folder(pipe, folder, **SHORT)
    before = (folder / "02.txt").read_text()
    picture(folder / "02.png", 77)
    (folder / "04.txt").write_text("by hand")
    picture(folder / "04.png", 78)
    outcome = caption_folder(pipe, folder, **SHORT)
    assert (counts(outcome), outcome.calls) == ((18, 2, 0), 1)
    after = (folder / "02.txt").read_text()
    assert after != before
    assert after == " ".join(pipe.caption(folder / "02.png", **SHORT).split()) + "\n"
    assert (folder / "04.txt").read_text() == "by hand"  # what a person wrote is kept
    assert rows(folder)[4]["caption"] == "by hand"


def test_f19_other_settings_are_refused_unless_all_is_done_again(
    folder: Path, pipe: JanusPipeline
) -> None:
    caption_folder(pipe, folder, **SHORT)
    before = contents(folder)
    with pytest.raises(BatchError, match="the run there had max_new_tokens 6, now it is 5"):
        caption_folder(pipe, folder, max_new_tokens=5)
    with pytest.raises(BatchError, match="prompts"):
        caption_folder(pipe, folder, prompts=["how many?"], **SHORT)
    assert contents(folder) == before
    outcome = caption_folder(pipe, folder, prompts=["how many?"], existing="overwrite", **SHORT)
    assert (counts(outcome), outcome.calls) == ((18, 2, 0), 18)
    assert contents(folder) != before
    # Batches, processes and formats change no caption: the run goes on.
    again = {"prompts": ["how many?"], "batch_size": 3, "workers": 0, "formats": ["txt", "csv"]}
    assert caption_folder(pipe, folder, **again, **SHORT).calls == 0
    assert (folder / "captions.csv").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"seed": -1}, {"seed": 2**63}, {"max_new_tokens": 10**6}, {"batch_size": 0}],
    ids=str,
)
def test_f19_a_wrong_option_is_told_before_anything_is_kept(
    folder: Path, pipe: JanusPipeline, wrong: dict[str, Any]
) -> None:
    (folder / "00.txt").write_text("by hand")  # which is settled before the model is asked
    with pytest.raises(OptionError, match=next(iter(wrong))):
        caption_folder(pipe, folder, **{**SHORT, **wrong})
    caption_folder(pipe, folder, **SHORT)
    with pytest.raises(OptionError):
        caption_folder(pipe, folder, existing="overwrite", **{**SHORT, **wrong})
    assert upkeep.status(folder)["done"] == 18
    assert caption_folder(pipe, folder, **SHORT).calls == 0


def test_f20_times_in_the_future_or_before_1970_are_only_compared(
    folder: Path, pipe: JanusPipeline
) -> None:
    os.utime(folder / "00.png", ns=(4 * 10**18, 4 * 10**18))
    os.utime(folder / "01.png", ns=(-(10**18), -(10**18)))
    assert counts(caption_folder(pipe, folder, **SHORT)) == (18, 2, 0)
    assert caption_folder(pipe, folder, **SHORT).calls == 0


def test_f11_shards_make_the_table_that_one_run_makes(
    folder: Path,
    pipe: JanusPipeline,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        dies_at(os, "replace", 2, patch)
        with pytest.raises(Killed):
            caption_folder(pipe, folder, batch_size=2, shard=Shard(0, 2), **SHORT)
    one = caption_folder(pipe, folder, shard=Shard(1, 2), **SHORT)
    assert one.table is None
    two = caption_folder(pipe, folder, shard=Shard(0, 2), **SHORT)
    assert 0 < one.done < 18
    assert counts(two) == (18, 2, 0)  # the last one counts all
    assert two.table == folder / "captions.jsonl"
    assert contents(folder) == undisturbed
    assert [path.name for path in (folder / ".janus").glob("run*")] == ["run.jsonl"]
    assert caption_folder(pipe, folder, **SHORT).calls == 0
    assert caption_folder(pipe, folder, shard=Shard(2, 5), **SHORT).calls == 0
