from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.metrics import mean_temporal_misalignment
from s2f_rl.metrics.misalignment import matched_extrema
from s2f_rl.metrics.warping import dynamic_time_warping

LIPS = {"upper_lip": 0, "lower_lip": 1}


def mouth(opening: np.ndarray) -> np.ndarray:
    """Two vertices, the lower one ``opening`` metres below the upper one: [T, 2, 3]."""
    vertices = np.zeros((len(opening), 2, 3))
    vertices[:, 1, 1] = -opening
    return vertices


def extrema(curve: np.ndarray) -> set[int]:
    """Frames higher than both neighbours."""
    return {t for t in range(1, len(curve) - 1) if curve[t - 1] < curve[t] > curve[t + 1]}


def slow_cost(a, b) -> float:
    table = {(-1, -1): 0.0}
    for i in range(len(a)):
        for j in range(len(b)):
            before = min(table.get(step, math.inf) for step in ((i - 1, j - 1), (i - 1, j), (i, j - 1)))
            table[i, j] = abs(a[i] - b[j]) + before
    return table[len(a) - 1, len(b) - 1]


class TestWarping:
    @pytest.mark.parametrize("n, m", [(1, 1), (1, 7), (9, 1), (13, 17), (20, 20)])
    def test_cost_and_path_against_a_loop(self, n, m):
        random = np.random.default_rng(n * 100 + m)
        a, b = random.normal(size=n), random.normal(size=m)
        path, cost = dynamic_time_warping(a, b)
        assert cost == pytest.approx(slow_cost(a, b), rel=1e-12)
        assert cost == pytest.approx(np.abs(a[path[:, 0]] - b[path[:, 1]]).sum(), rel=1e-12)
        assert path[0].tolist() == [0, 0] and path[-1].tolist() == [n - 1, m - 1]
        assert {tuple(step) for step in np.diff(path, axis=0).tolist()} <= {(1, 1), (1, 0), (0, 1)}

    def test_ties_go_diagonally_then_along_the_truth(self):
        assert dynamic_time_warping(np.zeros(3), np.zeros(3))[0].tolist() == [[0, 0], [1, 1], [2, 2]]
        # Back from the corner: diagonals first, so the surplus steps lie at the start.
        assert dynamic_time_warping(np.zeros(4), np.zeros(2))[0].tolist() == [[0, 0], [1, 0], [2, 0], [3, 1]]
        assert dynamic_time_warping(np.zeros(2), np.zeros(4))[0].tolist() == [[0, 0], [0, 1], [0, 2], [1, 3]]


class TestMeanTemporalMisalignment:
    time = np.arange(120)
    opening = 0.01 + 0.004 * np.sin(time / 5) + 0.002 * np.sin(time / 3.1)

    @pytest.mark.parametrize("shift", [0, 1, 2, 3])
    def test_a_shifted_mouth_is_misaligned_by_its_shift(self, shift):
        late = 0.01 + 0.004 * np.sin((self.time - shift) / 5) + 0.002 * np.sin((self.time - shift) / 3.1)
        pairs = matched_extrema(self.opening, late)
        assert len(pairs) >= 6
        assert np.median(pairs[:, 1] - pairs[:, 0]) == shift
        value = float(mean_temporal_misalignment(mouth(late), mouth(self.opening), **LIPS))
        assert value == pytest.approx(shift, abs=0.35) == np.abs(pairs[:, 0] - pairs[:, 1]).mean()

    def test_amplitude_alone_is_no_misalignment(self):
        assert float(mean_temporal_misalignment(mouth(0.8 * self.opening), mouth(self.opening), **LIPS)) <= 0.2

    def test_a_match_beyond_the_neighbouring_extrema_does_not_count(self):
        random = np.random.default_rng(4)  # two unrelated mouths: the path has to bend far
        a, b = (0.1 + 0.001 * random.normal(size=100).cumsum() for _ in range(2))
        path, _ = dynamic_time_warping(np.diff(b, prepend=b[:1]), np.diff(a, prepend=a[:1]))
        peaks, valleys = ([extrema(sign * curve) for curve in (b, a)] for sign in (1, -1))
        turns = sorted([0, *peaks[0], *valleys[0], 99])
        matched = [
            (i, j)
            for i, j in path.tolist()
            if (i in peaks[0] and j in peaks[1]) or (i in valleys[0] and j in valleys[1])
        ]
        near = [(i, j) for i, j in matched if turns[turns.index(i) - 1] <= j <= turns[turns.index(i) + 1]]
        assert matched_extrema(b, a, sigma=0.0).tolist() == [list(pair) for pair in near]
        assert 0 < len(near) < len(matched)

    def test_batch_keeps_its_shape_and_equals_single_calls(self):
        truth = torch.tensor(np.stack([mouth(self.opening)] * 3))
        prediction = torch.tensor(np.stack([mouth(np.roll(self.opening, k)) for k in (0, 2, 3)]))
        values = mean_temporal_misalignment(prediction, truth, **LIPS)
        assert values.shape == (3,) and values.dtype == torch.float64
        single = [float(mean_temporal_misalignment(p, t, **LIPS)) for p, t in zip(prediction, truth, strict=True)]
        assert values.tolist() == single and single[2] > single[0] == 0

    @pytest.mark.parametrize("n_frames", [0, 1, 2])
    def test_too_short_is_nan(self, n_frames):
        short = mouth(self.opening[:n_frames])
        assert math.isnan(mean_temporal_misalignment(short, short, **LIPS))

    def test_vertices_that_are_not_finite_give_nan(self):
        broken = mouth(self.opening)
        broken[40] = np.nan
        assert math.isnan(mean_temporal_misalignment(broken, mouth(self.opening), **LIPS))

    def test_mistakes(self):
        truth = mouth(self.opening)
        with pytest.raises(UserError, match="upper_lip holds index 2; the meshes have 2 vertices"):
            mean_temporal_misalignment(truth, truth, upper_lip=2, lower_lip=1)
        with pytest.raises(UserError, match="sigma is -1"):
            mean_temporal_misalignment(truth, truth, sigma=-1, **LIPS)
