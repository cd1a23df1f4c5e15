"""Meshes of the picture bank: what is read from files, and what is built."""

from pathlib import Path

import numpy as np
import pytest
from bank_parts import CUBE, PAINT, pmd, red_cat
from PIL import Image

from janus_kit.errors import JanusKitError
from janus_kit.training.bank import forms, meshes
from janus_kit.training.bank.shapes import SHAPES


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
