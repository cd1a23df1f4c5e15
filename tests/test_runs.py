"""The course of a run, with a task that needs no model: when settings are kept, who sums up."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from janus_kit.batch import upkeep
from janus_kit.batch.ledger import Ledger, Shard
from janus_kit.batch.locks import PATIENCE
from janus_kit.batch.run import Outcome, Tally, complete
from janus_kit.errors import OptionError


@dataclass(frozen=True)
class Item:
    name: str
    stamp: str = "1-1"


ITEMS = [Item(f"{i}.png") for i in range(20)]
SETTINGS = {"seed": 1}


class Task:
    """Notes every item as done. Tables take a while."""

    def __init__(self, ledger: Ledger, summing: threading.Event | None = None) -> None:
        self.ledger, self.summing = ledger, summing
        self.calls = 0

    def settle(self) -> None: ...

    def plan(self, items: Sequence[Item], count: Tally) -> list[Item]:
        return [item for item in items if self.ledger.state(item.name, item.stamp) == "pending"]

    def work(self, pipe: Any, items: Sequence[Item], count: Tally, stop: object) -> None:
        self.calls = len(items)
        self.ledger.write([{"name": item.name, "stamp": item.stamp} for item in items])

    def write_tables(self, items: Sequence[Item], whole: bool) -> Path:
        table = self.ledger.folder / "table"
        if self.summing is not None:
            self.summing.set()
            threading.Event().wait(3 * PATIENCE)
        table.write_text("\n".join(item.name for item in items))
        return table


def run(folder: Path, settings: dict[str, Any] = SETTINGS, **options: Any) -> Outcome:
    summing = options.pop("summing", None)
    begin = options.pop("open_pipe", object)
    return complete(
        lambda ledger: Task(ledger, summing),
        begin,
        ITEMS,
        folder,
        settings,
        verb="doing",
        **options,
    )


def refuse() -> None:
    raise OptionError("seed must be a whole number")


def test_a_run_that_cannot_begin_keeps_no_settings(tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        run(tmp_path, {"seed": -1}, open_pipe=refuse)
    assert run(tmp_path).calls == 20
    with pytest.raises(OptionError):
        run(tmp_path, {"seed": -1}, open_pipe=refuse, restart=True)
    assert upkeep.status(tmp_path)["done"] == 20
    assert run(tmp_path, open_pipe=refuse).calls == 0


def test_f11_a_shard_that_starts_while_another_sums_up_waits_for_it(tmp_path: Path) -> None:
    assert run(tmp_path, shard=Shard(0, 2)).table is None
    summing = threading.Event()
    found: list[Outcome] = []

    def last() -> None:
        found.append(run(tmp_path, shard=Shard(1, 2), summing=summing))

    thread = threading.Thread(target=last)
    thread.start()
    assert summing.wait(10)
    again = run(tmp_path, shard=Shard(0, 2), open_pipe=refuse)  # a rank that is started again
    thread.join()
    assert (again.left, again.calls) == (0, 0)
    assert (found[0].done, found[0].table) == (20, tmp_path / "table")
    assert [path.name for path in (tmp_path / ".janus").glob("run*")] == ["run.jsonl"]


def test_shards_that_do_all_again_leave_nothing_of_the_past(tmp_path: Path) -> None:
    run(tmp_path, shard=Shard(2, 3))  # of a run that was never finished
    for index in range(2):
        ended = run(tmp_path, {"seed": 2}, shard=Shard(index, 2), restart=True)
    assert (ended.done, ended.table) == (20, tmp_path / "table")
    assert [path.name for path in (tmp_path / ".janus").glob("run*")] == ["run.jsonl"]
    assert run(tmp_path, {"seed": 2}, open_pipe=refuse).done == 20
