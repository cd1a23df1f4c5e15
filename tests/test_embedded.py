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
from janus_kit.training.sprites import DRAWN

WEIGHTS = Path(str(resources.files("janus_kit.weights")))


@pytest.fixture(scope="module")
def pipe() -> JanusPipeline:
    pipe = JanusPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_embedded_model_takes_at_most_24_megabytes() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir() if file.is_file()) <= 24_000_000


def test_the_embedded_model_has_the_true_picture_size_and_codes(pipe: JanusPipeline) -> None:
    assert pipe.config.codes == 576
    assert pipe.config.vision.image_size == 384
    assert pipe.config.vision.tokens == 576


def draw(pipe: JanusPipeline, prompts: list[str]) -> list[Image.Image]:
    """One picture a prompt, at the guidance where this model draws best."""
    return list(pipe(prompts, seed=1, guidance_scale=2.5).images)


def test_it_draws_what_the_prompt_names_more_often_than_not(pipe: JanusPipeline) -> None:
    prompts = [
        "a red heart",
        "three yellow stars",
        "two green squares",
        "four blue moons",
        "a red star left of a blue square",
        "a green triangle above an orange circle",
    ]
    shown = [see(np.asarray(image), DRAWN) for image in draw(pipe, prompts)]
    right = [facts == world.parse(text) for facts, text in zip(shown, prompts, strict=True)]
    assert sum(right) > len(prompts) / 2, shown


def test_its_captions_are_right_more_often_than_not(pipe: JanusPipeline) -> None:
    scenes = [world.compose(77_000_000 + i, names=DRAWN) for i in range(16)]
    told = pipe.caption([Image.fromarray(pixels) for pixels, _ in scenes], max_new_tokens=48)
    right = [
        world.parse(said) == world.facts(scene)
        for said, (_, scene) in zip(told, scenes, strict=True)
    ]
    assert sum(right) > len(scenes) / 2, told


def test_it_tells_what_it_has_drawn_more_often_than_not(pipe: JanusPipeline) -> None:
    prompts = [  # those of the README's picture
        "a red heart",
        "three yellow stars",
        "a purple cat",
        "two green fish",
        "a pink umbrella above a black house",
        "four orange hearts",
        "a blue circle",
        "a red apple left of a blue car",
    ]
    told = pipe.caption(draw(pipe, prompts), max_new_tokens=48)
    right = [world.parse(a) == world.parse(b) for a, b in zip(told, prompts, strict=True)]
    assert sum(right) > len(prompts) / 2, told


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
