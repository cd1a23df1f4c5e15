"""DPG-Bench from a model or a folder of pictures to a score: draw, ask, sum up."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import gcd
from pathlib import Path
from typing import Any

from PIL import Image

from janus_kit.batch.ledger import Shard
from janus_kit.errors import JanusKitError, OptionError, ScoringError
from janus_kit.scoring.asking import BLOCK, Questions, Told, pictures_there
from janus_kit.scoring.colors import NOT_COMPARABLE
from janus_kit.scoring.dpg import PUBLISHED_ITEMS, Question, Report, load_prompts, score
from janus_kit.scoring.drawers import Drawer, Drawn, Wanted, draw_all, save
from janus_kit.scoring.page import Card, Table, page
from janus_kit.scoring.published import DPG, DPG_CAUTION
from janus_kit.scoring.records import blocks, share, to_json, write_rows, write_whole
from janus_kit.scoring.run import Outcome, Run, now, same_pictures, versions
from janus_kit.scoring.tiles import grid_of, load_tiles

__all__ = ["choose", "dpg_page", "draw", "group", "sum_up", "texts"]

SAMPLES = 4  # tiles of a published picture


def group(questions: Sequence[Question]) -> dict[str, list[Question]]:
    """The questions by item, items by id."""
    found: dict[str, list[Question]] = {}
    for question in questions:
        found.setdefault(question.item_id, []).append(question)
    return {item: found[item] for item in sorted(found)}


def choose(questions: Questions, limit: int | None = None, shard: Shard | None = None) -> list[str]:
    """The first items by id; of these a shard's: every so many-th block of four."""
    mine = share(blocks(list(questions)[:limit], BLOCK), shard)
    return [item for block in mine for item in block]


def texts(prompts: Path | None, questions: Path, *, needed: bool) -> dict[str, str]:
    """The prompts by item, from a source of their own or the questions' text column.

    Where they are not needed, a file of questions without them will do.
    """
    try:
        return load_prompts(prompts or questions)
    except ScoringError:
        if needed or prompts is not None:
            raise
        return {}


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
    # As many items as fill whole batches. A block is drawn again where one of its grids is missing,
    # so that half precision, too, gives what it gave before: see draw_all.
    size = drawer.batch // gcd(drawer.batch, run.samples)
    todo = [
        block
        for block in blocks(items, size)
        if not all(_picture(run, item).is_file() for item in block)
    ]
    failed = []
    with run.watch.stage("drawing", "pictures", sum(map(len, todo)) * run.samples) as advance:
        for block in todo:
            failed += _draw_block(run, block, prompts, drawer)
            advance(len(block) * run.samples, True)
    return failed


def _draw_block(
    run: Run, block: Sequence[str], prompts: Mapping[str, str], drawer: Drawer
) -> list[str]:
    places = [(item, k) for item in block for k in range(run.samples)]
    tiles: dict[str, list[Image.Image]] = {item: [] for item in block}

    def keep(place: int, drawn: Drawn) -> None:
        item = places[place][0]
        tiles[item].append(drawn[0])
        path = _picture(run, item)
        if len(tiles[item]) == run.samples and not path.is_file():
            save(path, (grid_of(tiles[item]), None))

    wanted = [Wanted(prompts[item], run.seed + k) for item, k in places]
    return draw_all(drawer, wanted, keep)


def _picture(run: Run, item: str) -> Path:
    return run.pictures / f"{item}.png"


def sum_up(
    run: Run,
    items: Sequence[str],
    questions: Questions,
    told: Told,
    *,
    published_questions: bool,
    compat: bool = False,
) -> Outcome:
    """Score answers; writes results.jsonl, a row an item and tile, and summary.json.

    An item without a picture or with a hole in its answers has no score, and the summary says why.
    Raises ScoringError where nothing could be scored.
    """
    asked = [question for item in items for question in questions[item]]
    known = {item: told.answers[item] for item in items if item in told.answers}
    exact = compat or told.mplug
    report = score(asked, known, pic_num=run.samples, compat=compat, exact=exact)
    complaints = [*told.complaints, *told.bad.values()]
    silent = {*told.bad, *told.missing}
    complaints += [why for item, why in report.failed.items() if item not in silent]
    complaints += [f"{item}: has no picture" for item in told.missing]
    if report.overall is None:
        reason = complaints[0] if complaints else "there is no item"
        raise ScoringError(f"nothing could be scored: {reason}")
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
    notes = _notes(run, report, told.mplug, published_questions, compat)
    text = "\n".join(to_json(asdict(question)) for question in asked)
    summary = {
        "benchmark": "dpg",
        "scores": {name: value for name, value in asdict(report).items() if name != "items"},
        "comparable": not notes,
        "not_comparable_because": notes,
        "judge": told.judge,
        "compat": compat,
        "drawn_by": run.drawn_by(),
        "tiles": run.samples,
        "items": len(report.items),
        "questions": len(asked),
        "questions_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "missing": complaints,
        "versions": versions(),
        "run": {"date": now(), "speed": run.watch.speed},
    }
    write_rows(run.output / "results.jsonl", rows)
    write_whole(run.output / "summary.json", json.dumps(summary, indent=2) + "\n")
    return Outcome(summary, tuple(complaints))


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
    found = pictures_there(run)
    cards = []
    for row in sorted(rows, key=lambda row: row["score"]):
        item, tile = row["item_id"], row["tile"]
        lines = [
            f"{row['answers'][str(question.id)]}: {question.question}"
            for question in questions[item]
        ]
        lines = [line for line in lines if not line.lower().startswith("yes")] or ["all yes"]

        def picture(item: str = item, tile: int = tile) -> Image.Image:
            if item not in found:
                raise OSError(f"{item}: has no picture")
            try:
                return load_tiles(found[item], run.samples)[tile]
            except JanusKitError as error:
                raise OSError(str(error)) from error

        text = "\n".join([f"{item}, tile {tile}: {100 * row['score']:.0f} %", *lines])
        title = prompts.get(item, item)
        cards.append(Card(item.rstrip("0123456789"), title, row["score"] == 1, text, picture))
    return page(summary, Table([*names, "overall"], ours, DPG, DPG_CAUTION), cards)
