"""A network of EfficientNet-Lite0's shape with random weights, named as the published ones are."""

import torch

# Of EfficientNet-Lite0: channels in, expansion, channels out, kernel, of the blocks looked at.
BLOCKS = [
    (32, 1, 16, 3), (16, 6, 24, 3), (24, 6, 24, 3), (24, 6, 40, 5), (40, 6, 40, 5),
    (40, 6, 80, 3), (80, 6, 80, 3), (80, 6, 80, 3), (80, 6, 112, 5), (112, 6, 112, 5),
    (112, 6, 112, 5), (112, 6, 192, 5), (192, 6, 192, 5), (192, 6, 192, 5), (192, 6, 192, 5),
    (192, 6, 320, 3),
]  # fmt: skip


def random_weights() -> dict[str, torch.Tensor]:
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
