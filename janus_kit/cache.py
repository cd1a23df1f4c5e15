"""The cache folder, and small notes in it of what takes long to find out."""

import os
from contextlib import suppress
from pathlib import Path

from janus_kit.errors import JanusKitError

__all__ = ["cache_home", "recall", "remember"]


def cache_home() -> Path:
    """The cache folder of this package, $XDG_CACHE_HOME/janus_kit.

    Raises JanusKitError where neither that nor a home folder is known.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "janus_kit"
    except RuntimeError:
        raise JanusKitError(
            "no home folder is known; set XDG_CACHE_HOME to a folder for what is kept"
        ) from None


def recall(kind: str, name: str) -> str | None:
    """A note of a kind by its name; None where there is none that can be read."""
    try:
        return (cache_home() / kind / name).read_text(encoding="utf-8")
    except (OSError, ValueError, JanusKitError):
        return None


def remember(kind: str, name: str, text: str = "") -> None:
    """Keep a note, whole or not at all; where it cannot be kept, it is found out again."""
    with suppress(OSError, JanusKitError):
        folder = cache_home() / kind
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{name}.{os.getpid()}"
        part.write_text(text, encoding="utf-8")
        part.replace(folder / name)
