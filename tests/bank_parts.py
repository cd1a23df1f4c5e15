"""A picture bank of drawn shapes, in the form and under the names of the true one."""

import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from janus_kit.training.bank import pack
from janus_kit.training.bank.heroes import HEROES
from janus_kit.training.bank.names import MODELS, NAMES, SOLID, poses
from janus_kit.training.bank.pack import Sprite

CUBE = """mtllib box.mtl
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
v 0 0 -1
vt 0 0
vt 1 1
usemtl red\\
paint
f 1/1 2/2 3/2 4/1
usemtl glass
f -5 -4 -1
usemtl air
f 1 2 3
"""
PAINT = """newmtl red paint
Kd 1 0 0
Ks 1.6 1.6 1.6
map_Kd skin.png
newmtl glass
Kd 0 0 2
d 0.5
newmtl air
d 0
"""
VIEWS = 4  # of each name besides the one that is drawn


def sprites() -> Iterator[Sprite]:
    """The drawn view of each name and a few others, some of them held out."""
    for name in NAMES:
        models = {model.id: model for model in MODELS if model.name == name}
        wanted = [HEROES[name]]
        for model in models.values():
            if model.source in SOLID:
                wanted += [f"{model.id} {a}.{e}" for a, e in poses(model)][:2]
        found = [Sprite(name, *view.rsplit(" ", 1), "", "", "") for view in dict.fromkeys(wanted)]
        hidden = [sprite for sprite in found[1:] if sprite.held_out][:2]
        others = [sprite for sprite in found[1:] if not sprite.held_out]
        for sprite in [found[0], *hidden, *others][: VIEWS + 1]:
            source = models[sprite.model].source
            yield Sprite(name, sprite.model, sprite.view, source, "CC0-1.0", "drawn for a test")


def shape(sprite: Sprite) -> Image.Image:
    """A polygon of its own for each name, shaded from the top to the bottom, a little turned."""
    random = np.random.default_rng(zlib.crc32(sprite.name.encode()))
    corners = np.sort(random.uniform(0, 2 * np.pi, 7))
    radius = random.uniform(0.45, 1, 7) * 90
    turn = 0.1 * (zlib.crc32(sprite.file.encode()) % 7 - 3)
    points = [
        (96 + r * np.cos(a + turn), 96 + r * np.sin(a + turn))
        for r, a in zip(radius, corners, strict=True)
    ]
    mask = Image.new("L", (192, 192))
    ImageDraw.Draw(mask).polygon(points, fill=255)
    light = np.linspace(1.2, 0.7, 192)[:, None, None]
    tone = np.clip(random.uniform(40, 210, 3) * light, 0, 255)
    pixels = np.broadcast_to(tone, (192, 192, 3)).astype(np.uint8)
    image = Image.fromarray(np.dstack([pixels, np.asarray(mask)]))
    return image.crop(mask.getbbox())


def make_small_bank(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = list(sprites())
    pack.write(path, shown, [pack.encode(shape(sprite)) for sprite in shown])
    return path


def red_cat(size: tuple[int, int] = (60, 30)) -> Image.Image:
    return Image.new("RGBA", size, (200, 30, 30, 255))


def deb(path: Path, files: dict[str, bytes]) -> Path:
    """A Debian package of these files, as dpkg-deb writes it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    members = {"debian-binary": b"2.0", "data.tar.xz": lzma.compress(packed.getvalue())}
    data = b"!<arch>\n"
    for name, content in members.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        data += header.encode() + content + b"\n" * (len(content) % 2)
    path.write_bytes(data)
    return path


def tgz(folder: Path, name: str, data: bytes) -> Path:
    path = folder / "a.tgz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return path


def pmd(version: int) -> bytes:
    """Three points and one triangle."""
    sets = 2
    rows = b"".join(
        struct.pack("<6f", i, 0, 2, 0, 1, 3)
        + struct.pack("<4f", 0.25 * i, 0.5, 9, 9)[: 16 if version >= 4 else 8]
        + bytes(20)
        for i in range(3)
    )
    head = struct.pack("<4sIII", b"PSMD", version, 0, 3)
    head += struct.pack("<I", sets) if version >= 4 else b""
    return head + rows + struct.pack("<I3H", 1, 2, 1, 0)


def library(files: dict[str, bytes | str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return data.getvalue()
