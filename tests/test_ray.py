"""Captions by Ray's actors: a real cluster on this machine, whose parts are killed."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from test_batch_cli import SHORT, finish, lines, make, start, wait
from test_captioning import contents

pytestmark = pytest.mark.slow
pytest.importorskip("ray")

ENGINE = ("--engine", "ray", "--workers", "2")


@pytest.fixture
def many(tmp_path: Path, hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setenv("JANUS_KIT_MODEL", str(hf_folder))
    folder = make(tmp_path / "pictures", 400)
    return folder, Path(shutil.copytree(folder, tmp_path / "calm"))


def descendants(process: int) -> list[int]:
    """The processes that a process has started, and those that they have, as /proc tells."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def title(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def gone(family: list[int], word: str, seconds: float) -> bool:
    """Whether the processes of a family whose titles hold a word end within some time."""
    deadline = time.monotonic() + seconds
    while any(word in title(p) for p in family):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


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
