"""How a score answers to spoiled motion: every corruption at every strength, on speakers it has not seen.

One pass over the utterances (:func:`score_versions`) gives what all the tables are made of: whether true motion scores
higher than spoiled motion (:func:`discrimination_rows`), whether more of a corruption means less of the score (the same
rows), and whether the scores are probabilities (:mod:`s2f_rl.rewards.calibration.reliability`).
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.keys import LIP_SCORE, REAL_SCORE, SCORE_MASK
from s2f_rl.rewards.calibration.auc import SUM, require_finite_scores, utterance_seed, wins
from s2f_rl.rewards.corruptions import CORRUPTIONS, Corruption, CorruptionContext
from s2f_rl.rewards.judge.judge import AnyReward
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.mse_regressor import SpeechRegressor
from s2f_rl.rewards.training.recordings import MotionBank, Recording
from s2f_rl.signs import watched

STRENGTHS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)
TRUTH, SMOOTHED = "truth", "regression_to_mean"
_OVER_SMOOTHED = ("policy_noise_fine", "policy_noise", "jitter")
_BATCH_BYTES = 2**27
_RESAMPLES = 1000


@dataclass
class Versions:
    """One utterance under one corruption. ``means``: score -> [strengths]; ``clips``: score -> [n] at strength 1."""

    utterance: str
    corruption: str
    base: str
    means: dict[str, np.ndarray]
    clips: dict[str, np.ndarray]


@dataclass
class Scored:
    """What :func:`score_versions` found.

    Attributes:
        strengths: of all ``versions``, first 0 (the base itself) and last 1.
        truth: utterance -> score -> [n] scores of its clips. subjects: utterance -> speaker.
        versions: one for each utterance, corruption and base.
        too_short: utterances without a clip to score, which are in none of the others.
    """

    strengths: tuple[float, ...]
    truth: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    subjects: dict[str, str] = field(default_factory=dict)
    versions: list[Versions] = field(default_factory=list)
    too_short: list[str] = field(default_factory=list)


class DiscriminationRow(TypedDict):
    """A corruption, base and score; see :func:`discrimination_rows`."""

    corruption: str
    base: str
    family: str
    score: str
    routed: bool
    strength_one: str
    auc: float
    auc_low: float
    auc_high: float
    paired: float
    spearman: float
    better: float
    worse: float
    curve: list[float]
    strengths: list[float]
    utterances: int


class SpeakerRow(TypedDict):
    """A speaker and a score; see :func:`speaker_rows`."""

    subject: str
    seen: bool
    score: str
    mean: float
    sd: float
    utterances: int


class SpreadRow(TypedDict):
    """A score over the speakers; see :func:`speaker_spread`."""

    score: str
    seen: bool
    speakers: int
    mean: float
    between_sd: float | None
    within_sd: float | None


@torch.no_grad()
def clip_scores(scorer: AnyReward, vertices: Tensor, audio: Tensor) -> dict[str, Tensor]:
    """Scores of motions [B, T, V*3] of one utterance with audio features [n, E] -> score -> [B, clips].

    ``lip_score``, and with a head ``real_score`` and their sum. As many motions at a time as fit into 128 MB.
    Raises NotFinite for a score that is not finite: the model has diverged.
    """
    size = max(1, _BATCH_BYTES // max(1, vertices[0].nbytes))
    parts: dict[str, list[Tensor]] = {}
    for lanes in vertices.split(size):
        found = scorer.score_batch(lanes, audio.expand(len(lanes), *audio.shape))
        require_finite_scores(found, "the reward model")
        frames = found[SCORE_MASK][0]  # the same clips in every lane
        for key in (LIP_SCORE, REAL_SCORE):
            if key in found:
                parts.setdefault(key, []).append(found[key][:, frames].float().cpu())
    scores = {key: torch.cat(part) for key, part in parts.items()}
    if len(scores) == 2:
        scores[SUM] = scores[LIP_SCORE] + scores[REAL_SCORE]
    return scores


def score_versions(
    scorer: AnyReward,
    bank: MotionBank,
    motion: MotionSubspace,
    regressor: SpeechRegressor | None = None,
    corruptions: Sequence[Corruption] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    progress: bool = False,
) -> Scored:
    """Score every utterance as it is and under every corruption at every strength.

    The audio half is computed once per utterance, and all versions of an utterance are scored together. A corruption
    makes the same draws at every strength, whichever other corruptions are asked for. Some noises are also laid over
    the smoothed motion, from which reinforcement learning starts.

    Args:
        scorer: a reward model or judge.
        bank: recordings of speakers that it was not trained on, with a policy's motions where there are any.
        motion, regressor: of the *training* corpus, which define the corruptions.
        corruptions: default all; those that the context cannot serve are left out.
        strengths: in [0, 1], rising, from 0 to 1.
        seed: of all draws. progress: show a bar.

    Raises:
        UserError: strengths that do not rise from 0 to 1; no utterance with a clip.
    """
    strengths = tuple(float(strength) for strength in strengths)
    if len(strengths) < 2 or strengths[0] != 0 or strengths[-1] != 1 or list(strengths) != sorted(set(strengths)):
        raise UserError(f"strengths={list(strengths)}: must rise from 0 to 1, such as 0, 0.5, 1")
    chosen = list(CORRUPTIONS.values()) if corruptions is None else list(corruptions)
    result = Scored(strengths)
    for position in watched(range(len(bank)), "corruptions", enabled=progress, leave=False):
        recording = bank[position]
        draws = utterance_seed(seed, position)
        context = bank.context(position, motion, torch.Generator().manual_seed(draws), regressor)
        audio = encoded(scorer, recording)
        if len(audio):
            _score_utterance(result, scorer, recording, context, audio, chosen, draws)
        if recording.name not in result.truth:
            result.too_short.append(recording.name)
    if not result.truth:
        raise UserError("no utterance is long enough to be scored; choose other utterances")
    return result


def encoded(scorer: AnyReward, recording: Recording) -> Tensor:
    """[n, E] audio features of the clips that a recording has motion for."""
    with torch.no_grad():
        return scorer.encode_audio(recording.mel_clips[: recording.n_clips])


def _score_utterance(
    result: Scored,
    scorer: AnyReward,
    recording: Recording,
    context: CorruptionContext,
    audio: Tensor,
    corruptions: Sequence[Corruption],
    seed: int,
) -> None:
    bases = {TRUTH: recording.displacement}
    if context.regression is not None:
        bases[SMOOTHED] = context.regression
    jobs = [
        (base, corruption)
        for base in bases
        for corruption in corruptions
        if corruption.possible(context) and (base == TRUTH or corruption.name in _OVER_SMOOTHED)
    ]
    reference = clip_scores(scorer, recording.template + torch.stack(list(bases.values())), audio)
    by_base = {base: {key: scores[row] for key, scores in reference.items()} for row, base in enumerate(bases)}
    if next(iter(reference.values())).shape[1] == 0:  # shorter than the scorer's window
        return
    result.truth[recording.name] = {key: scores.numpy() for key, scores in by_base[TRUTH].items()}
    result.subjects[recording.name] = recording.subject
    for base, corruption in jobs:
        versions = []
        for strength in result.strengths[1:]:
            # a torch.Generator on the CPU looks at the low 32 bits only, so all that matters is mixed into those
            context.generator.manual_seed(zlib.crc32(f"{seed} {corruption.name}".encode()))
            versions.append(recording.template + corruption(bases[base], strength, context))
        scores = clip_scores(scorer, torch.stack(versions), audio)
        means = {
            key: np.concatenate([[by_base[base][key].double().mean()], value.double().mean(1).numpy()])
            for key, value in scores.items()
        }
        clips = {key: value[-1].numpy() for key, value in scores.items()}
        result.versions.append(Versions(recording.name, corruption.name, base, means, clips))


# ---------------------------------------------------------------------------------------------------------- tables


def discrimination_rows(scored: Scored, seed: int = 0) -> list[DiscriminationRow]:
    """One row per corruption, base and score.

    Columns: ``corruption``, ``base`` (truth, or the smoothed motion that noise was laid over), ``family``, ``score``,
    ``routed`` (this score ought to notice; the sum when either of its parts ought to), ``strength_one``, ``auc`` over
    all pairs of utterance means at strength 1 with ``auc_low`` and ``auc_high`` (:func:`auc_interval`), ``paired``
    (share of utterances in which the better motion scores higher, ties counting half), ``spearman`` (of score against
    strength within an utterance, averaged over utterances; -1 is best), ``curve`` (mean score at each strength),
    ``strengths``, ``better``, ``worse``, ``utterances``.
    """
    groups: dict[tuple[str, str], list[Versions]] = {}
    for version in scored.versions:
        groups.setdefault((version.corruption, version.base), []).append(version)
    rows: list[DiscriminationRow] = []
    for (name, base), versions in groups.items():
        for score in versions[0].means:
            table = np.stack([version.means[score] for version in versions])
            better, worse = table[:, 0], table[:, -1]
            auc, low, high = auc_interval(better, worse, seed=seed)
            heads = CORRUPTIONS[name].heads
            rows.append(
                {
                    "corruption": name,
                    "base": base,
                    "family": CORRUPTIONS[name].family,
                    "score": score,
                    "routed": score in heads or (score == SUM and bool(heads)),
                    "strength_one": CORRUPTIONS[name].strength_one,
                    "auc": auc,
                    "auc_low": low,
                    "auc_high": high,
                    "paired": float(np.mean((better > worse) + 0.5 * (better == worse))),
                    "spearman": float(np.mean([spearman(scored.strengths, row) for row in table])),
                    "better": float(better.mean()),
                    "worse": float(worse.mean()),
                    "curve": table.mean(0).tolist(),
                    "strengths": list(scored.strengths),
                    "utterances": len(table),
                }
            )
    return rows


def auc_interval(
    better: Sequence[float] | np.ndarray,
    worse: Sequence[float] | np.ndarray,
    resamples: int = _RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """AUC and its bootstrap interval: utterances are drawn with replacement, each with both of its motions.

    Args:
        better, worse: [n] scores of the two motions of each utterance.
        resamples: bootstrap draws. level: of the percentile interval. seed: of the draws.

    Returns:
        (auc, low, high). Utterances of one speaker are treated as independent, which makes the interval narrow.
    """
    won, n = wins(better, worse), len(better)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    draws = np.einsum("ri,ij,rj->r", counts, won, counts, optimize=True) / n**2
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(won.mean()), float(low), float(high)


def spearman(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Rank correlation of two rows, ties at their mean rank (Spearman, 1904); 0 where one of them is constant."""
    a, b = _ranks(np.asarray(x, dtype=np.float64)), _ranks(np.asarray(y, dtype=np.float64))
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    smaller = (values[:, None] > values).sum(1)
    return smaller + 0.5 * (values[:, None] == values).sum(1)


def speaker_rows(
    truth: dict[str, dict[str, np.ndarray]], subjects: dict[str, str], training: Collection[str]
) -> list[SpeakerRow]:
    """Scores of ground truth by speaker: ``subject``, ``seen`` (a training speaker), ``score``, ``mean`` and ``sd`` of
    the utterance means, ``utterances``; sd is 0 for a single utterance.

    Args:
        truth: utterance -> score -> [n] clip scores. subjects: utterance -> speaker.
        training: speakers that the reward was trained on.
    """
    rows: list[SpeakerRow] = []
    for subject in dict.fromkeys(subjects[name] for name in truth):
        own = [scores for name, scores in truth.items() if subjects[name] == subject]
        for score in own[0]:
            means = np.array([np.mean(scores[score], dtype=np.float64) for scores in own])
            sd = float(means.std(ddof=1)) if len(means) > 1 else 0.0
            rows.append(
                {
                    "subject": subject,
                    "seen": subject in training,
                    "score": score,
                    "mean": float(means.mean()),
                    "sd": sd,
                    "utterances": len(means),
                }
            )
    return rows


def speaker_spread(rows: Sequence[SpeakerRow]) -> list[SpreadRow]:
    """Between and within speakers, a row per score and group of :func:`speaker_rows`.

    ``between_sd`` is the standard deviation of the speakers' means (None for one speaker), ``within_sd`` that of an
    utterance around its speaker's mean, pooled over the speakers by degrees of freedom (None where no speaker has two).
    """
    groups: dict[tuple[str, bool], list[SpeakerRow]] = {}
    for row in rows:
        groups.setdefault((row["score"], row["seen"]), []).append(row)
    out: list[SpreadRow] = []
    for (score, seen), own in groups.items():
        free = sum(row["utterances"] - 1 for row in own)
        squares = sum((row["utterances"] - 1) * row["sd"] ** 2 for row in own)
        within = float(np.sqrt(squares / free)) if free else None
        means = [row["mean"] for row in own]
        between = float(np.std(means, ddof=1)) if len(means) > 1 else None
        out.append(
            {
                "score": score,
                "seen": seen,
                "speakers": len(own),
                "mean": float(np.mean(means)),
                "between_sd": between,
                "within_sd": within,
            }
        )
    return out
