"""Captions by Ray's actors: a real cluster on this machine, whose parts are killed."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from batch_parts import contents
from cli_parts import SHORT, descendants, finish, gone, lines, make, start, title, wait

pytestmark = pytest.mark.slow
pytest.importorskip("ray")

ENGINE = ("--engine", "ray", "--workers", "2")


@pytest.fixture
def many(tmp_path: Path, hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setenv("JANUS_KIT_MODEL", str(hf_folder))
    folder = make(tmp_path / "pictures", 400)
    return folder, Path(shutil.copytree(folder, tmp_path / "calm"))


def actors(process: int) -> list[int]:
    return [p for p in descendants(process) if "ray::_Worker" in title(p)]


def test_f16_a_killed_actor_loses_nothing_and_the_run_goes_on(many: tuple[Path, Path]) -> None:
    folder, calm = many
    assert finish("caption", calm, *SHORT).code == 3
    with start("caption", folder, *SHORT, *ENGINE, "--json") as process:
        wait(folder, 20, process)
        killed = actors(process.pid)[0]
        os.kill(killed, signal.SIGKILL)
        assert lines(folder) < 400
        out, err = process.communicate(timeout=300)
    assert process.returncode == 3, err
    ended = json.loads(out)
    assert (ended["done"], ended["failed"], ended["left"]) == (380, 20, 0)
    assert lines(folder) == 400  # none of them twice
    assert contents(folder) == contents(calm)


def test_f17_a_killed_driver_leaves_no_worker_and_the_same_command_goes_on(
    many: tuple[Path, Path],
) -> None:
    folder, calm = many
    assert finish("caption", calm, *SHORT).code == 3
    with start("caption", folder, *SHORT, *ENGINE) as process:
        wait(folder, 150, process)
        assert process.poll() is None
        family = descendants(process.pid)
        assert actors(process.pid)
        process.kill()
    before = lines(folder)
    assert 150 <= before < 400
    assert gone(family, "ray::_Worker", 15)  # which hold the models
    assert gone(family, "ray", 90)  # Ray's own helpers took 45 s
    ended = finish("caption", folder, *SHORT, *ENGINE, "--json")
    assert ended.code == 3, ended.err
    record = json.loads(ended.out)
    assert record["left"] == 0
    assert record["calls"] <= 400 - before
    assert contents(folder) == contents(calm)


def test_a_model_that_no_worker_can_load_ends_with_code_4(
    many: tuple[Path, Path], hf_folder: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(hf_folder, tmp_path / "cut"))
    weights = max(model.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    os.truncate(weights, weights.stat().st_size // 2)
    ended = finish("caption", many[0], *SHORT, *ENGINE, "--model", model)
    assert (ended.code, "in a Ray worker: " in ended.err) == (4, True), ended.err
    assert finish("caption", many[0], *SHORT, "--limit", "3").code == 0  # no settings were kept
