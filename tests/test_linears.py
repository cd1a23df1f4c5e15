"""Products in bfloat16 on CPUs that have none: made in fp32, and rounded once."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from janus_kit import JanusPipeline, linears
from janus_kit.linears import ROWS, Linear, Stacked


@pytest.fixture
def slow_in_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linears, "quick_in_half", lambda device: False)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The dtypes in which F.linear multiplies from now on."""
    seen: list[torch.dtype] = []
    true = torch.nn.functional.linear

    def multiply(x: Tensor, *others: Tensor | None) -> Tensor:
        seen.append(x.dtype)
        return true(x, *others)

    monkeypatch.setattr(linears.F, "linear", multiply)
    return seen


@pytest.mark.usefixtures("slow_in_half")
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_what_comes_out_is_the_product_in_fp32_rounded(
    bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = Linear(70, ROWS + 30, bias=bias).bfloat16()
    x = torch.randn(3, 5, 70).bfloat16()
    expected = x.float() @ layer.weight.float().T
    if bias:
        expected += layer.bias.float()
    seen = counted(monkeypatch)
    torch.testing.assert_close(layer(x).float(), expected, rtol=2**-8, atol=1e-6)
    pieces = Stacked([layer.weight[:50], layer.weight[50:]])
    expected = x.float() @ layer.weight.float().T
    torch.testing.assert_close(pieces(x).float(), expected, rtol=2**-8, atol=1e-6)
    assert set(seen) == {torch.float32}


@pytest.mark.usefixtures("slow_in_half")
def test_few_rows_other_dtypes_and_training_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half, whole = Linear(8, 8).bfloat16(), Linear(8, 8)
    seen = counted(monkeypatch)
    half(torch.ones(9, 8).bfloat16()).sum().backward()
    with torch.inference_mode():
        half(torch.ones(2, 8).bfloat16())
        whole(torch.ones(9, 8))
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]


@pytest.mark.usefixtures("slow_in_half")
@torch.inference_mode()
def test_a_model_is_no_further_from_float32_than_by_half_products(
    hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(dtype: str) -> tuple[Tensor, Tensor]:
        pipe = JanusPipeline.from_pretrained(hf_folder, device="cpu", dtype=dtype)
        torch.manual_seed(1)
        size = pipe.config.vision.image_size
        features = pipe.model.features(torch.rand(2, 3, size, size) * 2 - 1)
        mask = torch.ones(2, 9, dtype=torch.bool)
        mask[0, :4] = False
        hidden = pipe.model.language(pipe.model.language.embed(torch.arange(18).view(2, 9)), mask)
        return features.float(), hidden[:, 4:].float()

    true, widened = found("float32"), found("bfloat16")
    monkeypatch.setattr(linears, "quick_in_half", lambda device: True)
    for exact, one, other in zip(true, widened, found("bfloat16"), strict=True):
        assert 0 < (one - exact).norm() < 1.2 * (other - exact).norm()
