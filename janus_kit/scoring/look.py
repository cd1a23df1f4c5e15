"""The stages of GenEval that need models: what is in each picture, and in which colors.

A block's rows are kept by what they depend on; see records.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from janus_kit.errors import ImageError
from janus_kit.scoring.clip import ColorJudge
from janus_kit.scoring.detectors import FLOOR, Detector
from janus_kit.scoring.folders import FoundImage
from janus_kit.scoring.geneval import Detection, judge
from janus_kit.scoring.promptset import parse_metadata
from janus_kit.scoring.records import digest, kept, pack, unpack
from janus_kit.scoring.run import Run

__all__ = ["look", "things_of"]


def look(
    run: Run,
    found: Sequence[Sequence[Sequence[FoundImage]]],
    detector: Detector,
    colors: ColorJudge,
    arguments: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """What the detector sees in each picture, with the colors that the verdict will ask about.

    found: blocks of prompts of pictures. arguments: those of `judge`. A row has file, sha256, and
    size and things (label, box, score, perhaps color), or error.
    """
    parts = [[image for images in block for image in images] for block in found]
    seen = []
    with run.watch.stage("detecting", "pictures", sum(map(len, parts))) as advance:
        for part in parts:
            things, fresh = _detect(run, part, detector)
            seen.append(things)
            advance(len(part), fresh)
    rows = []
    with run.watch.stage("colors", "pictures", sum(map(len, parts))) as advance:
        for part, things in zip(parts, seen, strict=True):
            told, fresh = _color(run, part, things, colors, arguments)
            rows += told
            advance(len(part), fresh)
    return rows


def _detect(
    run: Run, part: Sequence[FoundImage], detector: Detector
) -> tuple[list[dict[str, Any]], bool]:
    """The rows of a block, and whether they were made just now."""
    files = {image.path: digest(image.path) for image in part}
    names = [str(path.relative_to(run.pictures)) for path in files]
    facts = detector.facts
    key = {
        "stage": "detect",
        "version": 1,
        "detector": [facts.name, facts.version],
        "files": list(zip(names, files.values(), strict=True)),
        "asked": [image.metadata for image in part],
    }

    fresh = False

    def make() -> list[dict[str, Any]]:
        nonlocal fresh
        fresh = True
        pictures: list[Image.Image] = []
        rows: list[dict[str, Any]] = []
        for path, name in zip(files, names, strict=True):
            rows.append({"file": name, "sha256": files[path]})
            try:
                pictures.append(_load(path))
            except ImageError as error:
                rows[-1]["error"] = str(error)
        whole = iter(zip(pictures, detector.detect(pictures), strict=True))
        for image, row in zip(part, rows, strict=True):
            if "error" in row:
                continue
            picture, things = next(whole)
            asked = _colored(image.metadata)
            row["size"] = list(picture.size)
            row["things"] = [_thing(t, t.label in asked) for t in things if t.score > FLOOR]
        return rows

    return kept(run.kept, key, make, len(part)), fresh


def _thing(thing: Detection, masked: bool) -> dict[str, Any]:
    """A detection as a row keeps it; masks only where a color will be asked about."""
    row: dict[str, Any] = {
        "label": thing.label,
        "box": [round(value, 2) for value in thing.box],
        "score": round(thing.score, 6),
    }
    if masked and thing.mask is not None:
        row["mask"] = pack(thing.mask)
    return row


def _colored(metadata: Mapping[str, Any]) -> set[str]:
    """The names whose color the prompt asks about."""
    return {clause.name for clause in parse_metadata(metadata).include if clause.color}


def _color(
    run: Run,
    part: Sequence[FoundImage],
    rows: Sequence[dict[str, Any]],
    colors: ColorJudge,
    arguments: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], bool]:
    """The rows of a block with the colors that the verdict will ask about; as _detect."""
    wanted: list[tuple[int, int]] = []  # of which row, which thing
    loaded: dict[int, list[Detection]] = {}
    for number, (image, row) in enumerate(zip(part, rows, strict=True)):
        if "error" in row or not _colored(image.metadata):
            continue
        loaded[number] = things = things_of(row)
        asked: list[Detection] = []

        def ask(thing: Detection, asked: list[Detection] = asked) -> str:
            asked.append(thing)
            return "red"  # what is asked about does not depend on the answers

        judge(image.metadata, things, color_of=ask, **arguments)
        places = {id(thing): place for place, thing in enumerate(things)}
        wanted += [(number, place) for place in sorted({places[id(thing)] for thing in asked})]
    key = {
        "stage": "color",
        "version": 1,
        "judge": [colors.name, colors.version],
        "things": [[rows[n]["sha256"], rows[n]["things"][place]] for n, place in wanted],
    }

    fresh = False

    def make() -> list[dict[str, Any]]:
        nonlocal fresh
        fresh = True
        open_files = {number: _load(part[number].path) for number, _ in wanted}
        things = [(open_files[number], loaded[number][place]) for number, place in wanted]
        return [{"color": color} for color in (colors.colors(things) if things else [])]

    told = kept(run.kept, key, make, len(wanted)) if wanted else []
    done = [
        {
            **row,
            "things": [{k: v for k, v in thing.items() if k != "mask"} for thing in row["things"]],
        }
        if "things" in row
        else row
        for row in rows
    ]
    for (number, place), row in zip(wanted, told, strict=True):
        done[number]["things"][place]["color"] = row["color"]
    return done, fresh


def things_of(row: Mapping[str, Any]) -> list[Detection]:
    """The detections of a row."""
    w, h = row["size"]
    return [
        Detection(
            thing["label"],
            tuple(thing["box"]),
            thing["score"],
            unpack(thing["mask"], (h, w)) if "mask" in thing else None,
            thing.get("color"),
        )
        for thing in row["things"]
    ]


def _load(path: Path) -> Image.Image:
    """The picture, RGB and upright."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: cannot be read as a picture ({error}); is it whole?") from error
