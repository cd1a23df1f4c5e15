"""What a run was begun with: its folder goes on with that and nothing else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from janus_kit.errors import CheckpointError

__all__ = ["keep_to"]


def keep_to(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a new run to folder/run.json, or hold a run there to its own.

    Raises CheckpointError for a folder whose run was begun with others: what it has made of them
    would be passed off as of these.
    """
    path = folder / "run.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(".run.json")
        part.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
        return
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name, value in settings.items() if begun.get(name) != value]
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); choose another folder") from None
    if other:
        said = ", ".join(f"{name} {begun.get(name)!r}, not {settings[name]!r}" for name in other)
        raise CheckpointError(
            f"{folder}: its run was begun with {said}; go on as it was begun, or choose another "
            "folder"
        )
