"""The model that the package carries: small, whole, and able to do what it is there for."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

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
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) <= 24_000_000


def test_the_embedded_model_has_the_true_picture_size_and_codes(pipe: JanusPipeline) -> None:
    assert pipe.config.codes == 576
    assert pipe.config.vision.image_size == 384
    assert pipe.config.vision.tokens == 576


def test_it_draws_what_the_prompt_says_more_often_than_not(pipe: JanusPipeline) -> None:
    prompts = ["a red heart", "three yellow stars", "a blue circle left of a green square"]
    drawn = pipe(prompts, seed=1).images
    right = [
        world.matches(world.parse(prompt), see(np.asarray(image), DRAWN))
        for prompt, image in zip(prompts, drawn, strict=True)
    ]
    assert sum(right) >= 2, right
    told = pipe.caption(drawn, max_new_tokens=48)
    alike = [
        world.matches(world.parse(p), world.parse(said))
        for p, said in zip(prompts, told, strict=True)
    ]
    assert sum(alike) >= 2, told


def test_it_describes_true_scenes_right_more_often_than_not(pipe: JanusPipeline) -> None:
    from PIL import Image

    scenes = [world.compose(77_000_000 + i, names=DRAWN, split="test") for i in range(8)]
    told = pipe.caption([Image.fromarray(pixels) for pixels, _ in scenes], max_new_tokens=48)
    right = [
        world.parse(said) == world.facts(scene)
        for said, (_, scene) in zip(told, scenes, strict=True)
    ]
    assert sum(right) > len(right) / 2, told


def test_without_guidance_or_with_the_prompt_changed_another_picture_comes(
    pipe: JanusPipeline,
) -> None:
    first = pipe("a red heart", seed=3, output_type="tokens").codes
    again = pipe("a red heart", seed=3, output_type="tokens").codes
    other = pipe("a blue heart", seed=3, output_type="tokens").codes
    assert (first == again).all()
    assert (first != other).any()
