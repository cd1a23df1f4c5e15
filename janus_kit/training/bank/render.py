"""Models seen from many sides: VTK scenes off the screen -> tight RGBA cut-outs.

VTK comes with the extra `data` and is imported when the first picture is drawn. Its software
renderer needs no display and no graphics card.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from janus_kit.errors import JanusKitError
from janus_kit.training.bank.meshes import Mesh

__all__ = ["SIDE", "Pose", "cut", "views"]

Pose = tuple[int, int]  # azimuth and elevation in degrees; 0, 0 looks at the front, level
Floats = npt.NDArray[np.float64]

SIDE = 192  # pixels of a cut-out's longer side
FINE = 576  # pixels of a rendering: three samples a pixel stand in for multisampling, which
#             would leave no clean alpha
LENS = 25  # degrees; through a wider one near parts bulge
AMBIENT = 0.35  # of 1; without it shadows are darker than in any room
FAINT = 24  # alpha that no longer counts as a part of the thing


def views(meshes: Sequence[Mesh], poses: Sequence[Pose]) -> Iterator[Image.Image]:
    """A tight cut-out, RGBA, for each pose."""
    v = _vtk()
    window = v.vtkRenderWindow()
    try:
        renderer = _stage(v, window)
        for mesh in meshes:
            renderer.AddActor(_actor(v, mesh))
        corners = _box(np.concatenate([mesh.points for mesh in meshes]))
        for pose in poses:
            _aim(renderer, corners, pose)
            yield cut(_photograph(v, window))
    finally:
        window.Finalize()


def cut(image: Image.Image) -> Image.Image:
    """Cut to what is visible and scale the longer side to SIDE: RGBA."""
    seen = image.getchannel("A").point(lambda a: 255 if a > FAINT else 0)
    box = seen.getbbox()
    if box is None:
        raise JanusKitError("the picture is empty; is the model's file damaged?")
    found = image.crop(box)
    scale = SIDE / max(found.size)
    size = (max(1, round(found.width * scale)), max(1, round(found.height * scale)))
    return found.resize(size, Image.Resampling.LANCZOS)


def _vtk() -> Any:
    """The module vtk, or a plain error."""
    try:
        import vtkmodules.all as vtk
    except ImportError as error:
        raise JanusKitError(
            f"vtk: cannot be imported ({error}), so no model can be drawn; "
            "pip install 'janus-kit[data]'; a bare Linux also wants libgl1, libegl1 and libxrender1"
        ) from None
    vtk.vtkObject.GlobalWarningDisplayOff()  # it complains of every display that is not there
    return vtk


def _stage(v: Any, window: Any) -> Any:
    """An empty scene in the window, lit as in a room from above the camera."""
    window.SetOffScreenRendering(1)
    window.SetSize(FINE, FINE)
    window.SetAlphaBitPlanes(1)
    window.SetMultiSamples(0)
    renderer = v.vtkRenderer()
    renderer.SetBackground(0, 0, 0)
    renderer.SetBackgroundAlpha(0)
    renderer.SetUseDepthPeeling(1)  # glass
    renderer.SetMaximumNumberOfPeels(6)
    window.AddRenderer(renderer)
    v.vtkLightKit().AddLightsToRenderer(renderer)
    renderer.AutomaticLightCreationOff()
    return renderer


def _actor(v: Any, mesh: Mesh) -> Any:
    """The mesh with its surface, ready for the scene."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray

    def numbers(values: Floats) -> Any:
        return numpy_to_vtk(np.ascontiguousarray(values, np.float32), deep=True)  # type: ignore[no-untyped-call, unused-ignore]

    data, places, polygons = v.vtkPolyData(), v.vtkPoints(), v.vtkCellArray()
    places.SetData(numbers(mesh.points))
    data.SetPoints(places)
    corners = np.arange(len(mesh.points), dtype=np.int64)
    polygons.SetData(3, numpy_to_vtkIdTypeArray(corners, deep=True))  # type: ignore[no-untyped-call, unused-ignore]
    data.SetPolys(polygons)
    data.GetPointData().SetNormals(numbers(mesh.normals))
    mapper, actor, surface = v.vtkPolyDataMapper(), v.vtkActor(), mesh.surface
    mapper.SetInputData(data)
    actor.SetMapper(mapper)
    look = actor.GetProperty()
    look.SetInterpolationToPhong()
    look.SetColor(*surface.color)
    look.SetOpacity(surface.alpha)
    look.SetAmbient(AMBIENT)
    look.SetDiffuse(0.8)
    look.SetSpecular(surface.shine)
    look.SetSpecularPower(surface.gloss)
    if mesh.uv is not None and surface.skin is not None:
        data.GetPointData().SetTCoords(numbers(mesh.uv))
        look.SetColor(1, 1, 1)
        actor.SetTexture(_texture(v, surface.skin))
    return actor


def _texture(v: Any, skin: Image.Image) -> Any:
    from vtkmodules.util.numpy_support import numpy_to_vtk

    pixels = np.array(skin)[::-1]  # VTK counts rows from the bottom
    image, texture = v.vtkImageData(), v.vtkTexture()
    image.SetDimensions(skin.width, skin.height, 1)
    flat = np.ascontiguousarray(pixels).reshape(skin.width * skin.height, -1)
    image.GetPointData().SetScalars(numpy_to_vtk(flat, deep=True))  # type: ignore[no-untyped-call, unused-ignore]
    texture.SetInputData(image)
    texture.InterpolateOn()
    texture.MipmapOn()
    texture.RepeatOn()
    return texture


def _box(points: Floats) -> Floats:
    """The corners [8, 3] of the box about the points."""
    low, high = points.min(axis=0), points.max(axis=0)
    choice = np.array([[k >> axis & 1 for axis in range(3)] for k in range(8)])
    return np.asarray(np.where(choice, high, low), np.float64)


def _aim(renderer: Any, corners: Floats, pose: Pose) -> None:
    """Look at the middle from as near as the corners allow."""
    turn, rise = np.radians(pose)
    ahead = np.array([np.sin(turn) * np.cos(rise), np.sin(rise), np.cos(turn) * np.cos(rise)])
    right = np.array([np.cos(turn), 0.0, -np.sin(turn)])
    up = np.cross(ahead, right)
    middle = corners.mean(axis=0)
    away = corners - middle
    # A corner is in the picture when its offset is within the lens's slope times its depth.
    reach = np.maximum(np.abs(away @ right), np.abs(away @ up)) / np.tan(np.radians(LENS * 0.49))
    distance = float((reach + away @ ahead).max())
    camera = renderer.GetActiveCamera()
    camera.SetViewAngle(LENS)
    camera.SetFocalPoint(*middle)
    camera.SetPosition(*(middle + ahead * distance))
    camera.SetViewUp(*up)
    renderer.ResetCameraClippingRange()


def _photograph(v: Any, window: Any) -> Image.Image:
    """What the window shows now, RGBA [FINE, FINE]."""
    window.Render()
    grab = v.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ShouldRerenderOff()  # it would draw all a second time
    grab.SetInputBufferTypeToRGBA()
    grab.ReadFrontBufferOff()
    grab.Update()
    data = np.asarray(grab.GetOutput().GetPointData().GetScalars(), np.uint8)
    return Image.fromarray(data.reshape(FINE, FINE, 4)[::-1].copy())
