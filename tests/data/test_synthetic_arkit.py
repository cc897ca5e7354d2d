"""The built-in face as a rig with ARKit's names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from s2f_rl.data import FaceCorpus, check_corpus
from s2f_rl.data.coefficients.arkit import ARKIT
from s2f_rl.data.synthetic import synthesize
from s2f_rl.data.synthetic.arkit import ArkitFace, within_unit
from s2f_rl.data.synthetic.coarticulation import articulate
from s2f_rl.data.synthetic.face import regions
from s2f_rl.data.synthetic.hidden import Hidden
from s2f_rl.data.synthetic.rig import A
from s2f_rl.data.synthetic.speakers import make_speaker
from s2f_rl.errors import UserError

V = 320
PHONES = [("sil", 0.0, 0.1), ("m", 0.1, 0.25), ("aa", 0.25, 0.5), ("b", 0.5, 0.6), ("iy", 0.6, 0.8), ("uw", 0.8, 1.0)]


@pytest.fixture(scope="module")
def face() -> ArkitFace:
    return ArkitFace(V)


def test_the_names_are_those_of_arkit() -> None:
    assert len(ARKIT) == len(set(ARKIT)) == 52 and list(ARKIT) == sorted(ARKIT)


def test_shapes_do_what_their_names_say(face: ArkitFace) -> None:
    shapes = dict(zip(face.basis.names, face.basis.shapes.numpy() * 1000, strict=True))
    upper, lower = face.rig.upper_lip, face.rig.lower_lip
    assert sum(bool(shape.any()) for shape in shapes.values()) == 20 and not shapes["tongueOut"].any()
    assert shapes["jawOpen"][lower, 1] < -8 and abs(shapes["jawOpen"][upper, 1]) < 1
    opened = shapes["jawOpen"] + shapes["mouthClose"]
    gap = face.rig.face.template_mm[upper] - face.rig.face.template_mm[lower]
    assert 0 < gap[1] + opened[upper, 1] - opened[lower, 1] < 0.3  # closed, though the jaw is open
    assert shapes["mouthFunnel"][upper, 2] > 4 and shapes["mouthUpperUpLeft"][upper, 1] > 1
    x = face.rig.face.template_mm[:, 0]
    for left, right in ((name, f"{name[:-4]}Right") for name in ARKIT if name.endswith("Left") and name != "mouthLeft"):
        if left != "jawLeft":
            assert not shapes[left][x < -9].any() and not shapes[right][x > 9].any(), left


def test_coefficients_come_near_to_the_articulated_face(face: ArkitFace) -> None:
    speaker, hidden = make_speaker(1, 0, V), Hidden.none(len(PHONES))
    found = face.coefficients(PHONES, 60, speaker, hidden, 60.0)
    assert found.shape == (60, 52) and found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
    curves, closure = articulate(PHONES, 60, speaker, hidden, 60.0)
    curves[:, [A["nod"], A["turn"]]] = 0
    wanted = 1000 * face._rigs[speaker.name].displace(curves, closure).reshape(60, V, 3)
    made = 1000 * np.einsum("tk,kvc->tvc", found, face.basis.shapes.numpy())
    lips = regions(V)["lips"]
    error, motion = (np.sqrt(np.square(m[:, lips]).sum(-1).mean()) for m in (made - wanted, wanted))
    assert motion > 2 and error < 0.15
    upper, lower, rest = face.rig.upper_lip, face.rig.lower_lip, face.rig.face.template_mm
    gap = rest[upper, 1] - rest[lower, 1] + made[:, upper, 1] - made[:, lower, 1]
    assert gap.min() > 0 and gap[closure > 0.95].max() < 0.75 * (rest[upper, 1] - rest[lower, 1])


def test_bounded_least_squares_against_a_slow_search() -> None:
    from scipy.optimize import lsq_linear

    rng = np.random.default_rng(0)
    rows, wanted = rng.normal(size=(6, 40)), rng.normal(size=(5, 40))
    found = within_unit(rows @ rows.T, wanted @ rows.T)
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, lsq_linear(rows.T, y, (0, 1)).x, rtol=0, atol=2e-3)


def test_a_corpus_of_them(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    arguments = {"subjects": 3, "sentences": 2, "vertices": V, "seed": 4, "progress": False, "motion": "arkit"}
    root = synthesize(tmp_path / "corpus", workers=1, audio_only_subjects=1, **arguments)
    assert [str(fault) for fault in check_corpus(root)] == []
    assert not (root / "templates.pkl").exists() and not (root / "vertices_npy").exists()
    assert json.loads((root / "synthesis.json").read_text())["motion"] == "arkit"
    corpus = FaceCorpus(root, split="all")
    assert corpus.rig.names == ARKIT and corpus.n_vertices == V and corpus.fps == 30
    spoken = [u for u in corpus if u.has_vertices]
    assert len(spoken) == 6 and len(corpus) == 8
    assert {"lips", "upper_lip", "lower_lip", "upper_face"} <= set(corpus.regions)
    assert all(0.001 < float((u.vertices - u.template).abs().max()) < 0.03 for u in spoken)
    with pytest.raises(UserError, match="another motion"):
        synthesize(root, workers=1, audio_only_subjects=1, **{**arguments, "motion": "vertices"})
    with pytest.raises(UserError, match="motion='flame': known are vertices, arkit"):
        synthesize(tmp_path / "other", motion="flame")
