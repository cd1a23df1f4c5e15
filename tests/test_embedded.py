"""The model that the package carries: small, whole, and able to do what is claimed of it."""

from importlib import resources
from pathlib import Path

import pytest
import torch
from PIL import Image

from janus_kit import JanusPipeline
from janus_kit.scoring.colors import pixel_color
from janus_kit.training import language

WEIGHTS = Path(str(resources.files("janus_kit.weights")))
PROMPTS = (
    "a red apple",
    "a purple cat",
    "a pink umbrella",
    "a blue car",
    "two blue cars",
    "three red apples",
    "four orange cats",
    "two pink umbrellas",
    "a red apple left of a blue car",
    "a pink umbrella above a black car",
)


@pytest.fixture(scope="module")
def pipe() -> JanusPipeline:
    pipe = JanusPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def drawn(pipe: JanusPipeline) -> list[Image.Image]:
    """One picture a prompt, at the guidance where this model draws best."""
    return list(pipe(PROMPTS, seed=1, guidance_scale=2.5).images)


def test_the_embedded_model_takes_at_most_30_megabytes() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir() if file.is_file()) <= 30_000_000


def test_the_embedded_model_has_the_true_picture_size_and_codes(pipe: JanusPipeline) -> None:
    assert pipe.config.codes == 576
    assert pipe.config.vision.image_size == 384
    assert pipe.config.vision.tokens == 576


def test_it_draws_the_color_that_the_prompt_names_more_often_than_not(
    drawn: list[Image.Image],
) -> None:
    shown = {}
    for text, image in zip(PROMPTS, drawn, strict=True):
        (_, color, _), *others = language.parse(text)[0]
        if not others:
            shown[text] = pixel_color(image, (0, 0, *image.size)) == color
    assert sum(shown.values()) > len(shown) / 2, shown


@pytest.mark.slow
def test_its_pictures_do_not_depend_on_the_batch(pipe: JanusPipeline) -> None:
    prompts = ["a red apple", "two blue cars", "a green cat above a pink umbrella"]
    together = pipe(prompts, seed=5, output_type="tokens").codes
    for i, prompt in enumerate(prompts):
        assert torch.equal(together[i], pipe(prompt, seed=5 + i, output_type="tokens").codes[0])


def test_the_same_seed_draws_the_same_and_another_prompt_another(pipe: JanusPipeline) -> None:
    first = pipe("a red apple", seed=3, output_type="tokens").codes
    again = pipe("a red apple", seed=3, output_type="tokens").codes
    other = pipe("a blue apple", seed=3, output_type="tokens").codes
    assert (first == again).all()
    assert (first != other).any()
