"""USD files: points over time, or blendshapes with weights over time; the sound is referred to.

Needs the extra ``pip install "s2f_rl[export]"`` (usd-core).
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.files import atomic_path
from s2f_rl.errors import UserError
from s2f_rl.exchange.face import Face

if TYPE_CHECKING:
    from pxr import Usd, UsdGeom

SUFFIXES = (".usd", ".usda", ".usdc")
_ROOT = "/Face"


def write_usd_points(path: str | os.PathLike[str], vertices: np.ndarray, fps: float, face: Face) -> None:
    """Write a mesh whose points are given for every frame, atomically.

    Lengths are metres, frame t is time code t, and fps of them make a second; the stage says so, and which axis is up.

    Args:
        path: .usdc (binary), .usda (text) or .usd (binary).
        vertices: [T, V, 3] in metres.

    Raises:
        UserError: the extra is missing, or the file cannot be written.
    """
    vt = pxr("Vt")
    stage, mesh = _stage(vertices[0], len(vertices), fps, face, path)
    points = mesh.GetPointsAttr()
    for t, frame in enumerate(vertices):
        points.Set(vt.Vec3fArray.FromNumpy(np.ascontiguousarray(frame, np.float32)), t)
        mesh.GetExtentAttr().Set(_extent(frame), t)
    _export(stage, path)


def write_usd_shapes(
    path: str | os.PathLike[str], basis: LinearBasis, weights: np.ndarray, fps: float, face: Face
) -> None:
    """Write a mesh with blendshapes and their weights for every frame (UsdSkel), atomically.

    As :func:`write_usd_points`; names that USD does not take are mended (``brow.L`` becomes ``brow_L``).

    Args:
        weights: [T, K].
    """
    vt, sdf, skel = pxr("Vt"), pxr("Sdf"), pxr("UsdSkel")
    neutral = basis.neutral.numpy()
    stage, mesh = _stage(neutral, len(weights), fps, face, path)
    names = identifiers(basis.names)
    for name, shape in zip(names, basis.shapes.numpy(), strict=True):
        target = skel.BlendShape.Define(stage, f"{_ROOT}/Mesh/{name}")
        moved = np.flatnonzero(shape.any(1)).astype(np.int32)
        target.CreateOffsetsAttr(vt.Vec3fArray.FromNumpy(np.ascontiguousarray(shape[moved])))
        target.CreatePointIndicesAttr(vt.IntArray.FromNumpy(moved))
    # a skeleton of one bone that stays: blendshapes hang on one, and some programs want it to have a bone
    skeleton = skel.Skeleton.Define(stage, f"{_ROOT}/Skeleton")
    still = vt.Matrix4dArray(1)
    skeleton.CreateJointsAttr(["root"])
    skeleton.CreateBindTransformsAttr(still)
    skeleton.CreateRestTransformsAttr(still)
    animation = skel.Animation.Define(stage, f"{_ROOT}/Skeleton/Speech")
    animation.CreateBlendShapesAttr(names)
    values = animation.CreateBlendShapeWeightsAttr()
    for t, row in enumerate(weights):
        values.Set(vt.FloatArray.FromNumpy(np.ascontiguousarray(row, np.float32)), t)
    skel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets([animation.GetPath()])
    binding = skel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateSkeletonRel().SetTargets([skeleton.GetPath()])
    binding.CreateJointIndicesPrimvar(True, 1).Set([0])
    binding.CreateJointWeightsPrimvar(True, 1).Set([1.0])
    binding.CreateBlendShapesAttr(names)
    binding.CreateBlendShapeTargetsRel().SetTargets([sdf.Path(f"{_ROOT}/Mesh/{name}") for name in names])
    mesh.GetPointsAttr().Set(vt.Vec3fArray.FromNumpy(neutral))
    mesh.GetExtentAttr().Set(_extent(neutral))
    _export(stage, path)


def pxr(module: str) -> ModuleType:
    """A module of usd-core. Raises UserError with the command that installs it."""
    try:
        return import_module(f"pxr.{module}")
    except ImportError as error:
        raise UserError(f'USD files need usd-core ({error}); run: pip install "s2f_rl[export]"') from error


def identifiers(names: tuple[str, ...]) -> list[str]:
    """Names that USD takes, no two alike."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        plain = plain if not plain[:1].isdigit() else f"_{plain}"
        while plain in found:
            plain += "_"
        found.append(plain)
    return found


def _stage(
    first: np.ndarray, n_frames: int, fps: float, face: Face, path: str | os.PathLike[str]
) -> tuple[Usd.Stage, UsdGeom.Mesh]:
    """A stage with the mesh, without its points, and the sound."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: is no name of a USD file; end it in {', '.join(SUFFIXES)}")
    usd, geom, skel, media, vt, sdf = map(pxr, ("Usd", "UsdGeom", "UsdSkel", "UsdMedia", "Vt", "Sdf"))
    stage = usd.Stage.CreateInMemory()
    geom.SetStageMetersPerUnit(stage, 1.0)
    geom.SetStageUpAxis(stage, geom.Tokens.z if face.up == "z" else geom.Tokens.y)
    stage.SetTimeCodesPerSecond(fps)
    stage.SetFramesPerSecond(fps)
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(n_frames - 1)
    stage.SetDefaultPrim(skel.Root.Define(stage, _ROOT).GetPrim())
    mesh = geom.Mesh.Define(stage, f"{_ROOT}/Mesh")
    mesh.CreateFaceVertexCountsAttr(vt.IntArray(len(face.triangles), 3))
    mesh.CreateFaceVertexIndicesAttr(vt.IntArray.FromNumpy(np.ascontiguousarray(face.triangles.reshape(-1), np.int32)))
    mesh.CreateSubdivisionSchemeAttr(geom.Tokens.none)
    mesh.CreatePointsAttr()
    mesh.CreateExtentAttr()
    if face.colours is not None:
        colour = mesh.CreateDisplayColorPrimvar(geom.Tokens.vertex)
        colour.Set(vt.Vec3fArray.FromNumpy(np.ascontiguousarray(face.linear_colours(), np.float32)))
    if face.sound is not None:
        sound = media.SpatialAudio.Define(stage, f"{_ROOT}/Sound")
        place = os.path.relpath(face.sound.resolve(), Path(path).resolve().parent)
        sound.CreateFilePathAttr(sdf.AssetPath(Path(place).as_posix()))
        sound.CreateAuralModeAttr(media.Tokens.nonSpatial)
        sound.CreatePlaybackModeAttr(media.Tokens.onceFromStart)
    return stage, mesh


def _extent(points: np.ndarray) -> object:
    return pxr("Vt").Vec3fArray.FromNumpy(np.stack([points.min(0), points.max(0)]).astype(np.float32))


def _export(stage: Usd.Stage, path: str | os.PathLike[str]) -> None:
    with atomic_path(path) as temporary:
        try:
            written = stage.GetRootLayer().Export(str(temporary))
        except pxr("Tf").ErrorException as error:
            raise UserError(f"{path}: cannot be written ({' '.join(str(error).split())[:200]})") from error
        if not written:
            raise UserError(f"{path}: cannot be written; free some space or choose another folder")
