"""Files of prompts, drawn: every picture once, with its settings, whatever happens."""

import csv
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_parts import Killed, contents, dies_at
from PIL import Image

from janus_kit import JanusPipeline, draw_file, read_settings
from janus_kit.batch.drawings import run_drawings
from janus_kit.batch.ledger import Shard
from janus_kit.batch.wishes import DrawOptions, read_prompts
from janus_kit.errors import BatchError, OptionError

ROWS = [
    {"prompt": "a red cat", "seed": 7},
    {"prompt": "a dog", "negative_prompt": "a cat", "guidance": 2},
    {"prompt": "x" * 3000},  # longer than a prompt may be
    {"prompt": "two birds", "seed": "", "guidance_scale": None},
]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n")
    return path


def index(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]


def test_each_row_is_drawn_as_the_pipeline_draws_it(
    prompts: Path, pipe: JanusPipeline, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    outcome = draw_file(pipe, prompts, out, num_images_per_prompt=2, seed=100)
    assert (outcome.done, outcome.failed, outcome.left, outcome.calls) == (6, 2, 0, 6)
    rows = index(out)
    assert [row["seed"] for row in rows] == [7, 8, 102, 103, 104, 105, 106, 107]
    assert [("error" in row) for row in rows] == [False] * 4 + [True] * 2 + [False] * 2
    assert "2000 are allowed" in rows[4]["error"]
    for row in rows[:4] + rows[6:]:
        settings = read_settings(out / row["file_name"])
        assert (settings.prompt, settings.seed) == (row["prompt"], row["seed"])
        assert settings.negative_prompt == row["negative_prompt"]
        assert settings.guidance_scale == row["guidance"]
        alone = pipe(
            row["prompt"],
            negative_prompt=row["negative_prompt"] or None,
            seed=row["seed"],
            guidance_scale=row["guidance"],
        )
        with Image.open(out / row["file_name"]) as image:
            assert image.tobytes() == alone.images[0].tobytes()
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.size == (3 * 64, 2 * 64)


def test_a_second_run_draws_nothing_and_a_changed_row_only_itself(
    prompts: Path, pipe: JanusPipeline, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    draw_file(pipe, prompts, out)
    before = contents(out)
    outcome = draw_file(pipe, prompts, out)
    assert (outcome.done, outcome.failed, outcome.calls) == (3, 1, 0)
    assert contents(out) == before
    (out / "000000_7.png").unlink()
    assert draw_file(pipe, prompts, out).calls == 1
    assert contents(out) == before
    prompts.write_text(prompts.read_text().replace("two birds", "three birds"))
    assert draw_file(pipe, prompts, out).calls == 1
    for option, old, new in (
        ("top_k", 0, 5),
        ("guidance", 5.0, 2.0),
        ("negative", "''", "'mist'"),
        ("seed", 0, 1),
        ("samples", 1, 2),
        ("temperature", 1.0, 0.5),
    ):
        given = {"guidance": "guidance_scale", "negative": "negative_prompt"}
        given["samples"] = "num_images_per_prompt"
        value = new.strip("'") if isinstance(new, str) else new
        changed: dict[str, Any] = {given.get(option, option): value}
        before = contents(out)
        with pytest.raises(BatchError, match=f"had {option} {old}, now it is {new}"):
            draw_file(pipe, prompts, out, **changed)
        assert contents(out) == before
    assert draw_file(pipe, prompts, out, batch_size=1, retry_failed=True).calls == 0


@pytest.mark.parametrize("stopped", [False, True])
def test_drawings_are_replaced_by_those_of_other_options_when_that_is_asked(
    prompts: Path, pipe: JanusPipeline, tmp_path: Path, stopped: bool
) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    options: Any = {"seed": 9, "guidance_scale": 2.0}
    draw_file(pipe, prompts, calm, **options)
    draw_file(pipe, prompts, out, num_images_per_prompt=2)
    (out / "000099_9.png").write_text("by a person")  # in no list
    if stopped:
        chosen = DrawOptions(batch_size=1, existing="overwrite", seed=9, guidance=2.0)
        items = read_prompts(prompts, chosen)
        model = (pipe.name, pipe.model_hash)
        stop = iter([False] * 6)
        run_drawings(lambda: pipe, model, prompts, items, out, chosen, stop=Later(stop))
    outcome = draw_file(pipe, prompts, out, existing="overwrite", **options)
    assert (outcome.done, outcome.failed) == (3, 1)
    assert outcome.calls == (2 if stopped else 3)
    left = contents(out)
    assert left.pop("000099_9.png") == b"by a person"
    assert left == contents(calm)
    again = draw_file(pipe, prompts, out, existing="overwrite", **options)
    assert (again.calls, contents(out)) == (0, {**left, "000099_9.png": b"by a person"})


class Later:
    """False as long as there are answers left, then true."""

    number = 2

    def __init__(self, answers: Iterator[bool]) -> None:
        self.answers = answers

    def __bool__(self) -> bool:
        return next(self.answers, True)


@pytest.mark.parametrize("name", ["index.jsonl", "sheet.png", "000001_1.png"])
def test_a_file_that_no_run_has_drawn_is_never_replaced(
    prompts: Path, pipe: JanusPipeline, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("by a person")
    with pytest.raises(BatchError, match=f"{name}: would be replaced, and is no result of a run"):
        draw_file(pipe, prompts, out)
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "by a person")]


def test_a_file_of_prompts_is_not_replaced_by_the_list_of_its_drawings(
    prompts: Path, pipe: JanusPipeline, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    draw_file(pipe, prompts, out)
    before = contents(out)
    with pytest.raises(BatchError, match=r"index.jsonl: is an input, and a result would replace"):
        draw_file(pipe, out / "index.jsonl", out)
    assert contents(out) == before


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_a_prompt_of_ten_megabytes_fails_alone_or_is_one_sentence(
    pipe: JanusPipeline, tmp_path: Path, kind: str
) -> None:
    long = "x" * 10_000_000
    table = tmp_path / f"p.{kind}"
    if kind == "csv":
        table.write_text(f"prompt,seed\na cat,1\n{long},2\n")
        with pytest.raises(BatchError, match=r"p.csv: line 3 is no readable CSV \(field larger"):
            read_prompts(table, DrawOptions())
        return
    lines = ["a cat", long, "a dog"]
    table.write_text(
        "\n".join(json.dumps({"prompt": line}) if kind == "jsonl" else line for line in lines)
    )
    outcome = draw_file(pipe, table, tmp_path / "out")
    assert (outcome.done, outcome.failed) == (2, 1)
    assert "2000 are allowed" in index(tmp_path / "out")[1]["error"]
    assert len(index(tmp_path / "out")[1]["error"]) < 200


@pytest.mark.parametrize("when", [1, 2, 3])
@pytest.mark.parametrize("place", ["replace", "ledger"])
def test_a_run_that_dies_is_completed_to_the_byte(
    prompts: Path,
    pipe: JanusPipeline,
    tmp_path: Path,
    when: int,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    draw_file(pipe, prompts, calm)
    target: Any = (
        os if place == "replace" else __import__("janus_kit.batch.ledger").batch.ledger.Ledger
    )
    with monkeypatch.context() as patch:
        dies_at(target, "replace" if place == "replace" else "write", when, patch)
        with pytest.raises(Killed):
            draw_file(pipe, prompts, out, batch_size=1)
    outcome = draw_file(pipe, prompts, out)
    assert (outcome.done, outcome.failed, outcome.left) == (3, 1, 0)
    assert contents(out) == contents(calm)


def test_no_picture_depends_on_the_batch_or_on_shards(
    prompts: Path, pipe: JanusPipeline, tmp_path: Path
) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    draw_file(pipe, prompts, calm, num_images_per_prompt=3)
    parts = [
        draw_file(pipe, prompts, out, num_images_per_prompt=3, batch_size=2, shard=Shard(i, 2))
        for i in (0, 1)
    ]
    assert (parts[0].table, parts[1].table) == (None, out / "index.jsonl")
    assert contents(out) == contents(calm)


def test_out_of_memory_halves_the_batch(
    prompts: Path, pipe: JanusPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    prompts.write_text(9 * '{"prompt": "a cat"}\n')
    draw_file(pipe, prompts, calm)
    real = JanusPipeline.__call__
    sizes = []

    def call(self: JanusPipeline, prompt: Any, **options: Any) -> Any:
        sizes.append(len(prompt))
        if len(prompt) > 2:
            raise MemoryError
        return real(self, prompt, **options)

    monkeypatch.setattr(JanusPipeline, "__call__", call)
    outcome = draw_file(pipe, prompts, out)
    assert (outcome.done, outcome.failed) == (9, 0)
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    assert contents(out) == contents(calm)


def test_a_run_that_is_stopped_leaves_whole_pictures_and_goes_on(
    prompts: Path, pipe: JanusPipeline, tmp_path: Path
) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    draw_file(pipe, prompts, calm)
    rows = 0

    class Stop:
        """True from the sixth row on: in the second picture, which has four."""

        number = 2

        def __bool__(self) -> bool:
            nonlocal rows
            rows += 1
            return rows > 8

    options = DrawOptions(batch_size=1)
    model = (pipe.name, pipe.model_hash)
    items = read_prompts(prompts, options)
    outcome = run_drawings(lambda: pipe, model, prompts, items, out, options, stop=Stop())
    assert outcome.signal == 2
    assert outcome.left > 0
    assert len(list(out.glob("0*.png"))) == outcome.done == 1
    assert not (out / "sheet.png").exists()
    draw_file(pipe, prompts, out)
    assert contents(out) == contents(calm)


def test_a_full_disk_stops_the_run(
    prompts: Path, pipe: JanusPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(old: Any, new: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(new))

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(OSError, match="No space left"):
            draw_file(pipe, prompts, out)
    assert not list(out.glob("*.png"))
    assert draw_file(pipe, prompts, out).done == 3


def test_prompts_come_from_text_and_tables(tmp_path: Path) -> None:
    text = tmp_path / "p.txt"
    text.write_bytes("\ufeffa cat\r\n\r\nzwei Hunde\r\n".encode())
    expected = [("a cat", 3), ("zwei Hunde", 4)]
    options = DrawOptions(seed=3)
    assert [(d.prompt, d.seed) for d in read_prompts(text, options)] == expected
    table = tmp_path / "p.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["prompt", "seed", "guidance"], ["a cat", "9", "1.5"]])
    (drawing,) = read_prompts(table, options)
    assert (drawing.prompt, drawing.seed, drawing.guidance) == ("a cat", 9, 1.5)
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    columns = {"prompt": ["a cat", "a dog"], "seed": [4, None]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    assert [d.seed for d in read_prompts(tmp_path / "p.parquet", options)] == [4, 4]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("p.txt", b"", "holds no prompt"),
        ("p.txt", b"\xff\xfe", "is not UTF-8"),
        ("p.jsonl", b"{", "line 1 is not JSON"),
        ("p.jsonl", b"[1]", "line 1 is not a JSON object"),
        ("p.jsonl", b'{"text": "a"}', "row 1 has no text in prompt; it has text"),
        ("p.jsonl", b'{"prompt": "a", "seed": 1.5}', "row 1 has the seed 1.5, no number"),
        ("p.jsonl", b'{"prompt": "a", "seed": -1}', "row 1 has the seed -1"),
        ("p.jsonl", b'{"prompt": "a", "guidance": "x"}', "row 1 has the guidance 'x', no number"),
        ("p.csv", b"a,b\n1,2\n", "row 1 has no text in prompt; it has a, b"),
        ("p.parquet", b"PAR1", "is no readable Parquet"),
    ],
)
def test_a_file_of_prompts_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BatchError, match=reason):
        read_prompts(tmp_path / name, DrawOptions())
    with pytest.raises(BatchError, match="cannot be read"):
        read_prompts(tmp_path / f"missing-{name}", DrawOptions())


@pytest.mark.parametrize(
    "options",
    [{"samples": 0}, {"seed": -1}, {"guidance": 0}, {"top_p": 2}, {"existing": "append"}]
    + [{"batch_size": size} for size in (0, -1, True, "all")],
)
def test_draw_options_are_checked_at_birth(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        DrawOptions(**options)
