"""Report of the articulation reward on speakers it has not seen: what it notices, and what an ascent gets for nothing.

It is a density, not a classifier: its best motion is the mean of all that could have been said so, and a mean scores
above any recording. The report says by how much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from s2f_rl.data import FaceCorpus
from s2f_rl.data.contract import Phone
from s2f_rl.data.files import atomic_write_json, atomic_write_text
from s2f_rl.data.units import MILLIMETRE
from s2f_rl.provenance import package_versions, source_commit
from s2f_rl.rewards.articulation.likelihood import FORMS, ArticulationReward
from s2f_rl.rewards.articulation.phones import with_mistakes
from s2f_rl.rewards.calibration.attack import MotionSpace, Objective, ascend, random_changes, reward_objective
from s2f_rl.rewards.calibration.auc import auc, spread_evenly, utterance_seed
from s2f_rl.rewards.corruptions import CORRUPTIONS
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.parts import own_style
from s2f_rl.rewards.training.recordings import MotionBank
from s2f_rl.signs import watched

TRUTH, SMOOTHED = "truth", "regression_to_mean"
_LATE_S = 0.08
Row = dict[str, str | float]


def articulation_report(
    folder: str | Path,
    corpus_root: str | Path,
    out: str | Path,
    split: str = "validation",
    phones: str | Path | None = None,
    utterances: int | None = None,
    attack_utterances: int = 6,
    attack_steps: int = 60,
    radii_mm: Sequence[float] = (0.1, 0.5, 1.0, 2.0),
    topology: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, object]:
    """Score true motion, spoiled motion and true motion beside false phones, and climb both forms of the score.

    Writes ``articulation.json`` (all rows) and ``articulation.md`` into ``out``. Styles are the speakers' own; those
    of unseen speakers are not known.

    Args:
        folder: of a density. corpus_root, topology: its training split defines the corruptions; split: is scored.
        phones: folder of timings; None: the corpus's own.
        utterances: how many, evenly over the split; None: all with vertices. attack_utterances: how many are attacked,
            0 for none; attack_steps, radii_mm: of the ascent. seed: of all draws.

    Returns:
        ``about``, ``auc`` and ``attack`` (means over utterances), as in the file.

    Raises:
        UserError: files that are missing or do not fit each other.
    """
    train, corpus = FaceCorpus(corpus_root, "train", topology), FaceCorpus(corpus_root, split, topology)
    timings = None if phones is None else str(phones)
    rewards = {
        form: ArticulationReward(corpus, device, folder=str(folder), form=form, phones=timings) for form in FORMS
    }
    motion = MotionSubspace.fit(train)
    regressor = MotionBank(train).fit_regressor(motion)
    spoken = [
        i for i in range(len(corpus)) if corpus.has_vertices(i) and next(iter(rewards.values())).source.of(corpus[i])
    ]
    bank = MotionBank(corpus, [spoken[k] for k in spread_evenly(len(spoken), utterances)])
    chosen = set(spread_evenly(len(bank), attack_utterances)) if attack_utterances else set()

    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    climbs: list[Row] = []
    for position in watched(range(len(bank)), "report", enabled=progress):
        recording, utterance = bank[position], corpus[bank.utterances[position]]
        style = own_style(corpus, bank.utterances[position])
        generator = torch.Generator().manual_seed(utterance_seed(seed, position))
        context = bank.context(position, motion, generator, regressor)
        spoiled = {
            name: corruption(recording.displacement, 1.0, context)
            for name, corruption in CORRUPTIONS.items()
            if corruption.possible(context)
        }
        for form, reward in rewards.items():
            own = reward.source.of(utterance)
            objective = reward_objective(reward, reward.said(own, recording.template), recording.template, style)
            with torch.no_grad():
                truth = float(objective(recording.displacement[None]))
                found = {name: float(objective(each[None])) for name, each in spoiled.items()}
                for name, said in _false_phones(own, generator).items():
                    wrong = reward_objective(reward, reward.said(said, recording.template), recording.template, style)
                    found[name] = float(wrong(recording.displacement[None]))
                if style.any():
                    other = reward_objective(
                        reward, reward.said(own, recording.template), recording.template, style.roll(1)
                    )
                    found["style of another speaker"] = float(other(recording.displacement[None]))
            for name, value in found.items():
                pairs.setdefault((form, name), []).append((truth, value))
            if position in chosen:
                starts = {TRUTH: recording.displacement}
                if context.regression is not None:
                    starts[SMOOTHED] = context.regression
                about: Row = {"form": form, "truth": truth, "utterance": utterance.name}
                climbs += _climbed(
                    objective, starts, recording.displacement, motion, radii_mm, attack_steps, about, generator
                )
    report: dict[str, object] = {
        "about": {
            "reward": str(folder), "hashes": {form: each.content_hash() for form, each in rewards.items()},
            "corpus": str(corpus_root), "split": split, "phones": timings, "utterances": len(bank),
            "attack_utterances": len(chosen), "attack_steps": attack_steps, "seed": seed,
            "commit": source_commit(), "versions": package_versions(),
        },
        "auc": [_told(form, name, found) for (form, name), found in pairs.items()],
        "attack": _means(climbs),
    }  # fmt: skip
    atomic_write_json(Path(out) / "articulation.json", report)
    atomic_write_text(Path(out) / "articulation.md", _page(report))
    return report


def _false_phones(phones: Sequence[Phone], generator: torch.Generator) -> dict[str, list[Phone]]:
    """What the true motion is scored beside: phones that are wrong in some way."""
    return {
        "a fifth of the phones others": with_mistakes(phones, generator, substituted=0.2),
        "all phones others": with_mistakes(phones, generator, substituted=1.0),
        "boundaries off by 40 ms": with_mistakes(phones, generator, boundary_noise_s=0.04),
        "phones 80 ms late": [("sil", 0.0, _LATE_S), *((name, a + _LATE_S, b + _LATE_S) for name, a, b in phones)],
    }


def _climbed(
    objective: Objective,
    starts: Mapping[str, Tensor],
    truth: Tensor,
    motion: MotionSubspace,
    radii_mm: Sequence[float],
    steps: int,
    about: Mapping[str, str | float],
    generator: torch.Generator,
) -> list[Row]:
    """Rows of an ascent from each start within each radius, in all directions of the corpus's motion."""
    lanes = [(start, radius) for start in starts for radius in radii_mm]
    begin = torch.stack([starts[start] for start, _ in lanes])
    radius = torch.tensor([radius for _, radius in lanes]) * MILLIMETRE
    space = MotionSpace("motion", motion.basis)
    found = ascend(objective, begin, radius, motion.lips, space, steps)
    with torch.no_grad():
        noise = objective(begin + random_changes(begin, radius, motion.lips, space, generator))
    error = [
        motion.lip_rms(each - truth).square().mean(1).sqrt() / MILLIMETRE for each in (begin, begin + found.change)
    ]
    return [
        {
            **about, "start": start, "radius_mm": each,
            "before": float(found.before[k]), "after": float(found.after[k]),
            "random_gain": float(noise[k] - found.before[k]),
            "lip_error_before_mm": float(error[0][k]), "lip_error_after_mm": float(error[1][k]),
        }
        for k, (start, each) in enumerate(lanes)
    ]  # fmt: skip


def _told(form: str, name: str, found: Sequence[tuple[float, float]]) -> Row:
    better, worse = np.array(found).T
    return {
        "form": form, "version": name, "auc": auc(better, worse),
        "paired": float(((better > worse) + 0.5 * (better == worse)).mean()),
        "truth": float(better.mean()), "spoiled": float(worse.mean()), "utterances": float(len(found)),
    }  # fmt: skip


def _means(rows: Sequence[Row]) -> list[Row]:
    """Over the utterances, a row for each form, start and radius."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["form"], row["start"], row["radius_mm"]), []).append(row)
    numbers = [key for key, value in rows[0].items() if isinstance(value, float) and key != "radius_mm"] if rows else []
    return [
        {key: own[0][key] for key in ("form", "start", "radius_mm")}
        | {key: float(np.mean([float(row[key]) for row in own])) for key in numbers}
        for own in groups.values()
    ]


def _page(report: Mapping[str, object]) -> str:
    about, told, attack = report["about"], report["auc"], report["attack"]
    assert isinstance(about, dict) and isinstance(told, list) and isinstance(attack, list)
    lines = ["# The articulation reward", ""]
    lines += [f"`{about['reward']}` on {about['utterances']} utterances of the split {about['split']}.", ""]
    lines += ["AUC (and share of pairs) in which the true motion with its true phones scores higher:", ""]
    lines += [
        "| version | " + " | ".join(form.replace("_", " ") for form in FORMS) + " |",
        "|---|" + "---|" * len(FORMS),
    ]
    for name in dict.fromkeys(row["version"] for row in told):
        own = {row["form"]: row for row in told if row["version"] == name}
        lines.append(f"| {name} | " + " | ".join(f"{own[f]['auc']:.2f} ({own[f]['paired']:.2f})" for f in FORMS) + " |")
    if attack:
        columns = [key for key in attack[0] if key not in ("form", "start", "radius_mm")]
        lines += ["", f"Gradient ascent, means over {about['attack_utterances']} utterances:", ""]
        lines += ["| form | start | radius mm | " + " | ".join(columns) + " |", "|---|---|---|" + "---|" * len(columns)]
        for row in attack:
            cells = " | ".join(f"{row[key]:.2f}" for key in columns)
            lines.append(f"| {row['form']} | {row['start']} | {row['radius_mm']:g} | {cells} |")
    return "\n".join(lines) + "\n"
