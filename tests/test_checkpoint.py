"""Folders are loaded whole, whatever their layout, or refused by name; what is saved is whole."""

import errno
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import hf_model, original_config, tiny_config, to_original
from huggingface_hub.errors import HTTPError
from safetensors.torch import load_file, save_file
from torch import Tensor

from janus_kit import checkpoint, config, loading
from janus_kit.checkpoint import checksum, convert, load, save
from janus_kit.config import PRESETS, JanusConfig
from janus_kit.errors import CheckpointError, OptionError
from janus_kit.model import Janus
from janus_kit.names import HUGGING_FACE, ORIGINAL, pieces
from janus_kit.pipeline import JanusPipeline

CPU = torch.device("cpu")
Q = "model.language_model.layers.1.self_attn.q_proj.weight"
FILE = "model.safetensors"


def state_of(folder: Path, **options: Any) -> dict[str, Tensor]:
    return load(folder, device=CPU, **options)[0].state_dict()


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.fixture
def folder(hf_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be changed."""
    return Path(shutil.copytree(hf_folder, tmp_path / "model"))


@pytest.fixture
def tiny_originals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The original config.json cannot say tiny: whatever it says, read the tiny shapes."""
    monkeypatch.setattr(config, "_from_original", lambda data: tiny_config())


def write(state: dict[str, Tensor], path: Path) -> None:
    if path.suffix == ".bin":
        torch.save(state, path)
    else:
        save_file(state, path)


def write_parts(folder: Path, state: Mapping[str, Tensor], pickled: bool) -> None:
    """Weights as two files and their index, every second tensor in the second."""
    name = "pytorch_model.bin" if pickled else FILE
    stem, suffix = name.split(".")
    names = list(state)
    weight_map = {}
    for number in (1, 2):
        part = f"{stem}-0000{number}-of-00002.{suffix}"
        some = {name: state[name].clone() for name in names[number - 1 :: 2]}
        write(some, folder / part)
        weight_map |= dict.fromkeys(some, part)
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def make_original(folder: Path, hf_folder: Path) -> dict[str, Tensor]:
    """Fill folder with all but the weights of an original checkpoint, and return those."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(hf_folder / name, folder / name)
    (folder / "config.json").write_text(json.dumps(original_config()))
    return to_original(load_file(hf_folder / FILE))


# Loading


def test_every_weight_of_transformers_arrives_in_its_place(hf_folder: Path) -> None:
    theirs = load_file(hf_folder / FILE)
    ours = state_of(hf_folder)
    assert sum(t.numel() for t in ours.values()) == sum(t.numel() for t in theirs.values())
    plan = pieces(load(hf_folder, device=CPU)[0], HUGGING_FACE)
    for name, parts in plan.items():
        assert torch.equal(ours[name], torch.cat([theirs[part.name] for part in parts])), name
    attention = "model.language_model.layers.1.self_attn."
    three = [theirs[f"{attention}{part}_proj.weight"] for part in "qkv"]
    assert torch.equal(ours["language.layers.1.attention.qkv.weight"], torch.cat(three))


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("parts", [False, True])
def test_how_the_files_are_divided_changes_nothing(
    hf_folder: Path, folder: Path, pickled: bool, parts: bool
) -> None:
    state = load_file(folder / FILE)
    (folder / FILE).unlink()
    if parts:
        write_parts(folder, state, pickled)
    else:
        write(state, folder / ("pytorch_model.bin" if pickled else FILE))
    assert_equal(state_of(folder), state_of(hf_folder))


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.usefixtures("tiny_originals")
def test_the_original_layout_holds_the_same_model(
    hf_folder: Path, tmp_path: Path, pickled: bool
) -> None:
    write_parts(tmp_path, make_original(tmp_path, hf_folder), pickled)
    assert_equal(state_of(tmp_path), state_of(hf_folder))


def test_safetensors_are_preferred_to_a_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    load(folder, device=CPU)


def test_the_dtype_is_that_of_the_weights_or_the_one_asked_for(folder: Path) -> None:
    state = load_file(folder / FILE)
    save_file({name: tensor.bfloat16() for name, tensor in state.items()}, folder / FILE)
    assert load(folder, device=CPU)[0].dtype == torch.bfloat16
    assert {t.dtype for t in state_of(folder, dtype=torch.float16).values()} == {torch.float16}
    save_file(
        {name: t if "vqmodel" in name else t.bfloat16() for name, t in state.items()}, folder / FILE
    )
    assert {t.dtype for t in state_of(folder).values()} == {torch.float32}  # nothing is lost


def test_the_model_can_be_trained_and_owns_its_memory(folder: Path) -> None:
    model = load(folder, device=CPU)[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with (folder / FILE).open("r+b") as file:
        file.truncate(100)
    assert_equal(model.state_dict(), before)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("preset", "parameters", "tensors"),
    [
        ("janus-1.3b", 2_076_636_811, 964),
        ("janus-pro-1b", 2_076_636_811, 964),
        ("janus-pro-7b", 7_407_773_323, 1_018),
    ],
)
def test_the_published_models_have_the_published_sizes(
    preset: str, parameters: int, tensors: int
) -> None:
    with torch.device("meta"):
        model = Janus(PRESETS[preset])
    plan = pieces(model, HUGGING_FACE)
    names = [piece.name for parts in plan.values() for piece in parts]
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(names) == len(set(names)) == tensors


def test_the_names_of_the_published_1b_in_both_layouts_are_one_rename_apart() -> None:
    from transformers import JanusConfig as HFConfig
    from transformers import JanusForConditionalGeneration

    shapes = PRESETS["janus-pro-1b"]
    with torch.device("meta"):
        settings = shapes.to_dict(image_token_id=100_581, dtype="bfloat16")
        theirs = JanusForConditionalGeneration(HFConfig(**settings)).state_dict()
        model = Janus(shapes)
    for layout, expected in ((HUGGING_FACE, theirs), (ORIGINAL, to_original(theirs))):
        plan = pieces(model, layout)
        found = {piece.name: piece.shape for parts in plan.values() for piece in parts}
        left = {name for name in expected if checkpoint.is_leftover(name)}
        assert found == {k: tuple(v.shape) for k, v in expected.items() if k not in left}
        assert len(left) == (4 if layout == ORIGINAL else 0)


def test_what_7b_does_not_state_has_llamas_defaults() -> None:
    sparse = original_config(4096, num_hidden_layers=30, max_position_embeddings=16384)
    assert JanusConfig.from_dict(sparse) == PRESETS["janus-pro-7b"]


def test_old_and_pro_are_told_apart() -> None:
    sizes = {
        "hidden_size": 2048,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 5632,
    }
    assert JanusConfig.from_dict(original_config(**sizes)) == PRESETS["janus-pro-1b"]
    old = original_config(**sizes, _attn_implementation="flash_attention_2")
    assert JanusConfig.from_dict(old) == PRESETS["janus-1.3b"]


@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize(
    ("sft_format", "ours", "template"),
    [
        ("deepseek_old", None, "old"),
        ("deepseek", None, "pro"),
        (None, None, "pro"),
        ("deepseek_old", "pro", "pro"),
        ("deepseek", "old", "old"),
    ],
)
def test_the_old_template_is_found_in_the_processors_settings_unless_ours_names_one(
    hf_folder: Path,
    tmp_path: Path,
    original: bool,
    sft_format: str | None,
    ours: str | None,
    template: str,
) -> None:
    data = (
        original_config(4096) if original else json.loads((hf_folder / "config.json").read_text())
    )
    data.pop("janus_kit", None)
    if ours:
        data["janus_kit"] = {"template": ours}
    (tmp_path / "config.json").write_text(json.dumps(data))
    if sft_format:
        (tmp_path / "processor_config.json").write_text(json.dumps({"sft_format": sft_format}))
    assert checkpoint.read_config(tmp_path)[0].template == template


def test_janus_1_3b_is_known_though_its_processors_settings_name_pros_template(
    tmp_path: Path,
) -> None:
    data = original_config(4096, _attn_implementation="flash_attention_2")
    (tmp_path / "config.json").write_text(json.dumps(data))
    (tmp_path / "processor_config.json").write_text('{"sft_format": "deepseek"}')
    assert checkpoint.read_config(tmp_path)[0].template == "old"


# Refusing


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def set_config(folder: Path, key: str, value: object, part: str = "text_config") -> None:
    edit_json(folder / "config.json", lambda data: data[part].update({key: value}))


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = load_file(folder / FILE)
    change(state)
    save_file(state, folder / FILE)


def cut(folder: Path, size: int) -> None:
    os.truncate(folder / FILE, size)


def in_parts(folder: Path, pickled: bool = False) -> None:
    state = load_file(folder / FILE)
    (folder / FILE).unlink()
    write_parts(folder, state, pickled)


def lose_parts(folder: Path) -> None:
    in_parts(folder)
    for path in folder.glob("*-of-*"):
        path.unlink()


def lose_index(folder: Path) -> None:
    in_parts(folder)
    (folder / f"{FILE}.index.json").unlink()


def lose_pickle_index(folder: Path) -> None:
    in_parts(folder, pickled=True)
    (folder / "pytorch_model.bin.index.json").unlink()


def point_outside(folder: Path) -> None:
    in_parts(folder)
    index = folder / f"{FILE}.index.json"
    edit_json(index, lambda data: data["weight_map"].update({Q: "../../etc/passwd"}))


def empty_index(folder: Path) -> None:
    in_parts(folder)
    (folder / f"{FILE}.index.json").write_text('{"weight_map": {}}')


def repeat(folder: Path) -> None:
    in_parts(folder)
    shutil.copy(
        folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors"
    )


def lfs_pointer(folder: Path) -> None:
    (folder / FILE).write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4178000000\n"
    )


def as_pickle(folder: Path, data: object) -> None:
    (folder / FILE).unlink()
    torch.save(data, folder / "pytorch_model.bin")


def cut_pickle(folder: Path) -> None:
    as_pickle(folder, load_file(folder / FILE))
    path = folder / "pytorch_model.bin"
    os.truncate(path, path.stat().st_size // 2)


def misfit_header(folder: Path) -> None:
    """A header whose tensors overlap: each alone is in order."""
    data = (folder / FILE).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    entries = [e for k, e in header.items() if k != "__metadata__" and e["shape"] == [32]]
    entries[0]["data_offsets"] = entries[1]["data_offsets"]
    text = json.dumps(header).encode()
    (folder / FILE).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


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


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_folder_is_refused_by_name_before_memory_is_taken(
    folder: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, words = FAULTS[fault]
    broken(folder)
    monkeypatch.setattr(checkpoint._Source, "parameter", None)  # the one place that makes tensors
    with pytest.raises(CheckpointError) as caught:
        load(folder, device=CPU)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    assert len(message) < 600
    for word in words:
        assert word in message


@pytest.mark.parametrize("tokenizer", [None, b"{}", b'{"model": '])
def test_a_tokenizer_is_refused_before_any_tensor_is_read(
    folder: Path, tokenizer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tokenizer.json").unlink()
    if tokenizer is not None:
        (folder / "tokenizer.json").write_bytes(tokenizer)
    monkeypatch.setattr(checkpoint._Source, "parameter", None)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: "):
        JanusPipeline.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_refused_unless_nobody_looks(
    folder: Path, number: float
) -> None:
    def spoil(state: dict[str, Tensor]) -> None:
        state[Q][3, 4] = number

    edit_weights(folder, spoil)
    with pytest.raises(CheckpointError, match=f"{FILE}: '{Q}' holds NaN"):
        load(folder, device=CPU)
    found = state_of(folder, verify=False)["language.layers.1.attention.qkv.weight"]
    assert not found.isfinite().all()


def test_large_weights_whose_sum_overflows_are_accepted(folder: Path) -> None:
    edit_weights(folder, lambda state: state.update({Q: torch.full((32, 32), 3e38)}))
    load(folder, device=CPU)
    with pytest.raises(CheckpointError, match=r"as torch\.float16"):
        load(folder, device=CPU, dtype=torch.float16)


class Payload:
    """What a hostile weight file holds: loading it the plain way makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_the_code_does_not_run(
    folder: Path, tmp_path: Path, zipped: bool
) -> None:
    data = load_file(folder / FILE) | {"code": Payload(tmp_path / "ran")}
    (folder / FILE).unlink()
    path = folder / "pytorch_model.bin"
    if zipped:
        torch.save(data, path)
    else:
        path.write_bytes(pickle.dumps(data["code"]))
    with pytest.raises(CheckpointError, match="refused: contains code" if zipped else "no whole"):
        load(folder, device=CPU)
    assert not (tmp_path / "ran").exists()


def test_a_file_cut_off_while_it_is_read_is_refused(folder: Path) -> None:
    source = checkpoint._Source.open(folder)
    cut(folder, 100_000)
    with pytest.raises(CheckpointError, match="became shorter"):
        [source.parameter(name, CPU, torch.float32, True) for name in source.plan]


def test_a_flipped_byte_changes_the_checksum(folder: Path) -> None:
    before = checksum(folder)
    assert before == hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
    with (folder / FILE).open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-3, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    assert checksum(folder) != before


def test_the_checksum_of_parts_is_that_of_what_sha256sum_prints(folder: Path) -> None:
    in_parts(folder)
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("*-of-*.safetensors"))
    ]
    assert checksum(folder) == hashlib.sha256("".join(lines).encode()).hexdigest()
    with pytest.raises(CheckpointError, match="no such folder"):
        checksum(folder / "none")


# Saving


@pytest.mark.parametrize("shard", [2**30, 100_000])
def test_transformers_reads_what_we_save(hf_folder: Path, tmp_path: Path, shard: int) -> None:
    from transformers import JanusForConditionalGeneration

    model = load(hf_folder, device=CPU)[0]
    save(model, tmp_path / "new" / "saved", tokenizer_folder=hf_folder, shard=shard)
    files = list((tmp_path / "new" / "saved").glob("*.safetensors"))
    assert (len(files) > 3) == (shard < 2**30)
    theirs, report = JanusForConditionalGeneration.from_pretrained(
        tmp_path / "new" / "saved", output_loading_info=True
    )
    assert not any(report.values())
    assert_equal(theirs.state_dict(), load_file(hf_folder / FILE))
    ids = json.loads((hf_folder / "tokenizer.json").read_text())["added_tokens"]
    ids = {entry["content"]: entry["id"] for entry in ids}
    assert theirs.config.image_token_id == ids["<image_placeholder>"]
    settings = theirs.generation_config
    assert settings.bos_token_id == ids["<｜begin▁of▁sentence｜>"]
    assert settings.eos_token_id == ids["<｜end▁of▁sentence｜>"]
    assert settings.pad_token_id == ids["<｜▁pad▁｜>"]
    assert settings.guidance_scale == 5
    assert settings.generation_kwargs == {"boi_token_id": ids["<begin_of_image>"]}


def test_transformers_makes_its_processor_of_what_we_save(hf_folder: Path, tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoProcessor

    save(load(hf_folder, device=CPU)[0], tmp_path, tokenizer_folder=hf_folder)
    processor = AutoProcessor.from_pretrained(tmp_path)
    picture = Image.new("RGB", (100, 50), "white")
    inputs = processor(text="<image_placeholder>hi", images=picture, return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    assert inputs["pixel_values"].max() == 1
    assert (inputs["input_ids"] == processor.tokenizer.image_token_id).sum() == 16


@pytest.mark.parametrize("shard", [2**30, 100_000])
def test_saving_and_loading_bfloat16_loses_no_bit(
    hf_folder: Path, tmp_path: Path, shard: int
) -> None:
    model, shapes = load(hf_folder, device=CPU, dtype=torch.bfloat16)
    save(model, tmp_path, tokenizer_folder=hf_folder, shard=shard)
    back, back_shapes = load(tmp_path, device=CPU)
    assert back_shapes == shapes
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert_equal(back.state_dict(), model.state_dict())


def test_the_template_and_odd_sizes_survive_saving() -> None:
    vision = config.VisionConfig(width=88, heads=8, layers=1, intermediate=120)
    shapes = tiny_config(template="old", vision=vision)
    data = json.loads(json.dumps(shapes.to_dict(image_token_id=5, dtype="float32")))
    assert JanusConfig.from_dict(data) == shapes  # 88 · (120 / 88) is a little less than 120


def test_saving_over_a_model_leaves_nothing_of_the_old_one(folder: Path) -> None:
    model = load(folder, device=CPU)[0]
    (folder / "notes.txt").write_text("mine")
    before = model.state_dict()
    save(model, folder, tokenizer_folder=folder, shard=100_000)
    assert not (folder / FILE).exists()
    assert_equal(state_of(folder), before)
    save(model, folder, tokenizer_folder=folder)
    assert not list(folder.glob("*-of-*"))
    assert not list(folder.glob("*.index.json"))
    assert not list(folder.glob(".*"))
    assert_equal(state_of(folder), before)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_save_that_fails_leaves_the_old_model(
    hf_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folder, device=CPU)[0]
    before = sorted(path.name for path in folder.iterdir())
    monkeypatch.setattr(checkpoint, "save_file", fail_on_the_third_call())
    with pytest.raises(OSError, match="disk full"):
        save(model, folder, tokenizer_folder=folder, shard=100_000)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert_equal(state_of(folder), state_of(hf_folder))


def fail_on_the_third_call() -> Callable[..., None]:
    calls = []

    def write(*args: Any, **options: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise OSError("disk full")
        save_file(*args, **options)

    return write


def test_a_save_killed_while_files_change_place_leaves_no_half_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folder, device=CPU)[0]
    real, moved = Path.replace, []

    def replace(path: Path, target: Path) -> Path:
        moved.append(path.name)
        if len(moved) == 4:
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save(model, folder, tokenizer_folder=folder, shard=100_000)
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        load(folder, device=CPU)


def test_a_tokenizer_of_another_model_is_not_saved_with_this_one(
    hf_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(hf_folder, other)

    def grow(data: dict[str, Any]) -> None:
        data["added_tokens"][-3]["id"] = 5_000

    edit_json(other / "tokenizer.json", grow)
    with pytest.raises(CheckpointError, match="another model"):
        save(load(hf_folder, device=CPU)[0], tmp_path / "new", tokenizer_folder=other)
    assert not list((tmp_path / "new").iterdir())


# Converting


@pytest.mark.parametrize("pickled", [True, False])
@pytest.mark.usefixtures("tiny_originals")
def test_an_original_becomes_the_folder_that_transformers_reads(
    hf_folder: Path, tmp_path: Path, pickled: bool
) -> None:
    from transformers import JanusForConditionalGeneration

    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    state = make_original(source, hf_folder)
    write_parts(source, {name: tensor.bfloat16() for name, tensor in state.items()}, pickled)
    convert(source, target, shard=100_000)
    theirs = JanusForConditionalGeneration.from_pretrained(target)
    expected = load_file(hf_folder / FILE)
    assert_equal(theirs.state_dict(), {name: t.bfloat16() for name, t in expected.items()})
    assert_equal(state_of(target), state_of(source))
    assert (target / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_converting_refuses_a_target_that_is_in_use(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(OptionError, match="not empty"):
        convert(folder, tmp_path / "full")
    with pytest.raises(OptionError, match="not a folder"):
        convert(folder, tmp_path / "full" / "thesis.txt")
    (tmp_path / "left" / ".janus-model-from-a-crash").mkdir(parents=True)
    convert(folder, tmp_path / "left")
    assert not list((tmp_path / "left").glob(".*"))


def test_converting_a_broken_folder_leaves_no_model(folder: Path, tmp_path: Path) -> None:
    edit_weights(folder, lambda state: state[Q].fill_(float("nan")))
    with pytest.raises(CheckpointError, match="NaN"):
        convert(folder, tmp_path / "target")
    assert not list((tmp_path / "target").iterdir())


def test_two_seeds_give_two_models(hf_folder: Path) -> None:
    """Guards the oracle: were its weights equal everywhere, no test here could fail."""
    one, two = hf_model(1).state_dict(), load_file(hf_folder / FILE)
    assert not any(torch.equal(one[name], two[name]) for name in one)


def test_a_link_into_a_hubs_cache_gives_its_checksum_without_being_read(tmp_path: Path) -> None:
    blob = tmp_path / ("ab" * 32)
    blob.write_bytes(b"not read")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(blob)
    assert checksum(folder) == "ab" * 32


def test_saved_weights_can_be_read_by_everybody(tmp_path: Path, hf_folder: Path) -> None:
    model, _ = load(hf_folder, device=torch.device("cpu"))
    save(model, tmp_path / "model", tokenizer_folder=hf_folder)
    modes = {file.stat().st_mode & 0o444 for file in (tmp_path / "model").iterdir()}
    assert modes == {0o444}


# Fetching


class Hub:
    """In place of snapshot_download: copies what is asked for into a cache, and keeps the calls."""

    def __init__(self, files: Path, cache: Path) -> None:
        self.files, self.cache = files, cache
        self.calls: list[dict[str, Any]] = []
        cache.mkdir()

    def __call__(self, repository: str, *, allow_patterns: list[str], **options: Any) -> str:
        self.calls.append({"id": repository, **options})
        for path in self.files.iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                shutil.copy(path, self.cache)
        return str(self.cache)

    @property
    def weights(self) -> list[str]:
        return [
            path.name for path in self.cache.iterdir() if path.suffix in (".safetensors", ".bin")
        ]


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub whose one repository is folder."""
    made = Hub(folder, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", made)
    return made


@pytest.mark.parametrize("fault", ["no config", "config of Llama", "config of JanusFlow"])
def test_another_model_is_refused_before_its_weights_are_fetched(
    hub: Hub, folder: Path, fault: str
) -> None:
    broken, words = FAULTS[fault]
    broken(folder)
    with pytest.raises(CheckpointError) as caught:
        loading.find("some/model")
    assert words[0] in str(caught.value)
    assert (len(hub.calls), hub.weights) == (1, [])


def test_safetensors_are_fetched_rather_than_a_pickle(hub: Hub, folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert loading.find("some/model") == (hub.cache, "some/model")
    assert hub.weights == [FILE]
    save(load(hub.cache, device=CPU)[0], hub.cache / "saved", tokenizer_folder=hub.cache)
    assert (hub.cache / "saved" / "chat_template.jinja").read_text() == "{{ messages }}"


def test_a_pickle_is_fetched_where_there_is_nothing_else(hub: Hub, folder: Path) -> None:
    as_pickle(folder, load_file(folder / FILE))
    found, _ = loading.find("some/model")
    assert hub.weights == ["pytorch_model.bin"]
    load(found, device=CPU)


def test_what_the_hub_is_asked_is_what_was_given(hub: Hub, folder: Path) -> None:
    as_pickle(folder, load_file(folder / FILE))
    given = {"revision": "abc", "local_files_only": True, "token": "secret"}
    loading.find("some/model", revision="abc", local_files_only=True, token="secret")
    assert hub.calls == [{"id": "some/model", **given}] * 3
    JanusPipeline.from_pretrained("some/model", device="cpu")
    plain = {"revision": None, "local_files_only": False, "token": None}
    assert hub.calls[3:] == [{"id": "some/model", **plain}] * 3


@pytest.mark.parametrize(
    "error",
    [
        HTTPError("proxy\nrefused"),  # the root of all that the HTTP client raises
        HTTPError(""),
        FileNotFoundError("not in the cache"),
        ImportError("Using SOCKS proxy, but the package is not installed"),
        RuntimeError("Data processing error: no connection"),
        ValueError("Unknown scheme for proxy URL"),
    ],
)
@pytest.mark.parametrize(
    ("offline", "local", "remedy"),
    [
        (False, False, "set HF_HUB_OFFLINE=1"),
        (True, False, "unset HF_HUB_OFFLINE to fetch it"),
        (False, True, "leave local_files_only out to fetch it"),
    ],
)
def test_a_network_that_fails_is_one_sentence_with_a_remedy_that_helps(
    monkeypatch: pytest.MonkeyPatch, error: Exception, offline: bool, local: bool, remedy: str
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    with pytest.raises(CheckpointError) as caught:
        loading.find("some/model", local_files_only=local)
    reason = str(error).split("\n")[0] or "HTTPError"
    assert str(caught.value).startswith("some/model: no such folder, and it could not be fetched")
    assert f"({reason}); " in str(caught.value)
    assert str(caught.value).count("HF_HUB_OFFLINE") == (not local)
    assert remedy in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_full_disk_while_fetching_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(OSError, match="No space"):
        loading.find("some/model")
