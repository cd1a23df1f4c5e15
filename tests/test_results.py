"""The files that captions end in: what they hold, and what they never replace."""

import csv
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from batch_parts import SHORT, contents, counts, picture, rows

from janus_kit import JanusPipeline, caption_folder
from janus_kit.batch import tables
from janus_kit.errors import BatchError


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


@pytest.mark.parametrize("name", ["a/x.png", "t.tar/x.png", "t.parquet/0"])
def test_a_changed_picture_replaces_its_copy(
    tmp_path: Path, pipe: JanusPipeline, name: str
) -> None:
    def write(seed: int) -> Path:
        picture(tmp_path / "x.png", seed)
        (tmp_path / "in/a").mkdir(parents=True, exist_ok=True)
        if name.startswith("a"):
            shutil.copy(tmp_path / "x.png", tmp_path / "in/a/x.png")
            return tmp_path / "in"
        if name.startswith("t.tar"):
            with tarfile.open(tmp_path / "t.tar", "w") as tar:
                tar.add(tmp_path / "x.png", "x.png")
            return tmp_path / "t.tar"
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        table = pyarrow.table({"image": [(tmp_path / "x.png").read_bytes()]})
        parquet.write_table(table, tmp_path / "t.parquet")
        return tmp_path / "t.parquet"

    out = tmp_path / "out"
    for seed in (1, 2):
        source = write(seed)
        outcome = caption_folder(
            pipe, source, out, recursive=True, formats=["imagefolder"], **SHORT
        )
        assert (counts(outcome), outcome.calls) == ((1, 0, 0), 1)
        (row,) = map(json.loads, (out / "metadata.jsonl").read_text().splitlines())
        assert row["file_name"].removesuffix(".png") == name.removesuffix(".png")
        assert (out / row["file_name"]).read_bytes() == (tmp_path / "x.png").read_bytes()


@pytest.mark.filterwarnings("ignore:unclosed file", "ignore:Exception ignored")  # webdataset's
@pytest.mark.parametrize("apart", [False, True], ids=["beside", "apart"])
def test_a_picture_that_goes_after_its_caption_is_left_out_of_data_sets(
    folder: Path,
    pipe: JanusPipeline,
    tmp_path: Path,
    apart: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("webdataset")
    write = tables.write

    def late(*given: Any) -> Path:
        (folder / "00.png").unlink()
        return write(*given)

    monkeypatch.setattr(tables, "write", late)
    target = tmp_path / "out" if apart else folder
    outcome = caption_folder(pipe, folder, target, formats=["webdataset", "imagefolder"], **SHORT)
    assert counts(outcome) == (18, 2, 0)
    assert "caption" in rows(target)[0]
    metadata = (target / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["file_name"] for line in metadata][:2] == ["01.png", "02.png"]
    with tarfile.open(target / "captions-000000.tar") as tar:
        assert sum(name.endswith(".png") for name in tar.getnames()) == len(metadata) == 17
    for name in ("imagefolder", "webdataset"):
        assert f"can no longer be read, and are not in the {name}: 1; run" in caplog.text


# What is there and is no result


RESULTS = [
    ("captions.jsonl", "txt"),
    ("captions.csv", "csv"),
    ("captions.parquet", "parquet"),
    ("captions-000000.tar", "webdataset"),
    ("captions-000007.tar", "webdataset"),
    ("metadata.jsonl", "imagefolder"),
    ("00.png", "imagefolder"),
    ("01.png", "imagefolder"),
]


@pytest.mark.parametrize(("name", "kind"), RESULTS)
def test_a_file_that_no_run_has_written_is_never_replaced(
    folder: Path, pipe: JanusPipeline, tmp_path: Path, name: str, kind: str
) -> None:
    if kind in ("parquet", "webdataset"):
        pytest.importorskip({"parquet": "pyarrow"}.get(kind, kind))
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("by a person")
    with pytest.raises(BatchError, match=f"{name}: would be replaced, and is no result of a run"):
        caption_folder(pipe, folder, out, formats=[kind], **SHORT)
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "by a person"
    (out / name).unlink()
    caption_folder(pipe, folder, out, formats=[kind], **SHORT)
    caption_folder(pipe, folder, out, formats=[kind], **SHORT)
    if kind == "csv":  # a ledger alone does not make a file ours
        (out / "metadata.jsonl").write_text("by a person")
        with pytest.raises(BatchError, match=r"metadata.jsonl: would be replaced"):
            caption_folder(pipe, folder, out, formats=["csv", "imagefolder"], **SHORT)


@pytest.mark.parametrize("kind", ["jsonl", "tar", "own tar", "parquet"])
def test_an_input_is_never_replaced_by_a_result(
    folder: Path, pipe: JanusPipeline, tmp_path: Path, kind: str
) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("webdataset")
    out = tmp_path / "out"
    formats = {"jsonl": "jsonl", "parquet": "parquet"}.get(kind, "webdataset")
    name = {"webdataset": "captions-000000.tar"}.get(formats, f"captions.{kind}")
    caption_folder(pipe, folder, out, formats=[formats], **SHORT)
    if kind != "own tar":
        shutil.rmtree(out / ".janus")
    before = contents(out)
    with pytest.raises(BatchError, match=rf"{name}: is an input, and a result would replace it"):
        caption_folder(
            pipe,
            out / name,
            out,
            formats=[formats],
            existing="overwrite",
            **({"column": "file_name"} if kind in ("jsonl", "parquet") else {}),
            **SHORT,
        )
    assert contents(out) == before


@pytest.mark.parametrize("formats", [["txt"], ["imagefolder"]])
def test_a_file_in_the_place_of_a_folder_is_told_before_any_work(
    folder: Path, pipe: JanusPipeline, tmp_path: Path, formats: list[str]
) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(folder / "00.png", "sub/00.png")
    with pytest.raises(BatchError, match=r"x.tar: is a file where a folder of results must be"):
        caption_folder(pipe, tmp_path / "x.tar", tmp_path, formats=formats, **SHORT)
    assert not (tmp_path / ".janus").exists()
    outcome = caption_folder(pipe, tmp_path / "x.tar", tmp_path, formats=["csv"], **SHORT)
    assert counts(outcome) == (1, 0, 0)


@pytest.mark.parametrize(("name", "ext"), [("a.png", ".png"), ("a.txt", ".txt")])
def test_a_caption_never_replaces_its_picture(
    tmp_path: Path, pipe: JanusPipeline, name: str, ext: str
) -> None:
    picture(tmp_path / "a.png", 1)
    (tmp_path / "a.png").rename(tmp_path / name)
    before = contents(tmp_path)
    with pytest.raises(BatchError, match=f"{name}: has the name of its own caption"):
        caption_folder(pipe, [tmp_path / name], tmp_path, ext=ext, existing="overwrite", **SHORT)
    assert contents(tmp_path) == before


# How others read captions
