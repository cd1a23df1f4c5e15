"""The ledger: whatever a crash leaves of it, what was done stays done, and nothing else does."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from janus_kit.batch import ledger as ledger_code
from janus_kit.batch import locks, upkeep
from janus_kit.batch.files import Scratch, path_of, text_of
from janus_kit.batch.ledger import Ledger, Shard
from janus_kit.batch.locks import Busy, Lock
from janus_kit.errors import BatchError

SETTINGS = {"prompt": "what is it?", "seed": 1}


def done(name: str, text: str = "a cat", stamp: str = "1-1") -> dict[str, Any]:
    return {"name": name, "stamp": stamp, "texts": {"caption": text}}


def failed(name: str, stamp: str = "1-1") -> dict[str, Any]:
    return {"name": name, "stamp": stamp, "error": "is empty"}


def path(folder: Path) -> Path:
    return folder / ".janus" / "run.jsonl"


def test_what_is_written_is_there_in_the_next_run(tmp_path: Path) -> None:
    with Ledger(tmp_path, SETTINGS) as ledger:
        ledger.write([done("a.png"), failed("b.png")])
        ledger.end()
    with Ledger(tmp_path, SETTINGS) as ledger:
        assert [ledger.state(name, "1-1") for name in ("a.png", "b.png", "c.png")] == [
            "done",
            "failed",
            "pending",
        ]
        assert ledger.record("a.png")["texts"] == {"caption": "a cat"}
        assert ledger.state("a.png", "2-1") == "pending"  # the file has changed
        assert ledger.loose == []


def test_results_that_may_not_be_written_are_told(tmp_path: Path) -> None:
    with Ledger(tmp_path, SETTINGS) as ledger:
        ledger.write([done("a.png")])
        ledger.write([done("b.png"), done("c.png")])  # and then a crash
    with Ledger(tmp_path, SETTINGS) as ledger:
        assert [record["name"] for record in ledger.loose] == ["b.png", "c.png"]


@pytest.mark.parametrize("tail", [b'{"name": "c.pn', b"\0" * 50, b"\xff\xfe{", b'{"name": "c"}'])
def test_a_torn_end_is_cut_away_and_the_run_goes_on(tmp_path: Path, tail: bytes) -> None:
    with Ledger(tmp_path, SETTINGS) as ledger:
        ledger.write([done("a.png")])
    with path(tmp_path).open("ab") as file:
        file.write(tail)
    with Ledger(tmp_path, SETTINGS) as ledger:
        assert ledger.state("a.png", "1-1") == "done"
        ledger.write([done("b.png")])
    with Ledger(tmp_path, SETTINGS) as ledger:
        assert ledger.state("b.png", "1-1") == "done"
        assert ledger.record("b.png")["name"] == "b.png"
    assert tail not in path(tmp_path).read_bytes()


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1))
def test_a_ledger_that_is_cut_anywhere_keeps_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    names = [f"{i}.png" for i in range(6)]
    with Ledger(folder, SETTINGS) as ledger:
        for name in names:
            ledger.write([done(name, "zwölf Äpfel\n“quoted”")])
    data = path(folder).read_bytes()
    header = data.index(b"\n") + 1
    cut = header + int(share * (len(data) - header))
    path(folder).write_bytes(data[:cut])
    whole = data[:cut].count(b"\n") - 1
    with Ledger(folder, SETTINGS) as ledger:
        states = [ledger.state(name, "1-1") for name in names]
        assert states == ["done"] * whole + ["pending"] * (6 - whole)
        ledger.write([done(name) for name in names[whole:]])
    with Ledger(folder, SETTINGS) as ledger:
        assert {ledger.state(name, "1-1") for name in names} == {"done"}


def test_a_ledger_without_its_header_line_begins_anew(tmp_path: Path) -> None:
    with Ledger(tmp_path, SETTINGS) as ledger:
        ledger.write([])
    path(tmp_path).write_bytes(path(tmp_path).read_bytes()[:9])
    with Ledger(tmp_path, SETTINGS) as ledger:
        ledger.write([done("a.png")])
    with Ledger(tmp_path, SETTINGS) as ledger:
        assert ledger.state("a.png", "1-1") == "done"


def test_of_two_lines_about_one_input_the_last_counts(tmp_path: Path) -> None:
    with Ledger(tmp_path, SETTINGS) as ledger:
        ledger.write([failed("a.png"), done("b.png", "old")])
        ledger.write([done("a.png"), done("b.png", "new")])
    with Ledger(tmp_path, SETTINGS) as ledger:
        assert ledger.state("a.png", "1-1") == "done"
        assert ledger.record("b.png")["texts"]["caption"] == "new"


def test_a_damaged_line_in_the_middle_is_refused_until_it_is_repaired(tmp_path: Path) -> None:
    with Ledger(tmp_path, SETTINGS) as ledger:
        for name in ("a.png", "b.png", "c.png"):
            ledger.write([done(name)])
    data = path(tmp_path).read_bytes().replace(b'"b.png"', b'"b.\0\xff')
    path(tmp_path).write_bytes(data)
    with pytest.raises(BatchError, match=r"line 3 is damaged; janus-kit batch repair"):
        Ledger(tmp_path, SETTINGS)
    assert upkeep.repair(tmp_path) == 1
    with Ledger(tmp_path, SETTINGS) as ledger:
        states = [ledger.state(name, "1-1") for name in ("a.png", "b.png", "c.png")]
        assert states == ["done", "pending", "done"]
    assert path(tmp_path).with_suffix(".jsonl.damaged").read_bytes() == data


def test_other_settings_are_refused_by_name_unless_all_is_to_be_done_again(tmp_path: Path) -> None:
    with Ledger(tmp_path, SETTINGS) as ledger:
        ledger.write([done("a.png")])
    other = {**SETTINGS, "prompt": "how many?"}
    with pytest.raises(BatchError, match=r"had prompt 'what is it\?', now it is 'how many\?'"):
        Ledger(tmp_path, other)
    with Ledger(tmp_path, other, restart=True) as ledger:
        assert ledger.state("a.png", "1-1") == "pending"
        ledger.write([done("a.png", "three")])
    with Ledger(tmp_path, other) as ledger:
        assert ledger.record("a.png")["texts"]["caption"] == "three"


def test_a_second_run_is_refused_while_the_first_is_at_work(tmp_path: Path) -> None:
    with Ledger(tmp_path, SETTINGS) as ledger:
        stands = upkeep.status(tmp_path)  # also before there is anything to tell
        assert (stands["done"], stands["pending"], stands["running"]) == (0, None, True)
        ledger.write([])
        with pytest.raises(Busy, match=f"another run .process {os.getpid()}. is at work there"):
            Ledger(tmp_path, SETTINGS)
        with pytest.raises(Busy):
            Ledger(tmp_path, SETTINGS, Shard(0, 2))
        with pytest.raises(Busy):
            upkeep.merge(tmp_path)
        ledger.write([done("a.png")])
    Ledger(tmp_path, SETTINGS).close()


def test_shards_run_beside_each_other_but_not_beside_themselves(tmp_path: Path) -> None:
    with Ledger(tmp_path, SETTINGS, Shard(0, 2)), Ledger(tmp_path, SETTINGS, Shard(1, 2)):
        with pytest.raises(Busy):
            Ledger(tmp_path, SETTINGS, Shard(1, 2))
        with pytest.raises(Busy):
            Ledger(tmp_path, SETTINGS)


def test_a_line_that_cannot_be_written_leaves_the_ledger_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(tmp_path, SETTINGS) as ledger:
        ledger.write([done("a.png")])
        before = path(tmp_path).read_bytes()

        def fail(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="No space"):
            ledger.write([done("b.png")])
        assert path(tmp_path).read_bytes() == before
        assert ledger.state("b.png", "1-1") == "pending"


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_input_belongs_to_exactly_one_shard(count: int) -> None:
    shards = [Shard(i, count) for i in range(count)]
    names = [f"{i}.png" for i in range(500)]
    owners = [[shard.index for shard in shards if shard.has(name)] for name in names]
    assert all(len(owner) == 1 for owner in owners)
    sizes = [owners.count([i]) for i in range(count)]
    assert min(sizes) > 500 / count * 0.6


@pytest.mark.parametrize("text", ["2/2", "-1/2", "1", "a/b", "0/0", "1/", "0/2/3"])
def test_a_shard_that_is_none_is_told(text: str) -> None:
    with pytest.raises(BatchError, match="shard"):
        Shard.parse(text)


def test_merged_shards_hold_what_each_held_and_can_be_merged_again(tmp_path: Path) -> None:
    with Ledger(tmp_path, SETTINGS, Shard(0, 2)) as ledger:
        ledger.expect(2)
        ledger.write([done("a.png"), failed("b.png")])
        ledger.end()
    with Ledger(tmp_path, SETTINGS, Shard(1, 2)) as ledger:
        ledger.expect(3)
        ledger.write([done("c.png")])  # and then a crash
    assert upkeep.status(tmp_path)["pending"] == 2
    upkeep.merge(tmp_path)
    first = path(tmp_path).read_bytes()
    upkeep.merge(tmp_path)
    assert path(tmp_path).read_bytes() == first
    assert [p.name for p in (tmp_path / ".janus").glob("run*")] == ["run.jsonl"]
    with Ledger(tmp_path, SETTINGS) as ledger:
        states = [ledger.state(f"{name}.png", "1-1") for name in "abcd"]
        assert states == ["done", "failed", "done", "pending"]
        assert [record["name"] for record in ledger.loose] == ["c.png"]
    stands = upkeep.status(tmp_path)
    assert {name: stands[name] for name in ("done", "failed", "pending", "running")} == {
        "done": 2,
        "failed": 1,
        "pending": 2,
        "running": False,
    }
    assert stands["reasons"] == ["is empty"]


def test_shards_with_other_settings_are_not_merged(tmp_path: Path) -> None:
    with Ledger(tmp_path, SETTINGS, Shard(0, 2)) as ledger:
        ledger.write([])
    target = tmp_path / ".janus" / "run-1-of-2.jsonl"
    header = {"run": {**SETTINGS, "seed": 2}}
    target.write_text("".join(f"{json.dumps(line)}\n" for line in (header, {"name": "a.png"})))
    with pytest.raises(BatchError, match="had seed 2, now it is 1"):
        upkeep.merge(tmp_path)


def test_a_large_ledger_is_merged_and_opened_in_a_time_that_grows_with_its_lines(
    tmp_path: Path,
) -> None:
    count = 50_000
    begun = time.monotonic()
    with Ledger(tmp_path, SETTINGS, Shard(0, 2)) as ledger:
        ledger.write([done(f"{i}.png") for i in range(count)])
        ledger.end()
    upkeep.merge(tmp_path)
    upkeep.merge(tmp_path)
    with Ledger(tmp_path, SETTINGS) as ledger:
        assert (len(ledger.known), ledger.loose) == (count, [])
    assert time.monotonic() - begun < 20  # with a copy of what came before for each line, minutes


def test_the_later_line_about_a_changed_input_counts_in_whichever_ledger_it_is(
    tmp_path: Path,
) -> None:
    with Ledger(tmp_path, SETTINGS) as ledger:
        ledger.write([done("a.png"), done("b.png")])  # and then a crash
    with Ledger(tmp_path, SETTINGS, Shard(0, 2)) as ledger:
        ledger.write([failed("a.png", "2-2")])  # it has changed
        ledger.end()
    for merged in (False, True):
        with Ledger(tmp_path, SETTINGS) as ledger:
            assert ledger.state("a.png", "2-2") == "failed"
            assert [record["name"] for record in ledger.loose] == ["b.png"]
        stands = upkeep.status(tmp_path)
        assert (stands["done"], stands["failed"]) == (1, 1)
        if not merged:
            upkeep.merge(tmp_path)


def test_a_status_tells_of_the_last_run_alone(tmp_path: Path) -> None:
    def stands() -> tuple[int, int, int]:
        found = upkeep.status(tmp_path)
        return found["done"], found["failed"], found["pending"]

    with Ledger(tmp_path, SETTINGS) as ledger:
        ledger.expect(3)
        ledger.write([done("a.png"), done("b.png"), failed("c.png")])
    assert stands() == (2, 1, 0)
    other = {**SETTINGS, "seed": 2}
    with Ledger(tmp_path, other, restart=True) as ledger:
        ledger.expect(3)
        ledger.write([done("a.png")])
    assert stands() == (1, 0, 2)
    for index, inputs in enumerate((40, 60)):  # that run was a trial of the first three
        with Ledger(tmp_path, other, Shard(index, 2)) as ledger:
            ledger.expect(inputs)
            ledger.write([])
    assert stands() == (1, 0, 99)
    upkeep.merge(tmp_path)
    assert stands() == (1, 0, 99)
    with Ledger(tmp_path, SETTINGS, Shard(0, 3), restart=True) as ledger:
        ledger.expect(30)
        ledger.write([])
    assert stands() == (0, 0, 30)
    with pytest.raises(BatchError, match="had seed 2, now it is 1"):
        upkeep.merge(tmp_path)
    upkeep.merge(tmp_path, restart=True)
    with Ledger(tmp_path, SETTINGS) as ledger:
        assert ledger.state("a.png", "1-1") == "pending"


def test_a_ledger_whose_settings_are_damaged_is_not_gone_on_with(tmp_path: Path) -> None:
    for damage in (0, 2):  # the first line, and that of a run which did all again
        folder = tmp_path / str(damage)
        with Ledger(folder, SETTINGS) as ledger:
            ledger.write([done("a.png")])
        other = {**SETTINGS, "prompt": "how many?"}
        with Ledger(folder, other, restart=True) as ledger:
            ledger.write([done("a.png")] if damage else [])
        lines = path(folder).read_bytes().splitlines(keepends=True)
        lines[damage] = lines[damage][:20] + b"\0\0" + lines[damage][22:]
        path(folder).write_bytes(b"".join(lines if damage else lines[:2]))
        assert upkeep.repair(folder) == 1
        for wanted in (SETTINGS, other):
            with pytest.raises(BatchError, match="the settings of its run are lost; delete it to"):
                Ledger(folder, wanted)
        with Ledger(folder, SETTINGS, restart=True) as ledger:
            assert ledger.state("a.png", "1-1") == "pending"


def test_every_damaged_ledger_is_kept(tmp_path: Path) -> None:
    kept = []
    with Ledger(tmp_path, SETTINGS) as ledger:
        ledger.write([done("a.png")])
    for _ in range(3):
        with Ledger(tmp_path, SETTINGS) as ledger:
            ledger.write([done("b.png")])
        with path(tmp_path).open("ab") as file:
            file.write(b"half a line\n" + b'{"end": true}\n')
        kept.append(path(tmp_path).read_bytes())
        assert upkeep.repair(tmp_path) == 1
    names = [f"run.jsonl.damaged{end}" for end in ("", "-2", "-3")]
    assert [(tmp_path / ".janus" / name).read_bytes() for name in names] == kept


def test_what_is_no_unicode_is_merged_and_repaired_like_all(tmp_path: Path) -> None:
    odd = {**SETTINGS, "inputs": os.fsdecode(b"caf\xe9")}
    with Ledger(tmp_path, odd, Shard(0, 2)) as ledger:
        ledger.write([done("a.png", "\ud800")])  # and then a crash
    upkeep.merge(tmp_path)
    with path(tmp_path).open("ab") as file:
        file.write(b"half a line\n")
    assert upkeep.repair(tmp_path) == 1
    with Ledger(tmp_path, odd) as ledger:
        assert ledger.record("a.png")["texts"] == {"caption": "\ud800"}


def test_a_line_that_is_being_written_by_another_run_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(tmp_path, SETTINGS, Shard(0, 2)) as other:
        other.write([done("a.png")])

        real = ledger_code.parse

        def parse(line: bytes) -> Any:
            if line.endswith(b"b.p"):  # as it is read, the rest comes, and another line
                with other.path.open("ab") as file:
                    file.write(b'ng"}\n{"name": "c.png", "chunk": 2}\n')
            return real(line)

        with other.path.open("ab") as file:
            file.write(b'{"name": "b.p')
        with monkeypatch.context() as patch:
            patch.setattr(ledger_code, "parse", parse)
            found = upkeep.status(tmp_path)
        assert (found["done"], found["failed"]) == (1, 0)


def test_who_sums_up_is_waited_for_and_who_looks_keeps_nobody_out(tmp_path: Path) -> None:
    with Ledger(tmp_path, SETTINGS) as ledger:
        ledger.write([])
    lock = Lock(tmp_path, brief=True)
    later = threading.Timer(3 * locks.PATIENCE, lock.release)
    later.start()
    Ledger(tmp_path, SETTINGS, Shard(0, 2)).close()  # no Busy
    assert lock.files == []
    later.join()
    with (
        Ledger(tmp_path, SETTINGS, Shard(0, 2)),
        pytest.raises(Busy, match=r"another run \(of a shard\)"),
    ):
        Ledger(tmp_path, SETTINGS, brief=True)
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            upkeep.status(tmp_path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(100):
            Ledger(tmp_path, SETTINGS).close()
    finally:
        over.set()
        looking.join()


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    for work in (upkeep.status, upkeep.merge, upkeep.repair):
        with pytest.raises(BatchError, match="holds no run"):
            work(tmp_path)


@given(st.binary(min_size=1, max_size=40))
def test_any_file_name_survives_as_text(raw: bytes) -> None:
    name = os.fsdecode(raw)
    text = text_of(name)
    assert path_of(text) == name
    assert json.loads(json.dumps(text)) == text
    text.encode()


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".janus").mkdir()
    scratch = Scratch(tmp_path)
    scratch.write(tmp_path / "a.txt", b"old")

    def fail(old: object, new: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="Input"):
        scratch.write(tmp_path / "a.txt", b"new")
    assert (tmp_path / "a.txt").read_bytes() == b"old"
    assert list((tmp_path / ".janus").iterdir()) == []


def test_what_a_killed_run_was_writing_is_removed_by_its_next_run_only(tmp_path: Path) -> None:
    (tmp_path / ".janus").mkdir()
    for name in ("tmp-0-of-2-7", "tmp-1-of-2-7", "tmp--3"):
        (tmp_path / ".janus" / name).write_bytes(b"half")
    Scratch(tmp_path, "0-of-2")
    assert not (tmp_path / ".janus" / "tmp-0-of-2-7").exists()
    assert (tmp_path / ".janus" / "tmp-1-of-2-7").exists()
    Scratch(tmp_path)
    assert list((tmp_path / ".janus").glob("tmp-*")) == []


def test_a_success_of_one_shard_counts_more_than_a_failure_of_another(tmp_path: Path) -> None:
    for index in range(2):
        with Ledger(tmp_path, SETTINGS, Shard(index, 2)) as ledger:
            ledger.write([done("x") if index else failed("x")])
            ledger.write([failed("y") if index else done("y")])
    for merged in (False, True):
        with Ledger(tmp_path, SETTINGS) as ledger:
            assert {ledger.state(name, "1-1") for name in "xy"} == {"done"}
        if not merged:
            upkeep.merge(tmp_path)
