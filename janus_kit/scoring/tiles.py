"""The pictures of DPG-Bench: one grid of four tiles an item, or a folder of tiles."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from janus_kit.errors import ImageError, OptionError, ScoringError

__all__ = ["SUFFIXES", "find_items", "grid_of", "load_tiles", "split"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def find_items(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """The files of every item, by its id: one grid, or the tiles of a folder in order.

    An item's id is the name of its file up to the first dot, or that of its folder. Tiles are
    ordered by the first number in their names. Other files, such as the reference's results, are
    passed over. Raises ScoringError where the folder is none, holds no picture, or has an item
    twice.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ScoringError(f"{root}: is not a folder; give the one that holds the pictures")
    found: dict[str, list[Path]] = {}
    try:
        entries = sorted(root.iterdir())
        for path in entries:
            files = [path] if path.is_file() else sorted(path.iterdir(), key=_number)
            files = [file for file in files if file.suffix.lower() in SUFFIXES]
            if not files or path.name.startswith("."):
                continue
            item = path.name.split(".")[0]
            if item in found:
                other = found[item][0]
                raise ScoringError(f"{path}: {item} has another picture, {other}; remove one")
            found[item] = files
    except OSError as error:
        raise ScoringError(f"{error.filename}: cannot be listed ({error.strerror})") from error
    if not found:
        raise ScoringError(f"{root}: holds no picture; expected files like partiprompts97.png")
    return found


def load_tiles(files: Sequence[Path], pic_num: int) -> list[Image.Image]:
    """The tiles of an item, RGB: the parts of its grid, or its files where there are several.

    Raises ImageError for a picture that cannot be read, ScoringError for another number of tiles.
    """
    if len(files) == 1 and pic_num != 1:
        return split(_load(files[0]), pic_num, str(files[0]))
    if len(files) < pic_num:
        raise ScoringError(f"{files[0].parent}: holds {len(files)} tiles, not {pic_num}")
    return [_load(file) for file in files[:pic_num]]


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


def _number(path: Path) -> tuple[int, str]:
    match = re.search("[0-9]+", path.stem)
    return (int(match[0]) if match else -1), path.name


def _load(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: cannot be read as a picture ({error}); is it whole?") from error
