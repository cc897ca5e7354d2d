"""Intervals over several random factors that are crossed: starts, rewards and speakers, with seeds within each cell.

The pigeonhole bootstrap (Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007): the levels of each factor
are resampled with replacement, independently of the other factors, and a value is as often in a resample as its levels
meet. Seeds are nested: they are resampled anew in every cell of starts x rewards that was drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.harness.statistics import Estimate, Floats, mean_t_interval

N_RESAMPLES = 4000
_CHUNK = 250  # resamples at once: memory


def crossed_means(values: ArrayLike, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Floats:
    """Means [n_resamples] of resamples of ``values`` [starts, rewards, seeds, speakers]."""
    d = np.asarray(values, dtype=float)
    n_starts, n_rewards, n_seeds, n_speakers = d.shape
    generator = np.random.default_rng(seed)
    found = []
    for first in range(0, n_resamples, _CHUNK):
        n = min(_CHUNK, n_resamples - first)
        starts = generator.integers(0, n_starts, (n, n_starts, 1, 1))
        rewards = generator.integers(0, n_rewards, (n, 1, n_rewards, 1))
        seeds = generator.integers(0, n_seeds, (n, n_starts, n_rewards, n_seeds))
        speakers = generator.integers(0, n_speakers, (n, n_speakers))
        times = (speakers[:, :, None] == np.arange(n_speakers)).sum(1)  # how often each was drawn
        over_speakers = d @ times.T / n_speakers  # [starts, rewards, seeds, n]
        draw = np.arange(n)[:, None, None, None]
        found.append(over_speakers[starts, rewards, seeds, draw].mean(axis=(1, 2, 3)))
    return np.concatenate(found)


def crossed_bootstrap(
    values: ArrayLike, level: float = 0.95, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean of ``values`` [starts, rewards, seeds, speakers] with its percentile interval.

    A factor with one level adds nothing to the width: the interval holds for that start or reward alone. With three
    levels it adds two thirds of its variance, so that the interval is too narrow; :func:`over_starts` is not.
    ``n`` is the number of runs. Ends are nan where no factor has more than one level.
    """
    d = np.asarray(values, dtype=float)
    n_runs = int(np.prod(d.shape[:3]))
    if d.size < 2:
        return Estimate(float(d.mean()) if d.size else float("nan"), float("nan"), float("nan"), n_runs)
    low, high = np.quantile(crossed_means(d, n_resamples, seed), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(d.mean()), float(low), float(high), n_runs)


def over_starts(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean and t interval over the starts' means of ``values`` [starts, ...]; without ends for one start."""
    d = np.asarray(values, dtype=float)
    return mean_t_interval(d.reshape(len(d), -1).mean(axis=1), level)
