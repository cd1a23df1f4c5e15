"""The pictures of DPG-Bench: one grid of four tiles an item, or a folder of tiles."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from janus_kit.errors import ImageError, OptionError, ScoringError

__all__ = ["SUFFIXES", "find_items", "grid_of", "load_tiles", "split", "tile_files"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def find_items(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The picture of every item, by its id: the file of one grid, or a folder of tiles.

    An item's id is the name of its file up to the first dot, or that of its folder. A folder's only
    picture is a grid where its name has no number. Other files, such as the reference's results,
    are passed over. Raises ScoringError where the folder is none, holds no picture, or has an item
    twice; what is wrong with one item's picture is told when that is loaded.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ScoringError(f"{root}: is not a folder; give the one that holds the pictures")
    found: dict[str, Path] = {}
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise ScoringError(f"{root}: cannot be listed ({error.strerror})") from error
    for path in entries:
        try:
            files = _pictures(path.iterdir() if path.is_dir() else [path])
        except OSError:
            files = [path]
        if not files or path.name.startswith("."):
            continue
        item = path.name.split(".")[0]
        if item in found:
            raise ScoringError(f"{path}: {item} has another picture, {found[item]}; remove one")
        alone = len(files) == 1 and _number(files[0]) is None
        found[item] = files[0] if alone else path
    if not found:
        raise ScoringError(f"{root}: holds no picture; expected files like partiprompts97.png")
    return found


def tile_files(place: Path) -> list[Path]:
    """The files of an item's picture: one grid, or the tiles of a folder by their first number.

    Files without a number, such as a grid beside its tiles, are none. Raises ScoringError for a
    folder that cannot be listed.
    """
    if not place.is_dir():
        return [place]
    try:
        numbered = [(_number(path), path) for path in _pictures(place.iterdir())]
    except OSError as error:
        raise ScoringError(f"{place}: cannot be listed ({error.strerror})") from error
    return [path for number, path in sorted((n, path) for n, path in numbered if n is not None)]


def load_tiles(place: Path, pic_num: int) -> list[Image.Image]:
    """The tiles of an item, RGB: the parts of its grid, or the pictures of its folder.

    Raises ImageError for a picture that cannot be read, ScoringError for another number of tiles.
    """
    if not place.is_dir():
        return split(_load(place), pic_num, str(place))
    files = tile_files(place)
    if len(files) != pic_num:
        raise ScoringError(
            f"{place}: holds {len(files)} tiles, not {pic_num}; it takes pictures with numbers in "
            f"their names, 0.png to {pic_num - 1}.png"
        )
    return [_load(file) for file in files]


def split(image: Image.Image, pic_num: int = 4, place: str = "the grid") -> list[Image.Image]:
    """The first pic_num tiles of a 2×2 grid: top left, top right, bottom left, bottom right.

    A tile is half of the grid on each side, whatever that is; one tile is the whole picture. Raises
    ScoringError for sides that have no halves, OptionError for a pic_num outside 1…4.
    """
    if pic_num not in (1, 2, 3, 4):
        raise OptionError(f"pic_num must be from 1 to 4 where pictures are grids, not {pic_num!r}")
    if pic_num == 1:
        return [image]
    width, height = image.size
    if width % 2 or height % 2:
        raise ScoringError(f"{place}: is {width}×{height}; a grid of 2×2 tiles has even sides")
    w, h = width // 2, height // 2
    corners = [(0, 0), (w, 0), (0, h), (w, h)][:pic_num]
    return [image.crop((x, y, x + w, y + h)) for x, y in corners]


def grid_of(tiles: Sequence[Image.Image]) -> Image.Image:
    """What `split` takes apart: one tile as it is, up to four equal ones on a 2×2 grid."""
    if len(tiles) == 1:
        return tiles[0]
    w, h = tiles[0].size
    sheet = Image.new("RGB", (2 * w, 2 * h))
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % 2 * w, number // 2 * h))
    return sheet


def _pictures(paths: Iterable[Path]) -> list[Path]:
    return [
        path for path in paths if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]


def _number(path: Path) -> int | None:
    match = re.search("[0-9]+", path.stem)
    return int(match[0]) if match else None


def _load(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: cannot be read as a picture ({error}); is it whole?") from error
