"""A head learns to look at what a question names, and at what an answer is about to name.

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
from janus_kit.prompts import Tokenizer
from janus_kit.training.language import mentions

__all__ = ["Gaze", "Looks", "Sought", "looks"]

# A question → the places that what it is about covers, bool [image tokens]; none where the
# picture does not show it.
Sought = Mapping[str, "np.ndarray[Any, Any]"]
Things = Mapping[str, "np.ndarray[Any, Any]"]  # the same by the names of things that are shown
BEGINNING = 2  # positions: before an answer's first word stands a blank
LAYER = 2  # of those that look_around leaves alone, the first; two more read what it finds


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Where in a batch is to be looked at what, by its label's question or by the label."""

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
    things: Sequence[Things] = (),
    tokenizer: Tokenizer | None = None,
) -> Looks:
    """The looks of a batch of answering rows, by the conversations of each and their questions.

    With things and a tokenizer also before each article or number, colour and name of a thing that
    answers give; where an answer begins, what the question says goes before.
    """
    rows, places, wanted = [], [], []
    assert batch.branches is not None
    shown = things or [{}] * len(sought)
    for row, (told, known, there) in enumerate(zip(dialogues, sought, shown, strict=True)):
        picture = batch.tokens[row] == batch.image_token
        learnt = batch.text_labels[row] != IGNORE
        for number, dialogue in enumerate(told, 1):
            inside = learnt & (batch.branches[row] == number)
            starts = (inside & ~inside.roll(1)).nonzero().flatten().tolist()
            for (question, answer), start in zip(dialogue, starts, strict=True):
                at = {}
                if tokenizer is not None:
                    for place, name in _mentions(answer, tokenizer):
                        if name in there:
                            at[start + place] = there[name]
                if question in known:
                    at |= dict.fromkeys(range(start, start + BEGINNING), known[question])
                for place, covered in at.items():
                    sought_here = torch.zeros_like(picture)
                    seen = torch.from_numpy(covered)
                    sought_here[picture] = seen if batch.looked is None else seen[batch.looked[row]]
                    sought_here[0] = not covered.any()
                    rows.append(row)
                    places.append(place)
                    wanted.append(sought_here)
    nothing = torch.zeros((0, batch.tokens.shape[1]), dtype=torch.bool)
    return Looks(
        rows=torch.tensor(rows, dtype=torch.long),
        places=torch.tensor(places, dtype=torch.long),
        sought=torch.stack(wanted) if wanted else nothing,
    )


def _mentions(answer: str, tokenizer: Tokenizer) -> list[tuple[int, str]]:
    """Which tokens of an answer begin a number, an article, a colour or a name, and of what."""
    said = f" {answer}"  # as it stands behind its question
    found = [(len(tokenizer.encode(said[:place])), name) for place, name in mentions(answer)]
    if found and not found[0][0]:
        found += [(place, found[0][1]) for place in range(1, BEGINNING)]
    return found


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
        scores = (q[:, -1] @ k[:, -1].mT)[wanted.rows, wanted.places].float() * q.shape[-1] ** -0.5
        seen = branching(batch.branches)[1][wanted.rows, 0, wanted.places]
        found = scores.masked_fill(~seen, -torch.inf)
        right = scores.masked_fill(~wanted.sought, -torch.inf)
        return torch.mean(found.logsumexp(-1) - right.logsumexp(-1))
