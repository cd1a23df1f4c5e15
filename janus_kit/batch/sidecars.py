"""Captions beside pictures, as kohya's scripts and taggui read them: one line in <stem>.txt."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from janus_kit.batch.files import path_of, reason
from janus_kit.errors import BatchError, ImageError, OptionError

__all__ = ["EXISTING", "Sidecars", "one_line"]

EXISTING = ("skip", "overwrite", "append", "prepend")


def one_line(text: str) -> str:
    """Text as a sidecar holds it: some readers take a second line for a second caption."""
    return " ".join(text.split())


class Sidecars:
    """Where each picture's caption goes, below folder; no two pictures share a file."""

    def __init__(self, folder: Path, ext: str, full: bool) -> None:
        """ext: of the files; full: x.png.txt in place of x.txt."""
        if not ext.startswith(".") or len(ext) < 2 or "/" in ext or "\0" in ext:
            raise OptionError(f"--ext must be an ending such as .txt, not {ext!r}")
        self.folder, self.ext, self.full = folder, ext, full

    def path(self, name: str) -> Path:
        inside = path_of(name)
        stem = inside if self.full else os.path.splitext(inside)[0]
        return self.folder / f"{stem}{self.ext}"

    def check(self, names: Sequence[str]) -> list[str]:
        """Raise BatchError if two pictures would share a file, or one and its own caption.

        Returned are warnings of names that other disks join: they differ only in case or in how
        accents are composed.
        """
        seen: dict[Path, str] = {}
        alike: dict[str, str] = {}
        warnings = []
        for name in names:
            path = self.path(name)
            if path == self.folder / path_of(name):
                raise BatchError(
                    f"{name}: has the name of its own caption; use another --ext, or "
                    "--sidecar-name full"
                )
            other = seen.setdefault(path, name)
            if other != name:
                raise BatchError(
                    f"{other} and {name} would share {path.name}; use --sidecar-name full, which "
                    f"writes {name}{self.ext}"
                )
            key = unicodedata.normalize("NFC", str(path)).casefold()
            twin = alike.setdefault(key, name)
            if twin != name:
                warnings.append(f"{twin} and {name} have one name on disks that ignore case")
        return warnings

    def existing(self, name: str) -> str | None:
        """The caption that is there already, None if there is none.

        Raises ImageError for a file that is no text.
        """
        path = self.path(name)
        try:
            return path.read_bytes().decode("utf-8-sig").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UnicodeDecodeError as error:
            raise ImageError(
                f"{path.name}: is not UTF-8 text; save it as UTF-8, or use --existing overwrite"
            ) from error
        except OSError as error:
            raise ImageError(f"{path.name}: cannot be read ({reason(error)})") from error
