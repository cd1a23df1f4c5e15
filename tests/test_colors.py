"""Colors: the texts, the crop that CLIP reads, and the judge that looks at pixels."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pytest
from geneval_parts import BOX, BOXES, checkered, clause, complains, thing, wish
from hypothesis import given
from PIL import Image, ImageDraw

from janus_kit.errors import ImageError
from janus_kit.scoring.geneval import (
    COLORS,
    NOT_COMPARABLE,
    PixelColors,
    classify_color,
    color_texts,
    crop_for_color,
    judge,
    pixel_color,
    result_row,
    summarize,
)
from janus_kit.training import world


def test_the_texts_of_a_color_always_say_a() -> None:
    texts = color_texts("wine glass")
    assert list(texts) == list(COLORS)
    assert texts["orange"] == [
        "a photo of a orange wine glass",
        "a photo of a orange-colored wine glass",
        "a photo of a orange object",
    ]


def test_the_color_is_the_nearest_mean_of_unit_texts() -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(7, 12)), rng.normal(size=(10, 3, 12))
    expected = []
    for image in images:
        cosines = []
        for color in texts:
            mean = sum(text / np.linalg.norm(text) for text in color) / 3
            cosines.append(float(image @ mean / np.linalg.norm(image) / np.linalg.norm(mean)))
        expected.append(COLORS[cosines.index(max(cosines))])
    assert classify_color(images, texts) == expected
    assert classify_color(images, dict(zip(COLORS, texts, strict=True))) == expected
    assert classify_color(images * 1000, texts) == expected
    assert len(set(expected)) > 2


def test_a_long_text_does_not_outweigh_the_others() -> None:
    texts = np.zeros((10, 2, 3))
    texts[:, :, 2] = 1
    texts[0] = [[100, 0, 0], [0, 1, 0]]  # red: between the two, not where the long one points
    texts[1] = [[1, 0.2, 0], [1, 0.2, 0]]
    assert classify_color([[1, 1, 0]], texts) == ["red"]


def test_of_equally_near_colors_the_first_is_taken() -> None:
    assert classify_color(np.ones((1, 4)), np.ones((10, 3, 4))) == ["red"]
    assert classify_color(np.ones((0, 4)), np.ones((10, 3, 4))) == []


def test_pixels_outside_the_mask_become_grey_before_the_crop() -> None:
    image = checkered()
    mask = np.zeros((10, 12), bool)
    mask[3:5, 4:8] = True
    found = np.asarray(crop_for_color(image, (3, 2, 9, 6), mask))
    expected = np.where(mask[..., None], np.asarray(image), 153)[2:6, 3:9]
    assert np.array_equal(found, expected)
    whole = np.asarray(crop_for_color(image, (3, 2, 9, 6), mask, crop=False))
    assert np.array_equal(whole, np.where(mask[..., None], np.asarray(image), 153))
    left = np.asarray(crop_for_color(image, (3, 2, 9, 6), mask, background="original"))
    assert np.array_equal(left, np.asarray(image)[2:6, 3:9])
    white = crop_for_color(image, (3, 2, 9, 6), mask, background="white")
    assert white.getpixel((0, 0)) == (255, 255, 255)
    assert np.array_equal(np.asarray(image), np.asarray(checkered()))  # not written on


def test_the_sides_of_a_box_are_rounded_half_to_even() -> None:
    image = checkered()
    assert (
        crop_for_color(image, (0.5, 1.5, 6.5, 7.5)).tobytes() == image.crop((0, 2, 6, 8)).tobytes()
    )
    assert crop_for_color(image, (0.51, 1.49, 6, 7)).tobytes() == image.crop((1, 1, 6, 7)).tobytes()


@given(BOXES)
def test_every_box_gives_a_picture_that_clip_can_read(box: Sequence[float]) -> None:
    image = checkered()
    cut = crop_for_color(image, box)
    assert min(cut.size) >= 1
    x1, y1, x2, y2 = (round(value) for value in box)
    if 0 <= x1 < x2 <= 12 and 0 <= y1 < y2 <= 10:
        assert cut.tobytes() == image.crop(box).tobytes()


def test_transparency_is_dropped_and_orientation_honoured() -> None:
    clear = checkered()
    clear.putalpha(0)
    assert crop_for_color(clear, (0, 0, 12, 10)).tobytes() == checkered().tobytes()
    turned = stored(checkered(), orientation=6)
    upright = checkered().transpose(Image.Transpose.ROTATE_270)
    assert crop_for_color(turned, (0, 0, 10, 12)).tobytes() == upright.tobytes()
    mask = np.ones((12, 10), bool)
    assert crop_for_color(turned, (0, 0, 10, 12), mask).tobytes() == upright.tobytes()


def stored(image: Image.Image, orientation: int) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = BytesIO()
    image.save(buffer, format="PNG", exif=exif)
    return Image.open(buffer)


def test_a_torn_picture_is_told() -> None:
    buffer = BytesIO()
    checkered(200, 200).save(buffer, format="PNG")
    torn = Image.open(BytesIO(buffer.getvalue()[:200]))
    complains(lambda: crop_for_color(torn, BOX), ImageError, ["cannot be decoded", "whole?"])


PAINT = {
    **world.COLORS,
    "brown": (139, 69, 19),
    "white": (250, 250, 250),
}


CSS = {
    "red": "crimson firebrick maroon #d33",
    "orange": "darkorange coral sandybrown",
    "yellow": "gold khaki #f5e663",
    "green": "lime darkgreen forestgreen olivedrab lightgreen",
    "blue": "navy royalblue skyblue steelblue cyan",
    "purple": "indigo darkviolet orchid #80f",
    "pink": "hotpink deeppink lightpink",
    "brown": "saddlebrown sienna tan #654321 burlywood",
    "black": "#111 #333 #0a0a1e",
    "white": "snow ivory beige silver",
}


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("ground", ["white", "#cfc8b8", "#404850", "#2e8b57"])
def test_a_painted_thing_has_its_color_with_and_without_a_mask(color: str, ground: str) -> None:
    for paint in (PAINT[color], *CSS[color].split()):
        image = Image.new("RGB", (96, 80), ground)
        mask = Image.new("1", image.size)
        box = (20, 10, 70, 60)
        ImageDraw.Draw(image).ellipse(box, fill=paint)
        ImageDraw.Draw(mask).ellipse(box, fill=1)
        assert pixel_color(image, box) == color
        assert pixel_color(image, box, np.asarray(mask)) == color


def test_a_thing_keeps_its_color_under_noise_shade_and_a_loose_box() -> None:
    rng = np.random.default_rng(0)
    for color, paint in PAINT.items():
        image = Image.new("RGB", (96, 80), "#dde6ee")
        ImageDraw.Draw(image).rectangle((24, 14, 66, 56), fill=paint)
        light = np.linspace(1.05, 0.85, 80)[:, None, None]
        noisy = np.asarray(image) * light + rng.normal(0, 6, (80, 96, 3))
        shaded = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        assert pixel_color(shaded, (18, 8, 72, 62)) == color


def test_what_stands_in_the_corners_of_a_box_is_not_the_thing() -> None:
    image = Image.new("RGB", (100, 100), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((10, 10, 89, 89), fill=PAINT["blue"])
    pen.ellipse((9, 9, 90, 90), fill="white")
    pen.ellipse((32, 32, 67, 67), fill=PAINT["red"])  # smaller than the four corners together
    assert pixel_color(image, (10, 10, 90, 90)) == "red"


def test_a_thing_that_fills_its_box_or_the_picture_has_its_color() -> None:
    whole = Image.new("RGB", (40, 40), PAINT["blue"])
    assert pixel_color(whole, (0, 0, 40, 40)) == "blue"
    assert pixel_color(whole, (10, 10, 30, 30)) == "blue"
    assert pixel_color(whole, (5, 5, 5, 5)) == "blue"
    assert pixel_color(whole, (-9, -9, 90, 90), np.zeros((40, 40), bool)) == "blue"


def test_a_verdict_by_pixels_says_that_it_is_not_comparable() -> None:
    image = Image.new("RGB", (40, 40), "white")
    ImageDraw.Draw(image).rectangle((10, 10, 29, 29), fill=PAINT["red"])
    dog = thing(box=(10, 10, 30, 30), color="blue")
    red = wish(clause(color="red"), tag="colors")
    by_pixels = PixelColors(image)
    verdict = judge(red, [dog], color_of=by_pixels)
    assert (verdict.correct, verdict.mark) == (True, NOT_COMPARABLE)
    assert judge(wish(clause()), [dog], color_of=by_pixels).mark == ""
    assert judge(red, [dog]).mark == ""
    row = result_row("a.png", red, verdict)
    assert row["mark"] == "not comparable with published scores"
    assert summarize([row]).marks == (NOT_COMPARABLE,)
