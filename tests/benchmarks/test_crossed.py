"""Intervals over crossed factors against a slow loop, and against variances that are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.harness.crossed import crossed_bootstrap, crossed_means, over_starts


def slow_mean(d: np.ndarray, generator: np.random.Generator) -> float:
    """One resample, value by value."""
    n_starts, n_rewards, n_seeds, n_speakers = d.shape
    starts, rewards = generator.integers(0, n_starts, n_starts), generator.integers(0, n_rewards, n_rewards)
    speakers = generator.integers(0, n_speakers, n_speakers)
    found = []
    for a, r in itertools.product(starts, rewards):
        for s in generator.integers(0, n_seeds, n_seeds):
            found += [d[a, r, s, k] for k in speakers]
    return float(np.mean(found))


def draws(
    sd_start: float, sd_reward: float, sd_seed: float, sd_speaker: float, shape: tuple[int, ...], seed: int
) -> np.ndarray:
    g = np.random.default_rng(seed)
    a, r, s, k = shape
    parts = (
        sd_start * g.normal(size=(a, 1, 1, 1)), sd_reward * g.normal(size=(1, r, 1, 1)),
        sd_seed * g.normal(size=(a, r, s, 1)), sd_speaker * g.normal(size=(1, 1, 1, k)),
    )  # fmt: skip
    return sum(parts, np.zeros(shape))


def test_is_the_slow_loop() -> None:
    """The same moments and quantiles over 4000 resamples; every factor counts, and the seeds are nested."""
    d = draws(1.0, 0.7, 0.8, 1.2, (3, 2, 3, 5), seed=0)
    generator = np.random.default_rng(1)
    slow = np.array([slow_mean(d, generator) for _ in range(4000)])
    fast = crossed_means(d, 4000)
    assert fast.mean() == pytest.approx(slow.mean(), abs=0.08 * slow.std())
    assert fast.std() == pytest.approx(slow.std(), rel=0.05)
    np.testing.assert_allclose(
        np.quantile(fast, [0.025, 0.5, 0.975]), np.quantile(slow, [0.025, 0.5, 0.975]), atol=0.15 * slow.std()
    )


@pytest.mark.parametrize("factor", [0, 1, 3])
def test_variance_of_each_factor(factor: int) -> None:
    """Where one crossed factor alone varies: the variance of its resampled mean, sum (x - mean)^2 / n^2, by hand."""
    sd = [0.0] * 4
    sd[factor] = 1.0
    d = draws(*sd, shape=(4, 3, 2, 6), seed=factor)  # type: ignore[misc]
    levels = d.mean(axis=tuple(axis for axis in range(4) if axis != factor))
    expected = ((levels - levels.mean()) ** 2).sum() / len(levels) ** 2
    assert crossed_means(d, 20000).var() == pytest.approx(expected, rel=0.06)


def test_width_and_coverage_of_known_components() -> None:
    """The half width is 1.96 times the root of the components' shares, each n - 1 of n parts of what it should be."""
    shape = (12, 10, 2, 40)
    sd = (1.0, 0.8, 0.5, 1.5)
    levels = (12, 10, 240, 40)
    theory = 1.96 * np.sqrt(sum(s**2 / n * (n - 1) / n for s, n in zip(sd, levels, strict=True)))
    widths, hits = [], 0
    for seed in range(60):
        found = crossed_bootstrap(2.0 + draws(*sd, shape=shape, seed=seed), n_resamples=500)
        widths.append((found.high - found.low) / 2)
        hits += found.low <= 2.0 <= found.high
    assert np.mean(widths) == pytest.approx(theory, rel=0.08)
    assert 0.85 <= hits / 60 <= 0.99


def test_few_starts() -> None:
    """Three starts: the bootstrap leaves a third of their variance out, the t interval over their means does not."""
    d = draws(1.0, 0.0, 0.0, 0.0, (3, 1, 1, 4), seed=3)
    means = d[:, 0, 0, 0]
    narrow, wide = crossed_bootstrap(d), over_starts(d)
    half = 4.3027 * means.std(ddof=1) / 3**0.5  # t(0.975, 2)
    assert (wide.low, wide.high) == pytest.approx((means.mean() - half, means.mean() + half), rel=1e-4)
    assert narrow.low > wide.low and narrow.high < wide.high
    assert crossed_means(d, 20000).var() == pytest.approx(means.var() / 3, rel=0.05)


def test_one_value_has_no_interval() -> None:
    assert np.isnan(crossed_bootstrap(np.ones((1, 1, 1, 1))).low) and np.isnan(over_starts(np.ones((1, 2, 1, 1))).low)
    assert np.isnan(crossed_bootstrap(np.ones((1, 0, 1, 1))).value)
