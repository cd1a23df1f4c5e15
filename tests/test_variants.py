"""Models held in fewer bits, in parts, mapped or off the device: variants.py and packed.py."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_parts import picture
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from janus_kit import JanusPipeline, OptionError, checkpoint, loading, storage, variants
from janus_kit.errors import CheckpointError
from janus_kit.generation import native
from janus_kit.generation.native import Packed, available, level, packed
from janus_kit.linears import Stacked
from janus_kit.variants import Variant

needs_native = pytest.mark.skipif(not available(), reason="the native step was not built")
CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("own_cache")


def rounded(x: Tensor) -> Tensor:
    """What packed matrices are multiplied with: int8 in groups of 64."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % 64)).unflatten(-1, (-1, 64))
    scale = padded.abs().amax(-1, keepdim=True) / 127
    return ((padded / scale.clamp(min=1e-30)).round() * scale).flatten(-2)[..., : x.shape[-1]]


@needs_native
def test_a_quantization_that_costs_a_model_too_much_is_not_offered(
    tmp_path: Path, hf_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(OptionError, match="'int4' is not offered for this model: of the facts"):
        JanusPipeline.from_pretrained(device="cpu", quantization="int4")
    with variants.measuring():
        JanusPipeline.from_pretrained(device="cpu", quantization="int4")
    folder = tmp_path / "model"
    shutil.copytree(hf_folder, folder)
    gate = folder / "quantization.json"
    for text in ('{"model_hash": "0123456789", "refused": {"int8": "why"}}', "[]", "{"):
        gate.write_text(text)  # of other weights, or nothing that can be read
        JanusPipeline.from_pretrained(folder, device="cpu", quantization="int8")
    assert caplog.text.count("every quantization is offered") == 2
    own = loading.digest(folder, None)
    gate.write_text(json.dumps({"model_hash": own, "refused": {"int8": "why"}}))
    JanusPipeline.from_pretrained(folder, device="cpu", quantization="int4")
    with pytest.raises(OptionError, match="'int8' is not offered for this model: why;"):
        JanusPipeline.from_pretrained(folder, device="cpu", quantization="int8")


@needs_native
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("n", "k"), [(48, 128), (33, 70), (16, 64), (1, 3)])
@torch.inference_mode()
def test_a_packed_matrix_multiplies_as_what_it_stands_for(bits: int, n: int, k: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(n, k)
    packed = Packed.of(weight, bits)
    matrix = packed.unpacked()
    assert (matrix - weight).norm() < weight.norm() * (0.01 if bits == 8 else 0.12)
    for rows in (1, 2, 3, 7, 13):
        x = torch.randn(rows, k)
        found = packed(x)
        expected = rounded(x).double() @ matrix.double().T
        torch.testing.assert_close(found, expected.float(), atol=1e-4, rtol=1e-4)
        assert torch.equal(packed(x[-1:]), found[-1:])
        for simd in (0, 1, 2):  # plain C, AVX2, AVX-512: the same whole numbers
            if simd <= level() % 4:
                torch.testing.assert_close(packed(x, simd), found, atol=1e-5, rtol=1e-5)


@needs_native
@torch.inference_mode()
def test_a_packed_matrix_keeps_dtypes_zeros_and_nan() -> None:
    packed = Packed.of(torch.zeros(16, 64), 4)
    assert not packed(torch.ones(2, 64)).any()
    packed = Packed.of(torch.ones(16, 64).bfloat16(), 8, torch.ones(16))
    assert torch.equal(
        packed(torch.ones(3, 2, 64).bfloat16()), torch.full((3, 2, 16), 65.0).bfloat16()
    )
    x = torch.ones(2, 64)
    x[0, 3] = float("nan")
    found = packed(x)
    assert bool(found[0].isnan().all())
    assert bool((found[1] == 65).all())


def quantized(folder: Path, bits: int, **options: Any) -> JanusPipeline:
    pipe = JanusPipeline.from_pretrained(folder, quantization=f"int{bits}", device="cpu", **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def work(pipe: JanusPipeline) -> tuple[Tensor, list[str]]:
    drawn = pipe(["a cat", "two dogs"], seed=3, output_type="tokens").codes
    return drawn, pipe.ask([picture(1), picture(2)], "What?", max_new_tokens=6)


@needs_native
@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantized_model_stays_as_it_was_loaded(hf_folder: Path, bits: int) -> None:
    pipe = quantized(hf_folder, bits)
    before = {name: tensor.dtype for name, tensor in pipe.model.named_buffers()}
    for move in (lambda: pipe.to("cpu"), lambda: pipe.to(pipe.dtype), lambda: pipe.to()):
        assert move() is pipe
    for other in (torch.bfloat16, torch.float16):
        with pytest.raises(OptionError, match="stays as it was loaded; load it again with device"):
            pipe.to(other)
    assert {name: tensor.dtype for name, tensor in pipe.model.named_buffers()} == before


@needs_native
@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantized_model_does_what_its_unpacked_weights_do(
    hf_folder: Path, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = quantized(hf_folder, bits)
    kinds = {type(m) for m in pipe.model.language.layers.modules()}
    assert Packed in kinds
    assert nn.Linear not in kinds
    fast = work(pipe)
    monkeypatch.setattr("janus_kit.steps.available", lambda: False)  # steps in PyTorch
    slow = work(pipe)
    assert (fast[0] == slow[0]).float().mean() > 0.9  # sums in another order round differently
    assert torch.equal(fast[0][:, 0], slow[0][:, 0])


@needs_native
def test_packed_weights_are_kept_and_found_again(
    hf_folder: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(hf_folder, folder)
    first = work(quantized(folder, 8))
    files = list(own_cache.iterdir())
    assert [path.suffix for path in files] == [".safetensors"]
    packs: list[str] = []
    pack = variants.PackedFile.pack
    monkeypatch.setattr(
        variants.PackedFile,
        "pack",
        lambda self, name, w: (packs.append(name), pack(self, name, w))[1],
    )
    second = work(quantized(folder, 8))
    assert not packs
    assert torch.equal(first[0], second[0])
    assert first[1] == second[1]
    files[0].write_bytes(b"damaged")
    assert torch.equal(work(quantized(folder, 8))[0], first[0])
    assert packs
    packs.clear()
    (folder / "model.safetensors").touch()  # another file: it is packed again
    quantized(folder, 8)
    assert packs
    assert len(list(own_cache.iterdir())) == 1  # what the folder held before is not kept


@needs_native
@pytest.mark.parametrize("free", [None, 2**40])
def test_packed_weights_are_copied_to_large_pages_where_there_is_room(
    hf_folder: Path, monkeypatch: pytest.MonkeyPatch, free: int | None
) -> None:
    plain = work(quantized(hf_folder, 8))
    monkeypatch.setattr(packed, "LARGE", 1000)
    monkeypatch.setattr(variants, "free_memory", lambda: free)
    kept = variants.PackedFile(hf_folder, 8)
    assert kept.mapped is (free is None)
    name = "language.layers.0.down"
    matrix = kept.get(f"{name}.weight", (32, 80))
    assert matrix is not None
    stored = kept.found[f"{name}.weight.packed"]
    assert torch.equal(matrix.packed, stored)
    assert (matrix.packed.data_ptr() == stored.data_ptr()) is kept.mapped
    again = work(quantized(hf_folder, 8))
    assert torch.equal(plain[0], again[0])
    assert plain[1] == again[1]


@needs_native
@pytest.mark.parametrize("homeless", [False, True])
def test_a_cache_that_cannot_be_written_stops_nothing(
    hf_folder: Path,
    tmp_path: Path,
    homeless: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if homeless:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", raises_as_without_a_home)
    else:
        (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setattr(checkpoint, "MAPPED", 0)
    monkeypatch.setattr(storage, "LARGE", 0)
    work(quantized(hf_folder, 8))
    assert "cannot be kept" in caplog.text


def raises_as_without_a_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_the_checksum_of_large_weights_is_kept_until_they_change(
    hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(hf_folder, tmp_path / "own")
    monkeypatch.setattr(storage, "LARGE", 0)
    found = storage.checksum(folder)
    read = storage._sha256
    monkeypatch.setattr(storage, "_sha256", lambda path: pytest.fail(f"{path} is read again"))
    assert storage.checksum(folder) == found
    monkeypatch.setattr(storage, "_sha256", read)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert storage.checksum(folder) != found


def test_what_is_not_supported_is_refused_plainly(
    hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = JanusPipeline.from_pretrained
    for options, words in (
        ({"quantization": "int2"}, "must be int8, int4, fp8"),
        ({"quantization": "fp8"}, "needs a GPU"),
        ({"components": "hands"}, "must be all, draw or understand"),
        ({"offload": "disk"}, "must be cpu"),
        ({"offload": "cpu"}, "is for a GPU"),
        ({"compile": True}, "is for a GPU"),
    ):
        with pytest.raises(OptionError, match=words):
            load(hf_folder, device="cpu", **options)  # type: ignore[arg-type]
    monkeypatch.setattr(variants, "available", lambda: False)
    with pytest.raises(OptionError, match="was not built"):
        load(hf_folder, device="cpu", quantization="int8")
    monkeypatch.setattr("janus_kit.options.importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionError, match="needs torchao"):
        Variant(quantization="int8").check(torch.device("cuda"))
    with pytest.raises(OptionError, match=r"int4.*needs dtype='bfloat16'"):
        variants.quantize_to(torch.nn.Linear(4, 4), torch.device("cuda"), "int4")
    with pytest.raises(OptionError, match="not for mps"):
        Variant(quantization="int8").check(torch.device("mps"))


def test_mapped_weights_are_those_that_are_read_and_can_be_saved(
    hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = checkpoint.load(hf_folder, device=CPU)
    monkeypatch.setattr(checkpoint, "MAPPED", 0)
    mapped, _ = checkpoint.load(hf_folder, device=CPU)
    assert any(isinstance(m, Stacked) for m in mapped.modules())
    found = mapped.state_dict()
    assert found.keys() == plain.state_dict().keys()
    assert all(torch.equal(found[name], t) for name, t in plain.state_dict().items())
    pipes = []
    for model in (plain, mapped):
        pipe = JanusPipeline.from_pretrained(hf_folder, device="cpu")
        pipe.model = model.eval().requires_grad_(False)
        pipe.set_progress_bar_config(disable=True)
        pipes.append(work(pipe))
    assert torch.equal(pipes[0][0], pipes[1][0])
    assert pipes[0][1] == pipes[1][1]
    checkpoint.save(mapped, tmp_path / "new", tokenizer_folder=hf_folder)
    again, _ = checkpoint.load(tmp_path / "new", device=CPU)
    assert all(torch.equal(t, found[name]) for name, t in again.state_dict().items())


def test_weights_that_stay_in_their_file_are_looked_at_once_until_it_changes(
    hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(hf_folder, tmp_path / "own")
    looked: list[str] = []
    verify = checkpoint._Source._verify
    monkeypatch.setattr(
        checkpoint._Source,
        "_verify",
        lambda self, piece, rows: (looked.append(piece.name), verify(self, piece, rows)),
    )

    def looks(**options: Any) -> int:
        looked.clear()
        checkpoint.load(folder, device=CPU, **options)
        return len(looked)

    read = looks()
    assert read > 0
    assert looks() == read
    monkeypatch.setattr(checkpoint, "MAPPED", 0)
    assert looks(verify=False) == 0
    draw = Variant(components="draw")
    assert 0 < looks(variant=draw) < read  # of the other part nothing is known by that
    assert [looks(), looks(), looks(variant=draw)] == [read, 0, 0]
    if available():  # of matrices that were packed unseen, nobody knows
        packed = Variant(quantization="int8")
        assert looks(variant=packed, verify=False) == 0
        assert 0 < looks(variant=packed) == looks(variant=packed) < read
    weights = folder / "model.safetensors"
    state = load_file(weights)
    name = next(iter(state))
    state[name].view(-1)[0] = float("nan")
    save_file(state, weights, metadata={"format": "pt"})
    for _ in range(2):  # what was refused was not found sound
        with pytest.raises(CheckpointError, match=name):
            looks()


def test_offloaded_weights_give_the_same(
    hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("accelerate")
    monkeypatch.setattr("janus_kit.steps.available", lambda: False)
    monkeypatch.setattr(
        checkpoint, "MAPPED", 0
    )  # as large models are, but for those to be offloaded
    # Not in float32, in which a CPU's steps read the weights past the hooks.
    monkeypatch.setattr(Variant, "check", lambda self, device: None)
    plain, pipe = (
        JanusPipeline.from_pretrained(hf_folder, device="cpu", dtype="bfloat16", offload=how)
        for how in (None, "cpu")
    )
    for each in (plain, pipe):
        each.set_progress_bar_config(disable=True)
    expected = plain("a cat", seed=1, output_type="tokens").codes, plain.ask(picture(1), "What?")
    assert torch.equal(pipe.encode(picture(1)), plain.encode(picture(1)))
    with pytest.raises(OptionError, match="only a whole model"):
        pipe.save_pretrained(tmp_path / "new")
    assert all(weight.is_meta for weight in pipe.model.language.layers.parameters())
    with pytest.raises(OptionError, match="stays as it was loaded"):
        pipe.to("cpu", "float32")
    pipe.__dict__.pop("code_table", None)
    found = pipe("a cat", seed=1, output_type="tokens").codes, pipe.ask(picture(1), "What?")
    assert torch.equal(found[0], expected[0])
    assert found[1] == expected[1]


def test_bfloat16_on_a_cpu_draws_natively_what_pytorch_draws(hf_folder: Path) -> None:
    pipe = JanusPipeline.from_pretrained(hf_folder, device="cpu", dtype="bfloat16")
    pipe.set_progress_bar_config(disable=True)
    codes = pipe("a cat", temperature=0, output_type="tokens").codes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("janus_kit.steps.available", lambda: False)
        plain = pipe("a cat", temperature=0, output_type="tokens").codes
    assert (codes == plain).float().mean() > 0.5
    assert native.available() or torch.equal(codes, plain)
