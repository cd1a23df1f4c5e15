"""janus-kit score dpg: drawn, asked, answered elsewhere, divided, and what is told of bad input."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import Run
from PIL import Image
from score_parts import pictures, results, summary


def write_questions(path: Path, items: int = 3) -> Path:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            [
                "item_id",
                "text",
                "proposition_id",
                "dependency",
                "tuple",
                "question_natural_language",
            ]
        )
        for item in range(items):
            text = f"a red cat {item}"
            table.writerow([f"i{item}", text, 1, 0, "entity - whole (cat)", "Is there a cat?"])
            table.writerow([f"i{item}", text, 2, 1, "attribute - color (cat, red)", "Is it red?"])
    return path


DPG = ("score", "dpg", "--questions", "q.csv", "--quiet")


def test_dpg_is_drawn_asked_and_scored(scored: Run, tmp_path: Path) -> None:
    write_questions(tmp_path / "q.csv")
    ended = scored(*DPG, "--judge", "self", "-o", "a")
    assert ended.code == 0, ended.err
    for path in sorted(Path("a/images").iterdir()):
        with Image.open(path) as image:
            assert image.size == (128, 128)
    rows = [json.loads(line) for line in results("a").splitlines()]
    assert [(row["item_id"], row["tile"]) for row in rows][:5] == [
        ("i0", 0),
        ("i0", 1),
        ("i0", 2),
        ("i0", 3),
        ("i1", 0),
    ]
    found = summary("a")
    assert found["scores"]["overall"] is not None
    assert any("another judge than mPLUG" in note for note in found["not_comparable_because"])
    assert "DALL-E 3" in Path("a/report.html").read_text()
    before = Path("a/results.jsonl").read_bytes()
    assert scored(*DPG, "--judge", "self", "-o", "a").code == 0
    assert results("a") == before


def test_dpg_shards_equal_one_run(scored: Run, tmp_path: Path) -> None:
    write_questions(tmp_path / "q.csv", 6)
    small = (*DPG, "--judge", "self", "--samples", 2)
    scored(*small, "-o", "a")
    for shard in ("2/2", "1/2"):
        assert scored(*small, "-o", "b", "--shard", shard).code == 0
    kept_before = sorted(path.name for path in Path("b/stages").iterdir())
    assert scored(*small, "-o", "b").code == 0
    assert sorted(path.name for path in Path("b/stages").iterdir()) == kept_before
    assert pictures("a") == pictures("b")
    assert results("a") == results("b")
    assert summary("a") == summary("b")


def test_answers_of_others_are_scored(scored: Run, tmp_path: Path) -> None:
    write_questions(tmp_path / "q.csv")
    assert scored(*DPG, "--predict-only", "-o", "a").code == 0
    asks = [json.loads(line) for line in Path("a/asks.jsonl").read_text().splitlines()]
    assert len(asks) == 3 * 4 * 2
    assert asks[2] | {"question": ""} == {
        "item_id": "i0",
        "tile": 1,
        "question_id": 1,
        "question": "",
        "file": "i0.png",
        "box": [64, 0, 128, 64],
    }
    judge = "iic/mplug_visual-question-answering_coco_large_en"
    lines = [
        json.dumps({**ask, "judge": judge, "answer": "yes" if ask["item_id"] == "i1" else "no"})
        for ask in asks
        if ask["item_id"] != "i2"
    ]
    Path("answers.jsonl").write_text("\n".join([*lines, "{"]))
    ended = scored(*DPG, "--score-only", "--answers", "answers.jsonl", "-o", "a")
    assert ended.code == 3
    found = summary("a")
    assert found["scores"]["overall"] == 50
    assert found["judge"] == judge
    assert not any("another judge" in note for note in found["not_comparable_because"])
    assert found["missing"] == [
        "answers.jsonl:17: has not item_id, tile, question_id and answer; left out",
        "i2: there is no answer about it",
    ]


def test_dpg_pictures_that_are_missing_or_broken(scored: Run, tmp_path: Path) -> None:
    write_questions(tmp_path / "q.csv")
    scored(*DPG, "--predict-only", "-o", "a")
    Path("a/images/i1.png").write_bytes(b"no picture")
    ended = scored(*DPG, "--judge", "self", "--score-only", "-o", "a")
    assert ended.code == 3
    assert "i1.png: cannot be read as a picture" in ended.err
    Path("a/images/i2.png").unlink()
    ended = scored(*DPG, "--judge", "self", "--score-only", "-o", "a")
    assert (ended.code, "the picture of i2 is missing" in ended.err) == (2, True)
    ended = scored(*DPG, "--judge", "self", "--score-only", "--partial", "-o", "a")
    assert ended.code == 3
    assert summary("a")["items"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give a --judge or --answers"),
        (("--judge", "self", "--questions", "none.csv"), "run janus-kit score fetch dpg"),
        (("--judge", "self", "--answers", "x"), "and not both"),
        (("--judge", "self", "--samples", "5"), "samples must be from 1 to 4"),
        (("--answers", "none.jsonl"), "cannot be read"),
    ],
)
def test_a_wrong_option_of_dpg_is_one_sentence(
    scored: Run, tmp_path: Path, options: Sequence[str], message: str
) -> None:
    write_questions(tmp_path / "q.csv", 1)
    ended = scored(*DPG, "-o", "a", *options)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert message in ended.err


def test_an_item_that_cannot_be_a_file_is_refused(scored: Run, tmp_path: Path) -> None:
    path = write_questions(tmp_path / "q.csv", 1)
    path.write_text(path.read_text().replace("i0", "../i0"))
    ended = scored(*DPG, "--judge", "self", "-o", "a")
    assert (ended.code, "cannot be a file's name" in ended.err) == (2, True)
