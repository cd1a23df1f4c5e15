"""What is captioned: folders, lists, tars, tables and data sets, and what is told of the rest."""

import json
from pathlib import Path

import pytest
from batch_parts import SHORT, counts, picture, rows

from janus_kit import JanusPipeline, caption_folder
from janus_kit.batch import inputs
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


def test_an_item_that_is_read_twice_is_the_same(folder: Path) -> None:
    _, items = inputs.find([folder])
    assert inputs.read(items[0]) == str(folder / "00.png")
    (folder / "00.png").unlink()
    with pytest.raises(ImageError, match="has gone since it was listed"):
        inputs.read(items[0])
