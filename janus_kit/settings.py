"""The files beside a model's weights: shapes, tokenizer, processor, and how it draws best."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from janus_kit.config import JanusConfig
from janus_kit.prompts import BEGIN_IMAGE, BOS, END_IMAGE, EOS, IMAGE, PAD, Tokenizer
from janus_kit.storage import read_json

__all__ = ["write_json", "write_settings"]


def write_settings(
    new: Path,
    config: JanusConfig,
    dtype: torch.dtype,
    tokenizer_folder: Path,
    draws: Mapping[str, float],
) -> None:
    """Write all but the weights into new, as transformers' classes for Janus read it.

    draws: guidance_scale and temperature at which the model draws best.
    """
    tokenizer = Tokenizer.from_folder(tokenizer_folder, config.language.vocab_size)
    for name in (
        "tokenizer.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "chat_template.json",
    ):
        if (tokenizer_folder / name).is_file():
            shutil.copyfile(tokenizer_folder / name, new / name)
    path = tokenizer_folder / "tokenizer_config.json"
    known = read_json(path) if path.is_file() else {}
    defaults = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,  # null in Janus-Pro's own file
        "padding_side": "left",
    }
    images = {"image_token": IMAGE, "boi_token": BEGIN_IMAGE, "eoi_token": END_IMAGE}
    write_json(
        new / "tokenizer_config.json",
        defaults
        | {key: value for key, value in known.items() if value is not None}
        | images
        | {"processor_class": "JanusProcessor"},
    )
    side = config.vision.image_size
    write_json(
        new / "preprocessor_config.json",
        {
            "image_processor_type": "JanusImageProcessor",
            "processor_class": "JanusProcessor",
            "do_resize": True,
            "size": {"height": side, "width": side},
            "min_size": 14,
            "resample": 3,  # bicubic
            "do_pad": True,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        },
    )
    write_json(
        new / "processor_config.json",
        {
            "processor_class": "JanusProcessor",
            "num_image_tokens": config.vision.tokens,
            "use_default_system_prompt": True,
        },
    )
    write_json(
        new / "generation_config.json",
        {
            "bos_token_id": tokenizer.bos,
            "eos_token_id": tokenizer.eos,
            "pad_token_id": tokenizer.pad,
            "guidance_scale": 5,
            **draws,
            "generation_kwargs": {"boi_token_id": tokenizer.begin_image},
        },
    )
    name = str(dtype).removeprefix("torch.")
    write_json(new / "config.json", config.to_dict(image_token_id=tokenizer.image, dtype=name))


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write data as a JSON file that people can read."""
    path.write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
