"""``check`` on corpora of coefficients: nothing of sound ones, one line for each fault."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from s2f_rl.data import FaceCorpus, check_corpus
from s2f_rl.data.check_utterance import MotionStatistics, Setting
from s2f_rl.data.coefficients.check import check_coefficients
from s2f_rl.data.faults import Faults
from tests.coefficient_corpora import make_coefficient_corpus


@pytest.fixture(scope="module")
def sound_root(tmp_path_factory):
    return make_coefficient_corpus(tmp_path_factory.mktemp("rig") / "corpus")


@pytest.fixture
def root(sound_root, tmp_path):
    return shutil.copytree(sound_root, tmp_path / "corpus")


def change(root, name, how):
    path = root / "coefficients_npy" / f"{name}.npy"
    np.save(path, how(np.load(path)))


def only(root):
    faults = check_corpus(root)
    assert len(faults) == 1, list(map(str, faults))
    return faults[0]


def test_sound_corpora_have_no_faults(root):
    faults = check_corpus(root)
    assert list(faults) == [] and faults.counts.recorded == 6 and faults.counts.vertices == 40
    assert "6 with 3 coefficients (40 per face, " in str(faults.counts)


def test_without_a_basis_one_warning(tmp_path):
    fault = only(make_coefficient_corpus(tmp_path / "own", basis=False))
    assert fault.severity == "warning" and fault.file == "coefficients.json" and "no basis.npz" in fault.message


@pytest.mark.parametrize(
    ("how", "severity", "told"),
    [
        (lambda c: c[:, :2], "error", "where [frames, 3] is expected"),
        (lambda c: c.reshape(-1), "error", "where [frames, 3] is expected"),
        (lambda c: np.where(np.arange(len(c))[:, None] == 4, np.nan, c), "error", "NaN or infinity in 1 of"),
        (lambda c: 100 * c, "error", "look like percent"),
        (lambda c: c + np.float32([0, 0.5, 0]), "warning", "mouthPucker most often"),
        (lambda c: c[:0], "error", "holds no frames"),
        (lambda c: np.repeat(c, 2, axis=0), "error", "it looks like 120 fps where 60 is expected"),
    ],
)
def test_a_file(root, how, severity, told):
    change(root, "S0_sentence01", how)
    fault = only(root)
    assert (fault.severity, fault.file) == (severity, "coefficients_npy/S0_sentence01.npy") and told in fault.message


def test_a_rig_that_is_not_sound(root):
    (root / "basis.npz").write_bytes(b"PK no")
    assert only(root).file == "basis.npz"
    (root / "coefficients.json").write_text(json.dumps({"names": []}))
    fault = only(root)
    assert fault.file == "coefficients.json" and fault.severity == "error"


def test_a_face_that_does_not_move(root):
    for name in ("S0_sentence01", "S0_sentence02"):
        change(root, name, lambda c: 0 * c)
    fault = only(root)
    assert fault.file == "coefficients_npy/S0_*.npy" and "does not move" in fault.message


def test_variance_is_that_of_the_vertices(root):
    corpus = FaceCorpus(root)
    sounds = {name: corpus.wav(i) for i, name in enumerate(corpus.names)}
    setting, statistics = Setting(corpus.description, 1.0, 40, None, sounds), MotionStatistics()
    check_coefficients(root, "S0_sentence01", None, setting, corpus.rig, statistics, Faults(root))
    stored = np.load(root / "coefficients_npy" / "S0_sentence01.npy").astype(np.float64)
    faces = stored @ corpus.rig.basis.matrix.double().numpy()
    per_vertex = faces.var(axis=0).reshape(-1, 3).sum(axis=1)
    assert statistics.amplitude(np.arange(40)) == pytest.approx(np.sqrt(per_vertex.mean()), rel=1e-6)


def test_distance_to_vertices_that_lie_beside_them(root):
    corpus = FaceCorpus(root)
    (root / "vertices_npy").mkdir()
    stored = np.load(root / "coefficients_npy" / "S0_sentence01.npy")
    vertices = corpus.template("S0").numpy() + stored @ corpus.rig.basis.matrix.numpy()
    np.save(root / "vertices_npy" / "S0_sentence01.npy", vertices + np.tile([0, 0.003, 0.004], 40))
    fault = only(root)
    assert fault.severity == "warning" and "lie 5 mm rms" in fault.message


def test_they_may_be_in_another_unit(root):
    """Everything that the files hold is in millimetres, but the basis, which says its own."""
    corpus = FaceCorpus(root)
    stored = np.load(root / "coefficients_npy" / "S0_sentence01.npy")
    vertices = corpus.template("S0").numpy() + stored @ corpus.rig.basis.matrix.numpy()
    (root / "vertices_npy").mkdir()
    np.save(root / "vertices_npy" / "S0_sentence01.npy", 1000 * (vertices + np.tile([0, 0.003, 0.004], 40)))
    described = json.loads((root / "corpus.json").read_text())
    (root / "corpus.json").write_text(json.dumps(described | {"units": "mm"}))
    assert [fault.message for fault in check_corpus(root) if "lie 5 mm rms" in fault.message]
