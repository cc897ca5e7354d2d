"""How well a reward tells true motion from spoiled motion, on speakers it has not seen."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor

from s2f_rl.data.contract import Corpus
from s2f_rl.data.files import atomic_write_json, atomic_write_text
from s2f_rl.errors import NotFinite, UserError
from s2f_rl.keys import LIP_SCORE, REAL_SCORE, SCORE_MASK
from s2f_rl.rewards.corruptions import CORRUPTIONS, Corruption
from s2f_rl.rewards.judge.judge import AnyReward
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.mse_regressor import SpeechRegressor
from s2f_rl.rewards.training.recordings import MotionBank

logger = logging.getLogger(__name__)

SUM = "lip_score+real_score"
NOTICED = 0.75
"""AUC below which a head hardly notices what it ought to."""


class AucRow(TypedDict):
    """A corruption and a score; see :func:`corruption_auc`."""

    corruption: str
    base: str
    family: str
    score: str
    routed: bool
    auc: float
    paired: float
    better: float
    worse: float
    strength: float
    utterances: int
    not_scored: int


_NOISE = ("policy_noise_fine", "policy_noise", "policy_noise_coarse", "jitter")


def spread_evenly(n: int, wanted: int | None) -> list[int]:
    """``wanted`` of the indices below ``n`` (all for None), evenly over them. Raises UserError for less than one."""
    if wanted is not None and wanted < 1:
        raise UserError(f"utterances={wanted}: must be at least 1")
    if wanted is None or wanted >= n:
        return list(range(n))
    return [int((k + 0.5) * n / wanted) for k in range(wanted)]


def utterance_seed(seed: int, position: int) -> int:
    """Seed of the draws for utterance ``position``: below 2^64, as a ``torch.Generator`` wants it, for any ``seed``."""
    return (seed * 1_000_003 + position) % 2**64


def require_finite_scores(scored: Mapping[str, Tensor], what: str) -> None:
    """Raise NotFinite, naming the model ``what``, if a scored clip of finite motion has a score that is not.

    NaN compares as smaller with everything: a model that has diverged would only look bad, or its score missing.

    Args:
        scored: ``score_mask`` and scores, of one shape, as ``score_batch`` gives them.
    """
    for key, score in scored.items():
        if key != SCORE_MASK and not bool(torch.isfinite(score[scored[SCORE_MASK]]).all()):
            raise NotFinite(
                f"{what}: its {key} is not finite, so the model has diverged (train it with a smaller optimizer.lr), "
                "or a reward of your own divides by 0"
            )


def auc(better: Sequence[float], worse: Sequence[float]) -> float:
    """Probability that a draw of ``better`` exceeds a draw of ``worse``, ties counting half (Mann-Whitney)."""
    return float(wins(better, worse).mean())


def wins(better: Sequence[float] | np.ndarray, worse: Sequence[float] | np.ndarray) -> np.ndarray:
    """[n, m]: 1 where a score of ``better`` [n] exceeds one of ``worse`` [m], 0.5 at a tie; its mean is the AUC."""
    a, b = np.asarray(better, dtype=np.float64)[:, None], np.asarray(worse, dtype=np.float64)
    return (a > b) + 0.5 * (a == b)


def corruption_auc(
    reward_model: AnyReward,
    corpus: Corpus,
    motion: MotionSubspace,
    regressor: SpeechRegressor | None = None,
    corruptions: Sequence[Corruption] | None = None,
    strength: float = 1.0,
    seed: int = 0,
    utterances: Sequence[int] | None = None,
    memory_limit_mb: float = 1024.0,
) -> list[AucRow]:
    """Score every utterance as it is and spoiled, and compare the utterance means.

    Args:
        reward_model: a reward or a judge.
        corpus: speakers it was not trained on.
        motion: statistics of the *training* corpus, which define the corruptions.
        regressor: trained on the training corpus; without one ``regression_to_mean`` is left out.
        corruptions: default all. strength: of the corruptions. seed: of their draws.
        utterances: indices into ``corpus``, default all with vertices.
        memory_limit_mb: of recordings kept in memory.

    Returns:
        One row per corruption and score: ``corruption``, ``base`` ("truth", or the smoothed motion that noise was laid
        over), ``family``, ``score`` (lip_score, real_score or their sum), ``routed`` (this head ought to notice),
        ``auc`` (over all pairs of utterances), ``paired`` (share of utterances in which the better motion scores
        higher, ties counting half), ``better``, ``worse`` (means), ``strength``, ``utterances``, ``not_scored``
        (utterances too short, or that the corruption cannot be made of).

    Raises:
        NotFinite: a score is not finite: the model has diverged.
    """
    bank = MotionBank(corpus, utterances, memory_limit_mb)
    corruptions = list(CORRUPTIONS.values()) if corruptions is None else list(corruptions)
    scores: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for position in range(len(bank)):
        recording = bank[position]
        if recording.n_clips == 0:
            continue
        generator = torch.Generator().manual_seed(utterance_seed(seed, position))
        context = bank.context(position, motion, generator, regressor)
        with torch.no_grad():
            audio = reward_model.encode_audio(recording.mel_clips[: recording.n_clips])
        bases = {"truth": recording.displacement}
        if context.regression is not None:
            bases["regression_to_mean"] = context.regression
        for base, displacement in bases.items():
            reference = _means(reward_model, recording.template + displacement, audio)
            if not all(np.isfinite(list(reference.values()))):
                continue  # shorter than the model's window; the rows count these
            for corruption in corruptions:
                if not corruption.possible(context) or (base != "truth" and corruption.name not in _NOISE):
                    continue
                spoiled = corruption(displacement, strength, context)
                found = _means(reward_model, recording.template + spoiled, audio)
                pairs = scores.setdefault((corruption.name, base), {})
                for score in found:
                    pairs.setdefault(score, []).append((reference[score], found[score]))
    return [
        _row(CORRUPTIONS[name], base, score, pairs, strength, len(bank) - len(pairs))
        for (name, base), by_score in scores.items()
        for score, pairs in by_score.items()
    ]


def auc_table(rows: Sequence[AucRow]) -> str:
    """Rows of :func:`corruption_auc` as a text table, a line per corruption; a star where the head ought to notice."""
    lines = [f"{'corruption':26s}{'over':20s}{'lip':>8s}{'real':>8s}{'sum':>8s}{'paired':>8s}"]
    for name, base in dict.fromkeys((row["corruption"], row["base"]) for row in rows):
        found = {row["score"]: row for row in rows if (row["corruption"], row["base"]) == (name, base)}
        cells = [_cell(found.get(score)) for score in (LIP_SCORE, REAL_SCORE, SUM)]
        paired = found.get(SUM, found[LIP_SCORE])["paired"]
        lines.append(f"{name:26s}{base:20s}" + "".join(f"{cell:>8s}" for cell in cells) + f"{paired:8.2f}")
    return "\n".join(lines)


def auc_summary(rows: Sequence[AucRow]) -> dict[str, float]:
    """Mean and smallest AUC over the heads that ought to notice, and of the sum of the heads."""
    found = {
        "auc_routed": [row["auc"] for row in rows if row["routed"] and row["score"] != SUM],
        "auc_sum": [row["auc"] for row in rows if row["routed"] and row["score"] == SUM],
    }
    summary = {}
    for name, values in found.items():
        if values:
            summary[f"{name}_mean"], summary[f"{name}_min"] = float(np.mean(values)), float(min(values))
    return summary


Row = Mapping[str, Any]
"""A row of a report as JSON holds it: numbers that are not finite are None (nan where it is drawn)."""
R = TypeVar("R", AucRow, Row)


def of_heads(rows: Sequence[R]) -> list[R]:
    """Of rows of :func:`corruption_auc`, those of spoiled true motion and the head that ought to notice."""
    return [row for row in rows if row["routed"] and row["score"] != SUM and row["base"] == "truth"]


def unnoticed(rows: Sequence[R]) -> list[R]:
    """Of :func:`of_heads` what is hardly noticed (AUC below :data:`NOTICED`), the worst first."""
    return sorted((row for row in of_heads(rows) if row["auc"] < NOTICED), key=lambda row: row["auc"])


def warn_of_unnoticed(rows: Sequence[AucRow]) -> list[AucRow]:
    """Say :func:`unnoticed` in one line, and what helps; returns it. None says nothing: other faults may be bought."""
    missed = unnoticed(rows)
    if missed:
        names = ", ".join(f"{row['corruption']} {row['auc']:.2f}" for row in missed)
        logger.warning(
            "the reward hardly notices (AUC below %s): %s; RL can trade it for score: train longer (iterations), on "
            "more voices, or weigh the reward less in RL (policy_weight)", NOTICED, names,
        )  # fmt: skip
    return missed


def write_auc(folder: str | Path, rows: Sequence[AucRow], about: Mapping[str, object] | None = None) -> None:
    """Write rows of :func:`corruption_auc` to ``auc.csv`` and, with ``about`` beside them, ``auc.json`` in a folder."""
    folder = Path(folder)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else ["corruption"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write_text(folder / "auc.csv", text.getvalue())
    atomic_write_json(folder / "auc.json", {**(about or {}), "rows": list(rows)})


def _means(reward_model: AnyReward, vertices: Tensor, audio: Tensor) -> dict[str, float]:
    with torch.no_grad():
        scored = reward_model.score_batch(vertices[None], audio[None])
    require_finite_scores(scored, "the reward model")
    mask = scored[SCORE_MASK][0]
    means = {key: float(scored[key][0][mask].mean()) for key in (LIP_SCORE, REAL_SCORE) if key in scored}
    if len(means) == 2:
        means[SUM] = sum(means.values())
    return means


def _row(
    corruption: Corruption, base: str, score: str, pairs: list[tuple[float, float]], strength: float, not_scored: int
) -> AucRow:
    better, worse = zip(*pairs, strict=True)
    return {
        "corruption": corruption.name,
        "base": base,
        "family": corruption.family,
        "score": score,
        "routed": score in corruption.heads or (score == SUM and bool(corruption.heads)),
        "auc": auc(better, worse),
        "paired": float(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs])),
        "better": float(np.mean(better)),
        "worse": float(np.mean(worse)),
        "strength": strength,
        "utterances": len(pairs),
        "not_scored": not_scored,
    }


def _cell(row: AucRow | None) -> str:
    return "-" if row is None else f"{row['auc']:.2f}" + ("*" if row["routed"] and row["score"] != SUM else " ")
