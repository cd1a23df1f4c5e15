"""The model that the package carries: small, whole, and able to do what is claimed of it."""

import gc
import resource
from importlib import resources
from pathlib import Path

import pytest
import torch
from conftest import Run
from PIL import Image

from janus_kit import JanusPipeline
from janus_kit.scoring.colors import pixel_color
from janus_kit.training import language
from janus_kit.training.painting import COLORS

WEIGHTS = Path(str(resources.files("janus_kit.weights")))
STATM = Path("/proc/self/statm")
PROMPTS = (
    "a photo of a giraffe",
    "a dog",
    "a photo of a bench",
    "a zebra",
    "two people",
    "four pizzas",
    "three donuts",
    "two teddy bears",
    "a bench left of a teddy bear",
    "a pizza above a dog",
    "a giraffe right of a bench",
    "a photo of a teddy bear and a donut",
)


@pytest.fixture(scope="module")
def pipe() -> JanusPipeline:
    pipe = JanusPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def drawn(pipe: JanusPipeline) -> list[Image.Image]:
    """One picture a prompt."""
    return list(pipe(PROMPTS, seed=1).images)


def test_the_embedded_model_takes_at_most_30_megabytes() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir() if file.is_file()) <= 30_000_000


def test_the_embedded_model_has_the_true_picture_size_and_codes(pipe: JanusPipeline) -> None:
    assert pipe.config.codes == 576
    assert pipe.config.vision.image_size == 384
    assert pipe.config.vision.tokens == 576


def test_a_prompt_outside_its_world_is_drawn_with_one_hint(run: Run, tmp_path: Path) -> None:
    ended = run("generate", "a lighthouse", "a red castle", "-o", tmp_path)
    assert ended.code == 0
    assert len(list(tmp_path.glob("*.png"))) == 2
    assert ended.err.count("knows a small world") == 1
    assert "'lighthouse', 'castle'" in ended.err
    assert "--model" in ended.err
    assert "small world" not in run("generate", "two zebras", "-o", tmp_path).err


def test_it_draws_colors_that_the_prompt_names_more_often_than_not(pipe: JanusPipeline) -> None:
    shown = {}
    for color in COLORS:
        image = pipe(f"a photo of a {color} cup", seed=1).images[0]
        shown[color] = pixel_color(image, (140, 140, 230, 230)) == color
    assert sum(shown.values()) > len(shown) / 2, shown


@pytest.mark.slow
def test_it_tells_what_it_has_drawn(pipe: JanusPipeline, drawn: list[Image.Image]) -> None:
    told = pipe.caption(drawn, max_new_tokens=64)
    kept = {
        text: {fact[2] for fact in language.parse(text)[0]}
        & {fact[2] for fact in language.parse(said)[0]}
        for text, said in zip(PROMPTS, told, strict=True)
    }
    assert sum(map(bool, kept.values())) > len(kept) / 2, dict(zip(PROMPTS, told, strict=True))


@pytest.mark.slow
def test_its_pictures_do_not_depend_on_the_batch(pipe: JanusPipeline) -> None:
    prompts = ["a giraffe", "two blue cups", "a dog above a pizza"]
    together = pipe(prompts, seed=5, output_type="tokens").codes
    for i, prompt in enumerate(prompts):
        assert torch.equal(together[i], pipe(prompt, seed=5 + i, output_type="tokens").codes[0])


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="memory is read as Linux tells it")
def test_memory_does_not_grow_with_the_pictures_drawn(pipe: JanusPipeline) -> None:
    def kept() -> int:
        gc.collect()
        return int(STATM.read_text().split()[1]) * resource.getpagesize()

    def draw(count: int) -> None:
        for number in range(count):
            image = pipe(PROMPTS[number % len(PROMPTS)], seed=number).images[0]
            pipe.caption(image, max_new_tokens=8)

    draw(10)  # what is allocated once
    before = kept()
    draw(50)
    assert kept() - before < 10_000_000  # a picture's pixels and cache alone are 15 MB


def test_the_same_seed_draws_the_same_and_another_prompt_another(pipe: JanusPipeline) -> None:
    first = pipe("a red apple", seed=3, output_type="tokens").codes
    again = pipe("a red apple", seed=3, output_type="tokens").codes
    other = pipe("a blue apple", seed=3, output_type="tokens").codes
    assert (first == again).all()
    assert (first != other).any()
