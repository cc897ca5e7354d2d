"""Coefficients are filmed as the faces that they make."""

from __future__ import annotations

import numpy as np
import pytest

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.render import command
from tests.coefficient_corpora import make_coefficient_corpus


def shown(monkeypatch, paths, root, tmp_path):
    """The sequences that a film would show."""
    seen = {}
    monkeypatch.setattr(command, "render_film", lambda sequences, *args, **kwargs: seen.update(found=sequences))
    command.cli_render(paths, root, None, tmp_path / "film.mp4")
    return [np.asarray(sequence[:]) for sequence in seen["found"]]


def test_coefficients_become_faces(tmp_path, monkeypatch):
    root = make_coefficient_corpus(tmp_path / "corpus", templates=True)
    corpus = FaceCorpus(root, "all")
    utterance = corpus["S1_sentence01"]
    np.save(tmp_path / "S1_sentence01_condition_S0.npy", utterance.coefficients.numpy())
    stored = root / "coefficients_npy" / "S1_sentence01.npy"  # at twice the rate
    made, recorded = shown(monkeypatch, [tmp_path / "S1_sentence01_condition_S0.npy", stored], root, tmp_path)
    expected = utterance.vertices.numpy().reshape(-1, 40, 3)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-7)
    np.testing.assert_allclose(recorded, expected, rtol=0, atol=1e-7)


def test_without_a_face_there_is_no_film(tmp_path):
    root = make_coefficient_corpus(tmp_path / "corpus", basis=False)
    with pytest.raises(UserError, match="a film needs one"):
        command.cli_render([root / "coefficients_npy" / "S1_sentence01.npy"], root, None, tmp_path / "film.mp4")
