"""DPG-Bench: its questions, and the scores of answers to them. Neither torch nor a model here.

The protocol is that of arXiv 2403.05135 and TencentQQGYLab/ELLA, `dpg_bench/compute_dpg_bench.py`.
The reference loses the first row of the file, takes the categories from the last tile's raw
answers, and mixes them between processes; here none of that happens unless `compat` asks for it.
"""

import csv
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from janus_kit.errors import OptionError, ScoringError
from janus_kit.scoring.summary import RESAMPLES, interval_of

__all__ = [
    "PUBLISHED_BLOB",
    "Category",
    "Item",
    "Question",
    "Report",
    "blob_id",
    "is_published",
    "is_yes",
    "load_prompts",
    "load_questions",
    "score",
]

log = logging.getLogger(__name__)

PUBLISHED_BLOB = "98457fc9901943f51ff9a30367250fc292533bed"  # git's id of dpg_bench.csv
PUBLISHED_NAME = "dpg_bench.csv"
PUBLISHED_ITEMS = 1065

_COLUMNS = ("item_id", "proposition_id", "dependency", "tuple", "question_natural_language")

Answers = Mapping[str, Any]  # item_id → tiles (a list, or a mapping by number) → id → answer


@dataclass(frozen=True)
class Question:
    """A question about one item's picture.

    Raises ScoringError for an empty item_id, and for ids that are no whole numbers from 0 (its own:
    from 1).
    """

    item_id: str
    id: int  # within the item
    parents: tuple[int, ...]  # ids of the same item; without their yes it counts nothing. 0: none
    tuple: str  # such as "attribute - color (car, red)"
    question: str

    def __post_init__(self) -> None:
        if not isinstance(self.item_id, str) or not self.item_id:
            raise ScoringError(f"item_id: must be text that is not empty, not {self.item_id!r}")
        if type(self.id) is not int or self.id < 1:
            raise ScoringError(
                f"{self.item_id}: the id of a question must be a whole number from 1, "
                f"not {self.id!r}"
            )
        parents = self.parents
        if not isinstance(parents, Sequence) or any(type(p) is not int or p < 0 for p in parents):
            raise ScoringError(
                f"{self.item_id}: the parents of question {self.id} must be whole numbers, 0 for "
                f"none, not {parents!r}"
            )

    @property
    def category(self) -> str:
        """Such as "attribute - color"; of "global" the second part is empty: "global -"."""
        return self.tuple.split("(")[0].strip()


@dataclass(frozen=True)
class Item:
    """The scores of one picture, as fractions of 1."""

    tiles: tuple[float, ...]
    mean: float


@dataclass(frozen=True)
class Category:
    """The score of a category in percent."""

    raw: float  # share of yes; what the reference prints
    zeroed: float  # the same, where a question without its parents' yes counts nothing
    questions: int  # answers that the two are means of


@dataclass(frozen=True, kw_only=True)
class Report:
    """What answers are worth. It depends neither on their order nor on who gave which."""

    items: dict[str, Item]  # by id
    overall: float | None  # percent, the mean of the items; None when nothing was scored
    interval: tuple[float, float] | None  # 95 % of the overall of items drawn with replacement
    l1: dict[str, Category]  # "entity", "attribute", "relation", "global", "other"
    l2: dict[str, Category]  # "entity - whole", …
    failed: dict[str, str]  # item → why it has no score
    coverage: float  # share of the items with questions that have a score


def load_questions(csv_path: str | os.PathLike[str], *, compat: bool = False) -> list[Question]:
    """The questions of a file, in its order.

    Any CSV with the columns item_id, proposition_id, dependency, tuple and
    question_natural_language will do. A file that goes by the published name or size and is not
    the published one is told in the log. compat loses the first row, as the reference does.

    Raises ScoringError for a file that cannot be read, a missing column, an id or dependency that
    is no number, and an id that an item has twice.
    """
    questions = []
    seen = set()
    rows = _read(csv_path, _COLUMNS)
    for line, row in rows[1 if compat else 0 :]:
        place = f"{csv_path}:{line}"
        item = row["item_id"].strip()
        try:
            number = int(row["proposition_id"])
            parents = tuple(int(part) for part in row["dependency"].split(","))
        except ValueError as error:
            raise ScoringError(
                f"{place}: proposition_id must be a number and dependency numbers with commas, "
                f"not {row['proposition_id']!r} and {row['dependency']!r}"
            ) from error
        if (item, number) in seen:
            raise ScoringError(f"{place}: {item} has a question {number} already; renumber one")
        seen.add((item, number))
        try:
            text = row["question_natural_language"].strip()
            questions.append(Question(item, number, parents, row["tuple"].strip(), text))
        except ScoringError as error:
            raise ScoringError(f"{place}: {error}") from error
    if not questions:
        raise ScoringError(f"{csv_path}: holds no question")
    whole = Path(csv_path).name == PUBLISHED_NAME or len({q.item_id for q in questions}) > 1000
    if whole and not is_published(csv_path):
        log.warning(
            "%s: is not the published %s; some copies lack its first question",
            csv_path,
            PUBLISHED_NAME,
        )
    return questions


def load_prompts(source: str | os.PathLike[str]) -> dict[str, str]:
    """The prompt of every item, by id: from a folder of ID.txt files, or a CSV's text column.

    Raises ScoringError for a source that is neither, or holds no prompt.
    """
    path = Path(source)
    if path.is_dir():
        try:
            found = {file.stem: _text(file) for file in path.iterdir() if file.suffix == ".txt"}
        except OSError as error:
            raise ScoringError(f"{path}: cannot be listed ({error.strerror})") from error
    else:
        found = {}
        for _, row in _read(path, ("item_id", "text")):
            found.setdefault(row["item_id"].strip(), row["text"].strip())
    found = {item: text for item, text in found.items() if text}
    if not found:
        raise ScoringError(f"{path}: holds no prompt; give a folder of ID.txt files or a CSV")
    return {item: found[item] for item in sorted(found)}


def is_published(csv_path: str | os.PathLike[str]) -> bool:
    """Whether a file is the published dpg_bench.csv, by git's id of its bytes."""
    return blob_id(Path(csv_path).read_bytes()) == PUBLISHED_BLOB


def blob_id(data: bytes) -> str:
    """Git's name of a file's bytes."""
    # Nothing is kept secret by it.
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def is_yes(answer: object, *, exact: bool = False) -> bool:
    """Whether an answer says yes: by its first word, or exact, as the reference has it of mPLUG."""
    if not isinstance(answer, str):
        return False
    if exact:
        return answer == "yes"
    words = answer.lower().split()
    return bool(words) and words[0].strip(".,;:!?'\"*()") == "yes"


def score(
    questions: Sequence[Question],
    answers: Answers,
    *,
    pic_num: int = 4,
    compat: bool = False,
    exact: bool | None = None,
) -> Report:
    """The scores of answers, answers[item_id][tile][question_id], tiles counted from 0.

    A question counts nothing in a tile where the answer to one of its parents was no, or was itself
    made to count nothing, in the order of the questions: a parent that comes later counts with its
    own answer. A tile's score is the mean of its questions, an item's that of its pic_num tiles.

    An item fails, with a sentence, where an answer is missing or a parent unknown; the others are
    scored. Numbers may also be text, as JSON's keys are. compat takes the categories from every
    item's last tile and the answer "yes" to the letter, as the reference does; exact alone does the
    latter. Raises OptionError for a pic_num below 1, ScoringError for answers that are no mapping.
    """
    if not isinstance(answers, Mapping):
        raise ScoringError(f"answers must be a mapping by item_id, not {answers!r:.60}")
    if type(pic_num) is not int or pic_num < 1:
        raise OptionError(f"pic_num must be a whole number from 1, not {pic_num!r}")
    exact = compat if exact is None else exact
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.item_id, []).append(question)
    failed = {item: "there is no question about it" for item in answers if item not in groups}
    items: dict[str, Item] = {}
    # Category → (raw, zeroed) of every answer. The sums of zeros and ones know no order.
    pools: dict[str, list[tuple[bool, bool]]] = {}
    for name in sorted(groups):
        group = groups[name]
        try:
            raws = _tiles(name, group, answers, pic_num, exact)
            zeroed = [_zeroed(name, group, raw, compat) for raw in raws]
        except ScoringError as error:
            failed[name] = str(error)
            continue
        tiles = tuple(fmean(tile.values()) for tile in zeroed)
        items[name] = Item(tiles, fmean(tiles))
        for raw, tile in list(zip(raws, zeroed, strict=True))[-1 if compat else 0 :]:
            for question in group:
                pair = (raw[question.id], tile[question.id])
                pools.setdefault(question.category, []).append(pair)
    means = [item.mean for item in items.values()]
    return Report(
        items=items,
        overall=100 * fmean(means) if means else None,
        interval=_interval(means) if means else None,
        l1=_categories(pools, lambda name: name.split("-")[0].strip()),
        l2=_categories(pools, lambda name: name),
        failed={name: failed[name] for name in sorted(failed)},
        coverage=len(items) / len(groups) if groups else 0.0,
    )


def _tiles(
    name: str, group: Sequence[Question], answers: Answers, pic_num: int, exact: bool
) -> list[dict[int, bool]]:
    """Whether each question of an item was answered yes, tile by tile."""
    if name not in answers:
        raise ScoringError(f"{name}: there is no answer about it")
    found = []
    for number in range(pic_num):
        tile = _tile(name, answers[name], number, pic_num)
        said = {}
        for question in group:
            answer = _entry(tile, question.id)
            if not isinstance(answer, str):
                raise ScoringError(f"{name}: tile {number} has no answer to question {question.id}")
            said[question.id] = is_yes(answer, exact=exact)
        found.append(said)
    return found


def _tile(name: str, tiles: object, number: int, pic_num: int) -> Mapping[Any, Any]:
    """The answers about one tile, by question."""
    if isinstance(tiles, Mapping):
        tile = _entry(tiles, number)
    elif isinstance(tiles, Sequence) and not isinstance(tiles, str):
        tile = tiles[number] if number < len(tiles) else None
    else:
        raise ScoringError(
            f"{name}: its answers must be a list of tiles, or tiles by number, not {tiles!r:.60}"
        )
    if tile is None:
        raise ScoringError(
            f"{name}: tile {number} is not answered; there are {len(tiles)} of {pic_num}, counted "
            "from 0"
        )
    if not isinstance(tile, Mapping):
        raise ScoringError(
            f"{name}: tile {number} must hold answers by the ids of questions, not {tile!r:.60}"
        )
    return tile


def _entry(entries: Mapping[Any, Any], number: int) -> Any:
    """What stands at a number; JSON's keys are text."""
    return entries.get(number, entries.get(str(number)))


def _zeroed(
    name: str, group: Sequence[Question], raw: Mapping[int, bool], lazy: bool
) -> dict[int, bool]:
    """The answers with those made no that hang on a no; lazy looks no further than the first no."""
    adjusted = dict(raw)
    for question in group:
        for parent in question.parents:
            if parent == 0:
                continue
            if parent not in adjusted:
                raise ScoringError(
                    f"{name}: question {question.id} hangs on question {parent}, which is not there"
                )
            if not adjusted[parent]:
                adjusted[question.id] = False
                if lazy:  # the reference does not notice an unknown parent behind a no
                    break
    return adjusted


def _categories(
    pools: Mapping[str, Sequence[tuple[bool, bool]]], level: Any
) -> dict[str, Category]:
    """The scores of the pools that level gives one name."""
    merged: dict[str, list[tuple[bool, bool]]] = {}
    for name in sorted(pools):
        merged.setdefault(level(name), []).extend(pools[name])
    return {
        name: Category(
            raw=100 * sum(raw for raw, _ in pairs) / len(pairs),
            zeroed=100 * sum(zero for _, zero in pairs) / len(pairs),
            questions=len(pairs),
        )
        for name, pairs in merged.items()
    }


def _interval(means: Sequence[float]) -> tuple[float, float]:
    """95 % of the overall, in percent, of items drawn anew with replacement."""
    values = np.sort(np.asarray(means))  # sorted: the interval depends on the scores alone
    rng = np.random.default_rng(0)
    often = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES)
    low, high = interval_of(100 * (often @ values) / len(values))
    return low, high


def _read(path: str | os.PathLike[str], columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV with the line that each ends on; all of them have the columns."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise ScoringError(
                    f"{path}: has no column {missing[0]!r}; it needs {', '.join(columns)}"
                )
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise ScoringError(
            f"{path}: cannot be read ({error.strerror}); give another CSV, or run janus-kit score "
            f"fetch dpg for {PUBLISHED_NAME}"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ScoringError(f"{path}: is no CSV in UTF-8 ({error})") from error
    for line, row in rows:
        if short := [name for name in columns if row[name] is None]:
            raise ScoringError(f"{path}:{line}: the row ends before {short[0]!r}; is it whole?")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ScoringError(f"{path}: cannot be read as UTF-8 text ({error})") from error
