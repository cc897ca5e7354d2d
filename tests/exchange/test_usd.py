"""USD files, reopened by USD itself, which also bakes the blendshapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.errors import UserError
from s2f_rl.exchange import usd
from s2f_rl.exchange.face import Face
from s2f_rl.exchange.usd import identifiers, write_usd_points, write_usd_shapes
from tests.data.coefficients.rigs import make_weights
from tests.render.shapes import ball

pytest.importorskip("pxr")
from pxr import Gf, Sdf, Usd, UsdGeom, UsdMedia, UsdSkel  # noqa: E402


def face(sound: Path | None = None, up: str = "y") -> Face:
    points, triangles = ball()
    colours = np.random.default_rng(0).integers(0, 256, (len(points), 3), dtype=np.uint8)
    return Face(triangles.astype(np.int32), colours, up, sound)


def check_stage(stage: Usd.Stage, fps: float, n_frames: int, up: str = "Y") -> UsdGeom.Mesh:
    """Unit, axis and rate as Blender and usdview read them; returns the mesh."""
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1 and UsdGeom.GetStageUpAxis(stage) == up
    assert stage.GetTimeCodesPerSecond() == stage.GetFramesPerSecond() == fps
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (0, n_frames - 1)
    assert stage.GetDefaultPrim().GetPath() == "/Face"
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/Face/Mesh"))
    np.testing.assert_array_equal(np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3), face().triangles)
    assert set(mesh.GetFaceVertexCountsAttr().Get()) == {3}
    assert mesh.GetSubdivisionSchemeAttr().Get() == "none"
    return mesh


@pytest.mark.parametrize("suffix", [".usdc", ".usda", ".usd"])
def test_points(tmp_path: Path, suffix: str) -> None:
    motion = ball()[0] * np.linspace(1, 1.2, 4)[:, None, None]
    sound = tmp_path / "wav" / "speech.wav"
    path = tmp_path / "out" / f"face{suffix}"
    write_usd_points(path, motion, 25.0, face(sound, up="z"))
    assert path.read_bytes().startswith(b"#usda" if suffix == ".usda" else b"PXR-USDC")
    stage = Usd.Stage.Open(str(path))
    mesh = check_stage(stage, 25, 4, up="Z")
    assert mesh.GetPointsAttr().GetTimeSamples() == [0, 1, 2, 3]
    for t in range(4):
        np.testing.assert_allclose(mesh.GetPointsAttr().Get(t), motion[t], atol=1e-7)
        np.testing.assert_allclose(mesh.GetExtentAttr().Get(t), [motion[t].min(0), motion[t].max(0)], atol=1e-7)
    colour = mesh.GetDisplayColorPrimvar()
    assert colour.GetInterpolation() == "vertex" and len(colour.Get()) == len(motion[0])
    heard = UsdMedia.SpatialAudio(stage.GetPrimAtPath("/Face/Sound"))
    assert heard.GetFilePathAttr().Get().path == "../wav/speech.wav"
    assert heard.GetAuralModeAttr().Get() == "nonSpatial" and heard.GetPlaybackModeAttr().Get() == "onceFromStart"
    assert heard.GetStartTimeAttr().Get() == Sdf.TimeCode(0)  # the schema's own


def test_shapes_bake_to_the_vertices(tmp_path: Path) -> None:
    points, _ = ball()
    shapes = np.random.default_rng(0).normal(size=(3, len(points), 3)) * 0.005
    shapes[1, 5:] = 0  # one that moves few vertices is written as those
    basis = LinearBasis(
        torch.from_numpy(points).float(),
        torch.from_numpy(shapes).float(),
        ("jawOpen", "brow.L", "brow L"),
        torch.tensor([[0.0, 1.0]] * 3),
    )
    weights = make_weights(6, 3).astype(np.float32)
    write_usd_shapes(tmp_path / "face.usdc", basis, weights, 30.0, face())
    stage = Usd.Stage.Open(str(tmp_path / "face.usdc"))
    mesh = check_stage(stage, 30, 6)
    assert list(UsdSkel.BindingAPI(mesh).GetBlendShapesAttr().Get()) == ["jawOpen", "brow_L", "brow_L_"]
    assert list(UsdSkel.BlendShape(stage.GetPrimAtPath("/Face/Mesh/brow_L")).GetPointIndicesAttr().Get()) == [*range(5)]
    assert UsdSkel.BakeSkinning(UsdSkel.Root(stage.GetPrimAtPath("/Face")), Gf.Interval.GetFullInterval())
    expected = basis.vertices(torch.from_numpy(weights)).numpy().reshape(6, -1, 3)
    for t in range(6):
        np.testing.assert_allclose(mesh.GetPointsAttr().Get(t), expected[t], atol=1e-7)
    assert not stage.GetPrimAtPath("/Face/Sound")


def test_names_that_usd_takes() -> None:
    assert identifiers(("a b", "a.b", "1x", "Lächeln")) == ["a_b", "a_b_", "_1x", "L_cheln"]


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"face.xyz: is no name of a USD file; end it in .usd"):
        write_usd_points(tmp_path / "face.xyz", ball()[0][None], 30.0, face())
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(usd, "import_module", lambda name: __import__("absent_module"))
    with pytest.raises(UserError, match=r'usd-core .*pip install "s2f_rl\[export\]"'):
        write_usd_points(tmp_path / "face.usdc", ball()[0][None], 30.0, face())
