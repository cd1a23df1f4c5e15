"""The model that the package carries: small, whole, and able to do what is claimed of it."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from janus_kit import JanusPipeline
from janus_kit.training import world
from janus_kit.training.judge import see
from janus_kit.training.sprites import DRAWN, rgb_to_lab

WEIGHTS = Path(str(resources.files("janus_kit.weights")))
COLORS = ("red", "yellow", "green", "blue")


@pytest.fixture(scope="module")
def pipe() -> JanusPipeline:
    pipe = JanusPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main_color(image: Image.Image) -> str:
    """The world's colour that most of the vivid pixels are nearest to."""
    lab = rgb_to_lab(np.asarray(image)[::4, ::4]).reshape(-1, 3)
    vivid = lab[np.linalg.norm(lab[:, 1:], axis=1) > 30]
    palette = rgb_to_lab(np.array(list(world.COLORS.values()), np.uint8)[None])[0]
    nearest = np.argmin(((vivid[:, None, 1:] - palette[None, :, 1:]) ** 2).sum(-1), 1)
    return list(world.COLORS)[int(np.bincount(nearest, minlength=len(palette)).argmax())]


def test_the_embedded_model_takes_at_most_24_megabytes() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir() if file.is_file()) <= 24_000_000


def test_the_embedded_model_has_the_true_picture_size_and_codes(pipe: JanusPipeline) -> None:
    assert pipe.config.codes == 576
    assert pipe.config.vision.image_size == 384
    assert pipe.config.vision.tokens == 576


def draw(pipe: JanusPipeline, prompts: list[str]) -> list[Image.Image]:
    """One picture a prompt, at the guidance where this model draws best."""
    return list(pipe(prompts, seed=1, guidance_scale=2.5).images)


def test_it_draws_in_the_colour_of_the_prompt_more_often_than_not(pipe: JanusPipeline) -> None:
    drawn = draw(pipe, [f"a {color} heart" for color in COLORS])
    right = [main_color(image) == color for image, color in zip(drawn, COLORS, strict=True)]
    assert sum(right) > len(COLORS) / 2, right


def test_it_draws_two_things_where_the_prompt_has_them_more_often_than_not(
    pipe: JanusPipeline,
) -> None:
    prompts = [
        "a red heart left of a blue star",
        "a blue square left of a yellow circle",
        "a green moon above a red triangle",
        "a yellow square above a blue heart",
        "a red star left of a green square",
    ]
    right = 0
    for image, prompt in zip(draw(pipe, prompts), prompts, strict=True):
        shown, asked = see(np.asarray(image), DRAWN), world.parse(prompt)
        right += shown[1] == asked[1] and [f[1] for f in shown[0]] == [f[1] for f in asked[0]]
    assert right > len(prompts) / 2, right


def test_its_captions_tell_colours_and_numbers_right_more_often_than_not(
    pipe: JanusPipeline,
) -> None:
    scenes = [world.compose(77_000_000 + i, names=DRAWN) for i in range(16)]
    told = pipe.caption([Image.fromarray(pixels) for pixels, _ in scenes], max_new_tokens=48)
    pairs = [
        (world.parse(said)[0], world.facts(scene)[0])
        for said, (_, scene) in zip(told, scenes, strict=True)
    ]
    colors = [{f[1] for f in said} == {f[1] for f in true} for said, true in pairs]
    numbers = [sum(f[0] for f in said) == sum(f[0] for f in true) for said, true in pairs]
    assert sum(colors) > len(pairs) / 2, told
    assert sum(numbers) > len(pairs) / 2, told


@pytest.mark.slow
def test_its_pictures_do_not_depend_on_the_batch(pipe: JanusPipeline) -> None:
    prompts = ["a red heart", "two blue stars", "a green circle above a pink star"]
    together = pipe(prompts, seed=5, output_type="tokens").codes
    for i, prompt in enumerate(prompts):
        assert torch.equal(together[i], pipe(prompt, seed=5 + i, output_type="tokens").codes[0])


def test_the_same_seed_draws_the_same_and_another_prompt_another(pipe: JanusPipeline) -> None:
    first = pipe("a red heart", seed=3, output_type="tokens").codes
    again = pipe("a red heart", seed=3, output_type="tokens").codes
    other = pipe("a blue heart", seed=3, output_type="tokens").codes
    assert (first == again).all()
    assert (first != other).any()
