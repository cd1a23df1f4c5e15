"""Picture sets that training never sees: what the embedded model makes of other hands' drawings."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from janus_kit.packages import Package, cache_home, fetch
from janus_kit.training import painting
from janus_kit.training.bank.names import NOTO
from janus_kit.training.bank.render import cut
from janus_kit.training.bank.sources import iconify

__all__ = ["SETS", "foreign"]

SETS: Mapping[str, Package] = {
    "twemoji": Package(
        client="npm",
        name="@iconify-json/twemoji",
        version="1.2.5",
        file="iconify-json-twemoji-1.2.5.tgz",
        megabytes=2,
        sha256="19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    ),
    "openmoji": Package(
        client="npm",
        name="@iconify-json/openmoji",
        version="1.2.29",
        file="iconify-json-openmoji-1.2.29.tgz",
        megabytes=1,
        sha256="03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
    ),
}
# Those that Noto was not needed for.
_MORE = {
    "elephant": "elephant", "zebra": "zebra", "giraffe": "giraffe", "sheep": "ewe", "cow": "cow",
    "horse": "horse", "dog": "dog", "cat": "cat", "bird": "bird", "bear": "bear", "car":
    "automobile", "motorcycle": "motorcycle", "truck": "delivery-truck", "stop sign": "stop-sign",
    "banana": "banana", "chair": "chair", "couch": "couch-and-lamp", "bed": "bed", "tv":
    "television", "kite": "kite", "tie": "necktie", "fork": "fork-and-knife",
}  # fmt: skip
SIZE = 224  # of the drawings in their pictures


def foreign(name: str, cache: Path | None = None) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    """The drawings of one of SETS: (what it shows, picture uint8 [384, 384, 3]), one a name.

    Fetches the set once; raises JanusKitError where it cannot be had.
    """
    archive = fetch(SETS[name], cache or cache_home() / "foreign")
    tables = {**{thing: found.split()[0] for thing, found in NOTO.items()}, **_MORE}
    there, draw = iconify(archive)
    found = []
    for thing, icon in tables.items():
        if icon in there:
            image = cut(draw(icon))
            image.thumbnail((SIZE, SIZE))
            picture = painting.ground(painting.GROUNDS["slate"], 384).copy()
            picture.paste(image, ((384 - image.width) // 2, (384 - image.height) // 2), image)
            found.append((thing, np.array(picture)))
    return found
