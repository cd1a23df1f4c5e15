"""janus-kit score: runs from end to end on tiny models, killed, resumed, divided and compared."""

import csv
import json
import shutil
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from PIL import Image

from janus_kit.errors import OptionError, ScoringError
from janus_kit.scoring import drawers, look
from janus_kit.scoring.compare import compare
from janus_kit.scoring.geneval import prompts
from janus_kit.scoring.geneval_run import choose
from janus_kit.scoring.page import Card, Table, page
from janus_kit.scoring.records import Shard, blocks, kept, pack, unpack, write_whole

DETECTOR = '''
import numpy as np
from janus_kit.scoring.geneval import OBJECTS, Detection

calls = []

class Sees:
    """Finds things by a picture's first pixels; with masks, so that they are kept too."""

    def detect(self, images):
        found = []
        for image in images:
            calls.append(image.size)
            pixels = np.asarray(image).reshape(-1, 3).astype(int)
            mask = np.zeros((image.height, image.width), bool)
            mask[2:20, 3:30] = True
            found.append([
                Detection(OBJECTS[pixels[k].sum() % 80], (k, 2, 30 + k, 20), 0.3 + k / 9, mask)
                for k in range(6)
            ])
        return found
'''


@pytest.fixture
def scored(janus: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As janus, with the tiny model, and a detector named sees:Sees."""
    (tmp_path / "sees.py").write_text(DETECTOR)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sees", raising=False)
    return janus


GENEVAL = ("score", "geneval", "--detector", "sees:Sees", "--colors", "pixels", "--quiet")
SMALL = (*GENEVAL, "--tasks", "colors,position", "--samples", 2, "--limit", 3)
MORE = (*GENEVAL, "--tasks", "colors,position", "--samples", 2, "--limit", 5)


def summary(folder: str) -> dict[str, Any]:
    """A summary without what differs from run to run."""
    found: dict[str, Any] = json.loads(Path(folder, "summary.json").read_text())
    assert found.pop("run").keys() == {"date", "speed"}
    return found


def results(folder: str) -> bytes:
    return Path(folder, "results.jsonl").read_bytes()


def pictures(folder: str) -> dict[str, bytes]:
    root = Path(folder, "images")
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.png"))}


def test_a_run_leaves_the_published_folders_rows_and_a_page(scored: Run) -> None:
    ended = scored(*SMALL, "-o", "a")
    assert ended.code == 0, ended.err
    assert ended.lines[-1] == "a/report.html"
    assert any(line.startswith("overall") for line in ended.lines)
    assert len(pictures("a")) == 12
    assert Path("a/images/00259/samples/0001.png").is_file()
    metadata = json.loads(Path("a/images/00259/metadata.jsonl").read_text())
    assert metadata == prompts()[259]
    rows = [json.loads(line) for line in results("a").splitlines()]
    assert [row["filename"] for row in rows[:3]] == [
        "00259/samples/0000.png",
        "00259/samples/0001.png",
        "00260/samples/0000.png",
    ]
    found = summary("a")
    assert set(found["scores"]["tasks"]) == {"colors", "position"}
    assert found["drawn_by"]["guidance"] == 5
    assert found["drawn_by"]["seed"] == 42
    assert found["detector"]["name"] == "sees:Sees"
    assert found["detector"]["counting_threshold"] == 0.9
    assert not found["comparable"]
    assert any("of the 553 prompts" in note for note in found["not_comparable_because"])
    shown = Path("a/report.html").read_text()
    assert "Janus-Pro-7B" in shown
    assert "<script" not in shown
    assert shown.count("<article") == 12


def test_every_prompt_has_the_same_seeds(scored: Run) -> None:
    from janus_kit.metadata import read_settings

    scored(*SMALL, "--predict-only", "-o", "a")
    seeds = {path.name: read_settings(path).seed for path in Path("a/images").rglob("*.png")}
    assert seeds == {"0000.png": 42, "0001.png": 43}
    assert not Path("a/summary.json").exists()


def test_a_resumed_run_equals_an_undisturbed_one(
    scored: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(*MORE, "-o", "a")
    whole = drawers.save
    for limit in (3, 7):  # killed after so many pictures
        count = 0

        def save(path: Path, drawn: Any, limit: int = limit) -> None:
            nonlocal count
            count += 1
            if count > limit:
                raise SystemExit(143)
            whole(path, drawn)

        monkeypatch.setattr("janus_kit.scoring.geneval_run.save", save)
        assert scored(*MORE, "-o", "b").code == 143
    monkeypatch.setattr("janus_kit.scoring.geneval_run.save", whole)
    assert len(pictures("b")) == 10

    def stop(*arguments: Any) -> Any:
        raise SystemExit(143)

    with monkeypatch.context() as patched:  # killed between detecting and coloring
        patched.setattr(look, "_color", stop)
        assert scored(*MORE, "-o", "b").code == 143
    assert list(Path("b/stages").iterdir())
    assert not Path("b/results.jsonl").exists()
    assert scored(*MORE, "-o", "b").code == 0
    assert pictures("a") == pictures("b")
    assert results("a") == results("b")
    assert summary("a") == summary("b")


def test_a_finished_run_does_nothing_again(scored: Run) -> None:
    scored(*SMALL, "-o", "a")
    import sees  # type: ignore[import-not-found]

    before = len(sees.calls)
    assert scored(*SMALL, "-o", "a").code == 0
    assert len(sees.calls) == before
    assert json.loads(Path("a/summary.json").read_text())["run"]["speed"].keys() == {
        "detecting",
        "colors",
    }


def test_another_picture_is_looked_at_anew(scored: Run) -> None:
    scored(*SMALL, "-o", "a")
    first = results("a")
    Image.new("RGB", (64, 64), "red").save("a/images/00259/samples/0000.png")
    scored(*SMALL, "-o", "a")
    assert results("a") != first


def test_shards_together_equal_one_run(scored: Run) -> None:
    many = (*GENEVAL, "--tasks", "colors", "--samples", 1, "--limit", 17)
    scored(*many, "-o", "a")
    for shard in ("3/3", "1/3", "2/3"):
        ended = scored(*many, "-o", "b", "--shard", shard)
        assert ended.code == 0, ended.err
        assert not Path("b/summary.json").exists()
    import sees

    before = len(sees.calls)
    assert scored(*many, "-o", "b").code == 0
    assert len(sees.calls) == before  # all was done by the shards
    assert pictures("a") == pictures("b")
    assert results("a") == results("b")
    assert summary("a") == summary("b")


def test_other_settings_do_not_mix_with_a_run(scored: Run) -> None:
    scored(*SMALL, "--predict-only", "-o", "a")
    ended = scored(*SMALL, "--predict-only", "-o", "a", "--seed", 7)
    assert ended.code == 2
    assert "holds pictures drawn with seed 42, not 7" in ended.err
    before = pictures("a")
    ended = scored(*SMALL, "--predict-only", "-o", "a", "--seed", 7, "--overwrite")
    assert ended.code == 0
    assert before.keys() == pictures("a").keys()
    assert before != pictures("a")


def test_a_run_that_drew_nothing_binds_nobody(scored: Run) -> None:
    assert scored(*SMALL, "--guidance", 0.5, "--predict-only", "-o", "a").code == 2
    assert scored(*SMALL, "--limit", 1, "--predict-only", "-o", "a").code == 0


def test_overwriting_touches_no_folder_that_is_not_a_run(scored: Run, tmp_path: Path) -> None:
    (tmp_path / "mine" / "images").mkdir(parents=True)
    (tmp_path / "mine" / "images" / "holiday.png").write_bytes(b"dear")
    scored(*SMALL, "--predict-only", "-o", "mine", "--overwrite")
    assert (tmp_path / "mine" / "images" / "holiday.png").read_bytes() == b"dear"


def test_others_pictures_are_scored_as_ours(scored: Run) -> None:
    scored(*SMALL, "-o", "a")
    shutil.copytree("a/images", "others")
    assert scored(*SMALL, "--images", "others", "-o", "b").code == 0
    assert results("a") == results("b")
    assert summary("b")["drawn_by"] == {"images": "others"}


def test_the_order_of_keys_in_others_metadata_does_not_matter(scored: Run) -> None:
    scored(*SMALL, "-o", "a")
    shutil.copytree("a/images", "others")
    for path in Path("others").rglob("metadata.jsonl"):
        path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    extra = Path("others/00900/samples")
    shutil.copytree("others/00259/samples", extra)
    asked = {"tag": "mine", "include": [{"class": "cat", "count": 1}], "prompt": "a cat, please"}
    (extra.parent / "metadata.jsonl").write_text(json.dumps(asked))
    assert scored(*SMALL, "--images", "others", "-o", "b").code == 0
    assert results("a") == results("b")


def test_missing_pictures_are_an_error_unless_partial(scored: Run) -> None:
    scored(*SMALL, "--predict-only", "-o", "a")
    Path("a/images/00260/samples/0001.png").unlink()
    shutil.rmtree("a/images/00261")
    ended = scored(*SMALL, "--score-only", "-o", "a")
    assert ended.code == 2
    assert "prompt 00260 has 1 of 2 (and 1 more)" in ended.err
    ended = scored(*SMALL, "--score-only", "--partial", "-o", "a")
    assert ended.code == 3
    found = summary("a")
    assert found["drawn_by"]["seed"] == 42
    assert found["missing"] == ["prompt 00260 has 1 of 2", "prompt 00261 has 0 of 2"]
    assert "2 prompts or pictures are missing" in found["not_comparable_because"]
    assert found["scores"]["images"] == 9


def test_an_unreadable_picture_is_told_and_the_rest_scored(scored: Run) -> None:
    scored(*SMALL, "--predict-only", "-o", "a")
    Path("a/images/00260/samples/0001.png").write_bytes(b"\x89PNG cut off")
    ended = scored(*SMALL, "--score-only", "-o", "a")
    assert ended.code == 3
    assert ended.err.count("\n") == 1
    assert "00260/samples/0001.png: cannot be read as a picture" in ended.err
    assert summary("a")["scores"]["images"] == 11


def test_a_broken_prompt_is_named(scored: Run) -> None:
    scored(*SMALL, "--predict-only", "-o", "a")
    Path("a/images/00260/metadata.jsonl").write_text("{")
    ended = scored(*SMALL, "--score-only", "-o", "a")
    assert ended.code == 2
    assert "00260/metadata.jsonl: must hold one JSON object" in ended.err


def test_wrong_folders_are_told(scored: Run, tmp_path: Path) -> None:
    ended = scored(*SMALL, "--images", "nowhere", "-o", "a")
    assert (ended.code, "nowhere: is not a folder" in ended.err) == (2, True)
    (tmp_path / "empty").mkdir()
    ended = scored(*SMALL, "--images", "empty", "-o", "a")
    assert (ended.code, "holds no folder of a prompt" in ended.err) == (2, True)


def test_prompts_of_others_are_scored_too(scored: Run, tmp_path: Path) -> None:
    samples = tmp_path / "own" / "00000" / "samples"
    samples.mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(samples / "0.png")
    asked = {"tag": "mine", "include": [{"class": "cat", "count": 1}], "prompt": "a cat, please"}
    (samples.parent / "metadata.jsonl").write_text(json.dumps(asked))
    assert scored(*GENEVAL, "--images", "own", "-o", "a", "--samples", 1).code == 0
    assert set(summary("a")["scores"]["tasks"]) == {"mine"}
    assert summary("a")["scores"]["coverage"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tasks", "colours"), "task must be of single_object"),
        (("--names", "dragon"), "name must be of person"),
        (("--shard", "3/2"), "shard must be i/n"),
        (("--shard", "two"), "shard must be i/n"),
        (("--batch-size", "many"), "batch size must be"),
        (("--threshold", "0.01"), "threshold must be from 0.05"),
        (("--detector", "nowhere:Sees"), "cannot be imported"),
        (("--predict-only", "--score-only"), "not both"),
        (("--images", "x", "--diffusers", "y"), "is not a folder"),
        (("--samples", "1001"), "samples must be"),
        (("--names", "toaster", "--tasks", "color_attr"), "no prompt is left"),
        (("--guidance", "0.5", "--limit", "1"), "guidance must be from 1"),
    ],
)
def test_a_wrong_option_is_one_sentence(scored: Run, options: Sequence[str], message: str) -> None:
    ended = scored(
        *GENEVAL, "--limit", 1, "--samples", 1, "-o", "a", "--tasks", "position", *options
    )
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert message in ended.err


def test_a_baseline_is_compared_prompt_by_prompt(scored: Run) -> None:
    scored(*SMALL, "-o", "a")
    ended = scored(*SMALL, "--seed", 3, "-o", "b", "--baseline", "a/summary.json")
    assert ended.code == 0, ended.err
    found = summary("b")["against_baseline"]
    assert found["overall"]["prompts"] == 6
    assert "against a/summary.json: " in ended.out
    ended = scored(*SMALL, "--score-only", "-o", "b", "--baseline", "none.json")
    assert (ended.code, "none.json: cannot be read" in ended.err) == (2, True)


def test_a_self_test_warns(scored: Run) -> None:
    loud = tuple(word for word in SMALL if word != "--quiet")
    ended = scored(*loud, "--self-test", "-o", "a")
    assert "sees:Sees looks broken" in ended.err
    assert summary("a")["warnings"]


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


# DPG-Bench


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


def test_what_can_be_fetched_is_named(run: Run) -> None:
    ended = run("score", "fetch", "everything")
    assert (ended.code, "dpg and efficientdet" in ended.err) == (2, True)
    ended = run("score", "fetch", "efficientdet")
    assert (ended.code, "--package and --sha256" in ended.err) == (2, True)


# The parts


def test_prompts_are_chosen_by_task_name_and_number() -> None:
    assert len(choose()) == 553
    assert list(choose(["counting"], limit=2)) == [179, 180]
    cats = choose(names=["cat", "dog"])
    assert {c["class"] for m in cats.values() for c in m["include"]} <= {"cat", "dog"}
    assert len(cats) >= 2
    parts = [choose(shard=Shard(i, 3)) for i in (1, 2, 3)]
    assert sorted(number for part in parts for number in part) == list(range(553))
    assert list(parts[1])[:3] == [8, 9, 10]


def test_a_shard_is_checked() -> None:
    assert Shard.parse("2/4") == Shard(2, 4)
    assert Shard(2, 2).of(blocks(list(range(5)), 2)) == [[2, 3]]
    with pytest.raises(OptionError):
        Shard(0, 1)


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


# diffusers


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Stable Diffusion of random weights."""
    diffusers = pytest.importorskip("diffusers")
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("diffusion")
    letters = [chr(code) for code in range(97, 123)]
    vocab = [*letters, *[f"{letter}</w>" for letter in letters], "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    words = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )
    torch.manual_seed(0)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocab),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=52,
            eos_token_id=53,
            pad_token_id=53,
        )
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder / "pipe")
    return folder / "pipe"


def test_a_pipeline_of_diffusers_is_scored_beside_ours(scored: Run, diffusion: Path) -> None:
    small = (*GENEVAL, "--tasks", "colors", "--samples", 1, "--limit", 2)
    drawn = ("--diffusers", diffusion, "--steps", 2, "--device", "cpu")
    ended = scored(*small, *drawn, "-o", "a")
    assert ended.code == 0, ended.err
    facts = summary("a")["drawn_by"]
    assert (facts["pipeline"], facts["steps"]) == ("StableDiffusionPipeline", 2)
    scored(*small, *drawn, "-o", "b", "--batch-size", 2)
    for data, same in zip(pictures("a").values(), pictures("b").values(), strict=True):
        one, other = (np.asarray(Image.open(BytesIO(png)), int) for png in (data, same))
        assert np.abs(one - other).max() <= 1  # a seed draws its picture in any batch
    ended = scored(*small, "-o", "c", "--baseline", "a/summary.json")
    assert ended.code == 0, ended.err


def test_a_pipeline_that_is_none_is_told(
    scored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    ended = scored(*SMALL, "--diffusers", tmp_path / "none", "-o", "a")
    assert (ended.code, "install diffusers" in ended.err) == (2, True)
