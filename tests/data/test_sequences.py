"""Sequences from elsewhere tell their unit and their mesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s2f_rl.data import FaceCorpus
from s2f_rl.data.sequences import metres_per_unit_of
from s2f_rl.errors import UserError
from tests.conftest import METRES_PER_UNIT, Awkward
from tests.tiny import make_tiny_corpus


def test_metres_or_the_corpus_unit(awkward: Awkward) -> None:
    corpus = FaceCorpus(awkward.own)
    stored = np.load(awkward.own / "vertices_npy" / "zoe_sentence01.npy")
    assert metres_per_unit_of(stored[0], corpus, "a.npy") == METRES_PER_UNIT
    assert metres_per_unit_of(METRES_PER_UNIT * stored[0], corpus, "a.npy") == 1.0
    with pytest.raises(UserError, match=r"a\.npy: its face is .* long, the faces of .* m; write it in metres"):
        metres_per_unit_of(1e3 * stored[0], corpus, "a.npy")


def test_faces_without_a_size_are_left_to_others(awkward: Awkward) -> None:
    corpus = FaceCorpus(awkward.own)
    for value in (0.0, np.nan):
        assert metres_per_unit_of(np.full(3 * corpus.n_vertices, value), corpus, "a.npy") == 1.0


def test_another_order_of_the_vertices(tmp_path: Path) -> None:
    corpus = FaceCorpus(make_tiny_corpus(tmp_path, n_vertices=120))
    face = corpus.template("S0").numpy().reshape(-1, 3)
    assert metres_per_unit_of(face, corpus, "a.npy") == 1.0
    with pytest.raises(UserError, match="in another order"):
        metres_per_unit_of(face[np.random.default_rng(0).permutation(120)], corpus, "a.npy")
