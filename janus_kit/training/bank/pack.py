"""The packed bank: one zip file of WebP cut-outs and an index that says what and whose they are."""

import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from janus_kit.errors import JanusKitError
from janus_kit.training.bank.names import SOLID, held_out_view

__all__ = ["Bank", "Sprite", "encode", "write"]

Pixels = npt.NDArray[np.uint8]

_INDEX = "index.json"
_WHEN = (1980, 1, 1, 0, 0, 0)  # of every file inside: equal pictures make equal banks


@dataclass(frozen=True)
class Sprite:
    """One cut-out of the bank."""

    name: str
    model: str
    view: str  # azimuth.elevation in degrees, or flat
    source: str
    licence: str  # its SPDX name
    attribution: str

    @property
    def file(self) -> str:
        """Its place in the bank."""
        return f"{self.model} {self.view}.webp"

    @property
    def held_out(self) -> bool:
        """True when training must not show it."""
        return held_out_view(self.name, self.model, self.view)

    @property
    def solid(self) -> bool:
        """True for a rendering of a model, false for a flat drawing."""
        return self.source in SOLID


class Bank:
    """A packed bank; the file is held in memory, so that no handle is shared by processes."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
            rows = json.loads(self._zip.read(_INDEX))
            self.sprites = tuple(Sprite(**row) for row in rows)
        except FileNotFoundError:
            raise JanusKitError(f"{path}: is not there; run janus-kit train data") from None
        except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
            raise JanusKitError(
                f"{path}: is not a whole picture bank ({error}); delete it and run "
                "janus-kit train data"
            ) from None
        self._path = path

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What it shows, in the order of the index."""
        return tuple(dict.fromkeys(sprite.name for sprite in self.sprites))

    def webp(self, sprite: Sprite) -> bytes:
        """The cut-out as it is stored."""
        try:
            return self._zip.read(sprite.file)
        except (zipfile.BadZipFile, KeyError) as error:
            raise self._torn(sprite, error) from None

    def pixels(self, sprite: Sprite) -> Pixels:
        """The cut-out: RGBA uint8 [h, w, 4], tight, its longer side 192."""
        try:
            with Image.open(io.BytesIO(self.webp(sprite))) as image:
                return np.array(image.convert("RGBA"))
        except OSError as error:
            raise self._torn(sprite, error) from None

    def _torn(self, sprite: Sprite, error: Exception) -> JanusKitError:
        return JanusKitError(
            f"{self._path}: {sprite.file} cannot be read ({error}); delete the bank and run "
            "janus-kit train data"
        )

    def credits(self) -> list[str]:
        """Whom to name, one line for each author and licence."""
        found = {f"{sprite.attribution} ({sprite.licence})" for sprite in self.sprites}
        return sorted(found, key=str.casefold)


def encode(image: Image.Image) -> bytes:
    """The cut-out as WebP with alpha, about 4 kB."""
    data = io.BytesIO()
    image.save(data, "WEBP", quality=80, alpha_quality=85, method=6)
    return data.getvalue()


def write(path: Path, sprites: Sequence[Sprite], data: Iterable[bytes]) -> None:
    """Pack the cut-outs, whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        with zipfile.ZipFile(part, "w") as file:
            rows = [asdict(sprite) for sprite in sprites]
            _add(file, _INDEX, json.dumps(rows).encode(), zipfile.ZIP_DEFLATED)
            for sprite, picture in zip(sprites, data, strict=True):
                _add(file, sprite.file, picture, zipfile.ZIP_STORED)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _add(file: zipfile.ZipFile, name: str, data: bytes, how: int) -> None:
    file.writestr(zipfile.ZipInfo(name, _WHEN), data, how)
