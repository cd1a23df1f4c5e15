"""The adversarial loss of the VQ tokenizer: a critic learns to tell drawn patches from true ones.

The critic of Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks"
(2017), with the hinge loss of Lim and Ye, "Geometric GAN" (2017), as VQGAN (Esser et al., 2021) has
them, in small.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["Critic"]

WIDTHS = (32, 64, 128)  # each half as high and wide as the one before


class Critic(nn.Module):
    """Pixels [b, 3, h, w] in [-1, 1] -> how true each patch of about 46 pixels looks [b, 1, …]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in WIDTHS:
            layers.append(nn.Conv2d(before, width, 4, 2, 1))
            if before != 3:
                layers.append(nn.GroupNorm(8, width))
            layers.append(nn.LeakyReLU(0.2))
            before = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 4, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(pixels).float()  # type: ignore[no-any-return]

    def losses(self, drawn: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """What the critic pays for its mistakes, and what the painter pays for being found out.

        The first moves the critic alone, the second whatever made drawn.
        """
        mistakes = F.relu(1 - self(true)).mean() + F.relu(1 + self(drawn.detach())).mean()
        fixed = {name: value.detach() for name, value in self.named_parameters()}
        return mistakes, -functional_call(self, fixed, (drawn,)).mean()
