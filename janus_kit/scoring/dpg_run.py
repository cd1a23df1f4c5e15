"""DPG-Bench from a model or a folder of pictures to a score: draw, ask, sum up."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from janus_kit.errors import ImageError, OptionError, ScoringError
from janus_kit.scoring.colors import NOT_COMPARABLE
from janus_kit.scoring.dpg import PUBLISHED_ITEMS, Question, Report, score
from janus_kit.scoring.drawers import Drawer, Drawn, Wanted, draw_all, save
from janus_kit.scoring.page import Card, Table, page
from janus_kit.scoring.published import DPG
from janus_kit.scoring.records import Shard, blocks, digest, kept, to_json, write_rows, write_whole
from janus_kit.scoring.run import Outcome, Run, now, same_pictures, versions
from janus_kit.scoring.tiles import find_items, grid_of, load_tiles
from janus_kit.scoring.vqa import MPLUG, Judge

__all__ = ["ask", "asks", "choose", "dpg_page", "draw", "group", "sum_up"]

BLOCK = 4  # items that are done together
SAMPLES = 4  # tiles of a published picture

Questions = Mapping[str, Sequence[Question]]
Answers = dict[str, dict[int, dict[int, str]]]


def group(questions: Sequence[Question]) -> dict[str, list[Question]]:
    """The questions by item, items by id."""
    found: dict[str, list[Question]] = {}
    for question in questions:
        found.setdefault(question.item_id, []).append(question)
    return {item: found[item] for item in sorted(found)}


def choose(questions: Questions, limit: int | None = None, shard: Shard | None = None) -> list[str]:
    """The first items by id; of these a shard's: every so many-th block of four."""
    mine = (shard or Shard()).of(blocks(list(questions)[:limit], BLOCK))
    return [item for block in mine for item in block]


def draw(
    run: Run,
    items: Sequence[str],
    prompts: Mapping[str, str],
    drawer: Drawer,
    *,
    overwrite: bool = False,
) -> list[str]:
    """Draw the items whose picture is missing, one grid each; returns what could not be drawn.

    Raises ScoringError for an item without a prompt, and an id that cannot be a file's name.
    """
    if run.samples > SAMPLES:
        raise OptionError(f"samples must be from 1 to {SAMPLES}, not {run.samples}: a grid has 2×2")
    for item in items:
        if item not in prompts:
            raise ScoringError(f"{item}: has questions and no prompt; give --prompts with all")
        if not item.isprintable() or "/" in item or "." in item:
            raise ScoringError(f"item_id: {item!r} cannot be a file's name; rename the item")
    same_pictures(run, drawer.facts, overwrite=overwrite)
    todo = [
        block
        for block in blocks(items, BLOCK)
        if not all(_picture(run, item).is_file() for item in block)
    ]
    failed = []
    with run.watch.stage("drawing", "pictures", sum(map(len, todo)) * run.samples) as advance:
        for block in todo:
            places = [(item, k) for item in block for k in range(run.samples)]
            tiles: dict[str, list[Image.Image]] = {item: [] for item in block}

            def keep(
                place: int,
                drawn: Drawn,
                tiles: dict[str, list[Image.Image]] = tiles,
                places: list[tuple[str, int]] = places,
            ) -> None:
                item = places[place][0]
                tiles[item].append(drawn[0])
                path = _picture(run, item)
                if len(tiles[item]) == run.samples and not path.is_file():
                    save(path, (grid_of(tiles[item]), None))

            wanted = [Wanted(prompts[item], run.seed + k) for item, k in places]
            failed += draw_all(drawer, wanted, keep)
            advance(len(places))
    return failed


def _picture(run: Run, item: str) -> Path:
    return run.pictures / f"{item}.png"


def asks(run: Run, items: Sequence[str], questions: Questions) -> list[dict[str, Any]]:
    """What a judge elsewhere has to answer: a row for each item, tile and question.

    A row has the file, and the box that cuts the tile out of it, None for the whole picture.
    """
    found = find_items(run.pictures)
    rows = []
    for item in items:
        files = found.get(item, [])
        for tile in range(run.samples if files else 0):
            file = files[tile] if len(files) > 1 else files[0]
            box = None
            if len(files) == 1 and run.samples > 1:
                with Image.open(file) as image:
                    w, h = image.width // 2, image.height // 2
                box = [tile % 2 * w, tile // 2 * h, tile % 2 * w + w, tile // 2 * h + h]
            rows += [
                {
                    "item_id": item,
                    "tile": tile,
                    "question_id": question.id,
                    "question": question.question,
                    "file": str(file.relative_to(run.pictures)),
                    "box": box,
                }
                for question in questions[item]
            ]
    return rows


def ask(
    run: Run, items: Sequence[str], questions: Questions, judge: Judge
) -> tuple[Answers, list[str], dict[str, str]]:
    """The judge's answers about the pictures; items without one; unreadable ones, and why."""
    found = find_items(run.pictures)
    missing = [item for item in items if item not in found]
    parts = blocks(items, BLOCK)
    answers: Answers = {}
    bad = {}
    with run.watch.stage("asking", "items", len(items)) as advance:
        for part in parts:
            for row in _ask_block(run, part, found, questions, judge):
                if "error" in row:
                    bad[row["item_id"]] = row["error"]
                    continue
                tile = answers.setdefault(row["item_id"], {}).setdefault(row["tile"], {})
                tile[row["question_id"]] = row["answer"]
            advance(len(part))
    return answers, missing, bad


def _ask_block(
    run: Run,
    part: Sequence[str],
    found: Mapping[str, Sequence[Path]],
    questions: Questions,
    judge: Judge,
) -> list[dict[str, Any]]:
    there = [item for item in part if item in found]
    key = {
        "stage": "ask",
        "version": 1,
        "judge": judge.name,
        "tiles": run.samples,
        "files": [[digest(file) for file in found[item]] for item in there],
        "questions": [[(item, q.id, q.question) for q in questions[item]] for item in there],
    }

    def make() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        pictures: list[Image.Image] = []
        for item in there:
            try:
                tiles = load_tiles(found[item], run.samples)
            except (ImageError, ScoringError) as error:
                rows.append({"item_id": item, "error": str(error)})
                continue
            for number, tile in enumerate(tiles):
                for question in questions[item]:
                    rows.append(
                        {
                            "item_id": item,
                            "tile": number,
                            "question_id": question.id,
                            "question": question.question,
                        }
                    )
                    pictures.append(tile)
        asked = [row for row in rows if "error" not in row]
        said = judge.answer(pictures, [row["question"] for row in asked]) if asked else []
        for row, answer in zip(asked, said, strict=True):
            row.update(said=answer.text, yes=answer.yes, answer=answer.verdict)
        return rows

    return kept(run.kept, key, make) if there else []


def sum_up(
    run: Run,
    items: Sequence[str],
    questions: Questions,
    answers: Mapping[str, Any],
    *,
    judge: str,
    published_questions: bool,
    compat: bool = False,
    missing: Sequence[str] = (),
    bad: Mapping[str, str] = MappingProxyType({}),
    complaints: Sequence[str] = (),
) -> tuple[Outcome, list[dict[str, Any]]]:
    """Score answers; writes results.jsonl, a row an item and tile, and summary.json.

    missing: items without a picture. bad: items whose picture cannot be used, and why. complaints:
    what else goes into the summary.

    Raises ScoringError where items have no score for want of a picture or an answer, unless
    run.partial, and where nothing could be scored.
    """
    mplug = MPLUG in judge
    asked = [question for item in items for question in questions[item]]
    known = {item: answers[item] for item in items if item in answers}
    report = score(asked, known, pic_num=run.samples, compat=compat, exact=compat or mplug)
    told = [*complaints]
    told += bad.values()
    silent = {*bad, *missing}
    told += [why for item, why in report.failed.items() if item not in silent]
    told += [f"{item}: has no picture" for item in missing]
    if missing and not run.partial:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ScoringError(
            f"{run.pictures}: the picture of {missing[0]} is missing{more}; draw them, or score "
            "the rest with --partial"
        )
    if report.overall is None:
        raise ScoringError(f"nothing could be scored: {told[0] if told else 'there is no item'}")
    rows = [
        {
            "item_id": item,
            "tile": tile,
            "score": value,
            "answers": {str(q.id): _answer(known[item][tile], q.id) for q in questions[item]},
        }
        for item, found in report.items.items()
        for tile, value in enumerate(found.tiles)
    ]
    notes = _notes(run, report, mplug, published_questions, compat)
    text = "\n".join(to_json(asdict(question)) for question in asked)
    summary = {
        "benchmark": "dpg",
        "scores": {name: value for name, value in asdict(report).items() if name != "items"},
        "comparable": not notes,
        "not_comparable_because": notes,
        "judge": judge,
        "compat": compat,
        "drawn_by": run.drawn_by(),
        "tiles": run.samples,
        "items": len(report.items),
        "questions": len(asked),
        "questions_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "missing": told,
        "versions": versions(),
        "run": {"date": now(), "speed": run.watch.speed},
    }
    write_rows(run.output / "results.jsonl", rows)
    write_whole(run.output / "summary.json", json.dumps(summary, indent=2) + "\n")
    return Outcome(summary, tuple(told)), rows


def _answer(tile: Mapping[Any, str], number: int) -> str:
    return tile[number] if number in tile else tile[str(number)]


def _notes(
    run: Run, report: Report, mplug: bool, published_questions: bool, compat: bool
) -> list[str]:
    """Why the score is not comparable with published ones; empty where it is."""
    notes = []
    if not mplug:
        notes.append(f"another judge than mPLUG: {NOT_COMPARABLE}")
    if not published_questions:
        notes.append("other questions than the published ones")
    if run.samples != SAMPLES:
        notes.append(f"{run.samples} tiles an item, not {SAMPLES}")
    # The published figures, too, are of one item less: see compat.
    if len(report.items) < PUBLISHED_ITEMS - 1:
        notes.append(f"{len(report.items)} of {PUBLISHED_ITEMS} items")
    if report.failed and not compat:
        notes.append(f"{len(report.failed)} items have no score")
    return notes


def dpg_page(
    run: Run,
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    questions: Questions,
    prompts: Mapping[str, str],
) -> str:
    """The page of a DPG-Bench run; a picture is good where all of its questions have a yes."""
    scores = summary["scores"]
    names = ["global", "entity", "attribute", "relation", "other"]
    ours: list[tuple[float, tuple[float, float] | None] | None] = [
        (scores["l1"][name]["raw"], None) if name in scores["l1"] else None for name in names
    ]
    low, high = scores["interval"]
    ours.append((scores["overall"], (low, high)))
    found = find_items(run.pictures)
    cards = []
    for row in sorted(rows, key=lambda row: row["score"]):
        item, tile = row["item_id"], row["tile"]
        lines = [
            f"{row['answers'][str(question.id)]}: {question.question}"
            for question in questions[item]
        ]
        lines = [line for line in lines if not line.lower().startswith("yes")] or ["all yes"]

        def picture(item: str = item, tile: int = tile) -> Image.Image:
            try:
                return load_tiles(found[item], run.samples)[tile]
            except (ImageError, ScoringError, KeyError) as error:
                raise OSError(str(error)) from error

        text = "\n".join([f"{100 * row['score']:.0f} %", *lines])
        title = prompts.get(item, item)
        cards.append(Card(item.rstrip("0123456789"), title, row["score"] == 1, text, picture))
    return page(summary, Table([*names, "overall"], ours, DPG), cards)
