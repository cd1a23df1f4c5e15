"""The evaluation of the embedded model: its arithmetic, and all of it with a perfect judge."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from PIL import Image

from janus_kit.console import table
from janus_kit.errors import JanusKitError
from janus_kit.scoring.detectors import DetectorFacts
from janus_kit.scoring.geneval import Detection
from janus_kit.scoring.promptset import TASKS, prompts
from janus_kit.training import evaluate, language, novelty, painting, world
from janus_kit.training.evaluate import _by_models, _facts, _is_novel, _kind
from janus_kit.training.measures import by_task, of_ceiling, share

TRUE: dict[bytes, world.Scene] = {}  # pictures that were rendered → what they show


class Knows:
    """A detector that has been told of every rendered scene, and sees nothing in other pictures."""

    facts = DetectorFacts(name="knows", threshold=0.3, counting_threshold=0.3)

    def detect(self, images: Sequence[Image.Image]) -> list[list[Detection]]:
        scenes = [TRUE.get(np.asarray(image).tobytes()) for image in images]
        return [
            [Detection(t.name, t.box, 0.9) for t in scene.things] if scene else []
            for scene in scenes
        ]


@pytest.fixture
def told(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is rendered becomes known to the detector."""
    plain = world.render

    def render(scene: world.Scene) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
        pixels = plain(scene)
        TRUE[pixels.tobytes()] = scene
        return pixels

    TRUE.clear()
    monkeypatch.setattr(world, "render", render)
    monkeypatch.setattr(evaluate, "fetch_efficientdet", lambda: None)
    monkeypatch.setattr(evaluate, "open_detector", lambda name: Knows())
    cat = world.staged([(1, None, "cat")], None, 0)[0]
    monkeypatch.setattr(evaluate, "foreign", lambda name: [("cat", cat)])
    monkeypatch.setattr(evaluate, "ROUNDS", 1)


@pytest.mark.usefixtures("told")
def test_a_perfect_judge_finds_every_staged_scene_right_and_the_figures_are_whole(
    tmp_path: Path,
) -> None:
    lines: list[str] = []
    result = evaluate.evaluate(
        scenes=3, samples=1, every=60, out=tmp_path / "figures.json", report=lines.append
    )
    for task in TASKS:
        if task in result["ceiling"]:
            assert result["ceiling"][task]["share"] == 1.0, task
    assert result["ceiling"]["overall"]["share"] == 1.0
    assert result["of the ceiling"]["overall"]["share"] == 0.0
    assert (
        result["drawing"]["overall"]["share"] == 0.0
    )  # what nobody rendered is nothing to this judge
    asked = len(prompts()[::60])
    assert sum(result["drawing"][t]["of"] for t in TASKS if t in result["drawing"]) == asked
    apart = [result[f"drawing, {kind} combinations"] for kind in ("seen", "held-out")]
    alone = sum(line["tag"] == "single_object" for line in prompts()[::60])
    assert sum(part[t]["of"] for part in apart for t in TASKS if t in part) == asked - alone
    assert result["prompts"]["all"] == asked
    assert result["tokenizer"]["things found before"]["share"] == 1.0
    for name in ("psnr", "ssim"):
        mean = result["tokenizer"][name]
        assert mean["low"] < mean["mean"] < mean["high"]
    for section in (result["tokenizer"], result):
        assert 0 < section["codes used"]["right"] < section["codes used"]["of"] == 11264
    assert result["published, Janus-Pro-7B"]["overall"] == 0.8
    for what in ("picture", "caption"):
        assert result["cost"][what]["equal"]
        cost = result["cost"][what]
        assert 0 < cost["low"] <= cost["ratio"] <= cost["high"]
    assert result["answers"]["all"]["of"] > 0
    assert json.loads((tmp_path / "figures.json").read_text()) == result
    shown = table(result)  # what the command prints
    assert "of the ceiling" in shown
    assert "overall" in shown
    assert any("tokenizer" in line for line in lines)


@pytest.mark.usefixtures("told")
def test_without_the_foreign_sets_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise JanusKitError("npm: not found")

    monkeypatch.setattr(evaluate, "foreign", refuse)
    with pytest.raises(JanusKitError, match="npm"):
        evaluate.evaluate(scenes=1, samples=1, every=553, out=tmp_path / "figures.json")
    assert list(tmp_path.iterdir()) == []


def test_questions_are_told_apart_by_kind() -> None:
    kinds = {
        "What colour is the cup?": "color",
        "What is above the cup?": "what",
        "How many cups are there?": "count",
        "Where is the cup?": "where",
        "Is there a red cup?": "yes-no",
        "Are there three cups?": "yes-no",
        "Are there more cups or ties?": "compare",
        "Is the cup red?": "yes-no",
    }
    assert {question: _kind(question) for question in kinds} == kinds


def test_facts_count_once_each_for_precision_and_recall() -> None:
    truths = [language.parse("a red cup and two ties"), language.parse("a cat above a dog")]
    told = [language.parse("a red cup and a tie"), language.parse("a cat above a dog")]
    found = _facts(told, truths, relations=True)
    assert (found["precision"]["right"], found["precision"]["of"]) == (3, 4)
    assert (found["recall"]["right"], found["recall"]["of"]) == (3, 4)
    assert found["all right"]["right"] == 1
    swapped = _facts([language.parse("a dog above a cat")], truths[1:], relations=True)
    assert swapped["all right"]["right"] == 0
    assert _facts([language.parse("a dog above a cat")], truths[1:], relations=False)["all right"][
        "right"
    ]


@pytest.mark.usefixtures("pictures")
def test_facts_about_models_that_training_never_shows_are_told_apart() -> None:
    scenes = [world.compose(seed, split="test")[1] for seed in range(24)]
    shown = [
        all(thing.view.rsplit(" ", 1)[0] in painting.models() for thing in s.things) for s in scenes
    ]
    # Who knows the scenes of shown models alone has all of those facts, and none of the others.
    told = [language.facts(s) if k else ((), None) for s, k in zip(scenes, shown, strict=True)]
    found = _by_models(told, scenes)
    known, unknown = found["recall, known models"], found["recall, unknown models"]
    assert unknown["right"] == 0 < unknown["of"]
    assert known["right"] == sum(len(facts[0]) for facts in told)
    assert known["of"] + unknown["of"] == sum(len(language.facts(s)[0]) for s in scenes)
    unseen = {
        m
        for n in ("chair", "couch")
        for m in painting.views(True)[n]
        if m.model not in painting.models()
    }
    assert unseen
    assert all(sprite.held_out for sprite in unseen)


def test_the_overall_score_is_the_mean_of_the_tasks() -> None:
    rows = [
        ({"tag": "counting", "prompt": "two cups"}, True),
        ({"tag": "counting", "prompt": "two ties"}, False),
        ({"tag": "colors", "prompt": "a red cup"}, True),
    ]
    found = by_task(rows)
    assert by_task(rows + rows)["counting"] == found["counting"] | {"right": 2, "of": 4}
    assert found["counting"]["share"] == 0.5
    assert found["overall"]["share"] == 0.75
    assert found["overall"]["low"] < 0.75 < found["overall"]["high"]


def test_a_share_of_the_ceiling_is_told_by_task_with_the_interval_of_prompts_drawn_anew() -> None:
    lines = [{"tag": task, "prompt": f"{task} {n}"} for task in TASKS[:2] for n in range(40)]
    ceiling = [(line, n % 2 == 0) for n, line in enumerate(lines)]
    drawn = [(line, n % 2 == 0 and (n < 40) == (n % 4 == 0)) for n, line in enumerate(lines)]
    found = of_ceiling(drawn, ceiling)
    assert list(found) == [*TASKS[:2], "overall"]
    assert found["overall"]["share"] == 0.5
    assert 0.2 < found["overall"]["low"] < 0.45 < 0.55 < found["overall"]["high"] < 0.8
    wide = found[TASKS[0]]["high"] - found[TASKS[0]]["low"]
    assert wide > found["overall"]["high"] - found["overall"]["low"]
    same = of_ceiling(ceiling, ceiling)["overall"]
    assert same == {"share": 1.0, "low": 1.0, "high": 1.0}
    assert of_ceiling(drawn, [(line, False) for line in lines]) == {}


def test_held_out_prompts_of_geneval_are_known_as_such() -> None:
    novel = [line for line in prompts() if _is_novel(line)]
    assert 40 < len(novel) < 250
    assert not any(line["tag"] == "single_object" for line in novel)
    for line in novel:
        if line["tag"] == "colors":
            (clause,) = line["include"]
            assert novelty.held_out(clause["class"], clause["color"])


def test_shares_below_the_interval_of_a_baseline_are_told(
    janus: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {"scenes": 2, "seed": 0, "answers": {"all": share(50, 100), "what": share(9, 10)}}
    (tmp_path / "before.json").write_text(json.dumps(before))
    (tmp_path / "no.json").write_text("[]")
    worse = {"answers": {"all": share(45, 100), "what": share(3, 10)}, "quantization": "int4"}
    monkeypatch.setattr(evaluate, "evaluate", lambda *given, **options: worse)
    ask = ("train", "evaluate", "--baseline")
    ended = janus(*ask, "before.json", "--scenes", 2)
    assert ended.code == 1
    (line,) = [line for line in ended.err.splitlines() if "below" in line]
    assert "answers, what: 30.0%, was 90.0% (59.6% to 98.2%)" in line
    worse["answers"] = {"all": share(45, 100), "what": share(1, 2)}  # type: ignore[dict-item]
    ended = janus(*ask, "before.json", "--scenes", 2)
    assert (ended.code, "no share lies below" in ended.err) == (0, True)
    for file, scenes, why in (
        ("before.json", 3, "before.json: has --scenes 2, not 3"),
        ("no.json", 2, "no.json: holds no evaluation"),
        ("none.json", 2, "none.json: cannot be the baseline (No such file or directory)"),
    ):
        ended = janus(*ask, file, "--scenes", scenes)
        assert ended.code == 2
        assert why in ended.err
