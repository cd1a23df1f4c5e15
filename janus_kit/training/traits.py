"""What each code shows: of which thing a part, which part, and in which colour.

A language model that begins with random vectors for its codes has to find out one by one which
belong together; that took most of a small run. Scenes tell it beforehand: a code that shows the
third row of a zebra is a kin of all codes of zebras, and of all third rows. What is below and
beside it is then the same step for every thing, and what a word says of a thing holds for all of
its parts, in combinations that were never shown, too. The idea is that of a product code (Sabin and
Gray, 1984) and of embeddings that begin with what is known of their words (Kocmi and Bojar, "An
Exploration of Word Embedding Initialization in Deep-Learning Tasks", 2017).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from janus_kit.training.quantizer import PATCH, PatchBook, to_pixels
from janus_kit.training.world import COLORS, Scene, mask, places

__all__ = ["Traits", "survey"]

COVERED = 0.02  # the share of a place that a thing has to cover to be seen there
# Shares of a head's vector that tell the name, the row, the column and the colour; the rest is a
# code's own.
NAME, PLACE, COLOR = 0.4, 0.1, 0.1


@dataclass(frozen=True)
class Traits:
    """Mean of what is where a code is; a row of zeros for a code that was never seen.

    name: fp32 [codes, names + 1], the last for the ground. row and column: fp32 [codes, side],
    counted from the thing's box, for the ground from the picture's edge. color: fp32 [codes,
    colours + 1], the last for things in their own colours and for the ground; even for bare forms.
    """

    name: Tensor
    row: Tensor
    column: Tensor
    color: Tensor

    def vectors(self, size: int, seed: int) -> Tensor:
        """Vectors [codes, size] of variance 1 for a head: a part of each tells one trait."""
        random = torch.Generator().manual_seed(seed)
        place, color = round(PLACE * size), round(COLOR * size)
        name = round(NAME * size)
        own = size - name - 2 * place - color
        parts = [
            trait @ _apart(trait.shape[1], width, random)
            for trait, width in (
                (self.name, name), (self.row, place), (self.column, place), (self.color, color),
            )
        ]  # fmt: skip
        parts.append(torch.randn(len(self.name), own, generator=random))
        # A code of several things or places says less of each.
        return torch.cat(parts, 1)

    def embeds(self, size: int, seed: int) -> Tensor:
        """Vectors [codes, size], size ≥ 7, for the embed of a code: its place as two angles, then
        its name, and its colour last."""
        random = torch.Generator().manual_seed(seed)
        steps = torch.arange(self.row.shape[1]) / self.row.shape[1] * 2 * torch.pi
        circle = torch.stack((steps.cos(), steps.sin()), 1)
        names = _spread(self.name.shape[1], size - 5, random)
        line = torch.linspace(-1, 1, self.color.shape[1])[:, None]
        parts = (self.row @ circle, self.column @ circle, self.name @ names, self.color @ line)
        noise = 0.02 * torch.randn(len(self.name), size, generator=random)
        return 0.6 * torch.cat(parts, 1) + noise


def survey(
    book: PatchBook, scenes: "Iterable[tuple[np.ndarray[Any, Any], Scene]]", names: Sequence[str]
) -> Traits:
    """Look at scenes: what stands at each place, and which code it has.

    Codes of one form in different colours share what is known of the form.
    """
    side, colors = 0, list(COLORS)
    total = len(book.calm) + len(book.busy)
    sums: list[Tensor] = []
    for pixels, scene in scenes:
        lying = torch.from_numpy(places(scene)).flatten(0, 1)
        codes = book.codes(to_pixels([pixels]), lying[None])[0]
        if not sums:
            side = int(len(codes) ** 0.5)
            widths = (len(names) + 1, side, side, len(colors) + 1)
            sums = [torch.zeros(total, width) for width in widths]
        row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        row_there, column_there, _ = lying.view(side, side, -1).unbind(-1)
        name = torch.full((side, side), len(names))
        color = torch.full((side, side), len(colors))
        for thing in scene.things:
            seen = torch.from_numpy(mask(thing)).view(side, PATCH, side, PATCH)
            there = seen.float().mean((1, 3)) > COVERED
            name[there] = names.index(thing.name)
            color[there] = colors.index(thing.color) if thing.color else len(colors)
            row = torch.where(there, row_there, row)
            column = torch.where(there, column_there, column)
        for kept, found in zip(sums, (name, row, column, color), strict=True):
            one_hot = F.one_hot(found.flatten().clamp(min=0), kept.shape[1]).float()
            kept.index_add_(0, codes, one_hot)
    for kept in sums[:3]:
        for run in book.families():
            forms = kept[run].view(book.colors, -1, kept.shape[1])
            kept[run] = forms.sum(0).repeat(book.colors, 1)
    for run in book.families():
        own = F.one_hot(torch.arange(book.colors), sums[3].shape[1]).float()
        sums[3][run] = own.repeat_interleave((run.stop - run.start) // book.colors, 0)
    bare = book.is_bare(torch.arange(total))
    sums[3][bare] = torch.tensor([1.0] * book.colors + [0.0])
    return Traits(*(kept / kept.sum(1, keepdim=True).clamp(min=1) for kept in sums))


def _apart(count: int, size: int, random: torch.Generator) -> Tensor:
    """So many vectors [count, size] of variance 1, as far apart as they can be."""
    found = _spread(count, size, random)
    if count <= size:
        torch.nn.init.orthogonal_(found, generator=random)
    scaled: Tensor = found * size**0.5
    return scaled


def _spread(count: int, size: int, random: torch.Generator) -> Tensor:
    """Unit vectors [count, size] that have pushed each other apart."""
    vectors = F.normalize(torch.randn(count, size, generator=random), dim=1)
    for _ in range(300):
        near = (4 * (vectors @ vectors.T - 1)).exp().fill_diagonal_(0)
        vectors = F.normalize(vectors - 0.05 * F.normalize(near @ vectors, dim=1), dim=1)
    return vectors
