"""The pictures of DPG-Bench: grids, folders of tiles, and what is told of others."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janus_kit.errors import ImageError, OptionError, ScoringError
from janus_kit.scoring.tiles import find_items, grid_of, load_tiles, split, tile_files


def colored(*colors: str, size: tuple[int, int] = (5, 3)) -> list[Image.Image]:
    return [Image.new("RGB", size, color) for color in colors]


def test_a_grid_is_split_as_it_was_put_together() -> None:
    tiles = colored("red", "green", "blue", "white")
    found = split(grid_of(tiles))
    assert [tile.getpixel((0, 0)) for tile in found] == [t.getpixel((4, 2)) for t in tiles]
    assert [tile.size for tile in found] == [(5, 3)] * 4
    assert [np.asarray(tile).tolist() for tile in split(grid_of(tiles), 3)] == [
        np.asarray(tile).tolist() for tile in tiles[:3]
    ]
    assert split(tiles[0], 1) == tiles[:1] == [grid_of(tiles[:1])]
    with pytest.raises(ScoringError, match="even sides"):
        split(tiles[0])
    with pytest.raises(OptionError, match="pic_num"):
        split(tiles[0], 5)


def test_pictures_of_items_are_grids_or_folders(tmp_path: Path) -> None:
    grid_of(colored("red", "green", "blue", "white")).save(tmp_path / "a1.grid.png")
    (tmp_path / "b2").mkdir()
    for number, tile in enumerate(colored("red", "blue")):
        tile.save(tmp_path / "b2" / f"{9 + number}.png")
    (tmp_path / "results.txt").write_text("0.5")
    found = find_items(tmp_path)
    assert list(found) == ["a1", "b2"]
    assert [file.name for file in tile_files(found["b2"])] == ["9.png", "10.png"]
    assert [tile.getpixel((0, 0)) for tile in load_tiles(found["b2"], 2)] == [
        (255, 0, 0),
        (0, 0, 255),
    ]
    assert len(load_tiles(found["a1"], 4)) == 4
    with pytest.raises(ScoringError, match="holds 2 tiles, not 4"):
        load_tiles(found["b2"], 4)


def test_a_picture_too_many_does_not_shift_the_tiles(tmp_path: Path) -> None:
    tiles = colored("red", "green", "blue", "white")
    for item in ("a", "b", "c", "d"):
        (tmp_path / item).mkdir()
    for number, tile in enumerate(tiles):
        for item in ("a", "b"):
            tile.save(tmp_path / item / f"{number}.png")
    grid_of(tiles).save(tmp_path / "a" / "grid.png")
    tiles[0].save(tmp_path / "a" / "._0.png")  # what macOS leaves
    tiles[0].save(tmp_path / "b" / "4.png")
    grid_of(tiles).save(tmp_path / "c" / "grid.png")
    tiles[0].save(tmp_path / "d" / "0.png")
    found = find_items(tmp_path)
    expected = [tile.getpixel((0, 0)) for tile in tiles]
    for item in ("a", "c"):
        assert [tile.getpixel((0, 0)) for tile in load_tiles(found[item], 4)] == expected
    with pytest.raises(ScoringError, match="b: holds 5 tiles, not 4"):
        load_tiles(found["b"], 4)
    with pytest.raises(ScoringError, match="d: holds 1 tiles, not 4"):  # a tile is no grid
        load_tiles(found["d"], 4)


def test_a_link_to_nothing_stops_no_other_item(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for place in ("a.png", "b/0.png", "c"):
        (tmp_path / place).symlink_to(tmp_path / "gone.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "d.png")
    found = find_items(tmp_path)
    assert list(found) == ["a", "b", "d"]
    for item in ("a", "b"):
        with pytest.raises(ImageError, match="cannot be read as a picture"):
            load_tiles(found[item], 1)
    assert len(load_tiles(found["d"], 4)) == 4


def test_pictures_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="is not a folder"):
        find_items(tmp_path / "none")
    with pytest.raises(ScoringError, match="holds no picture"):
        find_items(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="cannot be read"):
        load_tiles(find_items(tmp_path)["a"], 1)
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ScoringError, match="another picture"):
        find_items(tmp_path)
