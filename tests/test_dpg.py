"""DPG-Bench without a model: questions, and the two kinds of scores."""

import csv
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from janus_kit.errors import OptionError, ScoringError
from janus_kit.scoring import dpg, fetch
from janus_kit.scoring.dpg import Question, Report, is_yes, load_prompts, load_questions, score

COLUMNS = [
    *("item_id", "text", "keywords", "proposition_id", "dependency"),
    *("category_broad", "category_detailed", "tuple", "question_natural_language"),
]
ROWS = [
    ("a1", "A red car.", 1, "0", "entity - whole (car)", "Is there a car?"),
    ("a1", "A red car.", 2, "1", "attribute - color (car, red)", "Is the car red?"),
    ("a1", "A red car.", 3, "1,2", "relation - spatial (car, road, on)", "Is it on a road?"),
    ("b2", "A photo.", 1, "0", "global - (photo)", "Is it a photo?"),
]


def write(path: Path, rows: list[tuple[Any, ...]], columns: list[str] = COLUMNS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for item, text, number, dependency, tuple_, question in rows:
            row = [item, text, "", number, dependency, "", "", tuple_, question]
            table.writerow(row[: len(columns)])
    return path


def said(*tiles: str) -> list[dict[int, str]]:
    """Tiles from texts such as "yny"."""
    words = {"y": "yes", "n": "no"}
    return [{number: words[c] for number, c in enumerate(tile, 1)} for tile in tiles]


def questions(*lines: tuple[str, int, tuple[int, ...], str]) -> list[Question]:
    return [Question(item, id, parents, f"{kind} (x)", "?") for item, id, parents, kind in lines]


def test_a_file_of_questions_is_read_in_its_order(tmp_path: Path) -> None:
    found = load_questions(write(tmp_path / "q.csv", ROWS))
    assert [(q.item_id, q.id, q.parents) for q in found] == [
        ("a1", 1, (0,)),
        ("a1", 2, (1,)),
        ("a1", 3, (1, 2)),
        ("b2", 1, (0,)),
    ]
    assert found[1].question == "Is the car red?"
    assert [q.category for q in found] == [
        "entity - whole",
        "attribute - color",
        "relation - spatial",
        "global -",
    ]


def test_a_file_without_two_parents_anywhere_is_read(tmp_path: Path) -> None:
    # The reference parses such a column as integers and fails.
    assert len(load_questions(write(tmp_path / "q.csv", ROWS[:2]))) == 2


def test_compat_loses_the_first_row_and_with_it_the_item(tmp_path: Path) -> None:
    path = write(tmp_path / "q.csv", ROWS)
    found = load_questions(path, compat=True)
    assert len(found) == 3
    report = score(found, {"a1": said("yyy"), "b2": said("y")}, pic_num=1, compat=True)
    assert list(report.items) == ["b2"]
    assert "question 2 hangs on question 1, which is not there" in report.failed["a1"]
    assert report.overall == 100


@pytest.mark.parametrize("column", ["item_id", "proposition_id", "dependency", "tuple"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    columns = [name if name != column else "other" for name in COLUMNS]
    with pytest.raises(ScoringError, match=f"no column '{column}'"):
        load_questions(write(tmp_path / "q.csv", ROWS, columns))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a", "", "x", "0", "t", "q"), "q.csv:2: proposition_id must be a number"),
        (("a", "", 1, "", "t", "q"), "q.csv:2: proposition_id must be a number"),
        (("a", "", 1, "one", "t", "q"), "q.csv:2: proposition_id must be a number"),
        (("", "", 1, "0", "t", "q"), "q.csv:2: item_id: must be text"),
        (("a", "", 0, "0", "t", "q"), "q.csv:2: a: the id of a question"),
        (("a", "", 1, "-1", "t", "q"), "q.csv:2: a: the parents of question 1"),
    ],
)
def test_a_bad_row_is_told_by_its_line(tmp_path: Path, row: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        load_questions(write(tmp_path / "q.csv", [row]))


def test_a_question_that_an_item_has_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="a1 has a question 1 already"):
        load_questions(write(tmp_path / "q.csv", [ROWS[0], ROWS[0]]))


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="cannot be read"):
        load_questions(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text(",".join(COLUMNS))
    with pytest.raises(ScoringError, match="holds no question"):
        load_questions(tmp_path / "empty.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScoringError, match="no CSV in UTF-8"):
        load_questions(tmp_path / "bytes.csv")
    (tmp_path / "cut.csv").write_text(",".join(COLUMNS) + "\na1,text,,1")
    with pytest.raises(ScoringError, match=r"cut\.csv:2: the row ends before 'dependency'"):
        load_questions(tmp_path / "cut.csv")


def test_a_file_by_the_published_name_is_checked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "dpg_bench.csv", ROWS)
    load_questions(path)
    assert "is not the published" in caplog.text
    caplog.clear()
    git = ["git", "hash-object", "--no-filters", str(path)]
    blob = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.setattr(dpg, "PUBLISHED_BLOB", blob)
    load_questions(path)
    assert caplog.text == ""


def test_a_no_takes_its_children_along() -> None:
    chain = questions(("a", 1, (0,), "e"), ("a", 2, (1,), "e"), ("a", 3, (2,), "e"))
    report = score(chain, {"a": said("nyy", "yny", "yyn", "yyy")})
    assert report.items["a"].tiles == pytest.approx((0, 1 / 3, 2 / 3, 1))
    assert report.overall == pytest.approx(50)
    assert report.l2["e"].raw == pytest.approx(100 * 9 / 12)
    assert report.l2["e"].zeroed == pytest.approx(50)


def test_a_parent_that_comes_later_counts_with_its_own_answer() -> None:
    forward = questions(("a", 1, (2,), "e"), ("a", 2, (3,), "e"), ("a", 3, (0,), "e"))
    # 3 is no, so 2 counts nothing; but 1 has looked at 2 before.
    assert score(forward, {"a": said("yyn")}, pic_num=1).items["a"].mean == pytest.approx(1 / 3)


def test_an_unknown_parent_fails_its_item_and_no_other() -> None:
    asked = questions(("a", 1, (7,), "e"), ("b", 1, (0,), "e"))
    report = score(asked, {"a": said("y"), "b": said("y")}, pic_num=1)
    assert report.failed == {"a": "a: question 1 hangs on question 7, which is not there"}
    assert (report.overall, report.coverage) == (100, 0.5)


def test_compat_does_not_look_behind_a_no() -> None:
    asked = questions(("a", 1, (0,), "e"), ("a", 2, (1, 7), "e"))
    answers = {"a": said("ny")}
    assert list(score(asked, answers, pic_num=1, compat=True).items) == ["a"]
    assert list(score(asked, answers, pic_num=1).failed) == ["a"]


def test_compat_takes_categories_from_the_last_tile() -> None:
    asked = questions(("a", 1, (0,), "entity - whole"), ("a", 2, (1,), "attribute - color"))
    answers = {"a": said("yy", "yy", "yy", "ny")}
    now, then = score(asked, answers), score(asked, answers, compat=True)
    assert (now.l1["entity"].raw, then.l1["entity"].raw) == (75, 0)
    assert (now.l2["attribute - color"].raw, now.l2["attribute - color"].zeroed) == (100, 75)
    assert then.l2["attribute - color"].raw == 100
    assert now.overall == then.overall == 75


def test_first_levels_pool_their_second_ones() -> None:
    asked = questions(
        ("a", 1, (0,), "other - count"), ("a", 2, (0,), "other - text"), ("a", 3, (0,), "global -")
    )
    report = score(asked, {"a": said("ynn", "yyn")}, pic_num=2)
    assert {name: found.raw for name, found in report.l1.items()} == {"other": 75, "global": 0}
    assert {name: found.raw for name, found in report.l2.items()} == {
        "other - count": 100,
        "other - text": 50,
        "global -": 0,
    }
    assert report.l1["other"].questions == 4


@pytest.mark.parametrize(
    ("answer", "loose", "exact"),
    [
        ("yes", True, True),
        ("Yes", True, False),
        (" yes.\n", True, False),
        ("Yes, it is.", True, False),
        ("**Yes**", True, False),
        ("no", False, False),
        ("yesterday", False, False),
        ("not yes", False, False),
        ("", False, False),
        (None, False, False),
    ],
)
def test_what_says_yes(answer: object, loose: bool, exact: bool) -> None:
    assert (is_yes(answer), is_yes(answer, exact=True)) == (loose, exact)


def test_holes_in_the_answers_fail_their_items() -> None:
    asked = questions(*((item, 1, (0,), "e") for item in "abcd"))
    answers = {"a": said("y", "y"), "b": said("y"), "c": [{}, {}], "e": said("y")}
    report = score(asked, answers, pic_num=2)
    assert list(report.items) == ["a"]
    assert report.failed == {
        "b": "b: tile 1 is not answered; there are 1 of 2, counted from 0",
        "c": "c: tile 0 has no answer to question 1",
        "d": "d: there is no answer about it",
        "e": "there is no question about it",
    }


def test_nothing_scored_has_no_score() -> None:
    report = score(questions(("a", 1, (0,), "e")), {})
    assert (report.overall, report.interval, report.l1) == (None, None, {})
    assert score([], {}).coverage == 0
    with pytest.raises(OptionError, match="pic_num"):
        score([], {}, pic_num=0)


def test_answers_out_of_json_are_the_same() -> None:
    asked = questions(("a", 1, (0,), "e"))
    for tiles in ({0: {"1": "yes"}}, {"0": {"1": "yes"}}, [{"1": "yes"}]):
        assert score(asked, {"a": tiles}, pic_num=1).overall == 100


@pytest.mark.parametrize(
    ("tiles", "message"),
    [
        ({"1": {"1": "yes"}}, "a: tile 0 is not answered; there are 1 of 1, counted from 0"),
        ("yes", "a: its answers must be a list of tiles, or tiles by number, not 'yes'"),
        (None, "a: its answers must be a list of tiles, or tiles by number, not None"),
        (["yes"], "a: tile 0 must hold answers by the ids of questions, not 'yes'"),
        ({0: ["yes"]}, "a: tile 0 must hold answers by the ids of questions, not ['yes']"),
    ],
)
def test_answers_of_another_shape_fail_their_item(tiles: object, message: str) -> None:
    asked = questions(("a", 1, (0,), "e"), ("b", 1, (0,), "e"))
    report = score(asked, {"a": tiles, "b": said("y")}, pic_num=1)
    assert report.failed == {"a": message}
    assert report.overall == 100


def test_answers_that_are_no_mapping_are_refused() -> None:
    answers: Any = [said("y")]
    with pytest.raises(ScoringError, match="answers must be a mapping by item_id"):
        score(questions(("a", 1, (0,), "e")), answers)


@st.composite
def sheets(draw: st.DrawFn) -> tuple[list[Question], dict[str, list[dict[int, str]]]]:
    asked, answers = [], {}
    for item in range(draw(st.integers(1, 6))):
        count = draw(st.integers(1, 5))
        for number in range(1, count + 1):
            parent = draw(st.integers(0, number - 1))
            kind = draw(st.sampled_from(["entity - whole", "relation - spatial", "global -"]))
            asked.append(Question(f"i{item}", number, (parent,), f"{kind} (x)", "?"))
        tile = st.fixed_dictionaries(
            {number: st.sampled_from(["yes", "no"]) for number in range(1, count + 1)}
        )
        answers[f"i{item}"] = draw(st.lists(tile, min_size=2, max_size=2))
    return asked, answers


@settings(max_examples=25, deadline=None)
@given(sheets())
def test_zeroing_never_adds(sheet: tuple[list[Question], dict[str, Any]]) -> None:
    asked, answers = sheet
    report = score(asked, answers, pic_num=2)
    flat = [Question(q.item_id, q.id, (0,), q.tuple, q.question) for q in asked]
    assert report.overall is not None
    assert report.overall <= (score(flat, answers, pic_num=2).overall or 0) + 1e-9
    assert all(found.zeroed <= found.raw for found in report.l2.values())


@settings(max_examples=25, deadline=None)
@given(sheets(), st.randoms(use_true_random=False), st.integers(1, 4))
def test_one_process_equals_many(
    sheet: tuple[list[Question], dict[str, Any]], random: Any, shards: int
) -> None:
    asked, answers = sheet
    names = sorted(answers)
    random.shuffle(names)
    parts = [{name: answers[name] for name in names[shard::shards]} for shard in range(shards)]
    merged: dict[str, Any] = {}
    for part in parts:
        merged |= part
    assert score(asked, merged, pic_num=2) == score(asked, answers, pic_num=2)


@settings(max_examples=25, deadline=None)
@given(sheets())
def test_zeroing_twice_changes_nothing(sheet: tuple[list[Question], dict[str, Any]]) -> None:
    asked, answers = sheet
    groups: dict[str, list[Question]] = {}
    for question in asked:
        groups.setdefault(question.item_id, []).append(question)
    for name, group in groups.items():
        for tile in answers[name]:
            raw = {id: answer == "yes" for id, answer in tile.items()}
            once = dpg._zeroed(name, group, raw, lazy=False)
            assert dpg._zeroed(name, group, once, lazy=False) == once


def test_prompts_come_from_a_folder_or_a_csv(tmp_path: Path) -> None:
    assert load_prompts(write(tmp_path / "q.csv", ROWS)) == {"a1": "A red car.", "b2": "A photo."}
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "b.txt").write_text("\ufeffTwo cats.\n", encoding="utf-8")
    (tmp_path / "texts" / "note.md").write_text("no prompt")
    assert load_prompts(tmp_path / "texts") == {"b": "Two cats."}
    (tmp_path / "texts" / "b.txt").write_text("")
    with pytest.raises(ScoringError, match="holds no prompt"):
        load_prompts(tmp_path / "texts")


def test_the_questions_are_fetched_once_and_only_the_published_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "q.csv", ROWS).read_bytes()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []

    def answer(place: str, timeout: float) -> BytesIO:
        asked.append(place)
        return BytesIO(data)

    monkeypatch.setattr(fetch.urllib.request, "urlopen", answer)
    with pytest.raises(ScoringError, match="is no longer the file"):
        fetch.fetch_dpg()
    assert not fetch.dpg_file().exists()
    monkeypatch.setattr(fetch, "PUBLISHED_BLOB", dpg.blob_id(data))
    monkeypatch.setattr(dpg, "PUBLISHED_BLOB", dpg.blob_id(data))
    assert fetch.fetch_dpg() == fetch.fetch_dpg() == fetch.dpg_file()
    assert len(asked) == 2
    fetch.dpg_file().unlink()

    def fail(place: str, timeout: float) -> BytesIO:
        raise URLError("no network")

    monkeypatch.setattr(fetch.urllib.request, "urlopen", fail)
    with pytest.raises(ScoringError, match="check the network, or give --questions"):
        fetch.fetch_dpg()


def test_the_arithmetic_needs_no_torch() -> None:
    code = "import sys; import janus_kit.scoring.dpg; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_report_is_plain_data() -> None:
    report = score(questions(("a", 1, (0,), "e")), {"a": said("y")}, pic_num=1)
    assert isinstance(report, Report)
    assert report.interval == (100, 100)
