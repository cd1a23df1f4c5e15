"""janus-kit score dpg: drawn, asked, answered elsewhere, divided, and what is told of bad input."""

import csv
import json
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import Run
from PIL import Image
from score_parts import pictures, results, summary

from janus_kit.pipeline import JanusPipeline
from janus_kit.scoring import dpg as rules
from janus_kit.scoring import dpg_run, drawers, fetch
from janus_kit.scoring import run as scoring


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


def test_published_questions_are_fetched_where_that_is_asked(
    scored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_questions(tmp_path / "q.csv", items=1).read_bytes()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "PUBLISHED_BLOB", rules.blob_id(data))
    monkeypatch.setattr(fetch.urllib.request, "urlopen", lambda place, timeout: BytesIO(data))
    asked = ("score", "dpg", "--judge", "self", "--samples", "1", "--quiet", "-o", "a")
    assert "score fetch dpg" in scored(*asked).err
    ended = scored(*asked, "--fetch")
    assert ended.code == 0, ended.err
    assert summary("a")["items"] == 1


def test_dpg_shards_equal_one_run(scored: Run, tmp_path: Path) -> None:
    write_questions(tmp_path / "q.csv", 6)
    small = (*DPG, "--judge", "self", "--samples", 2)
    scored(*small, "-o", "a")
    for shard in ("1/2", "0/2"):
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


MPLUG = "iic/mplug_visual-question-answering_coco_large_en"


def write_answers(
    path: str, items: Sequence[str], judge: Callable[[str], str | None] = lambda item: MPLUG
) -> None:
    rows = [
        {"item_id": item, "tile": tile, "question_id": question, "answer": "yes"}
        | ({"judge": judge(item)} if judge(item) else {})
        for item in items
        for tile in range(4)
        for question in (1, 2)
    ]
    Path(path).write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize(
    ("path", "judge", "shown"),
    [
        ("a.jsonl", lambda item: MPLUG if item == "i0" else "Qwen", f"Qwen, {MPLUG}"),
        ("a.jsonl", lambda item: MPLUG if item == "i0" else None, f"a.jsonl, {MPLUG}"),
        (f"{MPLUG[4:]}.jsonl", lambda item: None, f"{MPLUG[4:]}.jsonl"),
    ],
)
def test_answers_of_which_some_are_not_mplugs_are_not_comparable(
    scored: Run, tmp_path: Path, path: str, judge: Callable[[str], str | None], shown: str
) -> None:
    write_questions(tmp_path / "q.csv")
    write_answers(path, ["i0", "i1", "i2"], judge)
    assert scored(*DPG, "--answers", path, "-o", "a").code == 0
    assert summary("a")["judge"] == shown
    assert any("another judge" in note for note in summary("a")["not_comparable_because"])


def test_answers_alone_draw_nothing_and_need_no_picture(scored: Run, tmp_path: Path) -> None:
    write_questions(tmp_path / "q.csv")
    write_answers("answers.jsonl", ["i0", "i1", "i2"])
    ended = scored(*DPG, "--answers", "answers.jsonl", "-o", "a")
    assert (ended.code, ended.err) == (0, "")
    assert not Path("a/images").exists()
    assert "model" not in summary("a")["drawn_by"]
    assert summary("a")["scores"]["overall"] == 100
    page = Path("a/report.html").read_text()
    assert page.count("<article") == 12
    assert "i0: has no picture" in page
    ended = scored(*DPG, "--answers", "answers.jsonl", "--predict-only", "-o", "a")
    assert (ended.code, "--predict-only needs neither" in ended.err) == (2, True)


def test_answers_are_shown_with_the_pictures_that_lie_there(
    scored: Run, hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_questions(tmp_path / "q.csv")
    monkeypatch.delenv("JANUS_KIT_MODEL")
    assert scored(*DPG, "--model", hf_folder, "--predict-only", "-o", "a").code == 0
    before = pictures("a")
    write_answers("answers.jsonl", ["i0", "i1", "i2"])
    assert scored(*DPG, "--answers", "answers.jsonl", "-o", "a").code == 0
    assert pictures("a") == before
    assert summary("a")["drawn_by"]["model"] == hf_folder.name
    assert Path("a/report.html").read_text().count("data:image/jpeg") == 12
    Path("a/images/i2.png").unlink()
    ended = scored(*DPG, "--answers", "answers.jsonl", "-o", "a")
    assert (ended.code, "the picture of i2 is missing" in ended.err) == (2, True)
    assert scored(*DPG, "--answers", "answers.jsonl", "--partial", "-o", "a").code == 3
    assert summary("a")["missing"] == ["i2: has no picture"]


def test_the_page_has_the_prompts_whoever_drew(scored: Run, tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "q.csv")
    scored(*DPG, "--predict-only", "-o", "a")
    for options in (("--score-only", "-o", "a"), ("--images", "a/images", "-o", "b")):
        assert scored(*DPG, "--judge", "self", *options).code == 0
        page = Path(options[-1], "report.html").read_text()
        assert "<h3>a red cat 1</h3>" in page
        assert "i1, tile 3: " in page
        assert "only the published overall is firm" in page
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "i1.txt").write_text("a blue dog")
    assert scored(*DPG, "--judge", "self", "--prompts", "texts", *options).code == 0
    assert "<h3>a blue dog</h3>" in Path("b/report.html").read_text()
    questions.write_text(questions.read_text().replace("text", "words", 1))
    assert scored(*DPG, "--judge", "self", *options).code == 0
    assert "<h3>i1</h3>" in Path("b/report.html").read_text()
    ended = scored(*DPG, "--judge", "self", "-o", "c")
    assert (ended.code, "has no column 'text'" in ended.err) == (2, True)


def test_others_pictures_can_be_asked_about_elsewhere(scored: Run, tmp_path: Path) -> None:
    write_questions(tmp_path / "q.csv")
    for number in range(4):
        path = tmp_path / "others" / "i0" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    Image.new("RGB", (8, 8)).save("others/i1.png")
    theirs = (*DPG, "--images", "others", "--predict-only", "-o", "a")
    ended = scored(*theirs)
    assert (ended.code, "the picture of i2 is missing" in ended.err) == (2, True)
    ended = scored(*theirs, "--partial")
    assert (ended.code, ended.err) == (3, "janus-kit: i2: has no picture\n")
    asks = [json.loads(line) for line in Path("a/asks.jsonl").read_text().splitlines()]
    found = [(ask["file"], ask["box"]) for ask in asks if ask["question_id"] == 1]
    assert found[:4] == [(f"i0/{number}.png", None) for number in range(4)]
    assert found[4:] == [
        ("i1.png", [x, y, x + 4, y + 4]) for x, y in ((0, 0), (4, 0), (0, 4), (4, 4))
    ]
    ended = scored(*theirs, "--diffusers", "x")
    assert (ended.code, "leave --diffusers out" in ended.err) == (2, True)


def test_pictures_that_cannot_be_asked_about_are_told_and_the_rest_goes_on(
    scored: Run, tmp_path: Path
) -> None:
    write_questions(tmp_path / "q.csv", 5)
    for name in ("i0", "i1"):
        (tmp_path / "others" / name).mkdir(parents=True)
    for name in ("i0/0.png", "i0/1.png", "i4.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "others" / name)
    Path("others/i1/0.png").symlink_to("nowhere.png")
    Path("others/i2.png").symlink_to("nowhere.png")
    Path("others/i3.png").write_bytes(Path("others/i4.png").read_bytes()[:-30])
    theirs = (*DPG, "--images", "others", "-o", "a")
    for options in (("--predict-only",), ("--judge", "self")):
        ended = scored(*theirs, *options)
        assert ended.code == 3
        assert [line.split(" ")[1] for line in ended.err.splitlines()] == [
            "others/i0:",
            "others/i1:",
            "others/i2.png:",
            "others/i3.png:",
        ]
    asks = [json.loads(line) for line in Path("a/asks.jsonl").read_text().splitlines()]
    assert {ask["item_id"] for ask in asks} == {"i4"}
    assert summary("a")["items"] == 1


def test_a_question_that_is_too_long_fails_its_item(scored: Run, tmp_path: Path) -> None:
    path = write_questions(tmp_path / "q.csv")
    rows = path.read_text().splitlines()
    rows[4] = rows[4].replace("Is it red?", "Is it red? " * 3000)
    path.write_text("\n".join(rows))
    ended = scored(*DPG, "--judge", "self", "-o", "a")
    assert (ended.code, ended.err.count("\n")) == (3, 1)
    assert "i1: the text and pictures take" in ended.err
    assert summary("a")["items"] == 2


def test_what_cannot_be_judged_is_told_before_anything_is_drawn(
    scored: Run, tmp_path: Path
) -> None:
    write_questions(tmp_path / "q.csv")
    ended = scored(*DPG, "--judge", tmp_path / "none", "-o", "a")
    assert (ended.code, "cannot be loaded as a vision-language model" in ended.err) == (2, True)
    ended = scored(*DPG, "--judge", "self", "--prompts", "none", "-o", "a")
    assert (ended.code, "none: cannot be read" in ended.err) == (2, True)
    assert not Path("a").exists()


def test_one_model_draws_and_judges(
    scored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_questions(tmp_path / "q.csv", 1)
    opened = []
    whole = JanusPipeline.from_pretrained

    def load(*arguments: Any, **options: Any) -> JanusPipeline:
        opened.append(arguments)
        return whole(*arguments, **options)

    monkeypatch.setattr(JanusPipeline, "from_pretrained", load)
    assert scored(*DPG, "--judge", "self", "-o", "a").code == 0
    assert len(opened) == 1


def test_a_shard_without_items_is_done(scored: Run, tmp_path: Path) -> None:
    write_questions(tmp_path / "q.csv", 6)
    for options in (("--judge", "self"), ("--predict-only",)):
        ended = scored(*DPG, *options, "--shard", "2/3", "-o", "a")
        assert (ended.code, ended.lines) == (0, ["a: shard 2/3 is done"])


class Paints:
    """A drawer that counts what it draws at once."""

    facts: ClassVar[dict[str, Any]] = {}

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.counts: list[int] = []

    def draw(self, wanted: Sequence[drawers.Wanted]) -> list[drawers.Drawn]:
        self.counts.append(len(wanted))
        return [(Image.new("RGB", (2, 2), (one.seed, 0, 0)), None) for one in wanted]


@pytest.mark.parametrize(
    ("batch", "samples", "counts"), [(64, 1, [64, 36]), (16, 4, [16] * 25), (6, 4, [6] * 66 + [4])]
)
def test_batches_are_as_large_as_asked_for(
    tmp_path: Path, batch: int, samples: int, counts: list[int]
) -> None:
    prompts = {f"i{number:03}": "a cat" for number in range(100)}
    drawer = Paints(batch)
    run = scoring.Run(output=tmp_path, samples=samples)
    assert dpg_run.draw(run, list(prompts), prompts, drawer) == []
    assert drawer.counts == counts
    for item in prompts:
        with Image.open(tmp_path / "images" / f"{item}.png") as image:
            assert image.getpixel((0, 0)) == (42, 0, 0)
            assert image.getpixel((image.width - 1, image.height - 1)) == (41 + samples, 0, 0)


def test_what_was_answered_before_is_no_speed(scored: Run, tmp_path: Path) -> None:
    write_questions(tmp_path / "q.csv", 6)
    small = (*DPG, "--judge", "self", "--samples", 1, "-o", "a")
    assert scored(*small, "--limit", 4).code == 0
    speeds = []
    for _ in range(2):
        assert scored(*small).code == 0
        speeds.append(json.loads(Path("a/summary.json").read_text())["run"]["speed"])
    assert speeds[0]["asking"]["items"] == 2
    assert speeds[1] == {}


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
