"""What each code of the embedded tokenizer stands for: patches of pictures, sorted by k-means.

Classified vector quantization (Ramamurthi and Gersho, 1986) with the codebook design of Linde, Buzo
and Gray (1980). A patch is calm, and known by its colour alone, or busy, and known by its pixels.
A VQ tokenizer that learns its codes end to end lets the whole picture speak in each of them; these
depend on their own 16×16 pixels and nothing else, so a thing has the same codes wherever it stands,
and a small language model need learn them only once.

Codes come in families: the ground, things in their own colours, then for every colour the same
forms, as a product code has them (Sabin and Gray, 1984). What a name says of a form then holds in
all colours.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from janus_kit.errors import CheckpointError

__all__ = ["PatchBook", "as_drawn", "design", "to_pixels"]

PATCH = 16  # pixels on each side
SHRINK = 2  # patches are compared at half size
BUSY = 0.06  # a patch is busy when a channel's standard deviation, in [-1, 1], exceeds it
# Shares of the codes; what is left are the busy forms in all colours.
GROUND_SHARE = 0.01
OWN_CALM_SHARE = 0.02  # things in their own colours
OWN_BUSY_SHARE = 0.3  # one for each place of each of eighty things, and a few more
CALM_SHARE = 0.02  # the calm parts of coloured things
SAME = 0.02  # a patch that differs by no more from the empty ground is ground
NEAR = 9  # codes that are alike, the code itself among them
SAMPLES = 40_000  # patches of each kind that k-means looks at
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
    same order. places: the row and column in their things where busy codes lie, fp32 [n, 2]: those
    of things in their own colours, then the forms, which are the same in all colours.
    """

    calm: Tensor
    busy: Tensor
    ground: int
    own: tuple[int, int]  # calm and busy codes of things in their own colours
    colors: int
    places: Tensor

    @classmethod
    def load(cls, path: Path) -> "PatchBook":
        """What `save` wrote. Raises CheckpointError for another file."""
        try:
            with safe_open(path, "pt") as file:
                shape = json.loads(file.metadata()["book"])
                calm, busy = (_levels(file.get_tensor(name)) for name in ("calm", "busy"))
                places = file.get_tensor("places")
            own_calm, own_busy = shape["own"]
            own = (own_calm, own_busy)
            return cls(calm, busy, shape["ground"], own, shape["colors"], places)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: holds no patches of codes ({error}); delete it and train anew"
            ) from None

    def save(self, path: Path) -> None:
        """Write the patches as bytes, whole or not at all."""
        parts = {"calm": self.calm, "busy": self.busy}
        shape = {"ground": self.ground, "own": self.own, "colors": self.colors}
        part = path.with_name(f".{path.name}.{os.getpid()}")
        tensors = {name: _bytes(rows).contiguous() for name, rows in parts.items()}
        tensors["places"] = self.places.contiguous()
        save_file(tensors, part, {"book": json.dumps(shape)})  # two would stand in any order
        part.replace(path)

    @torch.no_grad()
    def codes(self, pixels: Tensor, places: Tensor | None = None) -> Tensor:
        """The nearest patch for each place: [b, 3, h, w] in [-1, 1] -> int64 [b, n].

        places: what is known of each place, see world.places, int64 [b, n, 3]. A code is then one
        of its thing's colour, and a busy one lies there: the rim of a thing is mostly ground, and
        would else be read as that of another, in another colour.
        """
        found = patches(pixels)
        busy = _busy(found)
        codes = torch.empty(len(found), dtype=torch.long, device=pixels.device)
        if places is None:
            codes[~busy] = _nearest(found[~busy].mean(-1), self.calm)
            codes[busy] = len(self.calm) + _nearest(found[busy].flatten(1), self.busy)
            return codes.view(len(pixels), -1)
        lying = places.flatten(0, 1).to(pixels.device)
        for color in range(self.colors + 1):
            quiet = (lying[:, 2] == color) & ~busy
            moving = (lying[:, 2] == color) & busy
            calm, forms = self.codes_of(color)
            known = torch.cat((torch.arange(self.ground), calm))
            codes[quiet] = known[_nearest(found[quiet].mean(-1), self.calm[known])]
            there = self.places[self.own[1] :] if color else self.places[: self.own[1]]
            rows = torch.cat((found[moving].flatten(1), APART * lying[moving, :2].to(found)), 1)
            wanted = torch.cat((self.busy[forms - len(self.calm)], APART * there), 1)
            codes[moving] = forms[_nearest(rows, wanted)]
        return codes.view(len(pixels), -1)

    def codes_of(self, color: int) -> tuple[Tensor, Tensor]:
        """The calm and the busy codes of things in a colour, from 1, or 0 for their own."""
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
        """The patches side by side: codes [b, n] -> pixels [b, 3, h, w] in [-1, 1]."""
        side, small = int(codes.shape[1] ** 0.5), PATCH // SHRINK
        calm = self.calm.unsqueeze(-1).expand(-1, -1, small * small)
        whole = torch.cat((calm, self.busy.view(-1, 3, small * small)))
        cut = whole[codes].view(-1, side, side, 3, small, small)
        pixels = cut.permute(0, 3, 1, 4, 2, 5).reshape(len(codes), 3, side * small, side * small)
        return F.interpolate(pixels, scale_factor=SHRINK, mode="bilinear")

    def outlines(self, codes: Tensor) -> Tensor:
        """Where things begin: busy patches below calm ones, bool [b, n] for codes [b, n]."""
        side = int(codes.shape[1] ** 0.5)
        busy = (codes >= len(self.calm)).view(-1, side, side)
        above = F.pad(busy, (0, 0, 1, 0))[:, :side]
        return (busy & ~above).flatten(1)

    def families(self) -> tuple[slice, slice]:
        """The calm and the busy codes of coloured things: runs of equal length, one a colour."""
        calm = len(self.calm)
        return (
            slice(self.ground + self.own[0], calm),
            slice(calm + self.own[1], calm + len(self.busy)),
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
        """Unit vectors [codes, size], size ≥ 4, that say what the patches look like.

        Their main components beside a constant, so that putting them on the sphere loses nothing.
        A decoder paints from such vectors by adding up; vectors that fill the sphere evenly it has
        to learn by heart. Fine components are faint: each is drawn half of the way to equal size.
        The last two change sign from row to row and from column to column of a thing, 0 where no
        place is known: resampled by repetition, the pixels of a place are told apart by what is
        beside it alone, and this always differs.
        """
        patches = self.whole()
        left, sizes, _ = torch.linalg.svd(patches - patches.mean(0), full_matrices=False)
        parts = (left * sizes.sqrt())[:, : size - 3]
        parts = parts / parts.square().sum(1).mean().sqrt()
        signs = PARITY * (1 - 2 * (self.places.round() % 2))
        signs = torch.cat((signs[: self.own[1]], signs[self.own[1] :].repeat(self.colors, 1)))
        signs = F.pad(signs, (0, 0, len(self.calm), 0))
        return F.normalize(torch.cat((torch.ones(len(parts), 1), parts, signs), 1), dim=-1)


def as_drawn(book: PatchBook, pixels: Tensor, random: np.random.Generator) -> Tensor:
    """Pictures as a small model draws them: [b, 3, h, w] in [-1, 1] -> the same.

    Their codes' patches, up to a twentieth of the busy ones wrong, soft edges, and blotches. Who
    has seen true pictures alone does not know drawn ones.
    """
    codes = book.codes(pixels).cpu()
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


Pictures: TypeAlias = "Sequence[np.ndarray[Any, Any]]"
Plain: TypeAlias = "Iterable[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]"
Colored: TypeAlias = "Iterable[tuple[Pictures, np.ndarray[Any, Any]]]"


def design(
    empty: Pictures, plain: Plain, colored: Colored, codes: int, *, seed: int = 0
) -> PatchBook:
    """Lay out the patches of a number of codes.

    empty: pictures of nothing but ground. plain: things in their own colours, and the places in
    them (world.places). colored: each the same picture with its things in every colour, and the
    places.
    """
    generator = torch.Generator().manual_seed(seed)
    nothing = patches(to_pixels(empty)).view(len(empty), -1, 3 * (PATCH // SHRINK) ** 2)
    calm, busy = [], []
    for picture, places in plain:
        found = patches(to_pixels([picture]))
        there = ~_is_ground(found, nothing)
        things, at = found[there], torch.from_numpy(places).flatten(0, 1)[there, :2]
        moving = _busy(things)
        calm.append(things[~moving].mean(-1))
        busy.append(torch.cat((things[moving].flatten(1), APART * at[moving]), 1))
    forms_calm, forms_busy, lying, runs = [], [], [], 0
    for pictures, places in colored:
        runs = len(pictures)
        found = patches(to_pixels(pictures)).view(runs, -1, 3, (PATCH // SHRINK) ** 2)
        there = ~_is_ground(found[0], nothing)
        things = found.transpose(0, 1)[there]
        moving = _busy(things.flatten(0, 1)).view(things.shape[:2]).float().mean(1) > 0.5
        lying.append(torch.from_numpy(places).flatten(0, 1)[there][moving][:, :2].float())
        forms_calm.append(things[~moving].mean(-1).flatten(1))
        forms_busy.append(things[moving].flatten(1))
    own = max(1, int(codes * OWN_CALM_SHARE)), max(1, int(codes * OWN_BUSY_SHARE))
    smooth = max(1, int(codes * CALM_SHARE / runs))
    ground = max(1, int(codes * GROUND_SHARE))
    forms = (codes - ground - sum(own) - smooth * runs) // runs
    ground = codes - sum(own) - (smooth + forms) * runs  # what does not divide

    def family(means: Tensor) -> Tensor:
        return means.view(len(means), runs, -1).transpose(0, 1).flatten(0, 1)

    floor = _means(nothing.view(-1, 3, (PATCH // SHRINK) ** 2).mean(-1), ground, generator)
    own_calm = _means(torch.cat(calm), own[0], generator)
    own_busy = _means(torch.cat(busy), own[1], generator)
    smooth_forms = _means(torch.cat(forms_calm), smooth, generator)
    far = APART * runs**0.5  # a form is as many patches as there are colours
    rows = torch.cat((torch.cat(forms_busy), far * torch.cat(lying)), 1)
    busy_forms = _means(rows, forms, generator)
    # To levels of a byte, as the file has them: a book that was saved gives the same codes.
    return PatchBook(
        _levels(_bytes(torch.cat((floor, own_calm, family(smooth_forms))))),
        _levels(_bytes(torch.cat((own_busy[:, :-2], family(busy_forms[:, :-2]))))),
        ground=ground,
        own=own,
        colors=runs,
        places=torch.cat((own_busy[:, -2:] / APART, busy_forms[:, -2:] / far)),
    )


def _bytes(rows: Tensor) -> Tensor:
    """[-1, 1] -> uint8."""
    return ((rows + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _levels(rows: Tensor) -> Tensor:
    """uint8 -> [-1, 1]."""
    return rows.float() / 127.5 - 1


def _is_ground(found: Tensor, nothing: Tensor) -> Tensor:
    """Which patches [n, 3, 64] of a picture are those of an empty one of nothing [m, n, 192]."""
    return ((found.flatten(1) - nothing).abs().amax(-1) < SAME).any(0)


def _busy(found: Tensor) -> Tensor:
    return found.std(-1).amax(-1) > BUSY


def _nearest(rows: Tensor, centres: Tensor) -> Tensor:
    """The index of the closest centre: [m, d], [k, d] -> [m]."""
    lengths = centres.square().sum(-1)
    parts = [(lengths - 2 * part @ centres.T).argmin(-1) for part in torch.split(rows, 8192)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)


def _means(rows: Tensor, count: int, generator: torch.Generator, rounds: int = 20) -> Tensor:
    """k-means: rows [m, d] -> centres [count, d]; a centre that loses its rows takes another.

    It begins with rows far from those already chosen: Arthur and Vassilvitskii, "k-means++" (2007).
    """
    rows = rows[torch.randperm(len(rows), generator=generator)[:SAMPLES]]
    away = torch.full((len(rows),), 1.0)
    lengths = rows.square().sum(1)
    centres = torch.empty(count, rows.shape[1])
    for number in range(count):
        one = torch.multinomial(away + 1e-12, 1, generator=generator)
        centres[number] = rows[one]
        apart = (lengths - 2 * rows @ rows[one[0]] + lengths[one]).clamp(min=0)
        away = apart if number == 0 else torch.minimum(away, apart)
    for _ in range(rounds):
        nearest = _nearest(rows, centres)
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        sizes = torch.bincount(nearest, minlength=count)
        centres = sums / sizes.clamp(min=1).unsqueeze(-1)
        empty = sizes == 0
        spare = torch.randint(len(rows), (int(empty.sum()),), generator=generator)
        centres[empty] = rows[spare]
    return centres
