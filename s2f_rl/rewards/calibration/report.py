"""Calibration report of a reward, on speakers it has not seen: what ``s2f-rl reward-report`` does."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.data.contract import Corpus
from s2f_rl.data.files import atomic_write_bytes, atomic_write_json, atomic_write_text, load_json
from s2f_rl.errors import UserError
from s2f_rl.models.meeting import load_actor_for
from s2f_rl.provenance import package_versions, source_commit
from s2f_rl.rewards.calibration import figures as draw
from s2f_rl.rewards.calibration.attack import MotionSpace
from s2f_rl.rewards.calibration.attack_rows import RADII_MM, attack_rows, summarise_attacks
from s2f_rl.rewards.calibration.auc import spread_evenly
from s2f_rl.rewards.calibration.figures import Row
from s2f_rl.rewards.calibration.page import Report, page
from s2f_rl.rewards.calibration.reliability import reliability_rows
from s2f_rl.rewards.calibration.spoiled_versions import (
    STRENGTHS,
    SpeakerRow,
    clip_scores,
    discrimination_rows,
    encoded,
    score_versions,
    speaker_rows,
    speaker_spread,
)
from s2f_rl.rewards.judge.judge import AnyReward, load_scorer
from s2f_rl.rewards.model.meeting import refuse_other_corpus
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.recordings import MotionBank

_SEEN_PER_SPEAKER = 10
_LEAVE_ONE_OUT_COLUMNS = {
    **dict.fromkeys(("left_out", "corruption", "score"), str),
    **{"routed": bool, "auc": float, "auc_full": float, "utterances": int},
}


def reward_report(
    reward_folder: str | Path,
    corpus_root: str | Path,
    out: str | Path,
    split: str = "validation",
    judges: Sequence[str | Path] = (),
    utterances: int | None = None,
    attack_utterances: int = 6,
    attack_steps: int = 60,
    actor: str | Path | None = None,
    lofo_rows: str | Path | None = None,
    topology: str | None = None,
    seed: int = 0,
    progress: bool = True,
    predictions: str | Path | None = None,
    strengths: Sequence[float] = STRENGTHS,
    radii_mm: Sequence[float] = RADII_MM,
    device: str = "cpu",
) -> Report:
    """Report how a reward answers to spoiled motion, whether its scores are probabilities, and what fools it.

    Writes ``report.html`` (self-contained), its figures as PNG, and ``calibration.json`` with all rows into ``out``.

    Args:
        reward_folder: reward model (or judge) to report on.
        corpus_root, topology: see :class:`~s2f_rl.data.FaceCorpus`. Its *training* split defines the corruptions.
        split: whose utterances are scored. Their speakers ought to be unseen; how many are not, the report says.
        judges: models that look on while the reward is attacked; none may be the reward itself.
        utterances: how many, evenly over the split; default all with vertices.
        attack_utterances: how many of them are attacked, evenly; 0 for none. attack_steps: of the ascent.
        actor: checkpoint whose output map spans the confined attack; default the corpus's own motion.
        lofo_rows: rows of ``benchmarks/leave_one_out.py`` to show.
        seed: of corruptions and noise. progress: show bars.
        predictions: folder of a policy's predictions: a corruption, and a start of the attack.
        strengths: of the corruptions, from 0 to 1. radii_mm: of the attack.
        device: where the models score.

    Returns:
        ``about``, ``discrimination``, ``reliability``, ``speakers``, ``spread``, ``attack``, ``attack_summary`` and
        ``leave_one_out``: lists of rows, as in the file.

    Raises:
        UserError: files that are missing or do not fit each other; a judge that is the reward.
    """
    out = Path(out)
    lofo = [] if lofo_rows is None else leave_one_out_rows(lofo_rows)
    train = FaceCorpus(corpus_root, "train", topology)
    corpus = FaceCorpus(corpus_root, split, topology)
    reward, others = _models(reward_folder, judges, corpus, device)

    motion = MotionSubspace.fit(train)
    train_bank = MotionBank(train)
    regressor = train_bank.fit_regressor(motion)
    spaces = [MotionSpace("free"), _confined(actor, motion, corpus)]
    whole = MotionBank(corpus)
    chosen = [whole.utterances[i] for i in spread_evenly(len(whole), utterances)]
    bank = MotionBank(corpus, chosen, policy_samples=predictions)

    scored = score_versions(reward, bank, motion, regressor, None, strengths, seed=seed, progress=progress)
    trained, tested = set(train_bank.subjects), set(scored.subjects.values())
    speakers = _training_speakers(reward, train_bank, trained - tested)
    speakers += speaker_rows(scored.truth, scored.subjects, trained)
    attacked = spread_evenly(len(bank), attack_utterances) if attack_utterances else []
    attack = attack_rows(
        reward,
        others,
        bank,
        attacked,
        motion,
        spaces,
        regressor,
        radii_mm,
        attack_steps,
        seed,
        progress,
    )
    found = {
        "about": {
            "reward": str(reward_folder),
            "reward_hash": reward.content_hash(),
            "corpus": str(corpus_root),
            "split": split,
            "utterances": len(scored.truth),
            "utterances_too_short": len(scored.too_short),
            "speakers": len(tested),
            "training_speakers": len(trained & tested),
            "judges": {name: str(path) for name, path in zip(others, judges, strict=True)},
            "judge_hashes": {name: judge.content_hash() for name, judge in others.items()},
            "actor": None if actor is None else str(actor),
            "predictions": None if predictions is None else str(predictions),
            "strengths": list(scored.strengths),
            "radii_mm": list(radii_mm),
            "attack_utterances": len(attacked),
            "attack_steps": attack_steps,
            "seed": seed,
            "commit": source_commit(),
            "versions": package_versions(),
        },
        "discrimination": discrimination_rows(scored, seed),
        "reliability": reliability_rows(scored),
        "speakers": speakers,
        "spread": speaker_spread(speakers),
        "attack": attack,
        "attack_summary": summarise_attacks(attack),
        "leave_one_out": lofo,
    }
    report: Report = _finite(found)
    figures = report_figures(report)
    for name, content in figures.items():
        atomic_write_bytes(out / f"{name}.png", content)
    atomic_write_json(out / "calibration.json", report)
    atomic_write_text(out / "report.html", page(report, figures))
    return report


def report_figures(report: Report) -> dict[str, bytes]:
    """The figures that a report has rows for, name -> PNG."""
    told, attack = draw.drawable(report["discrimination"]), draw.drawable(report["attack_summary"])
    figures = {
        "auc": draw.auc_figure(told),
        "strength": draw.strength_figure(told),
        "speakers": draw.speaker_figure(draw.drawable(report["speakers"])),
    }
    if report["reliability"]:
        figures["reliability"] = draw.reliability_figure(draw.drawable(report["reliability"]))
    if attack:
        figures["attack"] = draw.attack_figure(attack, list(report["about"]["judges"]))
        figures["damage"] = draw.damage_figure(attack)
    return figures


def leave_one_out_rows(path: str | Path) -> list[Row]:
    """Rows that ``benchmarks/leave_one_out.py`` wrote. Raises UserError for any other file."""
    content = load_json(path)
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and all(_is(row.get(column), kind) for column, kind in _LEAVE_ONE_OUT_COLUMNS.items())
        for row in rows
    ):
        raise UserError(f"{path}: holds no leave-one-family-out rows; write them with benchmarks/leave_one_out.py")
    return rows


def _is(value: object, kind: type) -> bool:
    """A value from JSON is of this type; a whole number is also a float, a bool is no number."""
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is kind


def _models(
    reward_folder: str | Path, judges: Sequence[str | Path], corpus: Corpus, device: str
) -> tuple[AnyReward, dict[str, AnyReward]]:
    reward = load_scorer(reward_folder, device)
    names = ["judge"] if len(judges) == 1 else [f"judge{k + 1}" for k in range(len(judges))]
    others = {name: load_scorer(path, device) for name, path in zip(names, judges, strict=True)}
    for path, model in [(reward_folder, reward), *zip(judges, others.values(), strict=True)]:
        refuse_other_corpus(model, corpus, str(path))
    for path, model in zip(judges, others.values(), strict=True):
        if model.content_hash() == reward.content_hash():
            raise UserError(f"{path}: is the reward itself; a judge must be another model, of another seed at least")
    return reward, others


def _confined(actor: str | Path | None, motion: MotionSubspace, corpus: Corpus) -> MotionSpace:
    if actor is None:
        return MotionSpace("motion", motion.basis)
    model, _ = load_actor_for(actor, corpus)
    if model.linear_decode is None:
        raise UserError(f"--actor {actor}: its motions are no linear map, so they span no space; leave it out")
    return MotionSpace.spanned("actor", model.linear_decode.weight.detach().float().T)


def _training_speakers(reward: AnyReward, bank: MotionBank, wanted: Collection[str]) -> list[SpeakerRow]:
    """Rows of the ``wanted`` ones of the training speakers, some utterances of each."""
    truth, subjects = {}, {}
    for subject in (each for each in dict.fromkeys(bank.subjects) if each in wanted):
        own = [position for position in range(len(bank)) if bank.subjects[position] == subject]
        for k in spread_evenly(len(own), _SEEN_PER_SPEAKER):
            recording = bank[own[k]]
            audio = encoded(reward, recording)
            if len(audio):
                scores = clip_scores(reward, (recording.template + recording.displacement)[None], audio)
                if next(iter(scores.values())).shape[1]:
                    truth[recording.name] = {key: value[0].numpy() for key, value in scores.items()}
                    subjects[recording.name] = subject
    return speaker_rows(truth, subjects, wanted)


def _finite(content: object) -> Any:
    """The same content with None in place of numbers that are not finite, which JSON does not have."""
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, torch.Tensor):
        return _finite(content.tolist())
    return content
