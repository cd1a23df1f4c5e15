"""GenEval's folders of pictures: what is found, and what is told of the rest."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from geneval_parts import LINES, complains

from janus_kit.errors import ScoringError
from janus_kit.scoring import geneval
from janus_kit.scoring.geneval import (
    find_images,
)


def folder(root: Path, name: str, pictures: Sequence[str], metadata: str | None = None) -> None:
    samples = root / name / "samples"
    samples.mkdir(parents=True)
    (root / name / "metadata.jsonl").write_text(metadata or json.dumps(LINES[0]) + "\n")
    for picture in pictures:
        (samples / picture).write_bytes(b"")


def test_pictures_are_found_by_number_whatever_the_disk_says(tmp_path: Path) -> None:
    folder(tmp_path, "00010", ["0000.png"], json.dumps(LINES[10]))
    folder(tmp_path, "2", ["00010.png", "0002.png", "0000.png"], json.dumps(LINES[2]))
    found = find_images(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path, _ in found]
    assert names == [
        *("2/samples/0000.png", "2/samples/0002.png", "2/samples/00010.png"),
        "00010/samples/0000.png",
    ]
    assert [image.metadata for image in found] == [LINES[2]] * 3 + [LINES[10]]


def test_only_names_of_digits_are_read(tmp_path: Path) -> None:
    odd = ["0001.png.bak", "a0001.png", "0001.jpg", "0001_png", "grid.png", "²001.png", "٠٠٠١.png"]
    folder(tmp_path, "00000", ["0000.png", *odd])
    (tmp_path / "00000" / "samples" / "0005.png").mkdir()
    (tmp_path / "00000" / "grid.png").write_bytes(b"")
    folder(tmp_path, "old00001", ["0000.png"])
    folder(tmp_path, "²", ["0000.png"])
    (tmp_path / "00003").write_text("a file")
    assert [path.name for path, _ in find_images(str(tmp_path))] == ["0000.png"]


def test_a_prompt_without_pictures_gives_none_and_the_rest_is_read(tmp_path: Path) -> None:
    folder(tmp_path, "00000", ["0000.png"])
    folder(tmp_path, "00001", [])
    folder(tmp_path, "00002", [])
    (tmp_path / "00002" / "samples").rmdir()
    assert len(find_images(tmp_path)) == 1


def test_the_rest_can_be_read_when_one_prompt_is_bad(tmp_path: Path) -> None:
    folder(tmp_path, "00000", ["0000.png"], "{")
    folder(tmp_path, "00001", ["0000.png"])
    bad, good = geneval.prompt_folders(tmp_path)
    with pytest.raises(ScoringError, match="one JSON object"):
        geneval.read_folder(bad)
    assert len(geneval.read_folder(good)) == 1


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("{", ["00000/metadata.jsonl", "one JSON object"]),
        ("{}\n{}", ["00000/metadata.jsonl", "one JSON object"]),
        ("[" * 100_000, ["00000/metadata.jsonl", "one JSON object"]),
        ("[]", ["00000/metadata.jsonl", "mapping"]),
        ('{"tag": "colors"}', ["00000/metadata.jsonl", "asks for nothing"]),
    ],
)
def test_a_bad_metadata_file_is_named(tmp_path: Path, metadata: str, words: list[str]) -> None:
    folder(tmp_path, "00000", ["0000.png"], metadata)
    complains(lambda: find_images(tmp_path), ScoringError, words)


def test_a_folder_without_pictures_is_told_what_was_expected(tmp_path: Path) -> None:
    complains(lambda: find_images(tmp_path), ScoringError, [str(tmp_path), "like 00000"])
    complains(lambda: find_images(tmp_path / "no"), ScoringError, ["no: is not a folder"])
    folder(tmp_path, "00000", [])
    complains(lambda: find_images(tmp_path), ScoringError, ["00000/samples/0000.png"])
    (tmp_path / "00000" / "metadata.jsonl").unlink()
    complains(lambda: find_images(tmp_path), ScoringError, ["cannot be read (No such file"])


def test_a_folder_that_may_not_be_listed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    complains(lambda: find_images(tmp_path), ScoringError, [str(tmp_path), "Permission denied"])
