"""From a fetched package and a model's name to pictures: one function for each source."""

import io
import json
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from janus_kit.errors import JanusKitError
from janus_kit.packages import Package
from janus_kit.training.bank.archives import from_deb, open_zip
from janus_kit.training.bank.meshes import Mesh, read_obj, read_pmd
from janus_kit.training.bank.names import Model, poses
from janus_kit.training.bank.render import cut, views
from janus_kit.training.bank.shapes import SHAPES

__all__ = ["PACKAGES", "SOURCES", "Draw", "Shown", "iconify", "vector"]

PACKAGES = {
    "furniture": Package(
        client="apt-get",
        name="sweethome3d-furniture",
        version="1.8-1",
        file="sweethome3d-furniture_1.8-1_all.deb",
        megabytes=120,
        sha256="3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668",
    ),
    "fauna": Package(
        client="apt-get",
        name="0ad-data",
        version="0.0.26-1",
        file="0ad-data_0.0.26-1_all.deb",
        megabytes=1378,
        sha256="53745ae74d05bccf6783400fa98f3932b21729ab9d2e86151aa2c331c3455178",
    ),
    "fluent": Package(
        client="npm",
        name="@lobehub/fluent-emoji-3d",
        version="1.1.0",
        file="lobehub-fluent-emoji-3d-1.1.0.tgz",
        megabytes=16,
        sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    ),
    "noto": Package(
        client="npm",
        name="@iconify-json/noto",
        version="1.2.9",
        file="iconify-json-noto-1.2.9.tgz",
        megabytes=3,
        sha256="3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ),
}

Shown = tuple[str, str, Iterator[tuple[str, Image.Image]]]  # licence, attribution, (view, cut-out)
Draw = Callable[[Model], Shown]

_LIBRARY = "usr/share/sweethome3d/furniture"
_PARTS: Mapping[str, tuple[str, str, str]] = {  # file, licence, whom to name besides the creator
    "cc0": ("BlendSwap-CC-0", "CC0-1.0", "Blend Swap"),
    "ccby": ("BlendSwap-CC-BY", "CC-BY-3.0", "Blend Swap; adapted by Emmanuel Puybaret / eTeks"),
    "kator": ("KatorLegaz", "CC-BY-3.0-US", "Andrew Kator & Jennifer Legaz"),
    "real": ("Reallusion", "CC-BY-3.0-US", "Reallusion"),
    "scopia": (
        "Scopia",
        "CC-BY-3.0",
        "Emmanuel Puybaret / eTeks and Scopia Visual Interfaces Systems, s.l.",
    ),
}
# It lies among the CC0 models, but the licence in its own folder is CC-BY.
_BY_AFTER_ALL = ("cc0/winchesterSofa",)
_GAME = "usr/share/games/0ad/mods/public/public.zip"
_EMOJI = 256  # pixels at which a vector drawing is drawn, the size of the others


def furniture(deb: Path | None, work: Path) -> Draw:
    """Renderings of the furniture library."""
    assert deb is not None
    files = {part: work / f"{file}.sh3f" for part, (file, _, _) in _PARTS.items()}
    from_deb(deb, {f"{_LIBRARY}/{path.name}": path for path in files.values()})
    libraries = {part: open_zip(path) for part, path in files.items()}
    catalogues = {part: read_catalogue(library) for part, library in libraries.items()}

    def draw(model: Model) -> Shown:
        part, _, stem = model.id.partition("/")
        row = catalogues[part].get(stem)
        if row is None:
            raise JanusKitError(f"{files[part].name}: has no model {stem}; is it another version?")
        _, licence, who = _PARTS[part]
        licence = "CC-BY-3.0" if model.id in _BY_AFTER_ALL else licence
        who = f"{row['creator']}, {who}" if who.startswith("Blend Swap") else who
        return licence, who, _seen(model, lambda: _unpacked(libraries[part], row))

    return draw


def fauna(deb: Path | None, work: Path) -> Draw:
    """Renderings of the game's animals."""
    assert deb is not None
    path = work / "game.zip"
    from_deb(deb, {_GAME: path})
    game = open_zip(path)

    def build(model: Model) -> list[Mesh]:
        _, mesh, skin = model.id.split("/", 2)
        body = game.read(f"art/meshes/skeletal/{mesh}.dae.cached.pmd")
        coat = game.read(f"art/textures/skins/skeletal/{skin}.cached.dds")
        with Image.open(io.BytesIO(coat)) as image:
            picture = image.convert("RGB")  # its alpha marks the parts in a player's colour
        return [read_pmd(body, picture)]

    return lambda model: ("CC-BY-SA-3.0", "Wildfire Games", _seen(model, lambda: build(model)))


def shapes(archive: Path | None, work: Path) -> Draw:
    """Renderings of what is built from solids; they need no archive."""

    def draw(model: Model) -> Shown:
        _, name, variant = model.id.split("/")
        return "MIT", "The janus_kit authors", _seen(model, SHAPES[name][variant])

    return draw


def fluent(tgz: Path | None, work: Path) -> Draw:
    """Microsoft's emoji, one picture each."""
    assert tgz is not None
    archive = _tar(tgz)

    def image(code: str) -> Image.Image:
        with Image.open(io.BytesIO(_member(archive, f"package/assets/{code}.webp"))) as found:
            return found.convert("RGBA")

    return lambda model: ("MIT", "Microsoft Corporation", _drawn(image, model))


def noto(tgz: Path | None, work: Path) -> Draw:
    """Google's emoji, one picture each."""
    assert tgz is not None
    _, image = iconify(tgz)
    return lambda model: ("Apache-2.0", "Google Inc, Noto Emoji", _drawn(image, model))


def iconify(tgz: Path) -> tuple[frozenset[str], Callable[[str], Image.Image]]:
    """The names in an archive of Iconify's, and what draws one of them."""
    icons = json.loads(_member(_tar(tgz), "package/icons.json"))

    def image(name: str) -> Image.Image:
        size = f"0 0 {icons['width']} {icons['height']}"
        links = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        return vector(f'<svg {links} viewBox="{size}">{icons["icons"][name]["body"]}</svg>')

    return frozenset(icons["icons"]), image


SOURCES: Mapping[str, Callable[[Path | None, Path], Draw]] = {
    "shapes": shapes,
    "fluent": fluent,
    "noto": noto,
    "furniture": furniture,
    "fauna": fauna,
}


def read_catalogue(library: zipfile.ZipFile) -> dict[str, dict[str, str]]:
    """Stem of the model's file -> its row: model, creator, and modelRotation where it has one."""
    rows: dict[str, dict[str, str]] = {}
    text = library.read("PluginFurnitureCatalog.properties").decode("latin-1")
    for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*?)\s*$", text, re.MULTILINE):
        rows.setdefault(number, {"creator": "unknown"})[key] = value
    return {Path(row["model"]).stem: row for row in rows.values() if "model" in row}


def _seen(model: Model, build: Callable[[], list[Mesh]]) -> Iterator[tuple[str, Image.Image]]:
    """The model from each of its sides."""
    ways = poses(model)
    for (azimuth, elevation), image in zip(ways, views(build(), ways), strict=True):
        yield f"{azimuth}.{elevation}", image


def _drawn(draw: Callable[[str], Image.Image], model: Model) -> Iterator[tuple[str, Image.Image]]:
    """The model's one flat picture."""
    yield "flat", cut(draw(model.id.partition("/")[2]))


def _unpacked(library: zipfile.ZipFile, row: Mapping[str, str]) -> list[Mesh]:
    """A model of the library, turned as its row says."""
    path = row["model"].lstrip("/")
    inside = path.rpartition("/")[0] + "/"
    with tempfile.TemporaryDirectory() as folder:
        library.extractall(folder, [n for n in library.namelist() if n.startswith(inside)])
        meshes = read_obj(Path(folder) / path)
    turn = np.array(row.get("modelRotation", "1 0 0 0 1 0 0 0 1").split(), float).reshape(3, 3)
    return [
        replace(mesh, points=mesh.points @ turn.T, normals=mesh.normals @ turn.T) for mesh in meshes
    ]


def vector(svg: str) -> Image.Image:
    """An SVG as a picture, RGBA."""
    try:
        import resvg_py
    except ImportError:
        raise JanusKitError(
            "resvg_py: not installed, so no vector drawing is read; pip install 'janus-kit[data]'"
        ) from None
    data: Any = resvg_py.svg_to_bytes(svg_string=svg, width=_EMOJI, dpi=96)
    with Image.open(io.BytesIO(bytes(data))) as image:
        return image.convert("RGBA")


def _tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise JanusKitError(f"{path}: is not a readable archive ({error}); delete it") from None


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        content = archive.extractfile(name)
        return content.read() if content else b""
    except KeyError:
        raise JanusKitError(f"{archive.name!s}: holds no {name}; is it another version?") from None
