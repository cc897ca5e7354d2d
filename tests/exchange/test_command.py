"""``s2f-rl blendshapes`` and ``s2f-rl convert``, from files to files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from s2f_rl import cli
from s2f_rl.data import FaceCorpus
from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.coefficients.basis_files import read_basis
from s2f_rl.data.coefficients.fit import fit_coefficients
from s2f_rl.data.glb_files import read_glb
from s2f_rl.exchange.face import Face
from s2f_rl.exchange.glb import write_glb
from s2f_rl.exchange.names import read_names, renamed
from tests.coefficient_corpora import make_coefficient_corpus
from tests.data.coefficients.rigs import make_weights
from tests.render.shapes import ball
from tests.tiny import make_tiny_corpus


def call(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


@pytest.fixture(scope="module")
def rig() -> LinearBasis:
    """A ball whose shapes bulge in three places."""
    points, _ = ball()
    fall = np.exp(-((points - points[[40, 90, 140], None]) ** 2).sum(-1) / (2 * 0.04**2))
    shapes = fall[..., None] * np.array([[0, 0.01, 0], [0.008, 0, 0], [0, 0, 0.004]])[:, None]
    return LinearBasis(
        torch.from_numpy(points).float(),
        torch.from_numpy(shapes).float(),
        ("jawOpen", "smile_l", "puff"),
        torch.tensor([[0.0, 1.0]] * 3),
    )


@pytest.fixture(scope="module")
def folder(rig: LinearBasis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """take.npy in millimetres, face.glb, basis.npz."""
    folder = tmp_path_factory.mktemp("rig")
    weights = make_weights(20, 3).astype(np.float32)
    np.save(folder / "weights.npy", weights)
    (folder / "takes").mkdir()
    for name in ("take", "takes/a", "takes/b"):
        np.save(folder / f"{name}.npy", 1000 * rig.vertices(torch.from_numpy(weights)).numpy())
    rig.save(folder / "basis.npz")
    _, triangles = ball()
    colours = np.full((rig.n_vertices, 3), 99, np.uint8)
    write_glb(folder / "face.glb", rig, np.zeros((1, 3)), 30.0, Face(triangles.astype(np.int32), colours))
    return folder


class TestBlendshapes:
    @pytest.mark.parametrize("basis", ["face.glb", "basis.npz"])
    def test_weights_come_back(self, folder: Path, tmp_path: Path, basis: str, capsys) -> None:
        out = tmp_path / "weights.npy"
        residual = tmp_path / "residual.csv"
        arguments = ("blendshapes", folder / "take.npy", "--basis", folder / basis, "--fps", 25)
        assert call(*arguments, "--out", out, "--residual", residual) == 0
        np.testing.assert_allclose(np.load(out), np.load(folder / "weights.npy"), atol=1e-3)
        assert "20 frames, residual 0.000 mm in the mean, 0.000 at most" in capsys.readouterr().out
        lines = residual.read_text().splitlines()
        assert lines[0] == "sequence,frame,mean_mm,max_mm" and lines[-1].startswith("take,19,0.0000")
        assert call(*arguments, "--out", tmp_path / "weights.json") == 0
        assert json.loads((tmp_path / "weights.json").read_text())["fps"] == 25

    def test_a_folder_in_live_links_form(self, folder: Path, rig: LinearBasis, tmp_path: Path, capsys) -> None:
        names = tmp_path / "names.csv"
        assert call("blendshapes", "--basis", folder / "face.glb", "--names-template", names) == 0
        assert names.read_text().splitlines()[1:] == ["jawOpen,jawOpen", "smile_l,smile_l", "puff,puff"]
        arguments = ("blendshapes", folder / "takes", "--basis", folder / "face.glb", "--fps", 30, "--form", "livelink")
        error = refused(capsys, *arguments, "--out", tmp_path / "out")
        assert "a.csv: Live Link has no shape smile_l, puff; map the names" in error
        names.write_text("a,b\nsmile_l,mouthSmileLeft\npuff,\n")
        assert call(*arguments, "--out", tmp_path / "out", "--names", names) == 0
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.csv", "b.csv"]
        head, *rows = (line.split(",") for line in (tmp_path / "out" / "b.csv").read_text().splitlines())
        read = np.array([row[head.index("MouthSmileLeft")] for row in rows], float)
        left = fit_coefficients(
            np.load(folder / "takes" / "b.npy"), renamed(rig, read_names(names, rig.names)), metres_per_unit=1e-3
        )
        np.testing.assert_allclose(read, left.coefficients[:, 1], atol=1e-5)
        assert {row[head.index("CheekPuff")] for row in rows} == {"0"}

    def test_the_unit_of_a_rig_may_be_told(self, folder: Path, rig: LinearBasis, tmp_path: Path, capsys) -> None:
        """A face of 80 cm: too large for metres, too small for decimetres."""
        far = LinearBasis(rig.neutral * 4, rig.shapes * 4, rig.names, rig.bounds)
        write_glb(tmp_path / "far.glb", far, np.zeros((1, 3)), 30.0, Face(ball()[1].astype(np.int32), None))
        arguments = ("blendshapes", "--weights", folder / "weights.npy", "--basis", tmp_path / "far.glb", "--fps", 25)
        assert "tell its unit (--basis-unit)" in refused(capsys, *arguments, "--out", tmp_path / "a.glb")
        assert call(*arguments, "--basis-unit", "dm", "--out", tmp_path / "a.glb") == 0
        torch.testing.assert_close(read_basis(tmp_path / "a.glb", unit="m").neutral, 0.4 * rig.neutral)

    def test_a_scene_looks_as_the_sequence(self, folder: Path, rig: LinearBasis, tmp_path: Path) -> None:
        out = tmp_path / "take.glb"
        assert call("blendshapes", folder / "take.npy", "--basis", folder / "face.glb", "--fps", 30, "--out", out) == 0
        (mesh,) = read_glb(out)
        torch.testing.assert_close(read_basis(out).shapes, rig.shapes, rtol=0, atol=0)
        assert mesh.target_names == rig.names and (mesh.colours == 99).all()

    def test_known_weights_are_written_as_they_are(
        self, folder: Path, rig: LinearBasis, tmp_path: Path, capsys
    ) -> None:
        known = np.load(folder / "weights.npy") * 2 - 0.5  # beyond the bounds, which a fit would keep
        np.save(tmp_path / "known.npy", known)
        names = tmp_path / "names.csv"
        names.write_text("a,b\nsmile_l,\npuff,cheekPuff\n")
        arguments = ("blendshapes", "--weights", tmp_path / "known.npy", "--basis", folder / "face.glb")
        assert call(*arguments, "--fps", 25, "--out", tmp_path / "known.json", "--names", names) == 0
        content = json.loads((tmp_path / "known.json").read_text())
        assert content["names"] == ["jawOpen", "cheekPuff"] and content["fps"] == 25
        np.testing.assert_allclose([f["weights"] for f in content["frames"]], known[:, [0, 2]], atol=1e-6)
        assert call(*arguments, "--fps", 25, "--out", tmp_path / "known.glb") == 0
        assert read_basis(tmp_path / "known.glb").names == rig.names
        assert "give --fps" in refused(capsys, *arguments, "--out", tmp_path / "known.csv")
        odd = ("--fps", 25, "--form", "livelink", "--out", tmp_path / "odd.npy")
        assert "odd.npy: is to be livelink; end its name in .csv" in refused(capsys, *arguments, *odd)
        arguments = ("blendshapes", "--weights", folder / "take.npy", "--basis", folder / "face.glb", "--fps", 25)
        assert "weights of this rig are [T, 3]" in refused(capsys, *arguments, "--out", tmp_path / "known.csv")
        residual = ("--residual", tmp_path / "r.csv", "--out", tmp_path / "known.csv")
        assert "nothing is fitted to known weights" in refused(capsys, *arguments, *residual)

    def test_recorded_weights_of_a_corpus_at_its_rate(self, tmp_path: Path, capsys) -> None:
        root = make_coefficient_corpus(tmp_path / "corpus")  # stored at 60 Hz, used at 30
        corpus = FaceCorpus(root, "all")
        recorded = root / "coefficients_npy" / f"{corpus.names[0]}.npy"
        source = ("blendshapes", "--weights", recorded, "--corpus", root, "--basis", root / "basis.npz")
        for more in ((), ("--fps", 60)):
            assert call(*source, "--out", tmp_path / "take.json", *more) == 0
            content = json.loads((tmp_path / "take.json").read_text())
            expected = corpus[0].coefficients.numpy()
            np.testing.assert_allclose([f["weights"] for f in content["frames"]], expected, atol=1e-6)
            assert content["fps"] == 30 and len(np.load(recorded)) > len(expected)
        assert call(*source, "--out", tmp_path / "take.glb") == 0
        other = root / "other.npz"
        rig = LinearBasis.load(root / "basis.npz")
        LinearBasis(rig.neutral, rig.shapes, rig.names[::-1], rig.bounds).save(other)
        source = (*source[:-1], other, "--out", tmp_path / "take.json")
        assert "other names than the shapes of the basis" in refused(capsys, *source)

    def test_the_face_of_another_at_rest(self, folder: Path, rig: LinearBasis, tmp_path: Path, capsys) -> None:
        rest = rig.neutral.numpy() * np.float32(1.1)
        moved = rest.reshape(-1) + np.load(folder / "weights.npy") @ rig.matrix.numpy()
        np.save(tmp_path / "take.npy", moved)
        np.save(tmp_path / "rest.npy", rest)
        arguments = ("blendshapes", tmp_path / "take.npy", "--basis", folder / "basis.npz", "--fps", 30)
        assert call(*arguments, "--out", tmp_path / "w.npy") == 0
        assert "(much: is the face of the basis that of the sequence?" in capsys.readouterr().out
        assert call(*arguments, "--out", tmp_path / "w.npy", "--rest", tmp_path / "rest.npy") == 0
        np.testing.assert_allclose(np.load(tmp_path / "w.npy"), np.load(folder / "weights.npy"), atol=1e-3)

    def test_vertices_in_another_order(self, folder: Path, rig: LinearBasis, tmp_path: Path, capsys) -> None:
        order = np.random.default_rng(0).permutation(
            np.arange(16, rig.n_vertices - 15)
        )  # the poles are many at a place
        moved = rig.vertices(torch.from_numpy(np.load(folder / "weights.npy"))).unflatten(1, (-1, 3)).numpy()[:, order]
        np.save(tmp_path / "take.npy", moved)
        np.save(tmp_path / "rest.npy", rig.neutral.numpy()[order])
        arguments = ("blendshapes", tmp_path / "take.npy", "--basis", folder / "basis.npz", "--fps", 30)
        assert "has 161 vertices, the basis" in refused(capsys, *arguments, "--out", tmp_path / "w.npy")
        assert call(*arguments, "--out", tmp_path / "w.npy", "--rest", tmp_path / "rest.npy") == 0
        np.testing.assert_allclose(np.load(tmp_path / "w.npy"), np.load(folder / "weights.npy"), atol=1e-3)

    def test_mistakes(self, folder: Path, rig: LinearBasis, tmp_path: Path, capsys) -> None:
        take, basis, fps = folder / "take.npy", ("--basis", folder / "basis.npz"), ("--fps", 30)
        out = tmp_path / "w.csv"
        shuffled = rig.vertices(torch.zeros(4, 3)).unflatten(1, (-1, 3))[:, torch.randperm(rig.n_vertices)]
        np.save(tmp_path / "shuffled.npy", shuffled.numpy())
        for arguments, message in (
            ((take, *basis, "--out", out), "take.npy: does not say its frame rate; give --fps"),
            ((take, *basis, *fps, "--out", tmp_path / "w.txt"), "its name tells no form"),
            ((folder / "takes", *basis, *fps, "--out", out), "is a folder for 2 sequences"),
            ((take, take, *basis, *fps, "--out", out, "--form", "csv"), "the same name"),
            ((take, *basis, *fps, "--out", tmp_path / "w.glb"), "its triangles are not known; give --triangles"),
            ((tmp_path / "shuffled.npy", *basis, *fps, "--out", out), "in another order"),
            ((take, *basis, *fps, "--out", out, "--unit", "ells"), "unit 'ells' is not known"),
            ((take, *basis, *fps, "--out", out, "--smooth", -1), "smooth is -1"),
            ((take, "--basis", folder / "absent.glb", *fps, "--out", out), "absent.glb: no such file"),
            ((take, *basis, "--fps", 1000, "--out", out), "fps=1000"),
            ((*basis, *fps), "give sequences and --out"),
            ((take, *basis, *fps, "--names-template", out), "writes the table alone"),
        ):
            assert message in refused(capsys, "blendshapes", *arguments)
        assert not out.exists()


class TestConvert:
    def test_a_corpus_of_its_own(self, tmp_path: Path, capsys) -> None:
        usd = pytest.importorskip("pxr.Usd")
        geom, media = pytest.importorskip("pxr.UsdGeom"), pytest.importorskip("pxr.UsdMedia")
        corpus = FaceCorpus(make_tiny_corpus(tmp_path / "corpus"), "all")
        name = corpus.names[0]
        recorded = corpus.root / "vertices_npy" / f"{name}.npy"
        truth = corpus[name].vertices.unflatten(1, (-1, 3)).numpy()
        out = tmp_path / "scene" / "take.usdc"
        assert call("convert", recorded, "--corpus", corpus.root, "--out", out) == 0
        stage = usd.Stage.Open(str(out))
        assert stage.GetTimeCodesPerSecond() == corpus.fps and stage.GetEndTimeCode() == len(truth) - 1
        points = geom.Mesh(stage.GetPrimAtPath("/Face/Mesh")).GetPointsAttr()
        for t in (0, len(truth) - 1):
            np.testing.assert_allclose(points.Get(t), truth[t], atol=1e-7)
        heard = media.SpatialAudio(stage.GetPrimAtPath("/Face/Sound")).GetFilePathAttr().Get().path
        assert (out.parent / heard).resolve() == (corpus.root / "wav" / f"{name}.wav").resolve()

    def test_glb_and_obj(self, folder: Path, tmp_path: Path, capsys) -> None:
        _, triangles = ball()
        np.save(tmp_path / "triangles.npy", triangles)
        source = ("convert", folder / "take.npy", "--fps", 30, "--triangles", tmp_path / "triangles.npy")
        assert call(*source, "--out", tmp_path / "take.glb") == 0
        assert "20 frames at 30 per second, 3 shapes, no vertex off by more than 0.00" in capsys.readouterr().out
        assert len(read_basis(tmp_path / "take.glb").names) == 3
        assert call(*source, "--out", tmp_path / "sequence", "--form", "obj") == 0
        assert len(list((tmp_path / "sequence").iterdir())) == 20
        assert "--error is 0" in refused(capsys, *source, "--out", tmp_path / "take.glb", "--error", 0)
        assert "its triangles are not known" in refused(capsys, *source[:4], "--out", tmp_path / "take.glb")
