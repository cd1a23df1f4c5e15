"""Captions of folders: nothing lost, nothing twice, and nothing of it depends on the batch."""

import csv
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from janus_kit import JanusPipeline, caption_folder, caption_stream
from janus_kit.batch import answers, captioning, inputs, loader
from janus_kit.batch.captioning import CaptionOptions
from janus_kit.batch.ledger import Shard
from janus_kit.batch.run import Outcome
from janus_kit.engine import TextWriter
from janus_kit.errors import BatchError, ImageError, OptionError, PromptError

# The tiny model reads 256 tokens at most; drawn tokens tell pictures apart, likeliest ones hardly.
SHORT = {"max_new_tokens": 6, "temperature": 0.5, "seed": 0}


@pytest.fixture(scope="module")
def pipe(hf_folder: Path) -> JanusPipeline:
    return JanusPipeline.from_pretrained(hf_folder)


def picture(path: Path, seed: int) -> None:
    """Noise in large patches: each picture is its own, and small."""
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (4, 4, 3), generator=draw, dtype=torch.uint8).numpy()
    Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(path)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures, two of them broken. Copy it before captioning it."""
    folder = tmp_path_factory.mktemp("album")
    for i in range(20):
        picture(folder / f"{i:02}.png", i)
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:60])
    (folder / "13.png").write_bytes(b"")
    return folder


@pytest.fixture
def folder(album: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(album, tmp_path / "pictures"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the ledger's."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".janus" not in path.parts
    }


@pytest.fixture(scope="module")
def undisturbed(
    album: Path, pipe: JanusPipeline, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What a run without any misfortune leaves."""
    folder = Path(shutil.copytree(album, tmp_path_factory.mktemp("calm") / "pictures"))
    outcome = caption_folder(pipe, folder, **SHORT)
    assert (outcome.done, outcome.failed, outcome.left) == (18, 2, 0)
    assert len({row.get("caption") for row in rows(folder)}) > 9  # else nothing could be mixed up
    return contents(folder)


def counts(outcome: Outcome) -> tuple[int, int, int]:
    return outcome.done, outcome.failed, outcome.left


def rows(folder: Path) -> list[dict[str, str]]:
    text = (folder / "captions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_captions_are_what_single_calls_answer(folder: Path, pipe: JanusPipeline) -> None:
    outcome = caption_folder(pipe, folder, **SHORT)
    assert (counts(outcome), outcome.calls) == ((18, 2, 0), 18)
    assert outcome.table == folder / "captions.jsonl"
    found = rows(folder)
    assert [row["file_name"] for row in found] == [f"{i:02}.png" for i in range(20)]
    for row in found:
        if "error" in row:
            continue
        path = folder / row["file_name"]
        assert row["caption"] == pipe.caption(path, **SHORT)
        text = path.with_suffix(".txt").read_text(encoding="utf-8")
        assert text == " ".join(row["caption"].split()) + "\n"
    errors = {row["file_name"]: row["error"] for row in found if "error" in row}
    assert sorted(errors) == ["07.png", "13.png"]
    assert errors["13.png"].startswith("is empty (0 bytes)")
    assert not (folder / "07.txt").exists()


def test_a_second_run_asks_nothing_and_changes_nothing(
    folder: Path, pipe: JanusPipeline, undisturbed: dict[str, bytes]
) -> None:
    caption_folder(pipe, folder, **SHORT)
    assert contents(folder) == undisturbed

    def refuse(*arguments: object) -> None:
        raise AssertionError("the model was called")

    blind = JanusPipeline(pipe.model, pipe.tokenizer, pipe.folder, pipe.name)
    blind.model = None  # type: ignore[assignment] # nothing may touch it
    outcome = caption_folder(blind, folder, **SHORT)
    assert (counts(outcome), outcome.calls) == ((18, 2, 0), 0)
    assert contents(folder) == undisturbed


@pytest.mark.parametrize("size", [1, 3, 16])
def test_no_result_depends_on_the_batch(
    folder: Path, pipe: JanusPipeline, undisturbed: dict[str, bytes], size: int
) -> None:
    caption_folder(pipe, folder, batch_size=size, **SHORT)
    assert contents(folder) == undisturbed


def test_a_stream_keeps_its_order_and_goes_on_after_a_bad_picture(
    folder: Path, pipe: JanusPipeline
) -> None:
    paths = [folder / f"{i:02}.png" for i in range(9)]
    items: list[Any] = [*paths, paths[0].read_bytes(), Image.open(paths[1]), 5]
    found = list(caption_stream(pipe, iter(items), "what?", batch_size=4, **SHORT))
    assert [caption.item for caption in found] == items
    bad = [i for i, caption in enumerate(found) if caption.error]
    assert bad == [7, 11]
    assert found[0].text == found[9].text == pipe.ask(paths[0], "what?", **SHORT)
    assert found[10].text == found[1].text


# Faults. The numbers are those of the list of fault injections that this contract was made from.


class Killed(BaseException):
    """Stands for kill −9 where a test must choose the moment; test_batch_cli.py kills for real."""


def dies_at(place: Any, name: str, when: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the when-th call of place.name raise Killed, before it does its work."""
    real: Callable[..., Any] = getattr(place, name)
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == when:
            raise Killed
        return real(*arguments, **options)

    monkeypatch.setattr(place, name, call)


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


def test_f20_times_in_the_future_or_before_1970_are_only_compared(
    folder: Path, pipe: JanusPipeline
) -> None:
    os.utime(folder / "00.png", ns=(4 * 10**18, 4 * 10**18))
    os.utime(folder / "01.png", ns=(-(10**18), -(10**18)))
    assert counts(caption_folder(pipe, folder, **SHORT)) == (18, 2, 0)
    assert caption_folder(pipe, folder, **SHORT).calls == 0


# Shards


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


# Sidecars, prompts and formats


def test_captions_that_are_there_are_kept_and_told(folder: Path, pipe: JanusPipeline) -> None:
    (folder / "01.txt").write_text("by a person\n")
    (folder / "02.txt").write_bytes(b"caf\xe9")
    outcome = caption_folder(pipe, folder, **SHORT)
    assert counts(outcome) == (17, 3, 0)
    found = rows(folder)
    assert found[1]["caption"] == "by a person"
    assert found[2]["error"].startswith("02.txt: is not UTF-8 text")
    assert (folder / "01.txt").read_text() == "by a person\n"
    assert (folder / "02.txt").read_bytes() == b"caf\xe9"


def test_captions_that_are_there_are_replaced_when_that_is_asked(
    folder: Path, pipe: JanusPipeline, undisturbed: dict[str, bytes]
) -> None:
    (folder / "01.txt").write_text("by a person\n")
    (folder / "02.txt").write_bytes(b"caf\xe9")
    caption_folder(pipe, folder, existing="overwrite", **SHORT)
    assert contents(folder) == undisturbed


def test_questions_fill_columns_and_holes_are_filled(tmp_path: Path, pipe: JanusPipeline) -> None:
    inside = tmp_path / "in" / "cats"
    inside.mkdir(parents=True)
    picture(inside / "tom.png", 1)
    (inside / "tom.txt").write_text("grey")
    outcome = caption_folder(
        pipe,
        inside,
        prompts=["Is {name} in {directory}?", "color=Not {caption} or {this}?"],
        prefix="{name}: ",
        suffix=" ({caption})",
        existing="overwrite",
        **SHORT,
    )
    assert outcome.calls == 2
    (row,) = rows(inside)
    first = pipe.ask(inside / "tom.png", "Is tom in cats?", **SHORT)
    second = pipe.ask(inside / "tom.png", "Not grey or {this}?", **SHORT)
    assert row == {"file_name": "tom.png", "caption": f"tom: {first} (grey)", "color": second}
    assert (inside / "tom.txt").read_text() == " ".join(row["caption"].split()) + "\n"


def test_two_pictures_never_share_a_sidecar(tmp_path: Path, pipe: JanusPipeline) -> None:
    picture(tmp_path / "x.png", 1)
    picture(tmp_path / "x.jpg", 2)
    with pytest.raises(BatchError, match=r"x.jpg and x.png would share x.txt; use --sidecar-name"):
        caption_folder(pipe, tmp_path, **SHORT)
    assert not (tmp_path / ".janus").exists()
    caption_folder(pipe, tmp_path, full_names=True, **SHORT)
    assert {path.name for path in tmp_path.glob("*.txt")} == {"x.jpg.txt", "x.png.txt"}


def test_names_that_differ_in_case_or_accents_are_told(
    tmp_path: Path, pipe: JanusPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("A.png", "a.png", "\u00e9.png", "e\u0301.png"):
        picture(tmp_path / name, 1)
    assert counts(caption_folder(pipe, tmp_path, **SHORT)) == (4, 0, 0)
    assert caplog.text.count("have one name on disks that ignore case") == 2


def test_a_csv_holds_no_formula(tmp_path: Path, pipe: JanusPipeline) -> None:
    picture(tmp_path / "=cmd.png", 1)
    caption_folder(pipe, tmp_path, prefix='=HYPERLINK("x")\n', formats=["csv"], **SHORT)
    with (tmp_path / "captions.csv").open(newline="", encoding="utf-8") as file:
        header, row = csv.reader(file)
    assert header == ["file_name", "caption", "error"]
    assert row[0] == "'=cmd.png"
    assert row[1].startswith('\'=HYPERLINK("x")\n')
    assert not (tmp_path / "=cmd.txt").exists()  # it was not asked for


FORMATS = ["txt", "csv", "parquet", "webdataset", "imagefolder"]


@pytest.mark.filterwarnings("ignore:unclosed file", "ignore:Exception ignored")  # webdataset's
@pytest.mark.parametrize("apart", [False, True], ids=["beside", "apart"])
def test_every_format_is_read_by_its_own_library(
    folder: Path, pipe: JanusPipeline, tmp_path: Path, apart: bool
) -> None:
    datasets = pytest.importorskip("datasets")
    import pyarrow.parquet
    import webdataset

    target = tmp_path / "out" if apart else folder
    caption_folder(pipe, folder, target if apart else None, formats=FORMATS, **SHORT)
    expected = {row["file_name"]: row["caption"] for row in rows(target) if "error" not in row}
    table = pyarrow.parquet.read_table(target / "captions.parquet").to_pylist()
    assert {r["file_name"]: r["caption"] for r in table if r["error"] is None} == expected
    assert len(table) == 20
    shard = webdataset.WebDataset(str(target / "captions-000000.tar"), shardshuffle=False)
    samples = list(shard)
    assert len(samples) == 18
    for sample in samples:
        row = json.loads(sample["json"])
        assert sample["txt"].decode() == row["caption"] == expected[row["file_name"]]
        assert sample["png"] == (folder / row["file_name"]).read_bytes()
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(target), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.column_names == ["image", "caption"]
    assert sorted(loaded["caption"]) == sorted(expected.values())
    before = contents(target)
    caption_folder(pipe, folder, target if apart else None, formats=FORMATS, **SHORT)
    assert contents(target) == before


# Inputs


def named(found: tuple[Path, list[inputs.Item]]) -> list[str]:
    return [item.name for item in found[1]]


def test_folders_are_walked_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    for name in ("b.png", "B.JPG", "a.png", "note.txt", ".hidden.png", "sub/c.png", "x.png/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(tmp_path / name, 1) if "txt" not in name else (tmp_path / name).write_text("")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    flat = ["B.JPG", "a.png", "b.png", "link.png"]
    assert named(inputs.find([tmp_path])) == flat
    deep = named(inputs.find([tmp_path], recursive=True))
    assert sorted(deep) == sorted([*flat, "sub/c.png", "x.png/d.png"])
    assert named(inputs.find([tmp_path], pattern="*.JPG")) == ["B.JPG"]
    assert "note.txt" in named(inputs.find([tmp_path], all_files=True))
    assert named(inputs.find([f"{tmp_path}/[ab].png"])) == ["a.png", "b.png"]


def test_a_list_names_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture(Path("a.png"), 1)
    Path("list").write_bytes("\ufeffa.png\r\n\r\nmissing.png\r\n".encode())
    _, items = inputs.find([], filelist="list")
    assert [(item.name, item.stamp == "missing") for item in items] == [
        ("a.png", False),
        ("missing.png", True),
    ]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_list_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "list").write_bytes(data)
    with pytest.raises(BatchError, match="names no file"):
        inputs.find([], filelist=tmp_path / "list")
    with pytest.raises(BatchError, match="cannot be read"):
        inputs.find([], filelist=tmp_path / "missing")


def test_folders_without_pictures_are_told(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"holds no picture; --recursive"):
        inputs.find([tmp_path])
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(BatchError, match="holds no picture"):
        inputs.find([tmp_path], recursive=True)
    with pytest.raises(BatchError, match="no such file or folder"):
        inputs.find([tmp_path / "missing"])
    with pytest.raises(BatchError, match="no file fits this pattern"):
        inputs.find([f"{tmp_path}/*.png"])


def test_tars_tables_and_data_sets_are_inputs(
    folder: Path, pipe: JanusPipeline, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    import pyarrow
    import pyarrow.parquet

    names = [f"{i:02}.png" for i in range(4)]
    out = tmp_path / "tar"
    caption_folder(pipe, [folder / n for n in names], out, formats=["webdataset"], **SHORT)
    expected = [row["caption"] for row in rows(out)]
    assert [row["file_name"] for row in rows(out)] == names
    data = [(folder / name).read_bytes() for name in names]
    table = pyarrow.table({"bytes": data, "other": names})
    pyarrow.parquet.write_table(table, tmp_path / "bytes.parquet", row_group_size=3)
    nested = pyarrow.table({"image": [{"bytes": one, "path": None} for one in data]})
    pyarrow.parquet.write_table(nested, tmp_path / "nested.parquet")
    lines = [json.dumps({"id": 1, "file_name": f"pictures/{name}"}) for name in names]
    (tmp_path / "paths.jsonl").write_text("\n".join(lines))
    features = datasets.Features({"image": datasets.Image()})
    paths = {"image": [str(folder / name) for name in names]}
    datasets.Dataset.from_dict(paths, features=features).save_to_disk(tmp_path / "set")
    tables = ["tar/captions-000000.tar", "bytes.parquet", "nested.parquet", "paths.jsonl", "set"]
    for source in tables:
        target = tmp_path / f"out-{Path(source).name}"
        outcome = caption_folder(pipe, tmp_path / source, target, formats=["imagefolder"], **SHORT)
        assert counts(outcome) == (4, 0, 0), source
        assert [row["caption"] for row in rows(target)] == expected, source
        first = json.loads((target / "metadata.jsonl").read_text().splitlines()[0])
        assert (target / first["file_name"]).read_bytes() == data[0]
    with pytest.raises(BatchError, match="has no column nothing; it has bytes, other"):
        inputs.find([tmp_path / "bytes.parquet"], column="nothing")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("t.tar", b"no tar at all", "is no readable tar"),
        ("t.parquet", b"PAR1", "is no readable Parquet"),
        ("t.jsonl", b"{", "line 1 is not JSON"),
        ("t.jsonl", b'{"x": 1}\n', "has no column image or"),
        ("t.jsonl", b"[]\n", "line 1 is not a JSON object"),
        ("t.jsonl", b"\xff\n", "is not UTF-8"),
    ],
)
def test_an_input_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BatchError, match=reason):
        inputs.find([tmp_path / name])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"prompts": []}, PromptError),
        ({"prompts": [" "]}, PromptError),
        ({"prompts": ["a\0b"]}, PromptError),
        ({"prompts": ["color=a", "color=b"]}, PromptError),
        ({"existing": "keep"}, OptionError),
        ({"formats": ["xml"]}, OptionError),
        ({"temperature": -1}, OptionError),
        ({"top_p": 0}, OptionError),
        ({"workers": -1}, OptionError),
    ],
)
def test_options_are_checked_at_birth(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        CaptionOptions(**options)
    assert dataclasses.is_dataclass(CaptionOptions)


@pytest.mark.parametrize("ext", ["txt", ".", "./x", ""])
def test_an_ending_that_is_none_is_told(tmp_path: Path, pipe: JanusPipeline, ext: str) -> None:
    picture(tmp_path / "a.png", 1)
    with pytest.raises(OptionError, match="--ext must be an ending"):
        caption_folder(pipe, tmp_path, ext=ext, **SHORT)


def test_results_need_a_folder(tmp_path: Path, pipe: JanusPipeline) -> None:
    picture(tmp_path / "a.png", 1)
    with pytest.raises(BatchError, match="else name --output"):
        caption_folder(pipe, tmp_path / "a.png", **SHORT)
    with pytest.raises(BatchError, match="is a file; --output names the folder"):
        caption_folder(pipe, tmp_path, tmp_path / "a.png", **SHORT)


def test_an_item_that_is_read_twice_is_the_same(folder: Path) -> None:
    _, items = inputs.find([folder])
    assert inputs.read(items[0]) == str(folder / "00.png")
    (folder / "00.png").unlink()
    with pytest.raises(ImageError, match="has gone since it was listed"):
        inputs.read(items[0])
