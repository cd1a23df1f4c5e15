"""How the codes are laid out: k-means over the patches of scenes, a family of codes at a time."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from janus_kit.training.quantizer import (
    APART,
    PATCH,
    SHRINK,
    PatchBook,
    as_bytes,
    as_levels,
    is_busy,
    nearest_of,
    patches,
    tells,
    to_pixels,
)

__all__ = ["design"]

# Shares of the codes; what is left are the busy forms that tell their colours, in all of them.
GROUND_SHARE = 0.01
OWN_CALM_SHARE = 0.02  # things in their own colours
OWN_BUSY_SHARE = 0.3  # one for each place of each of eighty things, and a few more
CALM_SHARE = 0.02  # the calm parts of coloured things
BARE_SHARE = 0.26  # forms that do not tell the colour of their thing
SAME = 0.02  # a patch that differs by no more from the empty ground is ground
SAMPLES = 40_000  # patches of each kind that k-means looks at

Pictures: TypeAlias = "Sequence[np.ndarray[Any, Any]]"
Plain: TypeAlias = "Iterable[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]"
Colored: TypeAlias = "Iterable[tuple[Pictures, np.ndarray[Any, Any]]]"


def design(
    empty: Pictures,
    plain: Plain,
    colored: Colored,
    codes: int,
    *,
    keep: PatchBook | None = None,
    seed: int = 0,
) -> PatchBook:
    """Lay out the patches of a number of codes.

    empty: pictures of nothing but ground. plain: things in their own colours, and the places in
    them (world.places). colored: each the same picture with its things in every colour, and the
    places. keep: a book of as many codes whose busy forms in the ten colours alone are laid out
    anew; plain is not looked at.
    """
    generator = torch.Generator().manual_seed(seed)
    nothing = patches(to_pixels(empty)).view(len(empty), -1, 3 * (PATCH // SHRINK) ** 2)
    calm, busy = [], []
    for picture, places in () if keep is not None else plain:
        found = patches(to_pixels([picture]))
        there = ~is_ground(found, nothing)
        things, at = found[there], torch.from_numpy(places).flatten(0, 1)[there, :2]
        moving = is_busy(things)
        calm.append(things[~moving].mean(-1))
        busy.append(torch.cat((things[moving].flatten(1), APART * at[moving]), 1))
    forms_calm, runs = [], 0
    forms: dict[bool, list[Tensor]] = {True: [], False: []}  # that tell their colour, and bare ones
    for pictures, places in colored:
        runs = len(pictures)
        found = patches(to_pixels(pictures)).view(runs, -1, 3, (PATCH // SHRINK) ** 2)
        there = ~is_ground(found[0], nothing)
        moving = there & (is_busy(found.flatten(0, 1)).view(runs, -1).float().mean(0) > 0.5)
        at = torch.from_numpy(places).flatten(0, 1)
        told = tells(moving, there & ~moving, at[None])
        things = found.transpose(0, 1)
        forms_calm.append(things[there & ~moving].mean(-1).flatten(1))
        for kind, shown in forms.items():
            chosen = moving & (told == kind)
            far = APART * runs**0.5  # a form is as many patches as there are colours
            shown.append(torch.cat((things[chosen].flatten(1), far * at[chosen, :2]), 1))
    if keep is None:
        own = max(1, int(codes * OWN_CALM_SHARE)), max(1, int(codes * OWN_BUSY_SHARE))
        smooth = max(1, int(codes * CALM_SHARE / runs))
        ground = max(1, int(codes * GROUND_SHARE))
    else:
        own, ground = keep.own, keep.ground
        smooth = (len(keep.calm) - ground - own[0]) // runs
    left = codes - ground - sum(own) - smooth * runs
    told_forms = max(1, int(left - codes * BARE_SHARE) // runs)
    bare = left - told_forms * runs

    def family(means: Tensor) -> Tensor:
        return means.view(len(means), runs, -1).transpose(0, 1).flatten(0, 1)

    if keep is None:
        floor = _means(nothing.view(-1, 3, (PATCH // SHRINK) ** 2).mean(-1), ground, generator)
        own_calm = _means(torch.cat(calm), own[0], generator)
        own_busy = _means(torch.cat(busy), own[1], generator)
        own_busy, own_lying = own_busy[:, :-2], own_busy[:, -2:] / APART
        smooth_forms = family(_means(torch.cat(forms_calm), smooth, generator))
        quiet = torch.cat((floor, own_calm, smooth_forms))
    else:
        quiet, own_busy, own_lying = keep.calm, keep.busy[: own[1]], keep.places[: own[1]]
    busy_forms = _means(torch.cat(forms[True]), told_forms, generator)
    bare_forms = _means(torch.cat(forms[False]), bare, generator)
    variants = as_levels(as_bytes(bare_forms[:, :-2].view(bare, runs, -1)))
    busy_rows = (own_busy, family(busy_forms[:, :-2]), variants.mean(1))
    lying = [form[:, -2:] / (APART * runs**0.5) for form in (busy_forms, bare_forms)]
    # To levels of a byte, as the file has them: a book that was saved gives the same codes.
    return PatchBook(
        as_levels(as_bytes(quiet)),
        as_levels(as_bytes(torch.cat(busy_rows))),
        ground=ground,
        own=own,
        colors=runs,
        places=torch.cat((own_lying, *lying)),
        bare=variants,
    )


def is_ground(found: Tensor, nothing: Tensor) -> Tensor:
    """Which patches [n, 3, 64] of a picture are those of an empty one of nothing [m, n, 192]."""
    return ((found.flatten(1) - nothing).abs().amax(-1) < SAME).any(0)


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
        nearest = nearest_of(rows, centres)
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        sizes = torch.bincount(nearest, minlength=count)
        centres = sums / sizes.clamp(min=1).unsqueeze(-1)
        empty = sizes == 0
        spare = torch.randint(len(rows), (int(empty.sum()),), generator=generator)
        centres[empty] = rows[spare]
    return centres
