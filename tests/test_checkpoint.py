"""Folders of models: what is read from them, and what is written."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_parts import (
    CPU,
    FILE,
    assert_equal,
    edit_json,
    make_original,
    state_of,
    write,
    write_parts,
)
from conftest import original_config, tiny_config, to_original
from safetensors.torch import load_file, save_file

from janus_kit import checkpoint, config
from janus_kit.checkpoint import load, save
from janus_kit.config import PRESETS, JanusConfig
from janus_kit.errors import CheckpointError
from janus_kit.model import Janus
from janus_kit.names import HUGGING_FACE, ORIGINAL, pieces


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
    hf_folder: Path, published: Path, pickled: bool, parts: bool
) -> None:
    state = load_file(published / FILE)
    (published / FILE).unlink()
    if parts:
        write_parts(published, state, pickled)
    else:
        write(state, published / ("pytorch_model.bin" if pickled else FILE))
    assert_equal(state_of(published), state_of(hf_folder))


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.usefixtures("tiny_originals")
def test_the_original_layout_holds_the_same_model(
    hf_folder: Path, tmp_path: Path, pickled: bool
) -> None:
    write_parts(tmp_path, make_original(tmp_path, hf_folder), pickled)
    assert_equal(state_of(tmp_path), state_of(hf_folder))


def test_safetensors_are_preferred_to_a_pickle(published: Path) -> None:
    (published / "pytorch_model.bin").write_bytes(b"never read")
    load(published, device=CPU)


def test_the_dtype_is_that_of_the_weights_or_the_one_asked_for(published: Path) -> None:
    state = load_file(published / FILE)
    save_file({name: tensor.bfloat16() for name, tensor in state.items()}, published / FILE)
    assert load(published, device=CPU)[0].dtype == torch.bfloat16
    assert {t.dtype for t in state_of(published, dtype=torch.float16).values()} == {torch.float16}
    save_file(
        {name: t if "vqmodel" in name else t.bfloat16() for name, t in state.items()},
        published / FILE,
    )
    assert {t.dtype for t in state_of(published).values()} == {torch.float32}  # nothing is lost


def test_the_model_can_be_trained_and_owns_its_memory(published: Path) -> None:
    model = load(published, device=CPU)[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with (published / FILE).open("r+b") as file:
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


def test_saving_over_a_model_leaves_nothing_of_the_old_one(published: Path) -> None:
    model = load(published, device=CPU)[0]
    (published / "notes.txt").write_text("mine")
    before = model.state_dict()
    save(model, published, tokenizer_folder=published, shard=100_000)
    assert not (published / FILE).exists()
    assert_equal(state_of(published), before)
    save(model, published, tokenizer_folder=published)
    assert not list(published.glob("*-of-*"))
    assert not list(published.glob("*.index.json"))
    assert not list(published.glob(".*"))
    assert_equal(state_of(published), before)
    assert (published / "notes.txt").read_text() == "mine"


def test_a_save_that_fails_leaves_the_old_model(
    hf_folder: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(published, device=CPU)[0]
    before = sorted(path.name for path in published.iterdir())
    monkeypatch.setattr(checkpoint, "save_file", fail_on_the_third_call())
    with pytest.raises(OSError, match="disk full"):
        save(model, published, tokenizer_folder=published, shard=100_000)
    assert sorted(path.name for path in published.iterdir()) == before
    assert_equal(state_of(published), state_of(hf_folder))


def fail_on_the_third_call() -> Callable[..., None]:
    calls = []

    def write(*args: Any, **options: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise OSError("disk full")
        save_file(*args, **options)

    return write


def test_a_save_killed_while_files_change_place_leaves_no_half_model(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(published, device=CPU)[0]
    real, moved = Path.replace, []

    def replace(path: Path, target: Path) -> Path:
        moved.append(path.name)
        if len(moved) == 4:
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save(model, published, tokenizer_folder=published, shard=100_000)
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        load(published, device=CPU)


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


def test_loading_does_not_load_torchs_compiler(hf_folder: Path) -> None:
    """It takes longer than all the rest."""
    script = (
        "import sys; from janus_kit import JanusPipeline; "
        "JanusPipeline.from_pretrained(sys.argv[1], device='cpu'); "
        "print([name for name in sys.modules if name.startswith('torch._dynamo.')])"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(hf_folder)], check=True, capture_output=True, text=True
    )
    assert said.stdout.strip() == "[]"
