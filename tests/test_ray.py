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


def test_f16_f17_killed_actors_and_drivers_lose_nothing(many: tuple[Path, Path]) -> None:
    folder, calm = many
    assert finish("caption", calm, *SHORT).code == 3
    with start("caption", folder, *SHORT, *ENGINE) as process:
        wait(folder, 20, process)
        actors = [p for p in descendants(process.pid) if "ray::_Worker" in title(p)]
        assert actors
        os.kill(actors[0], signal.SIGKILL)
        wait(folder, 150, process)
        assert process.poll() is None
        family = descendants(process.pid)
        process.kill()
    assert 150 <= lines(folder) < 400
    assert gone(family, "ray::_Worker", 15)  # which hold the models
    assert gone(family, "ray", 90)  # Ray's own helpers took 45 s
    ended = finish("caption", folder, *SHORT, *ENGINE, "--json")
    assert ended.code == 3, ended.err
    assert json.loads(ended.out)["left"] == 0
    assert contents(folder) == contents(calm)
