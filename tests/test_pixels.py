"""How a picture becomes what the encoder reads, and pixels become pictures: the published rules."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_images import HIDDEN, RED, SCENE, WHITE

from janus_kit.errors import GenerationError, ImageError, OptionError
from janus_kit.imaging import make_image_grid
from janus_kit.vision import images


def published(image: Image.Image) -> torch.Tensor:
    """Preprocessing as `image_processing_vlm.py` of deepseek-ai/Janus states it."""
    width, height = image.size
    longest = max(width, height)
    height, width = (max(int(side / longest * 384), 14) for side in (height, width))
    square = image.resize((width, height), Image.Resampling.BICUBIC)
    if width != height:
        resized, square = square, Image.new("RGB", (max(width, height),) * 2, (127, 127, 127))
        offset = (0, (width - height) // 2) if width > height else ((height - width) // 2, 0)
        square.paste(resized, offset)
    levels = np.asarray(square).astype(np.float32) / np.float32(255)
    levels = (levels - np.float32(0.5)) / np.float32(0.5)
    return torch.from_numpy(levels.transpose(2, 0, 1).copy())


SIZES = [(384, 384), (40, 24), (24, 40), (1, 1), (147, 49), (200, 1), (1, 200), (641, 383)]


@pytest.mark.parametrize("size", SIZES)
def test_pixels_follow_the_published_rule(size: tuple[int, int]) -> None:
    pixels = images.to_pixels(SCENE.resize(size))
    assert pixels.is_contiguous()
    assert (tuple(pixels.shape), pixels.dtype) == ((3, 384, 384), torch.float32)
    assert torch.equal(pixels, published(SCENE.resize(size)))


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_whole_numbers_round_as_the_published_floats_do(side: int, longest: int) -> None:
    side, longest = sorted((side, longest))
    assert side * 384 // longest == int(side / longest * 384)


def test_a_square_is_the_middle_of_the_picture() -> None:
    wide = Image.new("RGB", (300, 100), "black")
    wide.paste(WHITE, (100, 0, 200, 100))
    for image in (wide, wide.transpose(Image.Transpose.TRANSPOSE)):
        assert torch.equal(images.to_square(image, 100), torch.ones(3, 100, 100))
    square = SCENE.resize((384, 384))
    assert torch.equal(images.to_square(square), published(square))


@pytest.mark.parametrize("rule", [images.to_pixels, images.to_square])
def test_a_rule_fills_any_square_and_asks_for_an_rgb_image(rule: Any) -> None:
    for size in (1, 8, 13, 64):
        assert rule(Image.new("RGB", (200, 1), RED), size).shape == (3, size, size)
    with pytest.raises(ImageError, match="mode RGBA, not RGB"):
        rule(HIDDEN)
    with pytest.raises(OptionError, match="size must be 1 or more pixels, not 0"):
        rule(SCENE, 0)


@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=30))
def test_levels_are_clipped_and_rounded_down_as_published(values: list[float]) -> None:
    flat = np.array(values, dtype=np.float32)
    levels = images.to_uint8(torch.from_numpy(flat).expand(2, 3, 1, -1))
    expected = np.clip((flat + 1) / 2 * 255, 0, 255).astype(np.uint8)
    assert levels.dtype == np.uint8
    assert levels.shape == (2, 1, len(values), 3)
    assert np.array_equal(levels, np.broadcast_to(expected[:, None], levels.shape))


def test_pixels_become_pictures_and_nothing_else_does() -> None:
    square = SCENE.resize((384, 384))
    (back,) = images.to_pil(images.to_pixels(square)[None])
    lost = np.abs(np.asarray(back).astype(int) - np.asarray(square))
    assert lost.max() <= 1  # of 255: rounding down, as published
    assert images.to_pil(torch.zeros(0, 3, 4, 4)) == []
    half = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4).to(torch.bfloat16).requires_grad_()
    assert np.array_equal(images.to_uint8(half), images.to_uint8(half.float()))
    with pytest.raises(ImageError, match=r"must be \[b, 3, h, w\], not \[3, 4, 4\]"):
        images.to_pil(torch.zeros(3, 4, 4))
    with pytest.raises(GenerationError, match="NaN"):
        images.to_uint8(torch.full((1, 3, 2, 2), torch.nan))


def test_a_sheet_is_filled_row_by_row_on_white() -> None:
    three = [Image.new("RGB", (4, 6), (red, 0, 0)) for red in (10, 20, 30)]
    assert np.asarray(images.grid(three))[::6, ::4, 0].tolist() == [[10, 20], [30, 255]]
    sizes = {columns: images.grid(three, columns).size for columns in (1, 2, 3, 9)}
    assert sizes == {1: (4, 18), 2: (8, 12), 3: (12, 6), 9: (12, 6)}
    with pytest.raises(ImageError, match="empty"):
        images.grid([])
    with pytest.raises(OptionError, match="columns must be 1 or more, not 0"):
        images.grid(three, 0)


def test_the_public_grid_has_the_sides_that_diffusers_names() -> None:
    three = [Image.new("RGB", (4, 6), (10 * i, 0, 0)) for i in (1, 2, 3)]
    assert make_image_grid(three, 1, 3).size == make_image_grid(three, rows=1).size == (12, 6)
    assert make_image_grid(three, cols=1).size == (4, 18)
    for sides in ({"rows": 1, "cols": 2}, {"rows": 0}, {"cols": 0}):
        with pytest.raises(OptionError):
            make_image_grid(three, **sides)
