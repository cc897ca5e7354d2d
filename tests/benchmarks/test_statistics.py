"""Statistics of the report against values worked out by hand and by scipy."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks.harness import plots
from benchmarks.harness.statistics import (
    interquartile_mean,
    mean_t_interval,
    pareto_front,
    performance_profile,
    probability_better,
    probability_of_improvement,
    resample,
    stratified_bootstrap,
    welch_interval,
)


class TestInterquartileMean:
    def test_known_values(self) -> None:
        assert interquartile_mean([1, 2, 3, 4]) == 2.5
        assert interquartile_mean([8, 1, 100, 3, -50, 4, 2, 5]) == (2 + 3 + 4 + 5) / 4
        assert interquartile_mean([1, 2, 9]) == 4  # three scores: nothing is cut
        assert interquartile_mean([7]) == 7

    @pytest.mark.parametrize("shape", [(5,), (10,), (7, 3), (4, 2), (13,)])
    def test_is_the_trimmed_mean(self, shape: tuple[int, ...]) -> None:
        scores = np.random.default_rng(0).normal(size=shape)
        assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None))


class TestBootstrap:
    def test_resamples_stay_in_their_stratum(self) -> None:
        scores = np.array([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0], [3.0, 30.0, 300.0]])
        generator = np.random.default_rng(0)
        seen = [resample(scores, generator) for _ in range(400)]
        for column, values in enumerate(scores.T):
            drawn = np.concatenate([draw[:, column] for draw in seen])
            assert set(drawn) == set(values)
            for value in values:
                assert np.mean(drawn == value) == pytest.approx(1 / 3, abs=0.05)
        # the strata are drawn independently: rows do not stay together
        assert any(draw[0, 0] * 10 != draw[0, 1] for draw in seen)

    def test_against_all_resamples(self) -> None:
        """Three runs in two strata have 27 x 27 resamples, all equally likely: the interval's exact ends."""
        scores = np.array([[1.0, 5.0], [2.0, 7.0], [4.0, 12.0]])
        draws = list(itertools.product(range(3), repeat=3))
        exact = [
            np.mean([scores[list(a), 0], scores[list(b), 1]]) for a, b in itertools.product(draws, draws)
        ]  # fmt: skip
        found = stratified_bootstrap(lambda s: float(s.mean()), scores, n_resamples=20000)
        assert found.value == pytest.approx(31 / 6) and found.n == 6
        assert found.low == pytest.approx(np.quantile(exact, 0.025), abs=0.1)
        assert found.high == pytest.approx(np.quantile(exact, 0.975), abs=0.1)

    def test_coverage(self) -> None:
        """Of 300 intervals for the mean of 20 normal scores about 93% hold the truth (95% for many scores)."""
        generator = np.random.default_rng(1)
        hits = 0
        for k in range(300):
            found = stratified_bootstrap(lambda s: float(s.mean()), generator.normal(2, 3, 20), n_resamples=300, seed=k)
            hits += found.low <= 2 <= found.high
        assert 0.89 <= hits / 300 <= 0.97

    def test_one_run_has_no_interval(self) -> None:
        found = stratified_bootstrap(interquartile_mean, [[1.0, 2.0]])
        assert found.value == 1.5 and np.isnan(found.low) and np.isnan(found.high)


class TestTInterval:
    def test_by_table(self) -> None:
        """Student's table: t(0.975, 4) = 2.776; the sample's deviation is sqrt(2.5)."""
        found = mean_t_interval([1, 2, 3, 4, 5])
        half = 2.776 * 2.5**0.5 / 5**0.5
        assert found.value == 3
        assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), abs=1e-3)

    def test_paired_is_scipys(self) -> None:
        generator = np.random.default_rng(2)
        x, y = generator.normal(size=(2, 6))
        found = mean_t_interval(x - y)
        expected = stats.ttest_rel(x, y).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))

    def test_one_value(self) -> None:
        assert np.isnan(mean_t_interval([3.0]).low)

    def test_welch_by_hand(self) -> None:
        a, b = np.array([0.2, 0.5, 0.9]), np.array([1.0, 1.1, 1.6, 1.2])
        of_a, of_b = a.var(ddof=1) / 3, b.var(ddof=1) / 4
        dof = (of_a + of_b) ** 2 / (of_a**2 / 2 + of_b**2 / 3)
        half = stats.t.ppf(0.975, dof) * (of_a + of_b) ** 0.5
        found, middle = welch_interval(a, b), a.mean() - b.mean()
        assert (found.value, found.low, found.high) == pytest.approx((middle, middle - half, middle + half))


class TestProbability:
    def test_by_hand(self) -> None:
        # 5 beats 1, 2, 4; 3 beats 1, 2; 2 beats 1 and ties 2: (3 + 2 + 1.5) of 9
        assert probability_better([5, 3, 2], [1, 2, 4]) == pytest.approx(6.5 / 9)
        assert probability_better([1, 1], [1, 1]) == 0.5

    def test_is_mann_whitney(self) -> None:
        generator = np.random.default_rng(3)
        x, y = generator.integers(0, 6, 9), generator.integers(0, 6, 7)
        assert probability_better(x, y) == pytest.approx(stats.mannwhitneyu(x, y).statistic / 63)

    def test_strata_are_averaged(self) -> None:
        """Only runs of the same stratum are compared: 1 in the first, 0 in the second."""
        assert probability_better([[2, 10], [3, 11]], [[1, 20], [1, 21]]) == 0.5

    def test_pairs_stay_together(self) -> None:
        """X is a little above Y in every pair: every resample has the same pairs, so that P never falls below 1/2."""
        y = np.array([0.0, 10.0, 20.0, 30.0])
        found = probability_of_improvement(y + 1, y, n_resamples=500)
        assert found.value == 10 / 16
        assert found.low >= 0.5


class TestProfile:
    def test_by_hand(self) -> None:
        share, low, high = performance_profile([[1.0, 3.0], [2.0, 5.0]], [0.0, 2.0, 4.0, 6.0])
        assert share.tolist() == [1.0, 0.5, 0.25, 0.0]
        # whole runs are resampled: at 4 the two runs have shares 0 and 0.5
        assert (low[2], high[2]) == (0.0, 0.5)
        assert (low[1], high[1]) == (0.5, 0.5)


def test_pareto_front() -> None:
    points = [(3.0, 5.0), (1.0, 1.0), (2.0, 4.0), (2.5, 3.0), (1.0, 0.5), (4.0, 5.0)]
    assert pareto_front(points) == [1, 2, 0]


def test_points_of_a_sweep_are_named_by_their_values() -> None:
    rows = [
        {"variant": "ppo_policy_weight0.5", "family": "ppo", "settings": {"policy_weight": 0.5}},
        {"variant": "rloo", "family": "rloo", "settings": {}},
        {"variant": "truth", "family": "truth", "settings": {}},
    ]
    results: Any = SimpleNamespace(rows=rows, variants=["ppo_policy_weight0.5", "rloo"])
    assert plots._families(results) == {"ppo_policy_weight0.5": ("ppo", "0.5")}
