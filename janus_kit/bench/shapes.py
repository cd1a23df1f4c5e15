"""Folders of models with the true shapes of published ones and random weights in bfloat16."""

import json
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import save_file

from janus_kit.config import PRESETS
from janus_kit.model import Janus
from janus_kit.names import HUGGING_FACE, pieces

__all__ = ["folder_of"]

SHARD = 2 * 10**9  # bytes held at once while writing


def folder_of(shape: str, where: Path) -> Path:
    """The folder of a preset's shape in `where`; written the first time, whole or not at all."""
    folder = where / shape
    if (folder / "config.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    config = PRESETS[shape]
    with torch.device("meta"):
        model = Janus(config)
    pool = torch.randn(2**24 + 1, generator=torch.Generator().manual_seed(0))
    pool = (pool * 0.02).bfloat16()
    names: dict[str, str] = {}
    held: dict[str, torch.Tensor] = {}
    files: list[str] = []
    size = 0

    def write() -> None:
        nonlocal held
        files.append(f"model-{len(files) + 1:05}.safetensors")
        save_file(held, folder / files[-1], metadata={"format": "pt"})
        names.update(dict.fromkeys(held, files[-1]))
        held = {}

    for name, parts in pieces(model, HUGGING_FACE).items():
        for part in parts:
            count = torch.Size(part.shape).numel()
            # Another start for each tensor; norms are about 1.
            numbers = pool.roll(len(names) * 977).repeat(count // len(pool) + 1)[:count]
            ones = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            held[part.name] = (numbers + ones).reshape(part.shape)
            size += 2 * count
            if sum(t.nbytes for t in held.values()) > SHARD:
                write()
    write()
    index = {"metadata": {"total_size": size}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    source = resources.files("janus_kit.weights")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    settings = config.to_dict(image_token_id=5, dtype="bfloat16")
    settings["image_token_id"] = json.loads((source / "config.json").read_text())["image_token_id"]
    (folder / "config.json").write_text(json.dumps(settings))
    return folder
