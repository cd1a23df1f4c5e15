"""What each code of the embedded tokenizer stands for: patches of pictures, sorted by k-means.

Classified vector quantization (Ramamurthi and Gersho, 1986) with the codebook design of Linde, Buzo
and Gray (1980). A patch is calm, and known by its colour alone, or busy, and known by its pixels.
A VQ tokenizer that learns its codes end to end lets the whole picture speak in each of them; these
depend on their own 16×16 pixels and nothing else, so a thing has the same codes wherever it stands,
and a small language model need learn them only once.

Codes come in families: the ground, things in their own colours, then for every colour the same
forms, as a product code has them (Sabin and Gray, 1984). What a name says of a form then holds in
all colours. Only one place in four of a coloured thing tells its colour, as television and JPEG
have less of colour than of light: the others have bare forms, one code for all colours, and so as
many more. A decoder paints them in the colour that it sees beside them.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from janus_kit.errors import CheckpointError

__all__ = ["PatchBook", "as_drawn", "patches", "tells", "to_pixels"]

PATCH = 16  # pixels on each side
SHRINK = 2  # patches are compared at half size
BUSY = 0.06  # a patch is busy when a channel's standard deviation, in [-1, 1], exceeds it
NEAR = 9  # codes that are alike, the code itself among them
LATTICE = 2  # every so many rows and columns of a coloured thing a code tells its colour
# How far a form lies from another of the next row or column of its thing, beside the distance of
# their pixels. Forms that tell where they lie can be continued; by pixels alone, one form stood for
# so many places that the model lost its way.
APART = 3.0
PARITY = 0.3  # how much of a code's vector tells whether its row and its column are odd


def to_pixels(pictures: "Sequence[np.ndarray[Any, Any]]") -> Tensor:
    """uint8 pictures [h, w, 3] -> fp32 [n, 3, h, w] in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def patches(pixels: Tensor) -> Tensor:
    """Pixels [b, 3, h, w] -> patches at half size [b·n, 3, 64], raster order."""
    side = PATCH // SHRINK
    small = F.avg_pool2d(pixels, SHRINK)
    b, c, h, w = small.shape
    cut = small.view(b, c, h // side, side, w // side, side).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(-1, c, side * side)


@dataclass(frozen=True)
class PatchBook:
    """The patch of every code, calm ones first: [calm, 3] and [busy, 192].

    The calm begin with the ground and with things in their own colours, the busy with the latter;
    what follows in both are `colors` runs of equal length, one a colour, with the same forms in the
    same order. The last of the busy are bare forms, each the mean of what it shows in all colours;
    bare: what it shows in each [n, colors, 192]. places: the row and column in their things where
    busy codes lie, fp32 [n, 2]: those of things in their own colours, then the forms, which are the
    same in all colours, then the bare ones.
    """

    calm: Tensor
    busy: Tensor
    ground: int
    own: tuple[int, int]  # calm and busy codes of things in their own colours
    colors: int
    places: Tensor
    bare: Tensor

    @classmethod
    def load(cls, path: Path) -> "PatchBook":
        """What `save` wrote. Raises CheckpointError for another file."""
        try:
            with safe_open(path, "pt") as file:
                shape = json.loads(file.metadata()["book"])
                calm, busy = (as_levels(file.get_tensor(name)) for name in ("calm", "busy"))
                places = file.get_tensor("places")
                names = list(file.keys())
                nothing = torch.zeros(0, shape["colors"], busy.shape[1])
                bare = as_levels(file.get_tensor("bare")) if "bare" in names else nothing
            own_calm, own_busy = shape["own"]
            own = (own_calm, own_busy)
            return cls(calm, busy, shape["ground"], own, shape["colors"], places, bare)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: holds no patches of codes ({error}); delete it and train anew"
            ) from None

    def save(self, path: Path) -> None:
        """Write the patches as bytes, whole or not at all."""
        parts = {"calm": self.calm, "busy": self.busy, "bare": self.bare}
        shape = {"ground": self.ground, "own": self.own, "colors": self.colors}
        part = path.with_name(f".{path.name}.{os.getpid()}")
        tensors = {name: as_bytes(rows).contiguous() for name, rows in parts.items()}
        tensors["places"] = self.places.contiguous()
        save_file(tensors, part, {"book": json.dumps(shape)})  # two would stand in any order
        part.chmod(0o644)  # safetensors writes for the owner alone
        part.replace(path)

    @torch.no_grad()
    def codes(self, pixels: Tensor, places: Tensor | None = None) -> Tensor:
        """The nearest patch for each place: [b, 3, h, w] in [-1, 1] -> int64 [b, n].

        places: what is known of each place, see world.places, int64 [b, n, 3]. A code is then one
        of its thing's colour or bare, and a busy one lies there: the rim of a thing is mostly
        ground, and would else be read as that of another, in another colour. Without it no code is
        bare.
        """
        found = patches(pixels)
        busy = is_busy(found)
        codes = torch.empty(len(found), dtype=torch.long, device=pixels.device)
        if places is None:
            codes[~busy] = nearest_of(found[~busy].mean(-1), self.calm)
            colored = self.busy[: self.first_bare - len(self.calm)]
            codes[busy] = len(self.calm) + nearest_of(found[busy].flatten(1), colored)
            return codes.view(len(pixels), -1)
        lying = places.flatten(0, 1).to(pixels.device)
        for color in range(self.colors + 1):
            quiet = (lying[:, 2] == color) & ~busy
            known = torch.cat((torch.arange(self.ground), self.codes_of(color)[0]))
            codes[quiet] = known[nearest_of(found[quiet].mean(-1), self.calm[known])]
        told = torch.ones_like(busy)
        if len(self.bare):
            smooth = ~busy & (lying[:, 2] > 0)
            smooth[~busy] &= codes[~busy] >= self.ground
            told = tells(busy, smooth, places)
        own, first = self.own[1], self.first_bare - len(self.calm)
        lies = torch.cat((found.flatten(1), APART * lying[:, :2].to(found)), 1)
        for color in range(self.colors + 1):
            forms = self.codes_of(color)[1] - len(self.calm)
            there = self.places[own : len(self.places) - len(self.bare)]
            kinds = [(told, forms, self.busy[forms], there if color else self.places[:own])]
            if color and len(self.bare):
                bare = torch.arange(first, len(self.busy))
                lying_there = self.places[len(self.places) - len(self.bare) :]
                kinds.append((~told, bare, self.bare[:, color - 1], lying_there))
            for chosen, numbers, shown, at in kinds:
                moving = (lying[:, 2] == color) & busy & chosen
                nearest = nearest_of(lies[moving], torch.cat((shown, APART * at), 1))
                codes[moving] = len(self.calm) + numbers[nearest]
        return codes.view(len(pixels), -1)

    def codes_of(self, color: int) -> tuple[Tensor, Tensor]:
        """The calm and the busy codes that tell a colour, from 1, or 0 for things' own."""
        own_calm, own_busy = self.own
        calm = len(self.calm)
        if not color:
            return (
                torch.arange(self.ground, self.ground + own_calm),
                torch.arange(calm, calm + own_busy),
            )
        runs = (torch.arange(run.start, run.stop).view(self.colors, -1) for run in self.families())
        smooth, forms = (run[color - 1] for run in runs)
        return smooth, forms

    def paint(self, codes: Tensor) -> Tensor:
        """The patches side by side: codes [b, n] -> pixels [b, 3, h, w] in [-1, 1].

        Bare ones in the colour that is nearest, or in the mean of all where none is.
        """
        side, small = int(codes.shape[1] ** 0.5), PATCH // SHRINK
        shown = self.whole()[codes]
        if len(self.bare):
            color, bare = self.nearest_colors(codes), self.is_bare(codes)
            there = bare & (color > 0)
            numbers = codes[there] - self.first_bare
            shown[there] = self.bare[numbers, color[there] - 1]
        cut = shown.view(-1, side, side, 3, small, small)
        pixels = cut.permute(0, 3, 1, 4, 2, 5).reshape(len(codes), 3, side * small, side * small)
        return F.interpolate(pixels, scale_factor=SHRINK, mode="bilinear")

    @property
    def first_bare(self) -> int:
        """The number of the first code that is bare; how many codes there are where none is."""
        return len(self.calm) + len(self.busy) - len(self.bare)

    def is_bare(self, codes: Tensor) -> Tensor:
        """Which codes tell no colour though their thing has one of the ten."""
        return codes >= self.first_bare

    def colors_of(self, codes: Tensor) -> Tensor:
        """The colours that codes tell, from 1; 0 for none."""
        found = torch.zeros_like(codes)
        for run in self.families():
            each = max(1, (run.stop - run.start) // self.colors)
            inside = (codes >= run.start) & (codes < run.stop)
            found = torch.where(inside, 1 + (codes - run.start) // each, found)
        return found

    def nearest_colors(self, codes: Tensor) -> Tensor:
        """The colour that is told at each place of [b, n], or else nearest to it; 0 if none is."""
        side = int(codes.shape[1] ** 0.5)
        told = F.one_hot(self.colors_of(codes), self.colors + 1)[..., 1:].float()
        told = told.view(-1, side, side, self.colors).permute(0, 3, 1, 2)
        for _ in range(side):
            unknown = told.amax(1, keepdim=True) == 0
            if not unknown.any():
                break
            told = torch.where(unknown, F.avg_pool2d(told, 3, 1, 1), told)
        most, which = told.max(1)
        return torch.where(most > 0, which + 1, 0).flatten(1)

    def outlines(self, codes: Tensor) -> Tensor:
        """Where things begin: busy patches below calm ones, bool [b, n] for codes [b, n]."""
        side = int(codes.shape[1] ** 0.5)
        busy = (codes >= len(self.calm)).view(-1, side, side)
        above = F.pad(busy, (0, 0, 1, 0))[:, :side]
        return (busy & ~above).flatten(1)

    def families(self) -> tuple[slice, slice]:
        """The calm and the busy codes that tell the colours of things: equal runs, one a colour."""
        calm = len(self.calm)
        return (
            slice(self.ground + self.own[0], calm),
            slice(calm + self.own[1], self.first_bare),
        )

    def whole(self) -> Tensor:
        """The patches of all codes at half size [codes, 192]."""
        side = (PATCH // SHRINK) ** 2
        return torch.cat((self.calm.unsqueeze(-1).expand(-1, -1, side).flatten(1), self.busy))

    @cached_property
    def near(self) -> Tensor:
        """The nearest patches of each code's, itself first: int64 [codes, NEAR]."""
        whole = self.whole()
        lengths = whole.square().sum(-1)
        rows = [
            (2 * part @ whole.T - lengths).topk(NEAR).indices for part in torch.split(whole, 2048)
        ]
        return torch.cat(rows)

    def vectors(self, size: int) -> Tensor:
        """Unit vectors [codes, size], size ≥ 5, that say what the patches look like.

        Their main components beside a constant, so that putting them on the sphere loses nothing.
        A decoder paints from such vectors by adding up; vectors that fill the sphere evenly it has
        to learn by heart. Fine components are faint: each is drawn half of the way to equal size.
        The last three are of one size or 0: two change sign from row to row and from column to
        column of a thing where a place is known, since resampled by repetition the pixels of a
        place are told apart by what is beside it alone, and this always differs; the third says
        that a code is bare.
        """
        patches = self.whole()
        left, sizes, _ = torch.linalg.svd(patches - patches.mean(0), full_matrices=False)
        parts = (left * sizes.sqrt())[:, : size - 4]
        parts = parts / parts.square().sum(1).mean().sqrt()
        signs = PARITY * (1 - 2 * (self.places.round() % 2))
        own, bare = self.own[1], len(self.places) - len(self.bare)
        signs = torch.cat((signs[:own], signs[own:bare].repeat(self.colors, 1), signs[bare:]))
        signs = F.pad(signs, (0, 1, len(self.calm), 0))
        signs[len(signs) - len(self.bare) :, 2] = PARITY
        return F.normalize(torch.cat((torch.ones(len(parts), 1), parts, signs), 1), dim=-1)


def tells(busy: Tensor, smooth: Tensor, places: Tensor) -> Tensor:
    """Which places tell their colour: bool [b·n] each, places int64 [b, n, 3].

    All of things in their own colours; of coloured ones those on a lattice of the thing, and those
    beside which nothing else would: not a busy place of the lattice, nor one of smooth, whose
    codes always tell it.
    """
    b, n, _ = places.shape
    lying = places.flatten(0, 1).to(busy.device)
    lattice = busy & (lying[:, 2] > 0) & (lying[:, :2] % LATTICE == 0).all(1)
    side = int(n**0.5)
    telling = (lattice | smooth).view(b, 1, side, side).float()
    beside = F.max_pool2d(telling, 3, 1, 1).flatten() > 0
    return (lying[:, 2] == 0) | lattice | ~beside


def as_drawn(
    book: PatchBook, pixels: Tensor, places: Tensor | None, random: np.random.Generator
) -> Tensor:
    """Pictures as a small model draws them: [b, 3, h, w] in [-1, 1] -> the same.

    places: what is known of theirs, see PatchBook.codes. Their codes' patches, up to a twentieth of
    the busy ones wrong, soft edges, and blotches. Who has seen true pictures alone does not know
    drawn ones.
    """
    codes = book.codes(pixels, places).cpu()
    wrong = torch.from_numpy(random.random(codes.shape) < 0.05 * random.random()) & (
        codes >= len(book.calm)
    )
    others = torch.from_numpy(
        random.integers(len(book.calm), len(book.calm) + len(book.busy), codes.shape)
    )
    drawn = book.paint(torch.where(wrong, others, codes))
    softness = int(random.integers(1, 5))
    padded = F.pad(drawn, (softness - 1,) * 4, mode="replicate")
    drawn = F.avg_pool2d(padded, 2 * softness - 1, 1)
    blotches = torch.from_numpy(random.normal(0, 0.04, (len(drawn), 3, 12, 12))).float()
    drawn = drawn + F.interpolate(blotches, drawn.shape[-2:], mode="bilinear")
    return drawn.clamp(-1, 1).to(pixels.device)


def as_bytes(rows: Tensor) -> Tensor:
    """[-1, 1] -> uint8."""
    return ((rows + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def as_levels(rows: Tensor) -> Tensor:
    """uint8 -> [-1, 1]."""
    return rows.float() / 127.5 - 1


def is_busy(found: Tensor) -> Tensor:
    return found.std(-1).amax(-1) > BUSY


def nearest_of(rows: Tensor, centres: Tensor) -> Tensor:
    """The index of the closest centre: [m, d], [k, d] -> [m]."""
    lengths = centres.square().sum(-1)
    parts = [(lengths - 2 * part @ centres.T).argmin(-1) for part in torch.split(rows, 8192)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)
