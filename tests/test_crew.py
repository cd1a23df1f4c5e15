"""Who works in a Ray cluster and who is to blame, with a cluster that is only pretended."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from janus_kit.batch.answers import PATIENCE
from janus_kit.batch.inputs import Item, Source
from janus_kit.batch.rayed import CHUNK, LOADS, Crew
from janus_kit.errors import BatchError, CheckpointError


class Died(Exception):
    """Ray's word for an actor that is no more."""


class Cluster:
    """As much of the module ray as a crew uses, with room for some actors."""

    exceptions = SimpleNamespace(RayActorError=Died, OutOfMemoryError=MemoryError)

    def __init__(self, room: int) -> None:
        self.room = room
        self.alive: list[Any] = []
        self.hired = 0
        self.waits = 0
        self.load: Callable[[int], Any] = lambda number: None  # what the number-th actor says
        self.dies: Callable[[list[str]], bool] = lambda names: False  # at these pictures

    def init(self, **options: Any) -> None: ...

    def shutdown(self) -> None: ...

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8, "GPU": self.room}

    def remote(self, **options: Any) -> Callable[[type], Any]:
        return lambda kind: SimpleNamespace(remote=self._hire)

    def _hire(self) -> Any:
        self.hired += 1
        number = self.hired
        actor = SimpleNamespace()
        actor.load = SimpleNamespace(remote=lambda *given: Task(actor, lambda: self.load(number)))
        actor.answer = SimpleNamespace(
            remote=lambda chunk: Task(actor, lambda: self._answer(chunk))
        )
        self.alive.append(actor)
        return actor

    def _answer(self, chunk: list[tuple[Item, list[str]]]) -> Any:
        if self.dies([item.name for item, _ in chunk]):
            raise Died
        return [(i, 0, f"seen {item.name}", None) for i, (item, _) in enumerate(chunk)]

    def wait(self, tasks: list[Any], timeout: float) -> Any:
        placed = self.alive[: self.room]
        ready = [task for task in tasks if any(task.actor is actor for actor in placed)]
        self.waits = 0 if ready else self.waits + 1
        assert self.waits < 20, "nothing comes any more"
        return ready[:1], [task for task in tasks if task not in ready[:1]]

    def get(self, task: Any) -> Any:
        return task.work()

    def kill(self, actor: Any) -> None:
        self.alive = [other for other in self.alive if other is not actor]


class Task:
    def __init__(self, actor: Any, work: Callable[[], Any]) -> None:
        self.actor, self.work = actor, work


ITEMS = [Item(f"{i:03}.png", "1-1", Source(f"{i:03}.png")) for i in range(5 * CHUNK)]


def answered(
    cluster: Cluster, workers: int, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str | None]:
    """The error of each picture, by its name."""
    monkeypatch.setitem(sys.modules, "ray", cluster)
    crew = Crew({"model": None, "options": {}}, workers)
    found: list[tuple[str, str | None]] = []
    try:
        for answers in crew.answers(ITEMS, lambda item: ["what is it?"], {}):
            found += [(answer.item.name, answer.error) for answer in answers]
    finally:
        assert cluster.alive == []
    assert len(found) == len(dict(found))
    return dict(found)


def test_workers_that_the_cluster_has_no_room_for_hold_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster(room=1)
    assert answered(cluster, 4, monkeypatch) == {item.name: None for item in ITEMS}


def test_a_picture_at_which_workers_die_is_blamed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(room=2)
    cluster.dies = lambda names: "020.png" in names
    found = answered(cluster, 2, monkeypatch)
    assert sorted(found) == [item.name for item in ITEMS]
    errors = {name: error for name, error in found.items() if error is not None}
    assert list(errors) == ["020.png"]
    assert str(errors["020.png"]).startswith("the worker that read it died, twice")
    assert cluster.hired == 2 + 3


def test_workers_that_die_while_they_load_blame_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def second_dies(number: int) -> None:
        if number > 1:
            raise Died

    cluster = Cluster(room=2)
    cluster.load = second_dies  # there is memory for one of them
    assert answered(cluster, 2, monkeypatch) == {item.name: None for item in ITEMS}
    assert cluster.hired <= 1 + 2 * LOADS

    def dies(number: int) -> None:
        raise MemoryError

    cluster = Cluster(room=2)
    cluster.load = dies
    with pytest.raises(BatchError, match="died 7 times in a row while they loaded the model"):
        answered(cluster, 2, monkeypatch)


def test_workers_that_die_at_every_picture_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(room=2)
    cluster.dies = lambda names: True
    with pytest.raises(BatchError, match=f"died at {PATIENCE} pictures in a row"):
        answered(cluster, 2, monkeypatch)


def test_a_model_that_cannot_be_loaded_is_told_as_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(room=2)
    cluster.load = lambda number: CheckpointError("in a Ray worker: the weights are cut off")
    with pytest.raises(CheckpointError, match="the weights are cut off"):
        answered(cluster, 2, monkeypatch)
