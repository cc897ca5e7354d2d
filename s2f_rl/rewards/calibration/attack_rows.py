"""Attacks on a reward, and what judges and ground truth say of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s2f_rl.data.contract import SpokenUtterance
from s2f_rl.data.units import MILLIMETRE
from s2f_rl.keys import LIP_SCORE, REAL_SCORE
from s2f_rl.metrics.measures import motion_measures
from s2f_rl.rewards.calibration.attack import MotionSpace, ascend, change_rms, random_changes, score_objective
from s2f_rl.rewards.calibration.auc import utterance_seed
from s2f_rl.rewards.calibration.spoiled_versions import SMOOTHED, TRUTH, clip_scores, encoded
from s2f_rl.rewards.judge.judge import AnyReward
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.mse_regressor import SpeechRegressor
from s2f_rl.rewards.training.recordings import MotionBank
from s2f_rl.signs import watched

RADII_MM = (0.1, 0.5, 1.0, 2.0)
_FIRST_STEP_MM = 0.01
POLICY = "policy"
OBJECTIVES = {"sum": (1.0, 1.0), LIP_SCORE: (1.0, 0.0), REAL_SCORE: (0.0, 1.0)}
_RANDOM_DRAWS = 8
_LANES = 12
_SHORT = {LIP_SCORE: "lip", REAL_SCORE: "real"}

AttackRow = dict[str, str | float]
"""See :func:`attack_rows`: what a row has of measures depends on judges and corpus."""
AttackSummary = dict[str, object]
"""See :func:`summarise_attacks`."""


@dataclass(frozen=True)
class _Lane:
    start: str
    objective: str
    radius_mm: float


@dataclass
class _Case:
    """One utterance under attack."""

    utterance: SpokenUtterance
    starts: dict[str, Tensor]
    audio: dict[str, Tensor]
    seed: int


def attack_rows(
    scorer: AnyReward,
    judges: Mapping[str, AnyReward],
    bank: MotionBank,
    positions: Sequence[int],
    motion: MotionSubspace,
    spaces: Sequence[MotionSpace],
    regressor: SpeechRegressor | None = None,
    radii_mm: Sequence[float] = RADII_MM,
    steps: int = 60,
    seed: int = 0,
    progress: bool = False,
) -> list[AttackRow]:
    """Attack a reward on some utterances; one row per utterance, space, start, objective and radius.

    The sum of the heads is attacked from every start (ground truth, the smoothed motion of ``regressor``, a policy's
    prediction where the bank has one), each head alone from the ground truth.

    Args:
        scorer: the reward that is climbed. judges: name -> models that only look on.
        bank: utterances; positions: which of them.
        motion: statistics of the training corpus (lips, millimetre).
        spaces: where the change may lie.
        radii_mm: of the trust region over the lips and over the face.
        steps: of the ascent. seed: of the random control.

    Returns:
        rows with ``utterance``, ``subject``, ``space``, ``start``, ``objective``, ``radius_mm``, ``lip_mm`` and
        ``face_mm`` (RMS of the change), ``before``, ``after``, ``gain``, ``gain_per_mm`` (of the larger of the two),
        ``random_gain`` (mean over draws of noise as large as the change), ``random_best``, ``random_sd``; scores and
        measures as ``<column>_before`` and ``<column>_after``: ``lip``, ``real``, ``<judge>_lip``, ``<judge>_real``,
        ``lip_error_mm`` (root of LVE), ``amplitude_ratio``, ``jitter_ratio`` and, with phone timings, ``closure_rate``
        and ``false_closure_rate``.
    """
    rows: list[AttackRow] = []
    jobs = [(position, space) for position in positions for space in spaces]
    cases: dict[int, _Case] = {}
    for position, space in watched(jobs, "attack", enabled=progress, leave=False):
        if position not in cases:
            cases = {position: _case(scorer, judges, bank, position, regressor, motion, seed)}
        case = cases[position]
        lanes = [_Lane(start, "sum", radius) for start in case.starts for radius in radii_mm]
        if "real" in _mean_scores(scorer, case, "reward", case.starts[TRUTH][None])[0]:
            lanes += [_Lane(TRUTH, head, radius) for head in (LIP_SCORE, REAL_SCORE) for radius in radii_mm]
        size = max(1, _LANES // len(radii_mm)) * len(radii_mm)  # the radii of one attack stay together
        for first in range(0, len(lanes), size):
            rows += _attack(scorer, judges, bank, case, lanes[first : first + size], motion, space, steps)
    return rows


def _case(
    scorer: AnyReward,
    judges: Mapping[str, AnyReward],
    bank: MotionBank,
    position: int,
    regressor: SpeechRegressor | None,
    motion: MotionSubspace,
    seed: int,
) -> _Case:
    recording = bank[position]
    draws = utterance_seed(seed, position)
    context = bank.context(position, motion, torch.Generator().manual_seed(draws), regressor)
    starts = {TRUTH: recording.displacement}
    if context.regression is not None:
        starts[SMOOTHED] = context.regression
    if context.policy_sample is not None:
        starts[POLICY] = context.policy_sample
    models = {"reward": scorer, **judges}
    audio = {name: encoded(model, recording) for name, model in models.items()}
    return _Case(bank.corpus[bank.utterances[position]], starts, audio, draws)


def _attack(
    scorer: AnyReward,
    judges: Mapping[str, AnyReward],
    bank: MotionBank,
    case: _Case,
    lanes: Sequence[_Lane],
    motion: MotionSubspace,
    space: MotionSpace,
    steps: int,
) -> list[AttackRow]:
    template = torch.as_tensor(case.utterance.template).float().flatten()
    start = torch.stack([case.starts[lane.start] for lane in lanes])
    radius = torch.tensor([lane.radius_mm for lane in lanes]) * MILLIMETRE
    weights = torch.tensor([OBJECTIVES[lane.objective] for lane in lanes])
    objective = score_objective(scorer, template, case.audio["reward"], weights)
    found = ascend(objective, start, radius, motion.lips, space, steps, _FIRST_STEP_MM * MILLIMETRE)
    best = [_widest(lanes, k, found.after.tolist()) for k in range(len(lanes))]
    change, after = found.change[best], found.after[best]
    lip, face = change_rms(change, motion.lips)
    size = torch.maximum(lip, face).float()
    generator = torch.Generator().manual_seed(case.seed)
    with torch.no_grad():
        noises = (random_changes(start, size, motion.lips, space, generator) for _ in range(_RANDOM_DRAWS))
        random = torch.stack([objective(start + noise).cpu() for noise in noises])
    ends = {"before": start, "after": start + change}
    models = {"reward": scorer, **judges}
    told = {end: _described(models, bank, case, moved, motion) for end, moved in ends.items()}
    rows: list[AttackRow] = []
    for k, lane in enumerate(lanes):
        gain = float(after[k] - found.before[k])
        moved_mm = float(size[k]) / MILLIMETRE
        gains = random[:, k] - found.before[k]
        rows.append(
            {
                "utterance": case.utterance.name,
                "subject": case.utterance.subject,
                "space": space.name,
                "start": lane.start,
                "objective": lane.objective,
                "radius_mm": lane.radius_mm,
                "lip_mm": float(lip[k]) / MILLIMETRE,
                "face_mm": float(face[k]) / MILLIMETRE,
                "before": float(found.before[k]),
                "after": float(after[k]),
                "gain": gain,
                "gain_per_mm": gain / moved_mm if moved_mm > 0 else 0.0,
                "random_gain": float(gains.mean()),
                "random_best": float(gains.max()),
                "random_sd": float(gains.std()),
                **{f"{name}_{end}": value for end in ends for name, value in told[end][k].items()},
            }
        )
    return rows


def _widest(lanes: Sequence[_Lane], lane: int, after: Sequence[float]) -> int:
    """The lane that found most in this lane's region: its own, or the same attack's within a narrower one."""
    own = lanes[lane]
    same = [k for k, other in enumerate(lanes) if (other.start, other.objective) == (own.start, own.objective)]
    return max((k for k in same if lanes[k].radius_mm <= own.radius_mm), key=lambda k: (after[k], k == lane))


def _described(
    scorers: Mapping[str, AnyReward], bank: MotionBank, case: _Case, displacement: Tensor, motion: MotionSubspace
) -> list[dict[str, float]]:
    """Scores and measures of displacements [B, T, V*3], a row for each."""
    rows: list[dict[str, float]] = [{} for _ in displacement]
    for name, scorer in scorers.items():
        prefix = "" if name == "reward" else f"{name}_"
        for row, means in zip(rows, _mean_scores(scorer, case, name, displacement), strict=True):
            row.update({prefix + head: value for head, value in means.items()})
    template = torch.as_tensor(case.utterance.template).float().flatten()
    measured = motion_measures(template + displacement, case.utterance, bank.corpus.regions, bank.fps, timing=False)
    for row, measures in zip(rows, measured, strict=True):
        if "lve" in measures:
            row["lip_error_mm"] = measures["lve"] ** 0.5 / MILLIMETRE
        for name in ("amplitude_ratio", "jitter_ratio", "closure_rate", "false_closure_rate"):
            if name in measures:
                row[name] = measures[name]
    return rows


def _mean_scores(scorer: AnyReward, case: _Case, name: str, displacement: Tensor) -> list[dict[str, float]]:
    """``lip`` and ``real``, means over the clips, of each of displacements [B, T, V*3]; empty without a window."""
    template = torch.as_tensor(case.utterance.template).float().flatten()
    scores = clip_scores(scorer, template + displacement, case.audio[name])
    rows: list[dict[str, float]] = [{} for _ in displacement]
    for key, short in _SHORT.items():
        if key in scores and scores[key].shape[1]:
            for row, value in zip(rows, scores[key].mean(1).tolist(), strict=True):
                row[short] = value
    return rows


def summarise_attacks(rows: Sequence[AttackRow]) -> list[AttackSummary]:
    """Means over utterances, one row per space, start, objective and radius; a column that is missing or not finite
    (closure without /m b p/) is averaged over the utterances that have it; ``not_measured`` says how many do not."""
    groups: dict[tuple[object, ...], list[AttackRow]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in ("objective", "start", "space", "radius_mm")), []).append(row)
    out: list[AttackSummary] = []
    for (objective, start, space, radius), own in groups.items():
        summary: AttackSummary = {"objective": objective, "start": start, "space": space, "radius_mm": radius}
        summary["utterances"] = len(own)
        missing: dict[str, int] = {}
        for column in dict.fromkeys(name for row in own for name in row):
            values = [value for row in own if isinstance(value := row.get(column), float)]
            found = [value for value in values if math.isfinite(value)]
            if column not in summary and found:
                summary[column] = sum(found) / len(found)
            if values and len(found) < len(own):
                missing[column] = len(own) - len(found)
        summary["not_measured"] = missing
        out.append(summary)
    return out
