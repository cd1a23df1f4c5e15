"""Matrices as a GPU has them, made by the real torchao, which also works on a CPU."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from janus_kit import JanusPipeline, checkpoint, variants
from janus_kit.model import Janus

pytest.importorskip("torchao")
pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("default"),  # torchao's own, of what it will change
]
CPU = torch.device("cpu")


@pytest.mark.parametrize("quantization", ["int8", "fp8"])
def test_matrices_of_steps_alone_are_quantized_as_for_a_gpu(
    hf_folder: Path, quantization: str
) -> None:
    plain = JanusPipeline.from_pretrained(hf_folder, device="cpu", dtype="bfloat16").model
    model, _ = checkpoint.load(hf_folder, device=CPU, dtype=torch.bfloat16)
    variants.quantize_to(model.eval().requires_grad_(False), CPU, quantization)
    kinds = {name: type(weight.data) for name, weight in model.named_parameters()}
    packed = {name for name, kind in kinds.items() if kind is not Tensor}
    assert packed == {name for name in kinds if variants.PACKED.fullmatch(name)} != set()
    embeds = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    ours, theirs = (each.code_logits(each.language(embeds)).float() for each in (model, plain))
    assert (ours - theirs).norm() < 0.1 * theirs.norm()


@pytest.mark.parametrize("quantization", ["int8", "fp8"])
def test_matrices_as_a_gpu_has_them_are_kept_and_found_again(
    hf_folder: Path, own_cache: Path, quantization: str, caplog: pytest.LogCaptureFixture
) -> None:
    def made(dtype: torch.dtype = torch.bfloat16) -> tuple[Janus, dict[str, Tensor]]:
        kept = variants.TorchaoFile(hf_folder, quantization)
        model, _ = checkpoint.load(hf_folder, device=CPU, dtype=dtype, given=kept.found)
        kept.made = variants.quantize_to(model.eval().requires_grad_(False), CPU, quantization)
        kept.write()
        return model, kept.made

    first, packed = made()
    again, none = made()
    assert packed.keys() == {n for n, _ in first.named_parameters() if variants.PACKED.fullmatch(n)}
    assert not none
    embeds = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(*(each.code_logits(each.language(embeds)) for each in (first, again)))
    assert made(torch.float32)[1].keys() == packed.keys()  # of another dtype they are made anew
    (path,) = own_cache.iterdir()
    whole = path.read_bytes()
    path.unlink()  # it is mapped
    path.write_bytes(whole[:-1000])
    assert made()[1].keys() == packed.keys()
    assert "made again" in caplog.text
    assert not made()[1]
