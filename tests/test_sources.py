"""Where the pictures come from: packages, archives and drawings, on inputs of a few bytes."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from bank_parts import deb, library, pmd, red_cat, tgz
from PIL import Image

from janus_kit.errors import JanusKitError
from janus_kit.training import foreign
from janus_kit.training.bank import forms, meshes, names, render, sources
from janus_kit.training.bank.archives import from_deb, open_zip
from janus_kit.training.bank.names import MODELS, NAMES, Model

# Archives


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


def fake_views(built: list[object]) -> Callable[..., Iterator[Image.Image]]:
    def views(meshes: object, poses: tuple[object, ...]) -> Iterator[Image.Image]:
        built.append(meshes)
        return iter([red_cat() for _ in poses])

    return views


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


def test_a_drawing_in_points_is_read(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    links = 'xmlns="http://www.w3.org/2000/svg"'
    image = sources.vector(
        f'<svg {links} width="80pt" height="80pt"><path fill="#00f" d="M0 0h200v200h-200z"/></svg>'
    )
    assert image.size == (256, 256)
    assert image.getpixel((100, 100)) == (0, 0, 255, 255)


def test_the_drawings_of_other_hands_come_one_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("resvg_py")
    drawn = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="80pt" height="80pt">'
        '<path fill="#f00" d="M9 9h60v30h-60z"/></svg>'
    )
    files = {f"{foreign._CLIPART}/{file}.svg": drawn.encode() for file in foreign._CLIPS.values()}
    package = deb(tmp_path / "clips.deb", files)
    monkeypatch.setattr(foreign, "fetch", lambda wanted, cache: package)
    found = foreign.foreign("openclipart", tmp_path)
    assert [name for name, _ in found] == list(foreign._CLIPS)
    assert set(foreign._CLIPS) < set(NAMES)
    for _, picture in found:
        assert picture.shape == (384, 384, 3)
        assert tuple(picture[192, 192]) == (255, 0, 0)
        assert (picture == (255, 0, 0)).all(-1).sum() == pytest.approx(192 * 96, rel=0.1)
    icons = {"icons": {"dog": {"body": '<path fill="#0f0" d="M0 0h64v64h-64z"/>'}}}
    text = json.dumps({**icons, "width": 64, "height": 64}).encode()
    package = tgz(tmp_path, "package/icons.json", text)
    ((name, picture),) = foreign.foreign("twemoji", tmp_path)
    assert (name, tuple(picture[192, 192])) == ("dog", (0, 255, 0))
