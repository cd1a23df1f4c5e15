"""GenEval from a model or a folder of pictures to a score: draw, detect, color, judge, sum up.

Each stage starts from the files of the one before, so any can be made elsewhere or again.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from janus_kit.batch.ledger import Shard
from janus_kit.errors import OptionError, ScoringError
from janus_kit.scoring.clip import ColorJudge
from janus_kit.scoring.detectors import FLOOR, Detector
from janus_kit.scoring.drawers import Drawer, Drawn, Wanted, draw_all, save
from janus_kit.scoring.folders import FoundImage, prompt_folders, read_folder
from janus_kit.scoring.geneval import Detection, judge, result_row
from janus_kit.scoring.look import look, things_of
from janus_kit.scoring.promptset import OBJECTS, TASKS, prompts
from janus_kit.scoring.records import blocks, share, write_rows, write_whole
from janus_kit.scoring.run import Outcome, Run, now, same_pictures, versions
from janus_kit.scoring.summary import Summary, summarize

__all__ = ["Rules", "choose", "draw", "others_prompts", "score", "see"]

log = logging.getLogger(__name__)

BLOCK = 16  # prompts whose pictures are done together; with 4 pictures, a GPU's largest batch
SAMPLES = 4  # pictures a prompt of the published protocol


@dataclass(frozen=True, kw_only=True)
class Rules:
    """By what pictures are judged; None takes what the detector's facts say."""

    threshold: float | None = None
    counting_threshold: float | None = None
    max_objects: int = 16
    max_overlap: float = 1.0
    position_threshold: float = 0.1

    def __post_init__(self) -> None:
        for name in ("threshold", "counting_threshold"):
            share = getattr(self, name)
            if share is not None and not FLOOR <= share <= 1:
                raise OptionError(
                    f"{name} must be from {FLOOR} to 1, not {share}: weaker detections are not kept"
                )

    def of(self, detector: Detector) -> dict[str, Any]:
        """The arguments of `judge`."""
        rules = asdict(self)
        for name in ("threshold", "counting_threshold"):
            rules[name] = getattr(detector.facts, name) if rules[name] is None else rules[name]
        return rules


def choose(
    tasks: Sequence[str] = (),
    names: Sequence[str] = (),
    limit: int | None = None,
    shard: Shard | None = None,
    among: Mapping[int, dict[str, Any]] | None = None,
) -> dict[int, dict[str, Any]]:
    """Prompts by number: of some tasks, with no other names, the first of each task.

    Of these a shard's: every so many-th block of sixteen, which may be none. among: what is chosen
    from; the published prompts if None.

    Raises OptionError for an unknown task or name, and where nothing is left to share out.
    """
    among = dict(enumerate(prompts())) if among is None else among
    tags = tuple(dict.fromkeys((*TASKS, *(metadata["tag"] for metadata in among.values()))))
    for given, known, what in ((tasks, tags, "task"), (names, OBJECTS, "name")):
        for word in given:
            if word not in known:
                raise OptionError(f"{what} must be of {', '.join(known)}, not {word!r}")
    found: dict[int, dict[str, Any]] = {}
    counts: dict[str, int] = {}
    for number, metadata in among.items():
        tag = metadata["tag"]
        asked = {clause["class"] for clause in metadata.get("include", [])}
        if (tasks and tag not in tasks) or (names and not asked <= set(names)):
            continue
        counts[tag] = counts.get(tag, 0) + 1
        if limit is None or counts[tag] <= limit:
            found[number] = metadata
    if not found:
        raise OptionError("no prompt is left; name other tasks or more names")
    mine = share(blocks(list(found), BLOCK), shard)
    return {number: found[number] for block in mine for number in block}


def others_prompts(folder: Path) -> dict[int, dict[str, Any]] | None:
    """The prompts of a folder by number, if none of them is GenEval's; None otherwise.

    Prompts that cannot be read are passed over. Raises ScoringError where the folder holds none.
    """
    published = {_key(metadata) for metadata in prompts()}
    found: dict[int, dict[str, Any]] = {}
    for place in prompt_folders(folder):
        try:
            images = read_folder(place)
        except ScoringError:
            continue
        if images and _key(images[0].metadata) in published:
            return None
        if images:
            found[int(place.name)] = images[0].metadata
    return found or None


def draw(
    run: Run, chosen: Mapping[int, Mapping[str, Any]], drawer: Drawer, *, overwrite: bool = False
) -> list[str]:
    """Draw what is missing, in the published layout; returns what could not be drawn."""
    same_pictures(run, drawer.facts, overwrite=overwrite)
    todo = []
    for numbers in blocks(list(chosen), BLOCK):
        places = [(number, k) for number in numbers for k in range(run.samples)]
        # Whole parts, as they were drawn together: see draw_all.
        for part in blocks(places, drawer.batch):
            if not all(_picture(run, *place).is_file() for place in part):
                todo.append(part)
    failed = []
    with run.watch.stage("drawing", "pictures", sum(map(len, todo))) as advance:
        for part in todo:
            for number, _ in part:
                folder = run.pictures / f"{number:05}"
                write_whole(folder / "metadata.jsonl", json.dumps(chosen[number]) + "\n")
            wanted = [Wanted(chosen[number]["prompt"], run.seed + k) for number, k in part]

            def save_one(place: int, drawn: Drawn, part: list[tuple[int, int]] = part) -> None:
                path = _picture(run, *part[place])
                if not path.is_file():
                    save(path, drawn)

            failed += draw_all(drawer, wanted, save_one)
            advance(len(part))
    return failed


def _picture(run: Run, number: int, k: int) -> Path:
    return run.pictures / f"{number:05}" / "samples" / f"{k:04}.png"


def see(
    run: Run,
    chosen: Mapping[int, Mapping[str, Any]],
    detector: Detector,
    colors: ColorJudge,
    rules: Rules,
) -> tuple[list[FoundImage], list[dict[str, Any]], list[str]]:
    """The pictures of the chosen prompts, what is seen in them, and what is missing.

    Raises ScoringError where pictures are missing, unless run.partial.
    """
    found, missing, bad = _find(run, chosen)
    told = bad + missing
    if missing and not run.partial:
        raise ScoringError(
            f"{run.pictures}: pictures are missing: {told[0]}"
            + (f" (and {len(told) - 1} more)" if len(told) > 1 else "")
            + "; draw them, give their number with --samples, or score the rest with --partial"
        )
    rows = look(run, blocks(list(found.values()), BLOCK), detector, colors, rules.of(detector))
    return [image for images in found.values() for image in images], rows, told


def score(
    run: Run,
    chosen: Mapping[int, Mapping[str, Any]],
    detector: Detector,
    colors: ColorJudge,
    rules: Rules = Rules(),
    warnings: Sequence[str] = (),
) -> Outcome:
    """Judge the pictures of a run; writes results.jsonl and summary.json and returns the latter.

    A picture that cannot be read is told and left out. Raises as `see`.
    """
    found, rows, complaints = see(run, chosen, detector, colors, rules)
    arguments = rules.of(detector)
    results = []
    for row, image in zip(rows, found, strict=True):
        if "error" in row:
            complaints.append(row["error"])
            continue
        verdict = judge(image.metadata, things_of(row), color_of=_Told(colors.mark), **arguments)
        results.append(result_row(row["file"], image.metadata, verdict))
    if not results:
        raise ScoringError(f"{run.pictures}: no picture can be scored: {complaints[0]}")
    write_rows(run.output / "results.jsonl", results)
    summary = _summary(run, results, detector, colors, arguments, complaints, warnings)
    write_whole(run.output / "summary.json", json.dumps(summary, indent=2) + "\n")
    return Outcome(summary, tuple(complaints))


class _Told:
    """The color that a detection carries, with the mark of the judge that told it."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __call__(self, thing: Detection) -> str:
        return thing.color or ""


def _find(
    run: Run, chosen: Mapping[int, Mapping[str, Any]]
) -> tuple[dict[int, list[FoundImage]], list[str], list[str]]:
    """The pictures of the chosen prompts by number, and sentences about what is missing and bad.

    Of a folder's prompts those that are neither chosen nor published are left out.
    """
    missing, bad, strangers = [], [], 0
    by_prompt: dict[str, list[FoundImage]] = {}
    known = {_key(metadata) for metadata in (*prompts(), *chosen.values())}
    for folder in prompt_folders(run.pictures):
        try:
            images = read_folder(folder)
        except ScoringError as error:
            bad.append(str(error))
            continue
        prompt = _key(images[0].metadata) if images else ""
        if prompt in known:
            by_prompt.setdefault(prompt, []).extend(images)
        else:
            strangers += bool(images)
    if strangers:
        log.warning(
            "%s: %d folders with prompts that are not GenEval's are left out",
            run.pictures,
            strangers,
        )
    found = {}
    for number, metadata in chosen.items():
        images = by_prompt.get(_key(metadata), [])[: run.samples]
        if images:
            found[number] = [FoundImage(image.path, dict(metadata)) for image in images]
        if len(images) < run.samples:
            missing.append(f"prompt {number:05} has {len(images)} of {run.samples}")
    if not found:
        reason = f": {bad[0]}" if bad else ""
        raise ScoringError(f"{run.pictures}: none of the chosen prompts has a picture{reason}")
    return found, missing, bad


def _key(metadata: Mapping[str, Any]) -> str:
    """A prompt's metadata, whatever the order of its keys."""
    return json.dumps(metadata, sort_keys=True)


def _summary(
    run: Run,
    results: Sequence[Mapping[str, Any]],
    detector: Detector,
    colors: ColorJudge,
    arguments: Mapping[str, Any],
    complaints: Sequence[str],
    warnings: Sequence[str],
) -> dict[str, Any]:
    total = summarize(results)
    facts = detector.facts
    seen = [row for row in results if _visible(row, facts.names)]
    lines = sorted({row["metadata"] for row in results})
    return {
        "benchmark": "geneval",
        "scores": asdict(total),
        "scores_of_visible_names": asdict(summarize(seen)) if seen else None,
        "comparable": not (notes := _notes(total, detector, arguments, complaints)),
        "not_comparable_because": notes,
        "warnings": list(warnings),
        "drawn_by": run.drawn_by(),
        "prompts_sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "detector": {
            "name": facts.name,
            "version": facts.version,
            "names_it_cannot_see": [name for name in OBJECTS if name not in facts.names],
            **arguments,
        },
        "colors": colors.name,
        "colors_version": colors.version,
        "missing": list(complaints),
        "versions": versions(),
        "run": {"date": now(), "speed": run.watch.speed},
    }


def _visible(row: Mapping[str, Any], names: Sequence[str]) -> bool:
    asked = json.loads(row["metadata"])
    clauses = asked.get("include", []) + asked.get("exclude", [])
    return all(clause["class"] in names for clause in clauses)


def _notes(
    total: Summary, detector: Detector, arguments: Mapping[str, Any], complaints: Sequence[str]
) -> list[str]:
    """Why the score is not comparable with published ones; empty where it is."""
    notes = [*detector.facts.notes]
    notes += [f"colors: {mark}" for mark in total.marks]
    if total.coverage < 1:
        notes.append(f"{total.coverage:.1%} of the 553 prompts")
    if total.missing:
        notes.append(f"no pictures for {', '.join(total.missing)}")
    if total.samples != (SAMPLES, SAMPLES):
        few, many = total.samples
        count = f"{few}" if few == many else f"{few} to {many}"
        notes.append(f"{count} {'picture' if many == 1 else 'pictures'} a prompt, not {SAMPLES}")
    usual = {**asdict(Rules()), "threshold": 0.3, "counting_threshold": 0.9}
    notes += [
        f"{name} is {arguments[name]}, not {value}"
        for name, value in usual.items()
        if arguments[name] != value
    ]
    return notes + ([f"{len(complaints)} prompts or pictures are missing"] if complaints else [])
