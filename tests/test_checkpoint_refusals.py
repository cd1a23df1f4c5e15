"""Folders of models that are broken, torn or hostile, and the sentence that each of them gets."""

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_parts import CPU, FAULTS, FILE, Q, cut, edit_weights, in_parts, state_of
from safetensors.torch import load_file
from torch import Tensor

from janus_kit import checkpoint
from janus_kit.checkpoint import checksum, load
from janus_kit.errors import CheckpointError
from janus_kit.pipeline import JanusPipeline


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_folder_is_refused_by_name_before_memory_is_taken(
    published: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, words = FAULTS[fault]
    broken(published)
    monkeypatch.setattr(checkpoint._Source, "parameter", None)  # the one place that makes tensors
    with pytest.raises(CheckpointError) as caught:
        load(published, device=CPU)
    message = str(caught.value)
    assert message.startswith(str(published))
    assert "\n" not in message
    assert len(message) < 600
    for word in words:
        assert word in message


@pytest.mark.parametrize("tokenizer", [None, b"{}", b'{"model": '])
def test_a_tokenizer_is_refused_before_any_tensor_is_read(
    published: Path, tokenizer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (published / "tokenizer.json").unlink()
    if tokenizer is not None:
        (published / "tokenizer.json").write_bytes(tokenizer)
    monkeypatch.setattr(checkpoint._Source, "parameter", None)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: "):
        JanusPipeline.from_pretrained(published, device="cpu")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_refused_unless_nobody_looks(
    published: Path, number: float
) -> None:
    def spoil(state: dict[str, Tensor]) -> None:
        state[Q][3, 4] = number

    edit_weights(published, spoil)
    with pytest.raises(CheckpointError, match=f"{FILE}: '{Q}' holds NaN"):
        load(published, device=CPU)
    found = state_of(published, verify=False)["language.layers.1.attention.qkv.weight"]
    assert not found.isfinite().all()


def test_large_weights_whose_sum_overflows_are_accepted(published: Path) -> None:
    edit_weights(published, lambda state: state.update({Q: torch.full((32, 32), 3e38)}))
    load(published, device=CPU)
    with pytest.raises(CheckpointError, match=r"as torch\.float16"):
        load(published, device=CPU, dtype=torch.float16)


class Payload:
    """What a hostile weight file holds: loading it the plain way makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_the_code_does_not_run(
    published: Path, tmp_path: Path, zipped: bool
) -> None:
    data = load_file(published / FILE) | {"code": Payload(tmp_path / "ran")}
    (published / FILE).unlink()
    path = published / "pytorch_model.bin"
    if zipped:
        torch.save(data, path)
    else:
        path.write_bytes(pickle.dumps(data["code"]))
    with pytest.raises(CheckpointError, match="refused: contains code" if zipped else "no whole"):
        load(published, device=CPU)
    assert not (tmp_path / "ran").exists()


def test_a_file_cut_off_while_it_is_read_is_refused(published: Path) -> None:
    source = checkpoint._Source.open(published)
    cut(published, 100_000)
    with pytest.raises(CheckpointError, match="became shorter"):
        [source.parameter(name, CPU, torch.float32, True) for name in source.plan]


def test_a_flipped_byte_changes_the_checksum(published: Path) -> None:
    before = checksum(published)
    assert before == hashlib.sha256((published / FILE).read_bytes()).hexdigest()
    with (published / FILE).open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-3, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    assert checksum(published) != before


def test_the_checksum_of_parts_is_that_of_what_sha256sum_prints(published: Path) -> None:
    in_parts(published)
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(published.glob("*-of-*.safetensors"))
    ]
    assert checksum(published) == hashlib.sha256("".join(lines).encode()).hexdigest()
    with pytest.raises(CheckpointError, match="no such folder"):
        checksum(published / "none")
