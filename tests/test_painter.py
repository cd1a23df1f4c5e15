"""The VQ decoder in C against the one of PyTorch."""

import pytest
import torch
from conftest import tiny_config
from torch import Tensor, nn

from janus_kit.config import VQConfig
from janus_kit.generation import painter
from janus_kit.generation.native import available, level
from janus_kit.generation.native.paint import Conv3x3, Norm
from janus_kit.generation.painter import paint, paints
from janus_kit.generation.vq import VQTokenizer

pytestmark = pytest.mark.skipif(not available(), reason="the native step was not built")


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
        spread = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.2
        parameter.copy_(torch.randn_like(parameter) * spread + (parameter.dim() == 1) * 0.5)
    return module.eval()


@pytest.mark.parametrize(
    ("h", "w", "cin", "cout"), [(24, 24, 32, 48), (5, 7, 16, 16), (1, 1, 32, 3), (67, 3, 16, 32)]
)
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("normed", [False, True])
@torch.inference_mode()
def test_a_convolution_equals_that_of_torch(
    h: int, w: int, cin: int, cout: int, twice: bool, normed: bool
) -> None:
    conv = randomised(nn.Conv2d(cin, cout, 3, padding=1))
    norm = randomised(nn.GroupNorm(8, cin, eps=1e-6))
    x = torch.randn(h, w, cin) * 2 + 1
    up = nn.Upsample(scale_factor=2.0) if twice else nn.Identity()
    y = x.permute(2, 0, 1)[None]
    expected = conv(up(torch.nn.functional.silu(norm(y)) if normed else y))[0].permute(1, 2, 0)
    plus = torch.randn(expected.shape) if cout % 16 == 0 else None
    found = Conv3x3(conv)(x, Norm.of(norm, x) if normed else None, plus, twice=twice)  # type: ignore[arg-type]
    expected = expected if plus is None else expected + plus
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_picture_equals_that_of_torch_and_does_not_depend_on_its_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vq = VQTokenizer(tiny_config().vq)
    randomised(vq)
    latents = torch.randn(3, 32, 5, 5)
    with torch.no_grad():
        assert paints(vq.decoder)
        found = paint(vq.decoder, latents)
        torch.testing.assert_close(found, vq.decoder(latents), atol=2e-4, rtol=2e-4)
        for one, picture in zip(latents, found, strict=True):
            assert torch.equal(paint(vq.decoder, one[None])[0], picture)
        # Where kernels would be larger than pictures.
        monkeypatch.setattr(painter, "LARGE", 0)
        torch.testing.assert_close(paint(vq.decoder, latents), found, atol=2e-4, rtol=2e-4)


@pytest.mark.skipif(level() & 3 < 2, reason="this CPU has no wider instructions")
@torch.inference_mode()
def test_wider_instructions_change_no_bit() -> None:
    conv = Conv3x3(randomised(nn.Conv2d(32, 48, 3, padding=1)))  # type: ignore[arg-type]
    x = torch.randn(9, 45, 32)  # twelve tiles a row: eight, and four more
    assert torch.equal(conv(x), conv(x, simd=1))


@torch.inference_mode()
def test_a_convolution_is_the_same_to_the_bit_with_any_number_of_threads() -> None:
    conv = Conv3x3(randomised(nn.Conv2d(32, 32, 3, padding=1)))  # type: ignore[arg-type]
    norm = randomised(nn.GroupNorm(8, 32, eps=1e-6))
    x = torch.randn(50, 50, 32)
    many = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(conv(x, Norm.of(norm, x)))  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(many)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_kernels_that_change_are_noticed() -> None:
    vq = VQTokenizer(tiny_config().vq)
    randomised(vq)
    latents = torch.randn(1, 32, 4, 4)
    with torch.no_grad():
        before = paint(vq.decoder, latents)
        vq.decoder.conv_out.bias.add_(1.0)  # type: ignore[union-attr]
        torch.testing.assert_close(paint(vq.decoder, latents), before + 1, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_bfloat16_weights_are_painted_in_float32() -> None:
    vq = VQTokenizer(tiny_config().vq).bfloat16()
    codes = torch.randint(64, (1, 16))
    pixels = vq.decode(codes)
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels, vq.float().decode(codes), atol=0.05, rtol=0.05)


def test_what_cannot_be_painted_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    vq = VQTokenizer(tiny_config().vq)
    assert not paints(vq.decoder)  # gradients are wanted
    with torch.no_grad():
        assert paints(vq.decoder)
        assert not paints(vq.half().decoder)
        odd = VQConfig(
            latent_channels=40, base_channels=32, channel_multiplier=(1, 1), res_blocks=1
        )
        assert not paints(VQTokenizer(odd).decoder)
        monkeypatch.setattr(painter, "available", lambda: False)
        assert not paints(vq.float().decoder)


def reference(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    return norm.double()(x.double().permute(2, 0, 1)[None])[0].permute(1, 2, 0)


@torch.inference_mode()
def test_a_norm_is_exact_where_the_mean_is_large() -> None:
    norm = nn.GroupNorm(4, 16, eps=1e-6)
    x = torch.randn(90, 90, 16) + 100
    found = Norm.of(norm, x)
    torch.testing.assert_close(
        x * found.scale + found.shift, reference(x, norm).float(), atol=2e-3, rtol=1e-3
    )
