"""What runs of both benchmarks are made of: shards, blocks, whole files, comparisons, the page."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from janus_kit.batch.ledger import Shard
from janus_kit.errors import OptionError, ScoringError
from janus_kit.scoring.compare import compare
from janus_kit.scoring.geneval_run import choose
from janus_kit.scoring.page import Card, Table, page
from janus_kit.scoring.records import blocks, kept, pack, share, unpack, write_whole
from janus_kit.scoring.run import Run, Watch


def test_differences_are_real_or_not() -> None:
    better = {"t": {f"p{i}": 1.0 for i in range(30)}}
    worse = {"t": {f"p{i}": float(i % 3 == 0) for i in range(30)}}
    found = compare(better, worse)["overall"]
    assert found["difference"] == pytest.approx(100 * 20 / 30)
    assert found["real"]
    assert found["verdict"].startswith("better")
    assert compare(worse, better)["overall"]["verdict"].startswith("worse")
    same = compare(worse, worse)["overall"]
    assert (same["difference"], same["interval"], same["real"]) == (0, [0, 0], False)
    with pytest.raises(ScoringError, match="no prompt in common"):
        compare(better, {"t": {"other": 1.0}})


def test_few_prompts_show_no_difference() -> None:
    found = compare(
        {"t": {f"p{i}": 1.0 for i in range(19)}}, {"t": {f"p{i}": 0.0 for i in range(19)}}
    )
    assert found["overall"]["verdict"].startswith("no telling: 19 prompts are too few")
    assert not found["overall"]["real"]


def test_the_overall_difference_is_the_mean_of_the_tasks() -> None:
    ours = {"a": {"p": 1.0}, "b": {f"q{i}": 0.0 for i in range(9)}}
    theirs = {"a": {"p": 0.0}, "b": {f"q{i}": 0.0 for i in range(9)}}
    assert compare(ours, theirs)["overall"]["difference"] == 50


def test_prompts_are_chosen_by_task_name_and_number() -> None:
    assert len(choose()) == 553
    assert list(choose(["counting"], limit=2)) == [179, 180]
    cats = choose(names=["cat", "dog"])
    assert {c["class"] for m in cats.values() for c in m["include"]} <= {"cat", "dog"}
    assert len(cats) >= 2
    parts = [choose(shard=Shard(i, 3)) for i in range(3)]
    assert sorted(number for part in parts for number in part) == list(range(553))
    assert list(parts[1])[:3] == [16, 17, 18]
    assert choose(["colors"], limit=2, shard=Shard(1, 2)) == {}


def test_a_shard_takes_every_so_many_th_block() -> None:
    assert share(blocks(list(range(5)), 2), Shard.parse("1/2")) == [[2, 3]]
    assert share(blocks(list(range(5)), 2), Shard.parse("0/2")) == [[0, 1], [4]]
    assert share([1, 2], None) == [1, 2]


@pytest.mark.parametrize("seed", range(4))
def test_a_mask_comes_back_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((7, 5)) < (0, 0.5, 0.9, 1.1)[seed]
    assert np.array_equal(unpack(pack(mask), (7, 5)), mask)


def test_a_block_is_made_once_for_each_key(tmp_path: Path) -> None:
    made = []

    def make() -> list[dict[str, Any]]:
        made.append(1)
        return [{"a": 0.1}]

    for key in ({"x": 1}, {"x": 1}, {"x": 2}):
        assert kept(tmp_path, key, make) == [{"a": 0.1}]
    assert len(made) == 2


@pytest.mark.parametrize("left", ['{"a": 0', '{"a": 0.1}\n', "[1]\n", ""])
def test_a_block_that_is_cut_off_is_made_again(tmp_path: Path, left: str) -> None:
    rows = [{"a": 0.1}, {"a": 0.2}]
    assert kept(tmp_path, {"x": 1}, lambda: rows, 2) == rows
    (file,) = tmp_path.iterdir()
    file.write_text(left)
    assert kept(tmp_path, {"x": 1}, lambda: rows, 2) == rows


def test_what_lies_there_is_not_counted_as_speed() -> None:
    watch = Watch()
    with watch.stage("detecting", "pictures", 30) as advance:
        advance(20, fresh=False)
        advance(10, fresh=True)
    assert watch.speed["detecting"]["pictures"] == 10
    with watch.stage("colors", "pictures", 5) as advance:
        advance(5, fresh=False)
    assert "colors" not in watch.speed


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "is empty"), ("{", "cannot be read"), ("[1]\n", "no JSON object")],
)
def test_a_broken_note_about_pictures_is_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "pictures.json").write_text(text)
    with pytest.raises(ScoringError, match=words):
        Run(output=tmp_path).drawn_by()


def test_seeds_are_those_of_a_generator() -> None:
    Run(output=Path("a"), seed=2**63 - 5)
    with pytest.raises(OptionError, match="seed must be from 0 to"):
        Run(output=Path("a"), seed=2**63 - 4)


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "a.txt"
    write_whole(path, "before")

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        write_whole(path, "after")
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]
    assert path.read_text() == "before"


def test_a_page_is_escaped_and_shows_failures_first() -> None:
    nasty = "<script>alert('x')</script>&\"'"
    found = {
        "benchmark": "geneval",
        "drawn_by": {"model": nasty},
        "missing": [nasty],
        "not_comparable_because": [nasty],
        "warnings": [nasty],
    }

    def picture() -> Image.Image:
        return Image.new("RGB", (40, 30), "red")

    def gone() -> Image.Image:
        raise OSError(nasty)

    cards = [
        Card("colors", "good one", True, "as asked", picture),
        Card(nasty, nasty, False, f"{nasty}\nsecond", picture, [(f"{nasty} 0.5", (1, 2, 30, 20))]),
        Card("colors", "no picture", False, "x", gone),
    ]
    shown = page(found, Table(["a"], [(50.0, (40.0, 60.0))], {nasty: [1.0]}), cards)
    assert "<script" not in shown
    assert shown.index("second") < shown.index("good one")
    assert "src=" not in shown.replace("default-src", "").replace("img-src", "").replace(
        "style-src", ""
    )
    assert "http" not in shown.replace("http-equiv", "")
    assert "#k1:checked~main article:not([data-kind='" in shown
    assert shown.count("<article") == 3
