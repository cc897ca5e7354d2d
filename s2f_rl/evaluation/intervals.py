"""Bootstrap intervals for means over utterances."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from s2f_rl.errors import UserError
from s2f_rl.evaluation.tables import Row


def bootstrap_intervals(
    rows: Sequence[Row],
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    resample_subjects: bool = False,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the mean of every numeric column, by a cluster bootstrap over utterances.

    All rows of an utterance (its style conditions) are drawn together: they share the speech and are far from
    independent. Utterances are drawn within each subject, as many as it has, and subjects are kept: test sets have two
    speakers, too few to draw from, so an interval speaks for more sentences of these speakers and not for others.

    Args:
        rows: with ``utterance``, ``subject`` and float columns; values that are not finite are left out, as from the
            means.
        level: of the interval.
        draws: bootstrap samples.
        seed: same seed, same intervals.
        resample_subjects: draw the subjects first, for corpora with many.

    Returns:
        column -> (low, high); ``fdd_abs`` is that of |fdd|. Columns without a finite value are left out.

    Raises:
        UserError: a level outside 0 to 1 or no draws.
    """
    if not 0 < level < 1 or draws < 1:
        raise UserError(f"level={level}, draws={draws}: use a level between 0 and 1, and at least one draw")
    sums, counts, subjects, columns = _per_utterance(rows)
    if not columns:
        return {}
    rng = np.random.default_rng(seed)
    weights = np.stack([_weights(rng, subjects, resample_subjects) for _ in range(draws)])
    held = weights @ counts
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(held > 0, (weights @ sums) / held, np.nan)
    tail = 50 * (1 - level)
    low, high = np.nanpercentile(means, [tail, 100 - tail], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(columns, low, high, strict=True)}


def _weights(rng: np.random.Generator, subjects: list[np.ndarray], resample: bool) -> np.ndarray:
    """How often each utterance is drawn [U]; subjects: the utterances of each."""
    weights = np.zeros(sum(len(s) for s in subjects))
    chosen = rng.integers(len(subjects), size=len(subjects)) if resample else range(len(subjects))
    for k in chosen:
        own = subjects[k]
        np.add.at(weights, own[rng.integers(len(own), size=len(own))], 1.0)
    return weights


def _per_utterance(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], list[str]]:
    """Sums and numbers of finite values [utterances, columns], utterances by subject, and the columns' names."""
    utterances: dict[tuple[str, str], int] = {}
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        at = utterances.setdefault((str(row["subject"]), str(row["utterance"])), len(utterances))
        for column, value in row.items():
            if isinstance(value, float) and math.isfinite(value):
                found.setdefault(column, {}).setdefault(at, []).append(value)
                if column == "fdd":
                    found.setdefault("fdd_abs", {}).setdefault(at, []).append(abs(value))
    sums, counts = (np.zeros((len(utterances), len(found))) for _ in range(2))
    for k, values in enumerate(found.values()):
        for at, own in values.items():
            sums[at, k], counts[at, k] = sum(own), len(own)
    by_subject: dict[str, list[int]] = {}
    for (subject, _), at in utterances.items():
        by_subject.setdefault(subject, []).append(at)
    return sums, counts, [np.array(own) for own in by_subject.values()], list(found)
