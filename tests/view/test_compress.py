from __future__ import annotations

import logging

import numpy as np
import pytest

from s2f_rl.errors import UserError
from s2f_rl.render.meshes import FramesOnDemand
from s2f_rl.view.compress import pack


def face(n_frames: int, rank: int, seed: int = 0, n_vertices: int = 50) -> np.ndarray:
    """A face that moves some millimetres in ``rank`` ways: float32 [T, V, 3]."""
    rng = np.random.default_rng(seed)
    rest, ways = np.random.default_rng(7).normal(size=(2, max(rank, 1), n_vertices, 3))
    weights = np.cumsum(rng.normal(size=(n_frames, rank)), 0)
    return (0.1 * rest[0] + 0.002 * np.tensordot(weights, ways[:rank], 1)).astype(np.float32)


def told(stored: np.ndarray, true: np.ndarray) -> np.ndarray:
    return 1000 * np.linalg.norm(stored.astype(np.float64) - true, axis=-1)


def test_the_errors_are_those_of_the_frames_that_a_page_computes() -> None:
    sequences = [face(300, 9), face(40, 9, seed=1), face(1500, 9, seed=2)]
    packed = pack(sequences, 0.5)
    assert packed.lengths == (300, 40, 1500) and packed.coefficients.shape[0] == 1840
    starts = np.cumsum((0, *packed.lengths))
    far = [told(packed.frames(a, a + len(s)), s) for a, s in zip(starts, sequences, strict=False)]
    np.testing.assert_allclose(packed.mean_error_mm, [each.mean() for each in far], rtol=1e-5)
    assert packed.max_error_mm == pytest.approx(max(each.max() for each in far), rel=1e-5)
    assert max(packed.mean_error_mm) <= 0.55


def test_no_more_components_than_the_error_asks_for() -> None:
    sequences = [face(200, 6), face(200, 6, seed=1)]
    packed = pack(sequences, 0.02)
    assert len(packed.scale) == 6  # as many as there are ways to move: each of them moves millimetres
    both = np.concatenate(sequences).reshape(400, -1).astype(np.float64)
    mean = both.mean(0)
    _, _, ways = np.linalg.svd(both - mean, full_matrices=False)
    stored = mean + (both - mean) @ ways[:3].T @ ways[:3]  # what three of them leave, by numpy's own
    parts = zip(np.split(stored, 2), sequences, strict=True)
    worst = max(told(part.reshape(200, -1, 3), sequence).mean() for part, sequence in parts)
    assert [len(pack(sequences, worst * share).scale) for share in (1.01, 0.99)] == [3, 4]


def test_a_face_that_stands_still_needs_nothing() -> None:
    packed = pack([np.repeat(face(1, 3), 5, 0)])
    assert packed.basis.shape == (0, 150) and packed.max_error_mm < 1e-4
    np.testing.assert_allclose(packed.frames(3, 4)[0], face(1, 3)[0], atol=1e-7)


def test_frames_are_asked_for_where_they_are_not_held() -> None:
    true = face(700, 4)
    held, asked = pack([true]), pack([FramesOnDemand(700, 50, lambda index: true[index])])  # type: ignore[list-item]
    np.testing.assert_array_equal(held.coefficients, asked.coefficients)
    assert held.mean_error_mm == asked.mean_error_mm


def test_noise_is_told_and_not_hidden(caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.default_rng(0).normal(size=(400, 60, 3)) * 1e-3
    with caplog.at_level(logging.INFO):
        packed = pack([noise.astype(np.float32)], 0.02)
    assert len(packed.scale) == 128 and packed.mean_error_mm[0] > 0.1
    assert "with 128 components vertices are off by" in caplog.text


@pytest.mark.parametrize("error", [0.0, -1.0, float("nan")])
def test_an_error_must_be_positive(error: float) -> None:
    with pytest.raises(UserError, match="error_mm is"):
        pack([face(5, 2)], error)
