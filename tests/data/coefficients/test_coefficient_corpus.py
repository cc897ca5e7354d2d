"""A corpus of coefficients through the one door: numbers, faces, rates, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.coefficients.rig import METRES_PER_COEFFICIENT, require_mesh
from s2f_rl.data.content import corpus_content
from s2f_rl.errors import UserError
from tests.coefficient_corpora import NAMES, make_coefficient_corpus


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_coefficient_corpus(tmp_path_factory.mktemp("rig") / "corpus")


@pytest.fixture
def own(root, tmp_path):
    return shutil.copytree(root, tmp_path / "own")


def stored(root, name):
    return np.load(root / "coefficients_npy" / f"{name}.npy")


def test_coefficients_and_vertices_of_the_same_frames(root):
    corpus = FaceCorpus(root)
    basis = LinearBasis.load(root / "basis.npz")
    assert corpus.rig.names == NAMES and corpus.fps == 30 and corpus.n_vertices == basis.n_vertices
    for utterance in corpus:
        given = stored(root, utterance.name)[::2][: utterance.n_frames]
        np.testing.assert_array_equal(utterance.coefficients.numpy(), given)
        slow = basis.neutral.double().numpy() + np.einsum("tk,kvc->tvc", given, basis.shapes.double().numpy())
        np.testing.assert_allclose(utterance.vertices.numpy(), slow.reshape(len(given), -1), rtol=0, atol=1e-7)
        torch.testing.assert_close(utterance.template, basis.neutral.flatten(), rtol=0, atol=0)


def test_templates_of_ones_own_take_the_place_of_the_neutral_face(tmp_path):
    corpus = FaceCorpus(make_coefficient_corpus(tmp_path / "own", templates=True))
    basis = corpus.rig.basis
    one, other = corpus["S0_sentence01"], corpus["S1_sentence01"]
    assert not torch.equal(one.template, other.template)
    for utterance in (one, other):
        moved = utterance.vertices - utterance.template
        torch.testing.assert_close(moved, utterance.coefficients @ basis.matrix, rtol=0, atol=1e-7)


def test_vertices_in_place_of_coefficients_have_none(awkward):
    assert FaceCorpus(awkward.own)["zoe_sentence01"].coefficients is None


def test_order_of_the_basis_may_be_another(own):
    basis = LinearBasis.load(own / "basis.npz")
    before = FaceCorpus(own)["S0_sentence01"].vertices
    turned = [2, 0, 1]
    names = tuple(basis.names[k] for k in turned)
    LinearBasis(basis.neutral, basis.shapes[turned], names, basis.bounds[turned]).save(own / "basis.npz")
    torch.testing.assert_close(FaceCorpus(own)["S0_sentence01"].vertices, before, rtol=0, atol=1e-7)


def test_without_a_basis_each_coefficient_is_a_point(tmp_path):
    corpus = FaceCorpus(make_coefficient_corpus(tmp_path / "own", basis=False))
    utterance = corpus["S0_sentence01"]
    moved = (utterance.vertices - utterance.template).unflatten(-1, (-1, 3))
    torch.testing.assert_close(moved[..., 0], METRES_PER_COEFFICIENT * utterance.coefficients)
    assert not moved[..., 1:].any() and corpus.n_vertices == 3
    assert {name: index.tolist() for name, index in corpus.regions.items()} == {"lips": [0, 1], "upper_face": [2]}
    with pytest.raises(UserError, match="holds 3 coefficients and no basis.npz"):
        require_mesh(corpus, "a film")


def test_the_rate_is_stated_once(own):
    description = json.loads((own / "corpus.json").read_text())
    del description["stored_fps"], description["frame_step"]
    (own / "corpus.json").write_text(json.dumps(description))
    about = json.loads((own / "coefficients.json").read_text())
    (own / "coefficients.json").write_text(json.dumps({**about, "fps": 25}))
    assert FaceCorpus(own).fps == 25
    (own / "corpus.json").write_text(json.dumps({**description, "stored_fps": 60}))
    with pytest.raises(UserError, match="fps is 25, but corpus.json states stored_fps 60"):
        FaceCorpus(own)


def test_a_run_notices_another_rig(own):
    before = corpus_content([FaceCorpus(own)])
    basis = LinearBasis.load(own / "basis.npz")
    LinearBasis(basis.neutral, 2 * basis.shapes, basis.names, basis.bounds).save(own / "basis.npz")
    after = corpus_content([FaceCorpus(own)])
    assert [part for part in before if before[part] != after[part]] == ["coefficients"]


def write(own, **changes):
    about = json.loads((own / "coefficients.json").read_text()) | changes
    (own / "coefficients.json").write_text(json.dumps({k: v for k, v in about.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"names": None}, "lacks names"),
        ({"names": "jawOpen"}, "names is no list"),
        ({"names": ["jawOpen", "jawOpen", "b"]}, "names 'jawOpen' twice"),
        ({"names": ["jawOpen", "mouthPucker"]}, r"coefficients.json names 2 coefficients; \[frames, 2\]"),
        ({"names": ["jawOpen", "mouthPucker", "tongueOut"]}, "has no shape tongueOut"),
        ({"fps": "fast"}, "fps is fast"),
        ({"convention": 3}, "convention is no word"),
    ],
)
def test_what_is_wrong_is_one_line(own, changes, told):
    write(own, **changes)
    with pytest.raises(UserError, match=told):
        FaceCorpus(own)


def test_a_broken_number_is_told_with_its_file(own):
    values = stored(own, "S0_sentence01")
    values[4, 1] = np.nan
    np.save(own / "coefficients_npy" / "S0_sentence01.npy", values)
    with pytest.raises(UserError, match="S0_sentence01.npy: holds NaN"):
        _ = FaceCorpus(own)["S0_sentence01"].vertices
