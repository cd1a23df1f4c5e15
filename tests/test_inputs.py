"""What is captioned: folders, lists, tars, tables and data sets, and what is told of the rest."""

import errno
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from batch_parts import SHORT, counts, picture, rows

from janus_kit import JanusPipeline, caption_folder, draw_file
from janus_kit.batch import inputs, loader
from janus_kit.errors import BatchError, ImageError


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


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "set"])
def test_a_tables_rows_are_done_again_when_they_or_their_pictures_change(
    folder: Path, pipe: JanusPipeline, tmp_path: Path, kind: str
) -> None:
    for i in range(3):  # in all that a stamp of a file tells they are the same
        data = (folder / f"0{i}.png").read_bytes()
        (folder / f"0{i}.png").write_bytes(data + b"\0" * (1000 - len(data)))
        os.utime(folder / f"0{i}.png", (1, 1))
    table = tmp_path / f"t.{kind}"

    def run(*names: str) -> list[str]:
        paths = [f"pictures/{name}" for name in names]
        if kind == "jsonl":
            table.write_text("".join(json.dumps({"file": path}) + "\n" for path in paths))
        elif kind == "set":
            datasets = pytest.importorskip("datasets")
            shutil.rmtree(table, ignore_errors=True)
            datasets.Dataset.from_dict({"file": paths}).save_to_disk(table)
        else:
            write_parquet(table, {"file": paths}, row_group_size=2)
        outcome = caption_folder(pipe, table, tmp_path / "out", **SHORT)
        calls.append(outcome.calls)
        return [row["caption"] for row in rows(tmp_path / "out")]

    calls: list[int] = []
    first = run("00.png", "01.png", "02.png")
    assert run("00.png", "01.png", "02.png") == first
    assert run("02.png", "01.png", "00.png") == first[::-1]
    (folder / "01.png").write_bytes((folder / "05.png").read_bytes())
    assert run("02.png", "01.png", "00.png")[1] == pipe.caption(folder / "05.png", **SHORT)
    assert calls == [3, 0, 2, 1]


def test_a_parquet_row_without_a_path_fails_alone(
    folder: Path, pipe: JanusPipeline, tmp_path: Path
) -> None:
    paths = ["pictures/00.png", None, "pictures/none.png", "pictures/\ud800.png"]
    lines = "".join(json.dumps({"path": path}) + "\n" for path in paths if path)
    (tmp_path / "t.jsonl").write_text(lines)
    write_parquet(tmp_path / "t.parquet", {"path": paths[:3]})
    for name, count in (("t.jsonl", 3), ("t.parquet", 3)):
        outcome = caption_folder(pipe, tmp_path / name, tmp_path / f"out-{name}", **SHORT)
        assert counts(outcome) == (1, count - 1, 0)
        assert all("\n" not in row.get("error", "") for row in rows(tmp_path / f"out-{name}"))


def test_a_damaged_row_group_fails_its_rows_and_no_others(
    folder: Path, pipe: JanusPipeline, tmp_path: Path
) -> None:
    data = [(folder / f"0{i}.png").read_bytes() for i in range(6)]
    table = tmp_path / "t.parquet"
    write_parquet(table, {"bytes": data}, row_group_size=2)
    column = inputs.parquet().read_metadata(table).row_group(1).column(0)
    with table.open("r+b") as file:
        file.seek(column.dictionary_page_offset)
        file.write(b"\xff" * column.total_compressed_size)
    outcome = caption_folder(pipe, table, tmp_path / "out", **SHORT)
    found = rows(tmp_path / "out")
    assert [("error" in row) for row in found] == [False] * 2 + [True] * 2 + [False] * 2
    assert counts(outcome) == (4, 2, 0)
    assert str(tmp_path) not in found[2]["error"]


def test_a_giant_of_a_tar_is_refused_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "t.tar").open("wb") as file:
        member = tarfile.TarInfo("giant.png")
        member.size = 200 * 2**30  # a hole: it takes no room on the disk
        file.write(member.tobuf())
        file.truncate(512 + member.size + 1024)
    _, (item,) = inputs.find([tmp_path / "t.tar"])
    assert loader.of_item(item, 64) == "is larger than 50 MB; make it smaller first"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "there is not enough memory to decode it"),
        (ValueError("is no\ncolumn"), "row 0 cannot be read (is no column)"),  # ArrowInvalid is one
        (KeyError("x"), "row 0 cannot be read ('x')"),
        (BatchError("needs pip install"), "row 0 cannot be read (needs pip install)"),
    ],
)
def test_whatever_a_table_raises_a_row_fails_alone(
    tmp_path: Path, error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    write_parquet(tmp_path / "t.parquet", {"bytes": [b"x"]})
    _, (item,) = inputs.find([tmp_path / "t.parquet"])
    monkeypatch.setattr(inputs, "_row_group", fail)
    assert loader.of_item(item, 64) == message


# What is in folders and is not captioned


def test_a_folder_that_cannot_be_listed_is_told_and_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "lost+found", "z"):
        (tmp_path / name).mkdir()
        picture(tmp_path / name / "x.png", 1)
    real = os.scandir

    def scandir(path: str) -> Any:
        if closed in path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path)

    closed = "lost+found"
    monkeypatch.setattr(os, "scandir", scandir)
    assert named(inputs.find([tmp_path], recursive=True)) == ["a/x.png", "z/x.png"]
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{tmp_path}/lost+found: is left out, it cannot be listed (Permission denied)"
    )
    closed = str(tmp_path)
    with pytest.raises(BatchError, match=r"cannot be listed \(Permission denied\)"):
        inputs.find([tmp_path], recursive=True)


def test_folders_of_results_are_told_and_left_but_not_those_of_pictures(
    folder: Path, pipe: JanusPipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = tmp_path / "old"
    caption_folder(pipe, folder, old, formats=["imagefolder"], **SHORT)
    (tmp_path / "prompts.txt").write_text("a cat\n")
    draw_file(pipe, tmp_path / "prompts.txt", tmp_path / "drawn")
    caption_folder(pipe, folder, **SHORT)  # in place: its pictures are still inputs
    caplog.clear()
    found = named(inputs.find([tmp_path], recursive=True))
    assert found == [f"pictures/{i:02}.png" for i in range(20)]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/{name}: is a folder of results and left out; name it to caption it, too"
        for name in ("drawn", "old")
    ]
    assert "00.png" in named(inputs.find([old]))  # which is named


def test_an_item_that_is_read_twice_is_the_same(folder: Path) -> None:
    _, items = inputs.find([folder])
    assert inputs.read(items[0]) == str(folder / "00.png")
    (folder / "00.png").unlink()
    with pytest.raises(ImageError, match="has gone since it was listed"):
        inputs.read(items[0])
