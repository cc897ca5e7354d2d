"""Rates that recordings tell by their lengths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s2f_rl.data import FaceCorpus
from s2f_rl.data.rates import refuse_other_rate
from s2f_rl.errors import UserError
from s2f_rl.training import open_corpora
from tests.tiny import make_tiny_corpus


def test_motion_of_another_rate_is_refused_before_training(tmp_path: Path) -> None:
    """30 frames a second that are declared as 60 of which every second is used would be learnt at double speed."""
    root = make_tiny_corpus(tmp_path, n_sentences=3, stored_fps=30)
    assert len(open_corpora(root)) == 2
    content = json.loads((root / "corpus.json").read_text())
    (root / "corpus.json").write_text(json.dumps({**content, "stored_fps": 60, "frame_step": 2}))
    with pytest.raises(UserError, match=r"stored_fps is 60, but the vertex files hold \d+\.\d frames.*stored_fps 30"):
        open_corpora(root)


def test_what_tells_nothing() -> None:
    refuse_other_rate([29.0], 60, Path("c"))  # one recording
    refuse_other_rate([20.0, 29.0], 60, Path("c"))  # they do not agree: cut, not of another rate
    refuse_other_rate([58.5, 59.9], 60, Path("c"))


def test_an_undescribed_folder_of_biwi_tells_by_its_vertices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from s2f_rl.data import corpus

    root = make_tiny_corpus(tmp_path, subjects=["F2", "F3"], topology="biwi")
    (root / "corpus.json").unlink()
    monkeypatch.setattr(corpus, "N_VERTICES", {"vocaset": 5023, "biwi": 40})
    opened = FaceCorpus(root, "all")
    assert (opened.topology, opened.fps, opened.audio_features_per_frame) == ("biwi", 25, 2)
