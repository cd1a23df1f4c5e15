"""janus-kit score: runs from end to end on tiny models, killed, resumed, divided and compared."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from PIL import Image
from score_parts import GENEVAL, MORE, SMALL, pictures, results, summary

from janus_kit.scoring import drawers, look
from janus_kit.scoring.geneval import prompts


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
    assert json.loads(Path("a/summary.json").read_text())["run"]["speed"] == {}


def test_another_picture_is_looked_at_anew(scored: Run) -> None:
    scored(*SMALL, "-o", "a")
    first = results("a")
    Image.new("RGB", (64, 64), "red").save("a/images/00259/samples/0000.png")
    scored(*SMALL, "-o", "a")
    assert results("a") != first


def test_shards_together_equal_one_run(scored: Run) -> None:
    many = (*GENEVAL, "--tasks", "colors", "--samples", 1, "--limit", 33)
    scored(*many, "-o", "a")
    for shard in ("2/3", "0/3", "1/3"):
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
        (("--shard", "2/2"), "the first is 0"),
        (("--shard", "two"), "a shard is written i/n"),
        (("--batch-size", "many"), "batch size must be"),
        (("--threshold", "0.01"), "threshold must be from 0.05"),
        (("--detector", "nowhere:Sees"), "cannot be imported"),
        (("--predict-only", "--score-only"), "not both"),
        (("--steps", "5"), "are those of --diffusers"),
        (("--diffusers", "x", "--temperature", "1"), "takes no --temperature"),
        (("--overwrite", "--shard", "1/2"), "removes other shards' pictures"),
        (("--seed", str(2**64)), "seed must be from 0"),
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


def test_runs_that_were_judged_apart_are_not_called_different(scored: Run) -> None:
    scored(*SMALL, "-o", "a")
    shutil.copytree("a", "b")
    ended = scored(*SMALL, "-o", "b", "--threshold", 0.5, "--baseline", "a/summary.json")
    assert ended.code == 0, ended.err
    verdict = summary("b")["against_baseline"]["overall"]["verdict"]
    assert verdict == "no telling: judged with detector's threshold 0.5 here and 0.3 there"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": None}, "has a wrong value"),
        ({"correct": "maybe"}, "has a wrong value"),
        ({"tag": ["colors"]}, "has a wrong value"),
    ],
)
def test_a_broken_baseline_is_told_before_anything_is_drawn(
    scored: Run, change: dict[str, Any], message: str
) -> None:
    scored(*SMALL, "-o", "a")
    row = json.loads(results("a").splitlines()[0])
    Path("a/results.jsonl").write_text(json.dumps({**row, **change}) + "\n")
    ended = scored(*SMALL, "-o", "b", "--baseline", "a/summary.json")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err
    assert not Path("b").exists()


def test_overwriting_looks_anew_at_others_pictures(scored: Run) -> None:
    scored(*SMALL, "--predict-only", "-o", "a")
    shutil.copytree("a/images", "others")
    scored(*SMALL, "--images", "others", "-o", "b")
    import sees

    before = len(sees.calls)
    scored(*SMALL, "--images", "others", "-o", "b")
    assert len(sees.calls) == before
    scored(*SMALL, "--images", "others", "-o", "b", "--overwrite")
    assert len(sees.calls) > before
    assert len(list(Path("others").rglob("*.png"))) == 12


def test_a_shard_without_prompts_is_done(scored: Run) -> None:
    ended = scored(*SMALL, "-o", "a", "--shard", "4/5")
    assert ended.code == 0, ended.err
    assert "shard 4/5 is done" in ended.out
    assert not Path("a").exists()


def test_two_folders_of_a_prompt_are_one(scored: Run) -> None:
    scored(*SMALL, "-o", "a")
    shutil.copytree("a/images", "others")
    shutil.copytree("others/00259", "others/00700")
    Path("others/00259/samples/0001.png").unlink()
    Path("others/00700/samples/0000.png").unlink()
    assert scored(*SMALL, "--images", "others", "-o", "b").code == 0
    assert len(results("b").splitlines()) == len(results("a").splitlines())


def test_others_prompts_are_chosen_and_counted_like_ours(scored: Run, tmp_path: Path) -> None:
    for number, tag in enumerate(("mine", "mine", "other")):
        samples = tmp_path / "own" / f"{number:05}" / "samples"
        samples.mkdir(parents=True)
        Image.new("RGB", (64, 64), "red").save(samples / "0.png")
        asked = {"tag": tag, "include": [{"class": "cat", "count": 1}], "prompt": f"cat {number}"}
        (samples.parent / "metadata.jsonl").write_text(json.dumps(asked))
    mine = (*GENEVAL, "--images", "own", "--tasks", "mine")
    assert scored(*mine, "--limit", 1, "--samples", 1, "-o", "a").code == 0
    assert (summary("a")["scores"]["images"], set(summary("a")["scores"]["tasks"])) == (1, {"mine"})
    ended = scored(*mine, "--samples", 2, "-o", "b")
    assert (ended.code, "prompt 00000 has 1 of 2" in ended.err) == (2, True)


def test_a_bad_folder_of_no_chosen_prompt_stops_nothing(scored: Run) -> None:
    scored(*SMALL, "--predict-only", "-o", "a")
    bad = Path("a/images/00900/metadata.jsonl")
    bad.parent.mkdir()
    bad.write_text("{")
    ended = scored(*SMALL, "--score-only", "-o", "a")
    assert ended.code == 3
    assert "00900/metadata.jsonl: must hold one JSON object" in ended.err
    assert summary("a")["scores"]["images"] == 12


def test_where_no_picture_can_be_read_one_is_named(scored: Run) -> None:
    scored(*SMALL, "--predict-only", "-o", "a")
    for path in Path("a/images").rglob("*.png"):
        path.write_bytes(b"no")
    ended = scored(*SMALL, "--score-only", "-o", "a")
    assert ended.code == 2
    assert "no picture can be scored: " in ended.err
    assert "00259/samples/0000.png: cannot be read" in ended.err


def test_a_self_test_warns(scored: Run) -> None:
    loud = tuple(word for word in SMALL if word != "--quiet")
    ended = scored(*loud, "--self-test", "-o", "a")
    assert "sees:Sees looks broken" in ended.err
    assert summary("a")["warnings"]


def test_what_can_be_fetched_is_named_and_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ended = run("score", "fetch", "everything")
    assert (ended.code, "dpg and efficientdet" in ended.err) == (2, True)
    for what in ("dpg", "efficientdet"):
        monkeypatch.setattr(f"janus_kit.scoring.fetch.fetch_{what}", lambda: tmp_path / "it")
        assert run("score", "fetch", what).out == f"{tmp_path / 'it'}\n"
