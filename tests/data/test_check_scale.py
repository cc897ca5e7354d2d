"""``check`` on units, size and motion."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2f_rl.data import FaceCorpus, check_corpus
from s2f_rl.data.check_utterance import MotionStatistics, _scan
from s2f_rl.data.units import guess_unit
from tests.tiny import make_tiny_corpus

NAME = "S1_sentence02"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_tiny_corpus(tmp_path / "corpus", audio_only=["S2_sentence02"])


def _describe(root: Path, **changes: Any) -> None:
    content = json.loads((root / "corpus.json").read_text())
    (root / "corpus.json").write_text(json.dumps({**content, **changes}))


def _vertices(root: Path, change: Any, name: str = NAME) -> None:
    path = root / "vertices_npy" / f"{name}.npy"
    np.save(path, change(np.load(path)))


def _templates(root: Path, change: Any) -> None:
    with open(root / "templates.pkl", "rb") as file:
        templates = pickle.load(file)
    (root / "templates.pkl").write_bytes(pickle.dumps(change(templates) or templates, protocol=2))


class TestScaleAndMotion:
    @pytest.mark.parametrize(
        ("factor", "unit"),
        [(1000, "millimetres"), (100, "centimetres"), (1 / 0.0254, "inches"), (1e7, "no common unit")],
    )
    def test_units(self, root: Path, factor: float, unit: str) -> None:
        _templates(root, lambda t: {s: v * factor for s, v in t.items()})
        for path in (root / "vertices_npy").iterdir():
            _vertices(root, lambda v: v * factor, path.stem)
        faults = [fault for fault in check_corpus(root) if fault.severity == "error"]
        assert {fault.file for fault in faults} == {"templates.pkl"} and len(faults) == 3
        assert all(f"it looks like {unit}" in fault.message for fault in faults)

    def test_declared_units_are_believed(self, root: Path) -> None:
        _templates(root, lambda t: {s: v * 1000 for s, v in t.items()})
        for path in (root / "vertices_npy").iterdir():
            _vertices(root, lambda v: v * 1000, path.stem)
        _describe(root, units="millimetres")
        assert list(check_corpus(root)) == [] and FaceCorpus(root).metres_per_unit == 0.001

    def test_guesses(self) -> None:
        for extent, name in (
            (0.2, "metres"),
            (20, "centimetres"),
            (210, "millimetres"),
            (8, "inches"),
            (2, "decimetres"),
        ):
            assert guess_unit(extent).name == name
        assert guess_unit(0).metres_per_unit is None

    def test_variance_and_mean_over_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("s2f_rl.data.check_utterance._CHUNK_BYTES", 6 * 8 * 4)
        stored = (5 + 1e-3 * np.random.default_rng(0).normal(size=(11, 6))).astype(np.float32)
        seen = _scan(stored)
        assert (seen.bad, seen.points) == ([], [])
        np.testing.assert_allclose(seen.variance, stored.astype(np.float64).var(axis=0), rtol=1e-9)
        np.testing.assert_allclose(seen.mean, stored.astype(np.float64).mean(axis=0), rtol=1e-12)
        ways = [np.sqrt(3 * np.mean((b - a) ** 2)) for a, b in zip(stored, stored[1:], strict=False)]
        np.testing.assert_allclose(seen.steps, ways, rtol=1e-4)

    def test_amplitude_is_the_rms_motion_of_the_lips(self, root: Path) -> None:
        corpus = FaceCorpus(root, "all")
        statistics = MotionStatistics()
        expected = []
        for name in ("S0_sentence01", "S0_sentence02"):
            vertices = np.load(root / "vertices_npy" / f"{name}.npy").astype(np.float64)
            statistics.add(vertices.var(axis=0))
            lips = vertices.reshape(len(vertices), -1, 3)[:, corpus.regions["lips"].numpy()]
            expected.append(np.square(lips - lips.mean(axis=0)).sum(axis=-1).mean())
        assert statistics.amplitude(corpus.regions["lips"].numpy()) == pytest.approx(np.sqrt(np.mean(expected)))

    def test_faces_that_do_not_move_or_hardly_or_too_much(self, root: Path) -> None:
        originals = {path: np.load(path) for path in (root / "vertices_npy").glob("S1_*")}
        for factor, severity, message in (
            (0.0, "error", "does not move"),
            (0.05, "warning", "hardly moves (the lips: 0."),
            (30.0, "warning", "moves too much (the lips: "),
        ):
            for path, vertices in originals.items():
                np.save(path, vertices.mean(axis=0) + factor * (vertices - vertices.mean(axis=0)))
            found = [fault for fault in check_corpus(root) if fault.file == "vertices_npy/S1_*.npy"]
            assert len(found) == 1 and found[0].severity == severity and message in found[0].message, found

    def test_without_lips_the_most_mobile_part_is_judged(self, root: Path) -> None:
        (root / "FLAME_masks.pkl").unlink()
        for path in (root / "vertices_npy").glob("S1_*"):
            _vertices(root, lambda v: np.repeat(v[:1], len(v), axis=0), path.stem)
        messages = [fault.message for fault in check_corpus(root)]
        assert "the face does not move (the most mobile tenth of the face: 0 mm rms)" in messages
        assert sum("region, its metrics" in message for message in messages) == 2
