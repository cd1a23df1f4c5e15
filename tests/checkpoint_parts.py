"""Small folders of models in both layouts."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import original_config, to_original
from safetensors.torch import load_file, save_file
from torch import Tensor

from janus_kit.checkpoint import load

CPU = torch.device("cpu")
Q = "model.language_model.layers.1.self_attn.q_proj.weight"
FILE = "model.safetensors"


def state_of(published: Path, **options: Any) -> dict[str, Tensor]:
    return load(published, device=CPU, **options)[0].state_dict()


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.fixture
def published(hf_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be changed."""
    return Path(shutil.copytree(hf_folder, tmp_path / "model"))


def write(state: dict[str, Tensor], path: Path) -> None:
    if path.suffix == ".bin":
        torch.save(state, path)
    else:
        save_file(state, path)


def write_parts(published: Path, state: Mapping[str, Tensor], pickled: bool) -> None:
    """Weights as two files and their index, every second tensor in the second."""
    name = "pytorch_model.bin" if pickled else FILE
    stem, suffix = name.split(".")
    names = list(state)
    weight_map = {}
    for number in (1, 2):
        part = f"{stem}-0000{number}-of-00002.{suffix}"
        some = {name: state[name].clone() for name in names[number - 1 :: 2]}
        write(some, published / part)
        weight_map |= dict.fromkeys(some, part)
    (published / f"{name}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def make_original(published: Path, hf_folder: Path) -> dict[str, Tensor]:
    """Fill folder with all but the weights of an original checkpoint, and return those."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(hf_folder / name, published / name)
    (published / "config.json").write_text(json.dumps(original_config()))
    return to_original(load_file(hf_folder / FILE))


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def set_config(published: Path, key: str, value: object, part: str = "text_config") -> None:
    edit_json(published / "config.json", lambda data: data[part].update({key: value}))


def edit_weights(published: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = load_file(published / FILE)
    change(state)
    save_file(state, published / FILE)


def cut(published: Path, size: int) -> None:
    os.truncate(published / FILE, size)


def in_parts(published: Path, pickled: bool = False) -> None:
    state = load_file(published / FILE)
    (published / FILE).unlink()
    write_parts(published, state, pickled)


def lose_parts(published: Path) -> None:
    in_parts(published)
    for path in published.glob("*-of-*"):
        path.unlink()


def lose_index(published: Path) -> None:
    in_parts(published)
    (published / f"{FILE}.index.json").unlink()


def lose_pickle_index(published: Path) -> None:
    in_parts(published, pickled=True)
    (published / "pytorch_model.bin.index.json").unlink()


def point_outside(published: Path) -> None:
    in_parts(published)
    index = published / f"{FILE}.index.json"
    edit_json(index, lambda data: data["weight_map"].update({Q: "../../etc/passwd"}))


def empty_index(published: Path) -> None:
    in_parts(published)
    (published / f"{FILE}.index.json").write_text('{"weight_map": {}}')


def repeat(published: Path) -> None:
    in_parts(published)
    shutil.copy(
        published / "model-00001-of-00002.safetensors",
        published / "model-00002-of-00002.safetensors",
    )


def lfs_pointer(published: Path) -> None:
    (published / FILE).write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4178000000\n"
    )


def as_pickle(published: Path, data: object) -> None:
    (published / FILE).unlink()
    torch.save(data, published / "pytorch_model.bin")


def cut_pickle(published: Path) -> None:
    as_pickle(published, load_file(published / FILE))
    path = published / "pytorch_model.bin"
    os.truncate(path, path.stat().st_size // 2)


def misfit_header(published: Path) -> None:
    """A header whose tensors overlap: each alone is in order."""
    data = (published / FILE).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    entries = [e for k, e in header.items() if k != "__metadata__" and e["shape"] == [32]]
    entries[0]["data_offsets"] = entries[1]["data_offsets"]
    text = json.dumps(header).encode()
    (published / FILE).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


FAULTS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no folder": (shutil.rmtree, ["no such folder"]),
    "truncated": (lambda f: cut(f, 100_000), [FILE, "100000 bytes", "asks for"]),
    "header only": (lambda f: cut(f, 5_000), [FILE, "5000 bytes", "asks for"]),
    "empty": (lambda f: cut(f, 0), [FILE, "empty"]),
    "4 bytes": (lambda f: cut(f, 4), [FILE, "4 bytes", "asks for 8"]),
    "too long": (
        lambda f: (f / FILE).write_bytes((f / FILE).read_bytes() + b"more"),
        [FILE, "bytes, but its header asks for"],
    ),
    "web page": (
        lambda f: (f / FILE).write_text("<!DOCTYPE html><title>Login</title>"),
        [FILE, "not a safetensors file"],
    ),
    "not JSON in the header": (
        lambda f: (f / FILE).write_bytes((20).to_bytes(8, "little") + b"x" * 20),
        [FILE, "not a safetensors file"],
    ),
    "overlap": (misfit_header, [FILE, "not a safetensors file"]),
    "lfs pointer": (lfs_pointer, [FILE, "git-lfs pointer", "4178000000 bytes", "real file"]),
    "lost parts": (
        lose_parts,
        ["model-00001-of-00002.safetensors, model-00002-of-00002.safetensors", "index.json: 2 of"],
    ),
    "lost index": (lose_index, ["model.safetensors.index.json is missing", "model-00001-of"]),
    "lost index of pickles": (lose_pickle_index, ["pytorch_model.bin.index.json is missing"]),
    "no weights": (lambda f: (f / FILE).unlink(), ["no weights", "model.safetensors", ".bin"]),
    "index to elsewhere": (point_outside, ["index.json", "../../etc/passwd", "plain name"]),
    "empty index": (empty_index, ["index.json", "names no files"]),
    "part twice": (
        repeat,
        ["model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors holds"],
    ),
    "weight missing": (lambda f: edit_weights(f, lambda s: s.pop(Q)), [Q, "lack"]),
    "weights missing": (
        lambda f: edit_weights(f, lambda s: [s.pop(k) for k in list(s) if "norm1.bias" in k]),
        ["lack", "more;"],
    ),
    "text head tied away": (
        lambda f: edit_weights(f, lambda s: s.pop("lm_head.weight")),
        ["lack 'lm_head.weight';"],
    ),
    "weight too many": (
        lambda f: edit_weights(f, lambda s: s.update(extra=torch.zeros(2))),
        ["'extra'", "no place for", FILE],
    ),
    "too few layers in config": (
        lambda f: set_config(f, "num_hidden_layers", 1),
        ["model.language_model.layers.1.", "and 6 more", "no place for"],
    ),
    "wrong shape": (
        lambda f: edit_weights(f, lambda s: s.update({Q: torch.zeros(8, 32)})),
        [Q, "[8, 32]", "[32, 32]"],
    ),
    "whole numbers": (
        lambda f: edit_weights(f, lambda s: s.update({Q: s[Q].to(torch.int8)})),
        [Q, "I8", "BF16"],
    ),
    "no config": (lambda f: (f / "config.json").unlink(), ["config.json: no such file"]),
    "half a config": (
        lambda f: (f / "config.json").write_text('{"model_type": '),
        ["config.json", "not readable as JSON"],
    ),
    "config nested too deep": (
        lambda f: (f / "config.json").write_text("[" * 100_000),
        ["config.json", "not readable as JSON"],
    ),
    "config not an object": (
        lambda f: (f / "config.json").write_text("[]"),
        ["config.json", "not a JSON object"],
    ),
    "config of Llama": (
        lambda f: edit_json(f / "config.json", lambda d: d.update(model_type="llama")),
        ["config.json: model_type is 'llama'"],
    ),
    "config without a part": (
        lambda f: edit_json(f / "config.json", lambda d: d.pop("vq_config")),
        ["config.json: an entry is missing", "vq_config"],
    ),
    "config of JanusFlow": (
        lambda f: (f / "config.json").write_text(
            json.dumps(original_config() | {"vision_und_enc_config": {}})
        ),
        ["config.json: this is a JanusFlow checkpoint"],
    ),
    "endless vocabulary": (
        lambda f: set_config(f, "vocab_size", 10**12),
        ["config.json: vocab_size must be", "1000000000000"],
    ),
    "no heads": (
        lambda f: (set_config(f, "num_attention_heads", 0), set_config(f, "head_dim", None)),
        ["config.json: an entry is missing or wrong"],
    ),
    "no number": (
        lambda f: set_config(f, "mlp_ratio", float("inf"), "vision_config"),
        ["config.json: an entry is missing or wrong"],
    ),
    "truncated pickle": (cut_pickle, ["pytorch_model.bin", "bytes", "no whole file"]),
    "pickle of a list": (lambda f: as_pickle(f, [1, 2]), ["pytorch_model.bin: holds a list"]),
    "pickle of numbers": (lambda f: as_pickle(f, {"a": 1}), ["'a' is no plain tensor"]),
    "pickle of another dtype": (
        lambda f: as_pickle(f, load_file(f / FILE) | {Q: torch.zeros(32, 32, dtype=torch.int64)}),
        [Q, "torch.int64"],
    ),
    "pickle of a module": (lambda f: as_pickle(f, torch.nn.Linear(2, 2)), ["refused", "code"]),
}
