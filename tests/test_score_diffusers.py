"""A pipeline of diffusers is scored beside ours."""

import json
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from PIL import Image
from score_parts import GENEVAL, SMALL, pictures, summary


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Stable Diffusion of random weights."""
    import diffusers
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("diffusion")
    letters = [chr(code) for code in range(97, 123)]
    vocab = [*letters, *[f"{letter}</w>" for letter in letters], "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    words = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )
    torch.manual_seed(0)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocab),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=52,
            eos_token_id=53,
            pad_token_id=53,
        )
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder / "pipe")
    return folder / "pipe"


def test_a_pipeline_of_diffusers_is_scored_beside_ours(scored: Run, diffusion: Path) -> None:
    small = (*GENEVAL, "--tasks", "colors", "--samples", 1, "--limit", 2)
    drawn = ("--diffusers", diffusion, "--steps", 2, "--device", "cpu")
    ended = scored(*small, *drawn, "-o", "a")
    assert ended.code == 0, ended.err
    facts = summary("a")["drawn_by"]
    assert (facts["pipeline"], facts["steps"]) == ("StableDiffusionPipeline", 2)
    scored(*small, *drawn, "-o", "b", "--batch-size", 2)
    for data, same in zip(pictures("a").values(), pictures("b").values(), strict=True):
        one, other = (np.asarray(Image.open(BytesIO(png)), int) for png in (data, same))
        assert np.abs(one - other).max() <= 1  # a seed draws its picture in any batch
    ended = scored(*small, "-o", "c", "--baseline", "a/summary.json")
    assert ended.code == 0, ended.err


def test_a_pipeline_that_is_none_is_told(
    scored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    ended = scored(*SMALL, "--diffusers", tmp_path / "none", "-o", "a")
    assert (ended.code, "install janus-kit[diffusers]" in ended.err) == (2, True)
