"""What training never shows: some things in a colour, in a number and beside each other.

An evaluation with them measures composing, not remembering.
"""

import zlib
from collections.abc import Sequence

from janus_kit.training.bank.names import NAMES
from janus_kit.training.painting import COLORS

__all__ = ["held_out", "held_out_count", "held_out_pair", "is_novel"]


def held_out(name: str, color: str) -> bool:
    """True for the one colour of each thing (a tenth of all) that training never shows.

    The codes alone are laid out over all ten.
    """
    return tuple(COLORS)[(3 * NAMES.index(name) + 2) % len(COLORS)] == color


def held_out_count(name: str, count: int) -> bool:
    """True for the eighth of numbers from two to four of a thing that training never shows."""
    return count > 1 and (NAMES.index(name) + 3 * count) % 8 == 0


def held_out_pair(a: str, b: str) -> bool:
    """True for the tenth of pairs of things that training never shows together."""
    return zlib.crc32("+".join(sorted((a, b))).encode()) % 10 == 0


def is_novel(kinds: Sequence[tuple[str, str | None]]) -> bool:
    """Whether training must not show things of these names and colours together."""
    counts = {kind: list(kinds).count(kind) for kind in kinds}
    names = sorted({name for name, _ in kinds})
    return (
        any(color and held_out(name, color) for name, color in kinds)
        or any(held_out_count(name, count) for (name, _), count in counts.items())
        or any(held_out_pair(a, b) for i, a in enumerate(names) for b in names[i + 1 :])
    )
