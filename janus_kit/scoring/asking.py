"""The stage of DPG-Bench that needs a judge: what it answers about each picture, here or elsewhere.

A block's rows are kept by what they depend on; see records.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from janus_kit.errors import ImageError, PromptError, ScoringError
from janus_kit.scoring.dpg import Question
from janus_kit.scoring.records import blocks, digest, kept, write_rows
from janus_kit.scoring.run import Run
from janus_kit.scoring.tiles import find_items, load_tiles, tile_files
from janus_kit.scoring.vqa import Judge, by_mplug, open_judge, read_answers

if TYPE_CHECKING:
    from janus_kit.pipeline import JanusPipeline

__all__ = ["BLOCK", "Questions", "Told", "ask", "given", "opened", "pictures_there", "write_asks"]

BLOCK = 4  # items that are asked about together

Questions = Mapping[str, Sequence[Question]]  # by item


def _missing(run: Run, items: Sequence[str], found: Mapping[str, Path]) -> list[str]:
    """The items without a picture; raises ScoringError where there are some, unless run.partial."""
    missing = [item for item in items if item not in found]
    if missing and not run.partial:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ScoringError(
            f"{run.pictures}: the picture of {missing[0]} is missing{more}; draw them, or score "
            "the rest with --partial"
        )
    return missing


def write_asks(run: Run, items: Sequence[str], questions: Questions) -> list[str]:
    """Write asks.jsonl, what a judge elsewhere has to answer; returns what cannot be asked about.

    A row is of an item, a tile and a question. It has the file, and the box that cuts the tile out
    of it, None for the whole picture. Raises ScoringError where some of others' pictures are
    missing, unless run.partial; of our own, draw has told.
    """
    found = find_items(run.pictures)
    missing = _missing(run, items, found) if run.images is not None else []
    rows, bad = [], [f"{item}: has no picture" for item in missing]
    for item in items:
        if item not in found:
            continue
        try:
            tiles = load_tiles(found[item], run.samples)
        except (ImageError, ScoringError) as error:
            bad.append(str(error))
            continue
        files = tile_files(found[item])
        w, h = tiles[0].size
        for tile in range(run.samples):
            x, y = tile % 2 * w, tile // 2 * h
            whole = len(files) == run.samples
            rows += [
                {
                    "item_id": item,
                    "tile": tile,
                    "question_id": question.id,
                    "question": question.question,
                    "file": str(files[tile if whole else 0].relative_to(run.pictures)),
                    "box": None if whole else [x, y, x + w, y + h],
                }
                for question in questions[item]
            ]
    write_rows(run.output / "asks.jsonl", rows)
    return bad


@dataclass(frozen=True, kw_only=True)
class Told:
    """Answers about pictures, and what to know of them."""

    answers: Mapping[str, Any]  # by item, tile and question
    judge: str  # who gave them
    mplug: bool = False  # all of them by the published judge
    missing: Sequence[str] = ()  # items without a picture
    bad: Mapping[str, str] = field(default_factory=dict)  # items that could not be asked about
    complaints: Sequence[str] = ()  # what else goes into the summary


def opened(
    questions: Questions,
    judge: str | None,
    answers: Path | None,
    load: "Callable[[], JanusPipeline]",
    device: Any,
    batch_size: int | None,
) -> Callable[[Run, Sequence[str]], Told] | None:
    """What gives the answers about the items of a run: a file, or a judge; see open_judge."""
    if answers is not None:
        return partial(given, answers=answers)
    if judge is None:
        return None
    looks = open_judge(judge, load, device=device, batch_size=batch_size)
    return partial(ask, questions=questions, judge=looks)


def given(run: Run, items: Sequence[str], answers: Path) -> Told:
    """Answers made elsewhere. Pictures are for the page; where there are some, there must be all.

    Raises ScoringError where some are missing, unless run.partial, and where others' folder has
    none.
    """
    found, judges, complaints = read_answers(answers)
    there = pictures_there(run) if run.images is None else find_items(run.images)
    return Told(
        answers=found,
        judge=", ".join(sorted(judge or answers.name for judge in judges)),
        mplug=by_mplug(judges),
        missing=_missing(run, items, there) if there else (),
        complaints=complaints,
    )


def pictures_there(run: Run) -> dict[str, Path]:
    """The pictures of a run that can do without, by item."""
    try:
        return find_items(run.pictures)
    except ScoringError:
        return {}


def ask(run: Run, items: Sequence[str], questions: Questions, judge: Judge) -> Told:
    """The judge's answers about the pictures.

    Raises ScoringError where pictures are missing, unless run.partial.
    """
    found = find_items(run.pictures)
    missing = _missing(run, items, found)
    rows: list[dict[str, Any]] = []
    todo = []
    for block in blocks(items, BLOCK):
        there = {item: found[item] for item in block if item in found}
        key = _key(run, there, questions, judge)
        done = _done(run, key) if there else []
        if done is None:
            todo.append((there, key))
        else:
            rows += done
    with run.watch.stage("asking", "items", sum(len(there) for there, _ in todo)) as advance:
        for there, key in todo:
            rows += kept(run.kept, key, partial(_ask_block, run, there, questions, judge))
            advance(len(there), True)
    answers: dict[str, dict[int, dict[int, str]]] = {}
    bad = {}
    for row in rows:
        if "error" in row:
            bad[row["item_id"]] = row["error"]
            continue
        tile = answers.setdefault(row["item_id"], {}).setdefault(row["tile"], {})
        tile[row["question_id"]] = row["answer"]
    return Told(answers=answers, judge=judge.name, missing=missing, bad=bad)


def _key(run: Run, there: Mapping[str, Path], questions: Questions, judge: Judge) -> dict[str, Any]:
    """What the rows of a block depend on."""
    return {
        "stage": "ask",
        "version": 2,
        "judge": judge.name,
        "tiles": run.samples,
        "files": [_digests(place) for place in there.values()],
        "questions": [[(item, q.id, q.question) for q in questions[item]] for item in there],
    }


def _digests(place: Path) -> list[str] | str:
    try:
        return [digest(file) for file in tile_files(place)]
    except (OSError, ScoringError) as error:
        return str(error)  # it is told when the picture is loaded


def _done(run: Run, key: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of a block that were made before, else None."""

    def nothing() -> list[dict[str, Any]]:
        raise LookupError

    try:
        return kept(run.kept, key, nothing)
    except LookupError:
        return None


def _ask_block(
    run: Run, there: Mapping[str, Path], questions: Questions, judge: Judge
) -> list[dict[str, Any]]:
    """A row for each item, tile and question, or one with an error for an item without answers."""
    rows: list[dict[str, Any]] = []
    asked: dict[str, list[tuple[dict[str, Any], Image.Image]]] = {}
    for item, place in there.items():
        try:
            tiles = load_tiles(place, run.samples)
        except (ImageError, ScoringError) as error:
            rows.append({"item_id": item, "error": str(error)})
            continue
        asked[item] = [
            (
                {
                    "item_id": item,
                    "tile": number,
                    "question_id": question.id,
                    "question": question.question,
                },
                tile,
            )
            for number, tile in enumerate(tiles)
            for question in questions[item]
        ]
    try:
        return rows + _said(judge, [pair for pairs in asked.values() for pair in pairs])
    except (ImageError, PromptError):
        for item, pairs in asked.items():
            try:
                rows += _said(judge, pairs)
            except (ImageError, PromptError) as error:
                rows.append({"item_id": item, "error": f"{item}: {error}"})
        return rows


def _said(
    judge: Judge, pairs: Sequence[tuple[dict[str, Any], Image.Image]]
) -> list[dict[str, Any]]:
    if not pairs:
        return []
    answers = judge.answer([tile for _, tile in pairs], [row["question"] for row, _ in pairs])
    return [
        {**row, "said": answer.text, "yes": answer.yes, "answer": answer.verdict}
        for (row, _), answer in zip(pairs, answers, strict=True)
    ]
