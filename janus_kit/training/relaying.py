"""A trained model takes over other codes: what it has learnt of the old ones stays.

The rows of a code that stands where an old one stood are that one's; those of a bare form that was
none are the mean of what it was in all colours. The layers beside the VQ tokenizer's codes are
fitted to the new vectors by least squares.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from janus_kit.model import Janus
from janus_kit.training.quantizer import APART, PatchBook, nearest_of

__all__ = ["relay", "sources"]


def sources(old: PatchBook, new: PatchBook) -> Tensor:
    """For each code of new those of old that it takes after: int64 [codes, colors].

    The two are alike but for busy forms in the ten colours. A row repeats one code unless it is of
    a bare form where old had none: what it shows was then a form in each colour.
    """
    colors, calm, own = new.colors, len(new.calm), new.own[1]
    kept = torch.arange(calm + own)[:, None].expand(-1, colors)
    known = old.places[own : len(old.places) - len(old.bare)]
    lies = new.places[own : len(new.places) - len(new.bare)]
    bare = new.places[len(new.places) - len(new.bare) :]
    told, bares = [], []
    for color in range(colors):
        forms = old.codes_of(color + 1)[1]
        shown = torch.cat((old.busy[forms - calm], APART * known), 1)
        ours = new.busy[new.codes_of(color + 1)[1] - calm]
        told.append(forms[nearest_of(torch.cat((ours, APART * lies), 1), shown)])
        if not len(old.bare):
            rows = torch.cat((new.bare[:, color], APART * bare), 1)
            bares.append(forms[nearest_of(rows, shown)])
    if len(old.bare):
        was = old.places[len(old.places) - len(old.bare) :]
        far = APART * colors**0.5
        rows, shown = (
            torch.cat((book.bare.flatten(1), far * at), 1) for book, at in ((new, bare), (old, was))
        )
        bares = [old.first_bare + nearest_of(rows, shown)] * colors
    return torch.cat((kept, torch.cat(told)[:, None].expand(-1, colors), torch.stack(bares, 1)))


@torch.no_grad()
def relay(janus: Janus, old: PatchBook, new: PatchBook) -> None:
    """Have a model of the codes of old draw with those of new."""
    after = sources(old, new)
    head = janus.code_head.fc2
    for rows in (janus.code_embed.weight, head.weight, head.bias):
        rows.copy_(rows[after].double().mean(1))  # ten equal ones are then their mean
    vq = janus.vq
    before = F.normalize(vq.codebook.weight, dim=-1)[after].mean(1)
    vectors = new.vectors(janus.config.vq.code_dim)
    _fit(vq.from_code, vectors, vq.from_code(before[..., None, None]).flatten(1))
    turn = torch.linalg.lstsq(before, vectors).solution
    vq.to_code.weight.copy_((turn.T @ vq.to_code.weight.flatten(1)).view_as(vq.to_code.weight))
    bias = vq.to_code.bias
    assert bias is not None
    bias.copy_(bias @ turn)
    vq.codebook.weight.copy_(vectors)


def _fit(layer: torch.nn.Conv2d, given: Tensor, wanted: Tensor) -> None:
    """Have a 1x1 convolution give what is wanted [n, out] of given [n, in], as nearly as it can."""
    found = torch.linalg.lstsq(torch.cat((given, torch.ones(len(given), 1)), 1), wanted).solution
    layer.weight.copy_(found[:-1].T.view_as(layer.weight))
    bias = layer.bias
    assert bias is not None
    bias.copy_(found[-1])
