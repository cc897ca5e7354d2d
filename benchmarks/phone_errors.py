"""What wrong phones cost the articulation reward: where its slope points, and whether it still knows the sentence.

    python -m benchmarks.phone_errors CORPUS OUT --checkpoint RUN --articulation FOLDER [--phones ALIGNED]

At an actor's motion on unseen voices, with phones of two sources (the corpus's stored ones, and a folder of aligned
ones), with a share of the phones replaced and with noise on their boundaries: the cosine, over the lips, between the
gradient of the score and the way to the ground truth; and the AUC of the true motion against that of another sentence
of the same speaker. Writes ``phone_errors.csv`` (a row for each utterance) and ``phone_errors.md``.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.evaluate import one_motion, open_actor, spread
from benchmarks.slope import articulation_forms, cosine, shown_style
from s2f_rl.data import FaceCorpus
from s2f_rl.data.contract import Phone
from s2f_rl.data.files import atomic_write_text
from s2f_rl.data.phone_classes import phone_class
from s2f_rl.errors import UserError
from s2f_rl.evaluation import write_rows
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.rewards.articulation.phones import PhoneSource, with_mistakes
from s2f_rl.rewards.calibration.attack import Objective, reward_objective
from s2f_rl.rewards.calibration.auc import auc

SUBSTITUTED = (0.0, 0.05, 0.1, 0.2, 0.4)
NOISE_MS = (0, 20, 40, 80)
LEVELS = [(share, 0) for share in SUBSTITUTED] + [(0.0, noise) for noise in NOISE_MS[1:]]
Row = dict[str, Any]


def slope_at_lips(objective: Objective, actor: Tensor, truth: Tensor, lips: Tensor) -> float:
    """Cosine of gradient and way to the truth over the lips; displacements [T, V*3]."""
    moving = actor[None].clone().requires_grad_(True)
    with torch.enable_grad():
        gradient = torch.autograd.grad(objective(moving).sum(), moving)[0][0]
    return cosine(*(each.unflatten(-1, (-1, 3))[:, lips] for each in (gradient, truth - actor)))


def table(rows: list[Row]) -> str:
    """A line for each form, source and level: mean cosine with its standard error, and the AUC over utterances."""
    lines = [
        "| form | phones | other phones | boundary noise, ms | cosine at the lips | AUC against another sentence |"
    ]
    lines.append("|---|---|---|---|---|---|")
    keys = ("form", "phones", "substituted", "noise_ms")
    for level in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        own = [row for row in rows if tuple(row[key] for key in keys) == level]
        values = torch.tensor([row["cosine_lips"] for row in own])
        told = auc([row["true"] for row in own], [row["other_sentence"] for row in own])
        form, source, share, noise = level
        spread_of_mean = float(values.std() / len(values) ** 0.5)
        lines.append(
            f"| {form} | {source} | {share:.0%} | {noise} | {values.mean():.2f} ± {spread_of_mean:.2f} | {told:.2f} |"
        )
    return "\n".join(lines) + "\n"


def agreement(right: Sequence[Phone], found: Sequence[Phone]) -> dict[str, float]:
    """How far timings are from the right ones, silence aside.

    Returns:
        ``phones``: how many are right; ``errors``: the fewest phones to replace, leave out or add (Levenshtein, 1966),
        with the classes of the articulation reward; ``matched``: phones that stayed, and ``start_ms``: the sum of how
        far their starts are apart; ``instants``: of the right timings, every 10 ms, silence too; ``differ``: of these,
        where another class is said.
    """
    (a, starts_a), (b, starts_b) = (_spoken(each) for each in (right, found))
    cost = np.add.outer(np.arange(len(a) + 1), np.arange(len(b) + 1))
    for i, j in np.ndindex(len(a), len(b)):
        steps = cost[i, j] + (a[i] != b[j]), cost[i, j + 1] + 1, cost[i + 1, j] + 1
        cost[i + 1, j + 1] = min(steps)
    apart = []
    i, j = len(a), len(b)
    while i and j:
        if cost[i, j] == cost[i - 1, j - 1] + (a[i - 1] != b[j - 1]):
            i, j = i - 1, j - 1
            apart += [abs(starts_a[i] - starts_b[j]) * 1e3] if a[i] == b[j] else []
        elif cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    told = {"phones": len(a), "errors": float(cost[-1, -1]), "matched": len(apart), "start_ms": float(sum(apart))}
    instants = np.arange(0.005, max((end for _, _, end in right), default=0.0), 0.01)
    differ = sum(_at(right, each) != _at(found, each) for each in instants.tolist())
    return {**told, "instants": len(instants), "differ": differ}


def _at(phones: Sequence[Phone], second: float) -> int:
    """Class of what is said at an instant; where nothing is, silence."""
    return next((phone_class(name) for name, start, end in phones if start <= second < end), 0)


def _spoken(phones: Sequence[Phone]) -> tuple[list[int], list[float]]:
    known = [(phone_class(name), start) for name, start, _ in phones if phone_class(name) != 0]
    return [each for each, _ in known], [start for _, start in known]


@torch.no_grad()
def main(argv: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", required=True, help="the actor, in its first style for unseen speakers")
    parser.add_argument("--articulation", required=True, metavar="FOLDER")
    parser.add_argument("--phones", metavar="FOLDER", help="aligned timings, beside the corpus's own")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--utterances", type=int, default=32, help="spread evenly (default: %(default)s)")
    options = parser.parse_args(argv)

    corpus = FaceCorpus(options.corpus, split=options.split)
    forms = articulation_forms(options.articulation, corpus, options.phones)
    sources = {"stored": PhoneSource()}
    if options.phones is not None:
        sources["aligned"] = PhoneSource(options.phones)
    for source in sources.values():
        source.require(corpus)
    actor = open_actor(options.checkpoint, corpus)
    audio = CachedAudio(actor.audio_encoder, corpus)
    seen = [i for i in range(len(corpus)) if corpus.has_vertices(i)]
    chosen = [seen[k] for k in spread(len(seen), options.utterances)]
    if len(chosen) < 2:
        raise UserError(f"{options.corpus}: the {options.split} split needs two utterances with vertices")
    others = {i: next((j for j in seen if corpus[j].subject == corpus[i].subject and j != i), i) for i in chosen}
    rows: list[Row] = []
    for i in chosen:
        utterance, other = corpus[i], corpus[others[i]]
        truth, wrong = (each.vertices - each.template for each in (utterance, other))
        found, style = one_motion(actor, audio, corpus, i), shown_style(corpus, i)
        n = min(len(found), len(truth))
        for source, phones in sources.items():
            for share, noise in LEVELS:
                draws = torch.Generator().manual_seed(i)
                said = with_mistakes(phones.of(utterance), draws, share, noise / 1e3)
                for form, reward in forms.items():
                    prepared = reward.said(said, utterance.template)
                    objective = reward_objective(reward, prepared, utterance.template, style)
                    about = {"form": form, "phones": source, "substituted": share, "noise_ms": noise}
                    about |= {"utterance": utterance.name, "subject": utterance.subject}
                    about["cosine_lips"] = slope_at_lips(objective, found[:n], truth[:n], reward.density.lips)
                    about["true"] = float(objective(truth[None]))
                    about["other_sentence"] = float(objective(wrong[None]))
                    rows.append(about)
    write_rows(options.out / "phone_errors.csv", rows)
    text = table(rows)
    if "aligned" in sources:
        each = [agreement(*(source.of(corpus[i]) for source in sources.values())) for i in seen]
        phones, errors, matched, apart, instants, differ = (sum(one[key] for one in each) for key in each[0])
        text += (
            f"\nThe aligner, on {len(each)} utterances: {errors / phones:.1%} of {phones:.0f} phones wrong, the starts "
            f"of the others {apart / matched:.0f} ms off on average; "
            f"{differ / instants:.1%} of the time another class.\n"
        )
    atomic_write_text(options.out / "phone_errors.md", text)
    print(text)
    return rows


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
