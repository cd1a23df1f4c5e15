"""The published folders of GenEval pictures: NNNNN/metadata.jsonl and NNNNN/samples/0000.png …"""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from janus_kit.errors import ScoringError
from janus_kit.scoring.promptset import parse_metadata

__all__ = ["FoundImage", "find_images", "prompt_folders", "read_folder"]


class FoundImage(NamedTuple):
    """A picture's file and the metadata of its prompt."""

    path: Path
    metadata: dict[str, Any]


def find_images(folder: str | os.PathLike[str]) -> list[FoundImage]:
    """All pictures of a folder, by the number of their prompt and their own.

    Read are folders whose names are digits, with metadata.jsonl (one JSON object) and samples/
    with files named by digits and .png, four or five digits or any other number. The reference
    also takes 0000.png.bak and reads in the order of the disk; here neither. A prompt's folder
    without pictures gives none: `Summary.coverage` tells.

    Raises ScoringError where the folder is none, holds no picture, or a prompt's metadata cannot
    be read; `prompt_folders` and `read_folder` let a caller go on after a bad one.
    """
    found = [image for path in prompt_folders(folder) for image in read_folder(path)]
    if not found:
        raise ScoringError(
            f"{folder}: no prompt has a picture; expected files like 00000/samples/0000.png"
        )
    return found


def prompt_folders(folder: str | os.PathLike[str]) -> list[Path]:
    """The folders of prompts, those whose names are digits, by number.

    Raises ScoringError where the folder is none or holds no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ScoringError(f"{root}: is not a folder; give the one that holds 00000/, 00001/, …")
    found = [path for path in _listed(root) if re.fullmatch("[0-9]+", path.name) and path.is_dir()]
    if not found:
        raise ScoringError(
            f"{root}: holds no folder of a prompt; expected names of digits like 00000, with "
            "metadata.jsonl and samples/ inside"
        )
    return sorted(found, key=lambda path: (int(path.name), path.name))


def read_folder(folder: str | os.PathLike[str]) -> list[FoundImage]:
    """The pictures of one prompt, by number; none where samples/ is not there.

    Raises ScoringError where metadata.jsonl cannot be read or `parse_metadata` refuses it.
    """
    place = Path(folder) / "metadata.jsonl"
    try:
        metadata = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScoringError(
            f"{place}: cannot be read ({error.strerror}); every prompt's folder needs it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ScoringError(f"{place}: must hold one JSON object and nothing else") from error
    parse_metadata(metadata, str(place))
    samples = Path(folder) / "samples"
    paths = _listed(samples) if samples.is_dir() else []
    named = [(re.fullmatch(r"([0-9]+)\.png", path.name), path) for path in paths]
    numbers = [(int(match[1]), match[1], path) for match, path in named if match]
    return [FoundImage(path, metadata) for _, _, path in sorted(numbers) if path.is_file()]


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise ScoringError(
            f"{folder}: cannot be listed ({error.strerror}); check its rights"
        ) from error
