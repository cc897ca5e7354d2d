"""Statistics of few runs: interquartile mean, stratified bootstrap, performance profiles, probability of improvement.

Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021. Scores are arrays
[N, M]: N runs (seeds) in each of M strata (here: supervised starts). Bootstraps resample runs within each stratum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
N_RESAMPLES = 5000


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval; ``n`` is how many runs it comes from. Ends are nan when n is 1."""

    value: float
    low: float
    high: float
    n: int


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of all scores: the quarter at either end (rounded down) is left out.

    The same as ``scipy.stats.trim_mean(scores, 0.25, axis=None)``; up to 3 scores it is their mean.

    Example:
        >>> interquartile_mean([1.0, 2.0, 3.0, 40.0])
        2.5
    """
    ordered = np.sort(np.asarray(scores, dtype=float), axis=None)
    cut = int(0.25 * len(ordered))
    return float(ordered[cut : len(ordered) - cut].mean())


def resample(scores: Floats, generator: np.random.Generator) -> Floats:
    """One stratified resample of [N, M]: N draws with replacement within every column, independently."""
    n, m = scores.shape
    return scores[generator.integers(0, n, size=(n, m)), np.arange(m)]


def stratified_bootstrap(
    statistic: Callable[[Floats], float],
    scores: ArrayLike,
    level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Percentile interval of ``statistic`` over stratified resamples of ``scores`` [N, M] (or [N]: one stratum).

    With few seeds it is too narrow (three seeds: about 80% instead of 95% for a mean); the t interval is not.
    """
    array = _columns(scores)
    generator = np.random.default_rng(seed)
    draws = [statistic(resample(array, generator)) for _ in range(n_resamples)] if len(array) > 1 else [np.nan]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(statistic(array), float(low), float(high), array.size)


def mean_t_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean with Student's interval: value +- t * s / sqrt(n). Of differences it is the paired t interval.

    Example:
        >>> e = mean_t_interval([1.0, 2.0, 3.0, 4.0, 5.0]); round(e.low, 4), round(e.high, 4)   # 3 +- 2.776 * 0.7071
        (1.0368, 4.9632)
    """
    from scipy.stats import t

    array = np.asarray(values, dtype=float).ravel()
    n, mean = len(array), float(array.mean())
    if n < 2:
        return Estimate(mean, float("nan"), float("nan"), n)
    half = float(t.ppf((1 + level) / 2, n - 1)) * float(array.std(ddof=1)) / n**0.5
    return Estimate(mean, mean - half, mean + half, n)


def welch_interval(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of ``x`` minus mean of ``y``, two independent samples of two or more each, with Welch's t interval.

    Degrees of freedom are Welch's and Satterthwaite's (``scipy.stats.ttest_ind(x, y, equal_var=False)``).

    Example:
        >>> e = welch_interval([3.0, 4.0, 5.0], [0.0, 1.0, 2.0]); round(e.low, 3), round(e.high, 3)
        (0.733, 5.267)
    """
    from scipy.stats import ttest_ind

    a, b = np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()
    found = ttest_ind(a, b, equal_var=False).confidence_interval(level)
    return Estimate(float(a.mean() - b.mean()), float(found.low), float(found.high), min(len(a), len(b)))


def probability_better(x: ArrayLike, y: ArrayLike) -> float:
    """P(a run of X beats a run of Y), ties counted half, averaged over strata: Mann-Whitney's U / (N_x N_y).

    x: [N_x, M], y: [N_y, M] (or one-dimensional: one stratum); larger is better.

    Example:
        >>> probability_better([1.0, 3.0], [2.0, 3.0])       # 1<2, 1<3, 3>2, 3=3
        0.375
    """
    a, b = _columns(x), _columns(y)
    above = (a[:, None] > b[None]).mean((0, 1)) + 0.5 * (a[:, None] == b[None]).mean((0, 1))
    return float(above.mean())


def probability_of_improvement(
    x: ArrayLike, y: ArrayLike, level: float = 0.95, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Estimate:
    """:func:`probability_better`; in the bootstrap for its interval row n of x stays with row n of y.

    x, y: [N, M], paired by seed; larger is better.
    """
    pairs = np.stack([_columns(x), _columns(y)])
    generator = np.random.default_rng(seed)
    _, n, m = pairs.shape
    draws = []
    for _ in range(n_resamples if n > 1 else 0):
        drawn = pairs[:, generator.integers(0, n, size=(n, m)), np.arange(m)]
        draws.append(probability_better(drawn[0], drawn[1]))
    low, high = np.quantile(draws or [np.nan], [(1 - level) / 2, (1 + level) / 2])
    return Estimate(probability_better(pairs[0], pairs[1]), float(low), float(high), n * m)


def performance_profile(
    scores: Sequence[ArrayLike], thresholds: ArrayLike, level: float = 0.95, n_resamples: int = 1000, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """Share of scores above each threshold, with a pointwise band over resampled runs.

    Args:
        scores: for every run its scores (one for each sequence); whole runs are resampled, because the sequences of a
            run are not independent of each other.
        thresholds: [K].

    Returns:
        share, low, high: [K] each.
    """
    at = np.asarray(thresholds, dtype=float)
    shares = np.stack([(np.asarray(run, dtype=float)[:, None] > at).mean(0) for run in scores])
    generator = np.random.default_rng(seed)
    drawn = shares[generator.integers(0, len(shares), size=(n_resamples, len(shares)))].mean(1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return shares.mean(0), low, high


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, gain) that no other point beats on both, in order of cost.

    Example:
        >>> pareto_front([(1.0, 1.0), (2.0, 3.0), (2.5, 2.0)])
        [0, 1]
    """
    front: list[int] = []
    best = -np.inf
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > best:
            best = points[i][1]
            front.append(i)
    return front


def _columns(scores: Any) -> Floats:
    array = np.asarray(scores, dtype=float)
    return array[:, None] if array.ndim == 1 else array
