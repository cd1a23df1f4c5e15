"""From the layout of deepseek-ai to that of transformers, and the checksums of both."""

from pathlib import Path

import pytest
import torch
from checkpoint_parts import (
    FILE,
    Q,
    assert_equal,
    edit_weights,
    make_original,
    state_of,
    write_parts,
)
from conftest import hf_model
from safetensors.torch import load_file

from janus_kit.checkpoint import checksum, convert, load, save
from janus_kit.errors import CheckpointError, OptionError


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


def test_converting_refuses_a_target_that_is_in_use(published: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(OptionError, match="not empty"):
        convert(published, tmp_path / "full")
    with pytest.raises(OptionError, match="not a folder"):
        convert(published, tmp_path / "full" / "thesis.txt")
    (tmp_path / "left" / ".janus-model-from-a-crash").mkdir(parents=True)
    convert(published, tmp_path / "left")
    assert not list((tmp_path / "left").glob(".*"))


def test_converting_a_broken_folder_leaves_no_model(published: Path, tmp_path: Path) -> None:
    edit_weights(published, lambda state: state[Q].fill_(float("nan")))
    with pytest.raises(CheckpointError, match="NaN"):
        convert(published, tmp_path / "target")
    assert not list((tmp_path / "target").iterdir())


def test_two_seeds_give_two_models(hf_folder: Path) -> None:
    """Guards the oracle: were its weights equal everywhere, no test here could fail."""
    one, two = hf_model(1).state_dict(), load_file(hf_folder / FILE)
    assert not any(torch.equal(one[name], two[name]) for name in one)


def test_a_link_into_a_hubs_cache_gives_its_checksum_without_being_read(tmp_path: Path) -> None:
    blob = tmp_path / ("ab" * 32)
    blob.write_bytes(b"not read")
    published = tmp_path / "snapshot"
    published.mkdir()
    (published / "model.safetensors").symlink_to(blob)
    assert checksum(published) == "ab" * 32


def test_saved_weights_can_be_read_by_everybody(tmp_path: Path, hf_folder: Path) -> None:
    model, _ = load(hf_folder, device=torch.device("cpu"))
    save(model, tmp_path / "model", tokenizer_folder=hf_folder)
    modes = {file.stat().st_mode & 0o444 for file in (tmp_path / "model").iterdir()}
    assert modes == {0o444}
