"""Are the scores probabilities? Of all clips that get a score of 0.8, are eight in ten true motion?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from s2f_rl.keys import LIP_SCORE, REAL_SCORE
from s2f_rl.rewards.calibration.spoiled_versions import TRUTH, Scored
from s2f_rl.rewards.corruptions import CORRUPTIONS

N_BINS = 10


class Bin(TypedDict):
    """One bin of a reliability diagram; see :func:`reliability`."""

    low: float
    high: float
    weight: float
    score: float | None
    true: float | None


class Reliability(TypedDict):
    """What :func:`reliability` gives."""

    ece: float
    brier: float
    bins: list[Bin]


class ReliabilityRow(Reliability):
    """Of one score over clips or utterances; see :func:`reliability_rows`."""

    score: str
    level: str
    true_count: int
    spoiled_count: int


def reliability(true_scores: np.ndarray, spoiled_scores: np.ndarray, n_bins: int = N_BINS) -> Reliability:
    """Reliability diagram of scores in [0, 1] as the probability of being true, and its expected calibration error.

    True and spoiled motion count half each, whatever their numbers. ECE is the mean over bins, by weight, of
    |share of true motion - mean score| (Naeini et al., AAAI 2015).

    Args:
        true_scores, spoiled_scores: one score each; neither may be empty.
        n_bins: of equal width; a score of 1 belongs to the last.

    Returns:
        ``ece`` in [0, 1], ``brier`` (mean squared error), ``bins``: ``low``, ``high``, ``weight`` (they sum to 1),
        ``score`` (mean), ``true`` (share); the last two are None in empty bins.
    """
    scores = np.concatenate([true_scores, spoiled_scores]).astype(np.float64)
    label = np.concatenate([np.ones(len(true_scores)), np.zeros(len(spoiled_scores))])
    weight = np.where(label > 0, 0.5 / len(true_scores), 0.5 / len(spoiled_scores))
    place = np.clip((scores * n_bins).astype(int), 0, n_bins - 1)
    bins: list[Bin] = []
    ece = 0.0
    for index in range(n_bins):
        inside = place == index
        total = float(weight[inside].sum())
        mean = share = None
        if total > 0:
            mean = float((weight * scores)[inside].sum() / total)
            share = float((weight * label)[inside].sum() / total)
            ece += total * abs(share - mean)
        low, high = index / n_bins, (index + 1) / n_bins
        bins.append({"low": low, "high": high, "weight": total, "score": mean, "true": share})
    return {"ece": ece, "brier": float((weight * (scores - label) ** 2).sum()), "bins": bins}


def reliability_rows(scored: Scored, n_bins: int = N_BINS) -> list[ReliabilityRow]:
    """:func:`reliability` of each head, over clips and over utterance means.

    Spoiled motion is every corruption of the true motion that the head ought to notice, at strength 1. Columns beside
    those of :func:`reliability`: ``score``, ``level`` ("clip" or "utterance"), ``true_count``, ``spoiled_count``.
    A cosine (of a model without a head), or a score outside [0, 1], is no probability and gets no row.
    """
    rows: list[ReliabilityRow] = []
    if not all(REAL_SCORE in scores for scores in scored.truth.values()):
        return rows
    for score in (LIP_SCORE, REAL_SCORE):
        true = [scores[score] for scores in scored.truth.values()]
        spoiled = [
            version.clips[score]
            for version in scored.versions
            if version.base == TRUTH and score in CORRUPTIONS[version.corruption].heads
        ]
        if not true or not spoiled or not _are_probabilities([*true, *spoiled]):
            continue
        for level in ("clip", "utterance"):
            a, b = (_pooled(each, level) for each in (true, spoiled))
            rows.append(
                {
                    "score": score,
                    "level": level,
                    "true_count": len(a),
                    "spoiled_count": len(b),
                    **reliability(a, b, n_bins),
                }
            )
    return rows


def _pooled(parts: Sequence[np.ndarray], level: str) -> np.ndarray:
    if level == "clip":
        return np.concatenate(parts)
    return np.array([part.mean(dtype=np.float64) for part in parts])


def _are_probabilities(parts: Sequence[np.ndarray]) -> bool:
    return all(part.min() >= 0 and part.max() <= 1 for part in parts)
