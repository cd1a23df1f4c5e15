"""`janus-kit bench`: both contenders run, agree, and are told apart from each other."""

import json
import runpy
import shlex
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run

from janus_kit import JanusPipeline
from janus_kit.bench import machine
from janus_kit.bench import run as bench
from janus_kit.checkpoint import checksum
from janus_kit.errors import OptionError


def test_the_command_times_both_and_finds_them_equal(
    janus: Run, hf_folder: Path, tmp_path: Path
) -> None:
    small = ("--model", hf_folder, "--rounds", 1, "--tokens", 3)
    out = ("-o", "there/figures.json")
    ended = janus("bench", *small, *out)
    assert ended.code == 0, ended.err
    figures = json.loads((tmp_path / "there/figures.json").read_text(encoding="utf-8"))
    drawing, preview, decoding, caption, first, answer = figures["seconds"].values()
    assert set(preview) == {"janus_kit"}
    assert set(drawing) == {"janus_kit", "generate", "dynamic cache", "published loop"}
    assert set(decoding) == {"janus_kit", "transformers"}
    assert set(caption) == set(first) == set(answer) == {"janus_kit", "generate"}
    assert set(figures["tokens a second after the first"]) == {"janus_kit", "generate"}
    assert 0 < figures["peak memory of janus_kit, GB"] <= figures["peak memory of all, GB"]
    assert figures["first call, s"] > 0
    for contenders in (drawing, decoding, caption, first, answer):
        assert all(0 < seconds["least"] <= seconds["wall"] for seconds in contenders.values())
    assert len(figures["agreement"]) == 4
    for found in figures["agreement"].values():
        assert found["equal"]
        assert found["same"] == found["of"] > 0
        assert found["share"] == 1
    assert figures["versions"]["transformers"]
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["figures.json"]
    assert figures["command"] == shlex.join(map(str, ("janus-kit", "bench", *small, *out)))
    assert ended.out.count("equal, ") == 4
    assert "generate" in ended.out


def test_a_bench_that_fails_late_keeps_what_it_has_measured(
    janus: Run, hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OptionError("the lamp is out")

    monkeypatch.setattr(bench.Theirs, "answer", fail)
    small = ("--model", hf_folder, "--rounds", 1, "--peers", "generate")
    ended = janus("bench", *small, "-o", "figures.json")
    assert ended.code != 0
    assert "the lamp is out" in ended.err
    assert not (tmp_path / "figures.json").exists()
    figures = json.loads((tmp_path / "figures.unfinished.json").read_text(encoding="utf-8"))
    drawing, _, decoding = figures["seconds"].values()
    assert set(drawing) == {"janus_kit", "generate"}
    assert set(decoding) == {"janus_kit", "transformers"}
    assert figures["agreement"]["codes, generate"]["equal"]


def test_a_command_is_told_without_places_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("/somewhere/bin/janus-kit", "/somewhere/janus_kit/__main__.py"):
        monkeypatch.setattr("sys.argv", [name, "bench", "--peers", ""])
        assert machine.asked() == "janus-kit bench --peers ''"
    monkeypatch.setattr("sys.argv", ["/somewhere/steps.py", "--rows", "2"])
    assert machine.asked() == "steps.py --rows 2"


SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_finds_what_it_imports(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(script.parent)  # as Python does for a script
    assert callable(runpy.run_path(str(script), run_name="imported")["main"])


def test_the_readme_shows_the_table_of_what_was_measured() -> None:
    found = runpy.run_path(str(SCRIPTS[0].parent / "table.py"), run_name="imported")
    readme = (SCRIPTS[0].parents[1] / "README.md").read_text(encoding="utf-8")
    assert found["table"](found["README"]) in readme


def test_the_card_shows_the_figures_of_these_very_weights(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = SCRIPTS[0].parent / "results"
    shipped = checksum(Path(str(resources.files("janus_kit.weights"))))[:10]
    for name in ("evaluate", "evaluate-int8", "losses", "dpg"):
        measured = json.loads((results / f"embedded-{name}.json").read_text(encoding="utf-8"))
        assert shipped in json.dumps(measured), f"embedded-{name}.json is of other weights"
    monkeypatch.setattr(sys, "argv", ["card.py", str(results / "embedded-evaluate.json")])
    runpy.run_path(str(SCRIPTS[0].parent / "card.py"), run_name="__main__")
    card = (SCRIPTS[0].parents[1] / "MODEL_CARD.md").read_text(encoding="utf-8")
    tables = capsys.readouterr().out.strip().split("\n\n")
    assert len(tables) > 4
    assert all(table in card for table in tables)


def test_some_peers_are_left_out(janus: Run, hf_folder: Path, tmp_path: Path) -> None:
    small = ("bench", "--model", hf_folder, "--rounds", 1, "--no-captions", "--codes", 4)
    ended = janus(*small, "--peers", "published loop, generate", "-o", "figures.json")
    assert ended.code == 0, ended.err
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert list(figures["agreement"]) == ["codes, published loop", "codes, generate"]
    assert 0 < figures["step, ms"] < 1000 * figures["seconds"]["1 × 4 codes"]["janus_kit"]["wall"]
    assert figures["share of a memory read"] is None  # a small model's weights stay in the cache
    ended = janus(*small, "--peers", "vllm")
    assert ended.code == 2
    assert "not 'vllm'" in ended.err


def test_a_shape_with_random_weights_draws_whole_pictures(
    hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "folder_of", lambda shape, where: hf_folder)
    found = bench.bench("janus-pro-1b", rounds=1, captions=False, peers=[])
    assert found["model hash"] == ""  # random numbers have no name
    assert any("preview" in task for task in found["seconds"])


def test_transformers_is_left_out_where_nothing_is_asked_of_it(
    janus: Run, hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "Theirs", None)
    small = ("bench", "--model", hf_folder, "--rounds", 1, "--no-captions", "--codes", 4)
    ended = janus(*small, "--peers", "", "--components", "draw")
    assert ended.code == 0, ended.err
    assert "generate" not in ended.out
    ended = janus(*small, "--components", "draw")
    assert ended.code == 2
    assert "--no-captions and no peers" in ended.err


def test_the_compiled_peer_is_timed_after_the_plain_one(
    hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    answer = bench.Theirs.answer
    monkeypatch.setattr(torch, "compile", lambda f, **options: order.append("compiled") or f)
    monkeypatch.setattr(
        bench.Theirs,
        "answer",
        lambda self, *given, **named: order.append("answered") or answer(self, *given, **named),
    )
    found = bench.bench(
        model=str(hf_folder), codes=4, tokens=2, rounds=1, compiled=True, peers=["generate"]
    )
    assert order.count("compiled") == 1
    assert order[-1] == "compiled"
    assert set(found["seconds"]["static cache, compiled"]) == {"janus_kit", "generate"}


def test_what_a_gpu_captures_is_there_before_it_counts_and_not_replayed_after_others(
    hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[Any] = []
    answer, draw = bench.Ours.answer, bench.Ours.draw

    def answered(self: Any, ids: Any, pixels: Any, tokens: int, **named: Any) -> Any:
        order.append(tokens)
        return answer(self, ids, pixels, tokens, **named)

    monkeypatch.setattr(bench, "replays", lambda _: True)
    monkeypatch.setattr(torch, "compile", lambda f, **options: order.append("compiled") or f)
    monkeypatch.setattr(bench.Ours, "answer", answered)
    monkeypatch.setattr(bench.Ours, "draw", lambda *given: order.append("drawn") or draw(*given))
    found = bench.bench(
        model=str(hf_folder), codes=4, tokens=2, rounds=1, compiled=True, peers=["generate"]
    )
    assert [step for step in order if step != "drawn"] == [bench.LONG, 2, 1, bench.LONG, "compiled"]
    assert order[-1] == "compiled"
    seconds = found["seconds"]
    assert seconds["static cache, compiled"]["janus_kit"] == seconds["1 × 4 codes"]["janus_kit"]


def test_numbers_that_part_are_counted_before_and_after() -> None:
    found = bench.agreement([[1, 2, 3, 4], [5]], [[1, 9, 3, 4], [5, 6]])
    assert found == {"equal": False, "same": 2, "of": 6, "ours": 5, "share": round(4 / 6, 4)}


def test_the_first_row_is_shown_and_nothing_is_drawn_after_it(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    decode = JanusPipeline.decode

    def seen(pipe: JanusPipeline, codes: Any, *kind: str) -> Any:
        if not kind:
            shown.append(tuple(codes.shape))
        return decode(pipe, codes, *kind)

    monkeypatch.setattr(JanusPipeline, "decode", seen)
    bench.Ours(pipe).first_row(2)
    assert shown == [(2, pipe.config.side)]


def test_codes_that_differ_are_told_by_the_exit_code(
    janus: Run, hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = bench.Ours.draw
    monkeypatch.setattr(
        bench.Ours,
        "draw",
        lambda self, count, pictures=1: [
            [*row, 1 - min(code, 1)]
            for *row, code in true(self, count, pictures)  # the last code alone is another
        ],
    )
    ended = janus("bench", "--model", hf_folder, "--rounds", 1, "--codes", 4, "--no-captions")
    assert ended.code == 1
    assert ended.out.count("NOT EQUAL, 3 of 4") == 3


@pytest.mark.parametrize("codes", [2, 4096])
def test_a_part_of_a_picture_is_a_square_within_it(hf_folder: Path, codes: int) -> None:
    with pytest.raises(OptionError, match=f"square number up to 16, not {codes}"):
        bench.bench(model=str(hf_folder), codes=codes)


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(OptionError, match="shape must be one of embedded, janus-pro-1b"):
        bench.bench("janus-2")


def test_every_second_round_runs_backwards() -> None:
    order: list[str] = []
    found = bench.medians({name: lambda n=name: order.append(n) for name in "abc"}, 3)  # type: ignore[misc]
    assert "".join(order) == "abccbaabc"
    assert set(found["a"]) == {"wall", "least", "most", "cpu"}
