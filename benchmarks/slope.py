"""Which way do reward and judge push an actor: towards the ground truth, or elsewhere?

    python -m benchmarks.slope CORPUS OUT --checkpoint RUN --reward FOLDER --judge FOLDER [--articulation FOLDER]

At the actor's motion: the cosine between the gradient of lip + real (of the articulation score, in both its forms) and
the way to the ground truth, and the scores along that way; then how much a short climb finds, and what it does to the
lip error. Writes ``slope.csv`` and ``slope.md``.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import sys
from typing import Any

import torch
from torch import Tensor

from benchmarks.evaluate import actor_parser, one_motion, open_actor, spread_recorded
from benchmarks.measures import smooth
from s2f_rl.data import FaceCorpus
from s2f_rl.data.files import atomic_write_text
from s2f_rl.data.units import MILLIMETRE
from s2f_rl.errors import UserError
from s2f_rl.evaluation import write_rows
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.rewards import RewardModel
from s2f_rl.rewards.articulation.likelihood import FORMS, ArticulationReward
from s2f_rl.rewards.calibration.attack import MotionSpace, Objective, ascend, reward_objective, score_objective
from s2f_rl.rewards.calibration.spoiled_versions import encoded
from s2f_rl.rewards.judge.judge import load_scorer
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.recordings import MotionBank

SHARES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
SMOOTHING_FRAMES = 2.0
RADIUS_MM = 0.3
_STEPS = 40


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two tensors of one shape, taken as one long vector each."""
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0, eps=1e-20))


def slope(objective: Objective, actor: Tensor, truth: Tensor, lips: Tensor, space: MotionSpace) -> dict:
    """How a score behaves between an actor's motion and the truth.

    Args:
        objective: displacements [B, T, V*3] -> [B]. actor, truth: [T, V*3], metres.
        lips: vertices of the error. space: in which directions and the climb are taken.

    Returns:
        ``cosine`` of gradient and way to the truth, in the coordinates of the space; ``cosine_lips``: over all
        coordinates of the lips; ``cosine_slow``: in those of the space, both smoothed in time; ``at_<share>``: the
        score that far along the way; ``climb_gain`` of the score within `RADIUS_MM`, ``climb_error_mm2``: what it does
        to the mean squared distance of the lips.
    """
    moving = actor[None].clone().requires_grad_(True)
    with torch.enable_grad():
        whole = torch.autograd.grad(objective(moving).sum(), moving)[0][0]
    gradient = space.encode(whole)
    way = space.encode(truth - actor)
    found = {"cosine": cosine(gradient, way)}
    found["cosine_lips"] = cosine(*(each.unflatten(-1, (-1, 3))[:, lips] for each in (whole, truth - actor)))
    found["cosine_slow"] = cosine(smooth(gradient, SMOOTHING_FRAMES), smooth(way, SMOOTHING_FRAMES))
    between = objective(torch.stack([actor + share * (truth - actor) for share in SHARES]))
    found |= {f"at_{share:g}": float(value) for share, value in zip(SHARES, between, strict=True)}
    climb = ascend(objective, actor[None], torch.tensor([RADIUS_MM * MILLIMETRE]), lips, space, _STEPS)
    found["climb_gain"] = float(climb.after - climb.before)

    def error(motion: Tensor) -> float:
        apart = (motion - truth).unflatten(-1, (-1, 3))[:, lips]
        return float(apart.square().sum(-1).mean()) / MILLIMETRE**2

    found["climb_error_mm2"] = error(actor + climb.change[0]) - error(actor)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Means over utterances with their standard errors, a row for each model."""
    columns = [c for c in rows[0] if c not in ("model", "utterance", "subject")]
    lines = ["| model | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for model in dict.fromkeys(row["model"] for row in rows):
        values = torch.tensor([[row[c] for c in columns] for row in rows if row["model"] == model])
        error = values.std(0) / len(values) ** 0.5
        cells = (f"{m:.3f} ± {e:.3f}" for m, e in zip(values.mean(0).tolist(), error.tolist(), strict=True))
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def articulation_forms(folder: str, corpus: FaceCorpus, phones: str | None) -> dict[str, ArticulationReward]:
    """The articulation reward in both forms, by a name for tables."""
    return {
        f"articulation, {form.replace('_', ' ')}": ArticulationReward(corpus, folder=folder, form=form, phones=phones)
        for form in FORMS
    }


def shown_style(corpus: FaceCorpus, utterance: int) -> Tensor:
    """[S] of :func:`~benchmarks.evaluate.one_motion`: the speaker's own, or the first."""
    style = corpus[utterance].style
    return torch.eye(len(corpus.subjects))[0] if style is None else style


@torch.no_grad()
def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    parser = actor_parser(__doc__, utterances=16)
    parser.add_argument("--articulation", metavar="FOLDER", help="a density of lips, in the style of the motion")
    parser.add_argument("--phones", metavar="FOLDER", help="timings that it reads (default: the corpus's own)")
    parser.add_argument("--directions", type=int, default=20, help="of the corpus's motion (default: %(default)s)")
    options = parser.parse_args(argv)

    corpus = FaceCorpus(options.corpus, split=options.split)
    motion = MotionSubspace.fit(FaceCorpus(options.corpus, split="train"))
    space = MotionSpace("motion", motion.basis[: options.directions])
    models = {"reward": RewardModel.load(options.reward), "judge": load_scorer(options.judge)}
    parts = {} if options.articulation is None else articulation_forms(options.articulation, corpus, options.phones)
    actor = open_actor(options.checkpoint, corpus)
    audio = CachedAudio(actor.audio_encoder, corpus)
    chosen = spread_recorded(corpus, options.utterances)
    if len(chosen) < 2:
        raise UserError(f"{options.corpus}: the {options.split} split needs two utterances with vertices")
    bank = MotionBank(corpus, chosen)
    rows: list[dict[str, Any]] = []
    for position, i in enumerate(chosen):
        utterance, recording = corpus[i], bank[position]
        found = one_motion(actor, audio, corpus, i)
        n = min(len(found), len(recording.displacement))
        motions = found[:n], recording.displacement[:n]
        for name, model in models.items():
            ones = torch.ones(1, len(model.score_names))
            about = {"model": name, "utterance": utterance.name, "subject": utterance.subject}
            objective = score_objective(model, recording.template, encoded(model, recording), ones)
            rows.append(about | slope(objective, *motions, motion.lips, space))
        for name, part in parts.items():
            about = {"model": name, "utterance": utterance.name, "subject": utterance.subject}
            objective = reward_objective(part, part.prepare(utterance), utterance.template, shown_style(corpus, i))
            rows.append(about | slope(objective, *motions, motion.lips, space))
    write_rows(options.out / "slope.csv", rows)
    text = table(rows)
    atomic_write_text(options.out / "slope.md", text)
    print(text)
    return rows


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
