"""A head learns to look at what a question names.

Whether a thing is there depends on a few places among hundreds, and "yes" is one bit: from answers
alone a small model learns to count and to name colours, and goes on to guess between yes and no.
Labels for the attention itself, as in Liu et al., "Neural Machine Translation with Supervised
Attention" (2016), are found in tens of steps, and the answers follow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from janus_kit.model import IGNORE, Attention, Batch, Janus, Layer, branching

__all__ = ["Gaze", "Looks", "Sought", "looks"]

# A question → the places that the thing it is about covers, bool [image tokens]; none where the
# picture does not show it.
Sought = Mapping[str, "np.ndarray[Any, Any]"]
BEGINNING = 2  # positions: before an answer's first word stands a blank
LAYER = 2  # of those that look_around leaves alone, the first; two more read what it finds


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Where in a batch answers begin, and what their questions are about."""

    rows: Tensor  # int64 [n]
    places: Tensor  # int64 [n]
    sought: Tensor  # bool [n, t]; the first position of a row where the thing is not shown

    def to(self, device: torch.device) -> "Looks":
        """The same on another device."""
        return Looks(
            rows=self.rows.to(device), places=self.places.to(device), sought=self.sought.to(device)
        )


def looks(
    batch: Batch,
    dialogues: Sequence[Sequence[Sequence[tuple[str, str]]]],
    sought: Sequence[Sought],
) -> Looks:
    """The looks of a batch of answering rows, by the conversations of each and their questions."""
    rows, places, wanted = [], [], []
    assert batch.branches is not None
    for row, (told, known) in enumerate(zip(dialogues, sought, strict=True)):
        picture = batch.tokens[row] == batch.image_token
        learnt = batch.text_labels[row] != IGNORE
        for number, dialogue in enumerate(told, 1):
            inside = learnt & (batch.branches[row] == number)
            starts = (inside & ~inside.roll(1)).nonzero().flatten().tolist()
            for (question, _), start in zip(dialogue, starts, strict=True):
                if question not in known:
                    continue
                places_sought = torch.zeros_like(picture)
                there = torch.from_numpy(known[question])
                places_sought[picture] = there if batch.looked is None else there[batch.looked[row]]
                places_sought[0] = not known[question].any()
                for place in range(start, start + BEGINNING):
                    rows.append(row)
                    places.append(place)
                    wanted.append(places_sought)
    nothing = torch.zeros((0, batch.tokens.shape[1]), dtype=torch.bool)
    return Looks(
        rows=torch.tensor(rows, dtype=torch.long),
        places=torch.tensor(places, dtype=torch.long),
        sought=torch.stack(wanted) if wanted else nothing,
    )


class Gaze:
    """What one head of a model attends to, in the forward pass that was last."""

    def __init__(self, janus: Janus) -> None:
        layer = cast(Layer, janus.language.layers[min(LAYER, janus.config.language.layers - 1)])
        self.attention = layer.attention
        self.read: tuple[Tensor, Tensor, Tensor] | None = None
        self.attention.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        self.read = given[:3]

    def loss(self, batch: Batch, wanted: Looks) -> Tensor:
        """The mean of -log of the attention that lies where it should, for the last head."""
        assert self.read is not None
        assert batch.branches is not None
        if not len(wanted.rows):
            return self.read[0].sum() * 0
        inputs, cos, sin = self.read
        attention: Attention = self.attention
        q, k, _ = attention.split(attention.qkv(inputs), cos, sin)
        query, keys = q[wanted.rows, -1, wanted.places], k[wanted.rows, -1]
        scores = (keys @ query.unsqueeze(-1)).squeeze(-1).float() * query.shape[-1] ** -0.5
        seen = branching(batch.branches)[1][wanted.rows, 0, wanted.places]
        found = scores.masked_fill(~seen, -torch.inf)
        right = scores.masked_fill(~wanted.sought, -torch.inf)
        return torch.mean(found.logsumexp(-1) - right.logsumexp(-1))
