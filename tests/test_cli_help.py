"""Help, and the commands of training."""

import re
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Run

from janus_kit import config
from janus_kit.training import evaluate, recipe


def test_help_costs_little_and_loads_nothing_heavy() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from janus_kit.cli import main\n"
        "try: main()\n"
        "finally: print({'torch', 'PIL', 'rich', 'numpy'} & set(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 0.3
    assert ended.stderr == "set()\n"
    assert "generate" in ended.stdout


COMMANDS = ("generate", "ask", "caption", "chat", "convert", "info", "demo", "serve")
GROUPED = ("train data", "train embedded", "train evaluate")
GROUPED += ("batch status", "batch merge", "batch repair")


@pytest.mark.parametrize("command", [*COMMANDS, *GROUPED])
def test_every_command_has_an_example_in_its_help(run: Run, command: str) -> None:
    ended = run(*command.split(), "--help")
    assert (ended.code, ended.err) == (0, "")
    assert f"\n  janus-kit {command}" in ended.out


def test_the_package_is_a_command_too() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "janus_kit", "--version"], check=True, capture_output=True, text=True
    )
    assert re.fullmatch(r"janus-kit \d+\.\d+\.\d+\n", ended.stdout)


def test_training_data_is_made_and_its_place_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(report: Callable[[str], None]) -> Path:
        report("all is there")
        return Path("cache")

    monkeypatch.setattr(recipe, "fetch_data", fetch)
    ended = run("train", "data")
    assert (ended.code, ended.out, ended.err) == (0, "cache\n", "janus-kit: all is there\n")
    assert run("train", "data", "-q").err == ""


def test_the_embedded_model_is_trained_where_it_is_wanted(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def train(folder: Path, *, target: Path | None, **given: Any) -> Path:
        calls.append((folder, given["budget"], target, given["start"]))
        return target or folder / "model"

    monkeypatch.setattr(recipe, "train_embedded", train)
    assert run("train", "embedded").out == "runs/embedded/model\n"
    installed = run("train", "embedded", "--budget", "gpu", "-o", "there", "--install").lines
    weights = Path(config.__file__).parent / "weights"
    assert installed == [str(weights)]
    run("train", "embedded", "--start", "embedded", "-o", "a")
    run("train", "embedded", "--start", "there/model", "-o", "b")
    assert calls == [
        (Path("runs/embedded"), "cpu", None, None),
        (Path("there"), "gpu", weights, None),
        (Path("a"), "cpu", None, weights),
        (Path("b"), "cpu", None, Path("there/model")),
    ]


def test_an_evaluation_is_a_table_or_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    share = {"right": 3, "of": 4, "share": 0.75, "low": 0.3, "high": 0.95}
    figures = {
        "model": "tiny",
        "tokenizer, seen": {"colour": share, "psnr": 21.5},
        "cost": {"picture": {"ratio": 3.5}},
    }
    calls = []

    def measure(model: str | None, **options: Any) -> Mapping[str, Any]:
        options.pop("report")("drawing")
        calls.append((model, options))
        return figures

    monkeypatch.setattr(evaluate, "evaluate", measure)
    ended = run("train", "evaluate", "--model", "x", "--scenes", 8, "-o", "figures.json")
    assert ended.err == "janus-kit: drawing\n"
    assert "model: tiny" in ended.out
    for cell in ("tokenizer, seen", "colour", "75.0%", "30% to 95%", "psnr", "21.5", "ratio 3.5"):
        assert cell in ended.out
    assert run("train", "evaluate", "--json").records == [figures]
    plain = {"scenes": 128, "samples": 4, "every": 1, "seed": 0, "guidance": None}
    plain |= {"quantization": None, "out": None}
    assert calls == [
        ("x", {**plain, "scenes": 8, "out": Path("figures.json")}),
        (None, plain),
    ]
