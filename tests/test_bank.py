"""The picture bank, on inputs of a few bytes: what it fetches, reads, draws, packs, and refuses."""

import hashlib
import io
import json
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janus_kit.errors import JanusKitError
from janus_kit.packages import Package
from janus_kit.training.bank import forms, make, meshes, names, pack, render, sources
from janus_kit.training.bank.archives import from_deb, open_zip
from janus_kit.training.bank.names import MODELS, NAMES, Model
from janus_kit.training.bank.pack import Bank, Sprite
from janus_kit.training.bank.shapes import SHAPES

PACKAGE = Package(
    client="npm",
    name="toys",
    version="1.0",
    file="toys-1.0.tgz",
    megabytes=1,
    sha256=hashlib.sha256(b"toy").hexdigest(),
)
SPRITE = Sprite("cat", "toy/cat", "0.6", "shapes", "MIT", "Somebody")
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


def red_cat(size: tuple[int, int] = (60, 30)) -> Image.Image:
    return Image.new("RGBA", size, (200, 30, 30, 255))


def small_bank(path: Path, sprites: list[Sprite]) -> Path:
    pack.write(path, sprites, [pack.encode(red_cat()) for _ in sprites])
    return path


# The table


def test_every_name_of_geneval_has_models_of_its_own() -> None:
    assert len(NAMES) == len(set(NAMES)) == 80
    shown = {name: [model.id for model in MODELS if model.name == name] for name in NAMES}
    assert [name for name, models in shown.items() if not models] == []
    assert len({model.id for model in MODELS}) == len(MODELS)
    solid = {model.name for model in MODELS if model.source in names.SOLID}
    assert set(NAMES) - solid == set()


def test_a_model_is_seen_from_different_sides_and_a_sibling_from_others() -> None:
    for model in MODELS:
        if model.source in names.SOLID:
            ways = names.poses(model)
            assert len(set(ways)) == len(ways) >= 6
    people = [model for model in MODELS if model.name == "person"]
    assert names.poses(people[0]) != names.poses(people[1])


def test_some_views_and_some_models_are_held_out_but_never_all() -> None:
    for name in NAMES:
        models = [m for m in MODELS if m.name == name and m.source in names.SOLID]
        hidden = [m for m in models if names.held_out_model(name, m.id)]
        assert len(hidden) == (len(models) >= 4)
        for model in models:
            views = [f"{a}.{e}" for a, e in names.poses(model)]
            out = [names.held_out_view(name, model.id, view) for view in views]
            assert all(out) == (model in hidden)
    every = [
        names.held_out_view(m.name, m.id, f"{a}.{e}")
        for m in MODELS
        if m.source in names.SOLID
        for a, e in names.poses(m)
    ]
    assert 0.1 < sum(every) / len(every) < 0.35
    assert not names.held_out_view("cat", "noto/cat", "flat")


def test_every_author_is_named_in_the_notice() -> None:
    notice = (Path(__file__).parents[1] / "NOTICE").read_text(encoding="utf-8")
    models = [model.id for model in MODELS if model.id.startswith("ccby/")]
    models += sources._BY_AFTER_ALL
    words = notice.replace("(", " ").replace(")", " ").replace(",", " ").split()
    assert [model for model in models if model.partition("/")[2] not in words] == []
    for package in sources.PACKAGES.values():
        assert f"{package.name} {package.version}" in notice


# Archives


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


def test_files_come_out_of_a_debian_package(tmp_path: Path) -> None:
    package = deb(tmp_path / "a.deb", {"usr/one": b"1", "usr/two": b"22", "usr/three": b"333"})
    out = tmp_path / "out" / "two"
    from_deb(package, {"usr/two": out})
    assert out.read_bytes() == b"22"
    assert list(out.parent.iterdir()) == [out]
    package.unlink()
    from_deb(package, {"usr/two": out})  # what is there is not read again


def test_a_torn_or_wrong_package_is_told(tmp_path: Path) -> None:
    package = deb(tmp_path / "a.deb", {"usr/one": b"1" * 5_000_000})
    with pytest.raises(JanusKitError, match=r"a.deb: holds no usr/two; is it another version"):
        from_deb(package, {"usr/two": tmp_path / "two"})
    whole = package.read_bytes()
    for torn in (whole[: len(whole) // 2], whole[:100], b"PK" + whole):
        package.write_bytes(torn)
        with pytest.raises(JanusKitError, match=r"a.deb: is torn .*; delete it and start again"):
            from_deb(package, {"usr/one": tmp_path / "one"})
    assert list(tmp_path.iterdir()) == [package]
    with pytest.raises(JanusKitError, match=r"is not a readable zip file .*; delete it"):
        open_zip(package)


# Meshes


@pytest.fixture
def box(tmp_path: Path) -> Path:
    (tmp_path / "box.obj").write_text(CUBE)
    (tmp_path / "box.mtl").write_text(PAINT)
    Image.new("RGB", (2, 2), (9, 8, 7)).save(tmp_path / "skin.png")
    return tmp_path / "box.obj"


def test_an_obj_is_read_with_its_materials(box: Path) -> None:
    paint, glass = meshes.read_obj(box)  # what cannot be seen is left out
    square = np.unique(paint.points, axis=0)
    assert square.tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]]
    assert paint.uv is not None
    assert paint.uv.shape == (6, 2)
    assert paint.surface.skin is not None
    assert paint.surface.shine == 0.3  # more than a surface can reflect is cut
    assert np.allclose(paint.normals, [0, 0, 1])
    assert (glass.surface.color, glass.surface.alpha, glass.uv) == ((0, 0, 1), 0.5, None)
    assert glass.points.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, -1]]
    box.with_suffix(".mtl").unlink()
    assert meshes.read_obj(box)[0].surface == meshes.Surface()


def test_an_obj_that_is_torn_is_told(box: Path) -> None:
    box.write_text("v 0 0 0\n")
    with pytest.raises(JanusKitError, match=r"box\.obj: has no faces; is it damaged"):
        meshes.read_obj(box)
    box.write_text("v 0 0 0\nf 1 2 3\n")
    with pytest.raises(JanusKitError, match=r"box\.obj: cannot be read"):
        meshes.read_obj(box)
    box.write_text("v 0 0 0\nf 1 1 o\n")
    with pytest.raises(JanusKitError, match=r"box\.obj: cannot be read"):
        meshes.read_obj(box)


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


@pytest.mark.parametrize("version", [3, 4])
def test_a_pmd_is_read_with_its_skin(version: int) -> None:
    skin = red_cat()
    mesh = meshes.read_pmd(pmd(version), skin)
    assert mesh.points.tolist() == [[2, 0, -2], [1, 0, -2], [0, 0, -2]]
    assert mesh.normals.tolist() == [[0, 1, -3]] * 3
    assert mesh.uv is not None
    assert mesh.uv.tolist() == [[0.5, 0.5], [0.25, 0.5], [0, 0.5]]
    assert mesh.surface.skin is skin


@pytest.mark.parametrize("data", [b"", b"PSMD", pmd(4)[:60], pmd(4)[:-1], b"XXXX" + pmd(4)[4:]])
def test_a_pmd_that_is_torn_is_told(data: bytes) -> None:
    with pytest.raises(JanusKitError, match="PMD: "):
        meshes.read_pmd(data, red_cat())


def test_flat_angles_are_rounded_and_sharp_edges_stay() -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0.0], [-1, 0, -0.3], [0, 0, -1]])
    roof = meshes.smooth(points, np.array([0, 1, 2, 3, 2, 4]))
    assert np.allclose(np.linalg.norm(roof, axis=1), 1)
    assert np.allclose(roof[0], roof[3])  # one place, though the points are two
    assert not np.allclose(roof[0], roof[1])
    edge = meshes.smooth(points, np.array([0, 1, 2, 3, 5, 1]))
    assert np.allclose(edge[:3], [0, 0, 1])
    assert np.allclose(edge[3:], [0, -1, 0])


def area(outline: list[tuple[float, float]], threes: list[tuple[int, int, int]]) -> float:
    """What the triangles cover; those that are turned over count as less."""
    total = 0.0
    for i, j, k in threes:
        (ax, ay), (bx, by), (cx, cy) = outline[i], outline[j], outline[k]
        total += abs((bx - ax) * (cy - ay) - (by - ay) * (cx - ax)) / 2
    return total


def test_a_polygon_with_bays_is_cut_into_triangles_that_do_not_overlap() -> None:
    comb = [
        (0.0, 0.0),
        (4.0, 0.0),
        (4.0, 3.0),
        (3.0, 3.0),
        (3.0, 1.0),
        (1.0, 1.0),
        (1.0, 3.0),
        (0.0, 3.0),
    ]
    for shift in range(len(comb)):
        for outline in (comb[shift:] + comb[:shift], (comb[shift:] + comb[:shift])[::-1]):
            for ring in ([(x, y, 2) for x, y in outline], [(y, 5, x) for x, y in outline],
                         [(1, x, y) for x, y in outline]):  # fmt: skip
                threes = meshes.triangles(ring)
                assert len(threes) == len(comb) - 2
                assert area(outline, threes) == 8
    assert meshes.triangles([(0, 0, 0), (1, 0, 0)]) == []
    assert len(meshes.triangles([(float(x), 0, 0) for x in range(5)])) == 3


def test_solids_have_the_size_that_was_asked_for() -> None:
    block = forms.place(forms.box((1, 2, 3), "red"), (10, 0, 0), scale=(2, 1, 1), turn=(0, 90, 0))
    assert np.allclose(np.ptp(block.points, axis=0), [3, 2, 2])
    assert np.allclose(np.median(block.points[:, 0]), 10, atol=1.5)
    assert block.surface.color == (1, 0, 0)
    globe = forms.ball(2, "#ffffff")
    assert np.allclose(np.linalg.norm(globe.points, axis=1), 2)
    outward = (globe.points * globe.normals).sum(axis=1)
    flat = np.linalg.norm(globe.normals, axis=1) < 0.5  # at the poles triangles have no area
    assert flat.mean() < 0.05
    assert outward[~flat].min() > 1.9
    bar = forms.tube([(0, 0, 0), (0, 1, 0), (0, 2, 0)], [0.5, 0.5, 0.5], "blue")
    assert np.allclose(np.ptp(bar.points, axis=0), [1, 2, 1], atol=0.05)


@pytest.mark.parametrize("name", SHAPES)
def test_every_drawn_thing_can_be_built(name: str) -> None:
    for build in SHAPES[name].values():
        for mesh in build():
            assert len(mesh.points) == len(mesh.normals)
            assert len(mesh.points) % 3 == 0
            assert np.isfinite(mesh.points).all()
            assert np.isfinite(mesh.normals).all()


# Drawing


def test_a_cut_out_is_tight_and_has_one_size() -> None:
    image = Image.new("RGBA", (400, 300))
    image.paste(red_cat((100, 50)), (150, 200))
    found = render.cut(image)
    assert found.size == (192, 96)
    assert np.array(found)[:, :, 3].min() == 255
    with pytest.raises(JanusKitError, match="the picture is empty"):
        render.cut(Image.new("RGBA", (4, 4)))


def test_a_block_is_drawn_from_two_sides() -> None:
    pytest.importorskip("vtkmodules")
    red = forms.place(forms.box((1, 2, 1), "#ff0000"), (0, 1, 0))
    blue = forms.place(forms.box((1, 2, 1), "#0000ff"), (0, 1, -1))
    front, back = render.views([red, blue], [(0, 0), (180, 0)])
    for image, color in ((front, 0), (back, 2)):
        rgba = np.array(image)
        assert rgba.shape[0] == 192
        assert 90 <= rgba.shape[1] <= 105
        assert np.argmax(rgba[96, 48, :3]) == color
        assert rgba[96, 48, 3] == 255


def test_without_vtk_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vtkmodules.all", None)
    with pytest.raises(JanusKitError, match=r"vtk: cannot be imported .*janus-kit\[data\]"):
        next(render.views([forms.box((1, 1, 1), "red")], [(0, 0)]))


def test_without_resvg_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "resvg_py", None)
    icons = {"icons": {"cat": {"body": "<path/>"}}, "width": 128, "height": 128}
    draw = sources.noto(tgz(tmp_path, "package/icons.json", json.dumps(icons).encode()), tmp_path)
    _, _, shown = draw(Model("cat", "noto", "noto/cat"))
    with pytest.raises(JanusKitError, match=r"resvg_py: not installed.*janus-kit\[data\]"):
        next(shown)


# Sources


def tgz(folder: Path, name: str, data: bytes) -> Path:
    path = folder / "a.tgz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return path


def fake_views(built: list[object]) -> Callable[..., Iterator[Image.Image]]:
    def views(meshes: object, poses: tuple[object, ...]) -> Iterator[Image.Image]:
        built.append(meshes)
        return iter([red_cat() for _ in poses])

    return views


def library(files: dict[str, bytes | str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return data.getvalue()


def test_a_model_of_the_furniture_library_is_turned_and_its_creator_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (
        "license=x\nname#1=Bike\ncreator#1=Jo\nmodel#1=/b/bike/bike.obj\n"
        "modelRotation#1=1 0 0 0 0 -1 0 1 0\nname#2=No model\n"
    )
    rich = library(
        {
            "PluginFurnitureCatalog.properties": rows,
            "b/bike/bike.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
        }
    )
    poor = library({"PluginFurnitureCatalog.properties": ""})
    parts = {"cc0": poor, "ccby": rich, "kator": poor, "real": poor, "scopia": poor}
    files = {
        f"usr/share/sweethome3d/furniture/{file}.sh3f": parts[part]
        for part, (file, _, _) in sources._PARTS.items()
    }
    built: list[list[meshes.Mesh]] = []
    monkeypatch.setattr(sources, "views", fake_views(built))  # type: ignore[arg-type]
    draw = sources.furniture(deb(tmp_path / "a.deb", files), tmp_path)
    licence, who, shown = draw(next(m for m in MODELS if m.id == "ccby/bike"))
    assert licence == "CC-BY-3.0"
    assert who == "Jo, Blend Swap; adapted by Emmanuel Puybaret / eTeks"
    assert [view for view, _ in shown][:2] == ["-125.6", "-70.22"]
    assert built[0][0].points.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 1]]
    with pytest.raises(JanusKitError, match=r"KatorLegaz.sh3f: has no model bowl; is it another"):
        draw(next(m for m in MODELS if m.id == "kator/bowl"))


def test_an_animal_wears_its_skin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skin = io.BytesIO()
    image = Image.new("RGBA", (4, 4), (0, 0, 255, 0))
    image.paste((255, 0, 0, 0), (0, 0, 4, 2))
    image.save(skin, "DDS")
    game = library(
        {
            "art/meshes/skeletal/bear.dae.cached.pmd": pmd(4),
            "art/textures/skins/skeletal/animal_bear_black.png.cached.dds": skin.getvalue(),
        }
    )
    built: list[list[meshes.Mesh]] = []
    monkeypatch.setattr(sources, "views", fake_views(built))  # type: ignore[arg-type]
    draw = sources.fauna(deb(tmp_path / "a.deb", {sources._GAME: game}), tmp_path)
    bear = next(model for model in MODELS if model.source == "fauna" and model.name == "bear")
    licence, who, shown = draw(bear)
    assert (licence, who) == ("CC-BY-SA-3.0", "Wildfire Games")
    assert len(list(shown)) == len(names.poses(bear))
    coat = built[0][0].surface.skin
    assert coat is not None
    assert (coat.getpixel((0, 0)), coat.getpixel((0, 3))) == ((255, 0, 0), (0, 0, 255))


def test_an_emoji_is_one_flat_picture(tmp_path: Path) -> None:
    data = io.BytesIO()
    red_cat().save(data, "WEBP", lossless=True)
    archive = tgz(tmp_path, "package/assets/1f408.webp", data.getvalue())
    draw = sources.fluent(archive, tmp_path)
    licence, who, shown = draw(Model("cat", "fluent", "fluent/1f408"))
    assert (licence, who) == ("MIT", "Microsoft Corporation")
    ((view, image),) = shown
    assert (view, image.size) == ("flat", (192, 96))
    with pytest.raises(JanusKitError, match=r"holds no package/assets/1\.webp; is it another"):
        next(draw(Model("cat", "fluent", "fluent/1"))[2])
    archive.write_bytes(archive.read_bytes()[:20])
    with pytest.raises(JanusKitError, match="is not a readable archive"):
        sources.noto(archive, tmp_path)


def test_a_vector_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    icons = {"icons": {"cat": {"body": '<path fill="#f00" d="M0 0h64v128h-64z"/>'}}}
    text = json.dumps({**icons, "width": 128, "height": 128})
    draw = sources.noto(tgz(tmp_path, "package/icons.json", text.encode()), tmp_path)
    ((_, image),) = draw(Model("cat", "noto", "noto/cat"))[2]
    assert image.size == (96, 192)
    assert image.getpixel((48, 96)) == (255, 0, 0, 255)


# The bank


def test_a_bank_gives_back_what_was_packed(tmp_path: Path) -> None:
    others = [replace(SPRITE, view="25.6"), replace(SPRITE, name="dog", model="toy/dog")]
    bank = Bank(small_bank(tmp_path / "b.zip", [SPRITE, *others]))
    assert bank.sprites == (SPRITE, *others)
    assert bank.names == ("cat", "dog")
    pixels = bank.pixels(SPRITE)
    assert (pixels.shape, pixels.dtype) == ((30, 60, 4), np.uint8)
    assert np.abs(pixels[..., :3].astype(int) - (200, 30, 30)).max() < 12
    assert bank.credits() == ["Somebody (MIT)"]
    assert SPRITE.solid
    assert list(tmp_path.iterdir()) == [tmp_path / "b.zip"]


def test_equal_pictures_make_equal_banks(tmp_path: Path) -> None:
    first, second = (small_bank(tmp_path / name, [SPRITE]) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_a_torn_bank_is_told_with_a_remedy(tmp_path: Path) -> None:
    path = small_bank(tmp_path / "b.zip", [SPRITE])
    whole = path.read_bytes()
    place = whole.index(b"WEBP") + 20
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    with pytest.raises(JanusKitError, match=r"toy/cat 0\.6\.webp cannot be read .*; delete the"):
        Bank(path).pixels(SPRITE)
    with pytest.raises(JanusKitError, match="cannot be read"):
        Bank(path).webp(replace(SPRITE, view="1.1"))
    for torn in (whole[: len(whole) // 2], b"", library({"a": b""}), library({"index.json": "[3"})):
        path.write_bytes(torn)
        with pytest.raises(
            JanusKitError, match=r"is not a whole picture bank .*; delete it and run"
        ):
            Bank(path)
    path.unlink()
    with pytest.raises(JanusKitError, match="is not there; run janus-kit train data"):
        Bank(path)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        raise OSError(28, "No space left on device")
        yield b""

    with pytest.raises(OSError, match="No space left"):
        pack.write(tmp_path / "b.zip", [SPRITE], broken())
    assert list(tmp_path.iterdir()) == []


# Making it

TOYS = (Model("frisbee", "shapes", "shapes/frisbee/red"), Model("cat", "fluent", "fluent/1f408"))


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two sources that draw red blocks; the models that they drew."""
    drawn: list[str] = []

    def source(archive: Path | None, work: Path) -> sources.Draw:
        def draw(model: Model) -> sources.Shown:
            drawn.append(model.id)
            return "MIT", "Somebody", iter([("0.6", red_cat())])

        return draw

    monkeypatch.setattr(make, "SOURCES", {"shapes": source, "fluent": source})
    monkeypatch.setattr(make, "PACKAGES", {"fluent": PACKAGE})
    monkeypatch.setattr(make, "fetch", lambda package, folder: folder / package.file)
    return drawn


def test_a_bank_is_made_once(tmp_path: Path, toys: list[str]) -> None:
    said: list[str] = []
    path = make.make_bank(said.append, tmp_path, TOYS)
    assert path == make.bank_path(tmp_path)
    assert said == [
        "shapes: 1 of 1 models drawn, 0 s left",
        "fluent: fetching toys@1.0, 1 MB",
        "fluent: 1 of 1 models drawn, 0 s left",
    ]
    bank = Bank(path)
    assert [(s.name, s.source) for s in bank.sprites] == [("frisbee", "shapes"), ("cat", "fluent")]
    assert make.make_bank(said.append, tmp_path, TOYS) == path
    assert toys == [model.id for model in TOYS]
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_run_goes_on_where_it_stopped(
    tmp_path: Path, toys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(package: Package, folder: Path) -> Path:
        raise JanusKitError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(make, "fetch", dead)
        with pytest.raises(JanusKitError, match="no network"):
            make.make_bank(print, tmp_path, TOYS)
    assert not make.bank_path(tmp_path).exists()
    make.make_bank(print, tmp_path, TOYS)
    assert toys == [model.id for model in TOYS]


def test_a_full_disk_is_told_before_fetching(
    tmp_path: Path, toys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "ROOM", 1e30)
    with pytest.raises(JanusKitError, match=r"GB are free, but .* are needed for a while"):
        make.make_bank(print, tmp_path, TOYS)


def test_the_bank_lies_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert make.bank_path().parent == tmp_path / "janus_kit/bank"
