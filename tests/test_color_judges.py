"""Judges of color: a CLIP of random weights against a slow version of the protocol, and pixels."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detector_parts import picture
from PIL import Image
from torch import Tensor

from janus_kit.errors import ScoringError
from janus_kit.scoring.clip import ClipColors, Pixels, clip_pixels, open_colors
from janus_kit.scoring.colors import NOT_COMPARABLE, classify_color, color_texts, crop_for_color
from janus_kit.scoring.geneval import Detection


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny CLIP of random weights and a tokenizer of letters."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    letters = [chr(code) for code in range(97, 123)] + ["-"]
    vocab = [*letters, *[f"{letter}</w>" for letter in letters]]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    last = len(vocab) - 1
    text = {
        **small,
        "vocab_size": len(vocab),
        "max_position_embeddings": 77,
        "eos_token_id": last,
        "bos_token_id": last - 1,
        "pad_token_id": last,
    }
    vision = {**small, "image_size": 32, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    model.save_pretrained(folder)
    return folder


def things(image: Image.Image, count: int = 5) -> list[tuple[Image.Image, Detection]]:
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        mask = np.zeros((image.height, image.width), bool)
        mask[4 + number : 20, 3:25] = True
        box = (3.0, 4.0 + number, 25.0, 20.0)
        name = ("cat", "hot dog")[number % 2]
        found.append((image, Detection(name, box, float(rng.random()), mask)))
    return found


def test_clip_tells_colors_as_the_protocol_says(clip: Path) -> None:
    from transformers import AutoTokenizer, CLIPModel

    judge = ClipColors.open(str(clip), device="cpu")
    weights = hashlib.sha256((clip / "model.safetensors").read_bytes()).hexdigest()
    assert judge.version == hashlib.sha256(weights.encode()).hexdigest()[:10]
    judge._batch = 2
    asked = [pair for seed in range(4) for pair in things(picture((40, 30), seed), 3)]
    found = judge.colors(asked)
    model, tokenizer = CLIPModel.from_pretrained(clip).eval(), AutoTokenizer.from_pretrained(clip)
    for (image, thing), color in zip(asked, found, strict=True):
        crop = crop_for_color(image, thing.box, thing.mask)
        with torch.inference_mode():
            seen = model.get_image_features(clip_pixels(crop, 32)[None]).pooler_output
            texts = {
                name: model.get_text_features(
                    **tokenizer(lines, padding=True, return_tensors="pt")
                ).pooler_output.numpy()
                for name, lines in color_texts(thing.label).items()
            }
        assert classify_color(seen.numpy(), texts) == [color]
    assert len(set(found)) > 1
    assert judge.mark == NOT_COMPARABLE
    assert judge.colors([]) == []


def test_a_crop_is_scaled_by_its_shorter_side_and_cut_in_the_middle() -> None:
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste("blue", (30, 0, 60, 30))
    seen = clip_pixels(wide, 30)
    assert tuple(seen.shape) == (3, 30, 30)
    assert seen[2].min() > seen[0].max()  # all blue: the ends are lost
    assert torch.equal(clip_pixels(wide.transpose(Image.Transpose.TRANSPOSE), 30), seen.mT)


def test_clip_pixels_are_those_of_transformers() -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    image = picture((57, 41))
    theirs: Tensor = processor(image, return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(clip_pixels(image, 32), theirs, atol=1e-5)


def test_a_judge_of_colors_opens_by_name(clip: Path, tmp_path: Path) -> None:
    assert isinstance(open_colors("pixels"), Pixels)
    assert open_colors(str(clip), device="cpu").name == str(clip)
    with pytest.raises(ScoringError, match="cannot be loaded as a CLIP model"):
        open_colors(str(tmp_path / "none"), device="cpu")


def test_pixels_tell_plain_colors() -> None:
    image = Image.new("RGB", (60, 60), "white")
    image.paste((220, 20, 20), (10, 10, 50, 50))
    thing = Detection("cat", (5, 5, 55, 55), 0.9)
    assert Pixels().colors([(image, thing)]) == ["red"]
