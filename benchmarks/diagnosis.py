"""What separates an actor from the ground truth in the eyes of reward and judge, and what exploration noise costs.

    python -m benchmarks.diagnosis CORPUS OUT --checkpoint RUN --reward FOLDER --judge FOLDER

Exchanges slow and fast movement, and the lips, between an actor and the ground truth of the same utterance, and scores
the mixtures; then scores sampled motion at several sizes of noise. Writes ``diagnosis.md`` and ``diagnosis.csv``.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.evaluate import actor_parser, one_motion, open_actor, open_scorer, spread
from benchmarks.measures import smooth
from s2f_rl.data import FaceCorpus
from s2f_rl.data.files import atomic_write_text
from s2f_rl.errors import UserError
from s2f_rl.evaluation import summarise, write_rows
from s2f_rl.evaluation.evaluate import Row
from s2f_rl.models.audio_cache import CachedAudio

CUT_FRAMES = 1.0
NOISE_MM = (0.03, 0.1, 0.3)


def mixtures(actor: Tensor, truth: Tensor, lips: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The two motions [T, V*3] (displacements), and what arises from exchanging parts of theirs.

    Slow is what a Gaussian of `CUT_FRAMES` leaves over, fast the rest, so that slow + fast is the motion itself.
    """
    yield "ground truth", truth
    yield "actor", actor
    slow_actor, slow_truth = smooth(actor, CUT_FRAMES), smooth(truth, CUT_FRAMES)
    yield "actor's slow, truth's fast movement", slow_actor + (truth - slow_truth)
    yield "truth's slow, actor's fast movement", slow_truth + (actor - slow_actor)
    for name, body, mouth in (("truth, the actor's lips", truth, actor), ("actor, the truth's lips", actor, truth)):
        mixed = body.clone().unflatten(1, (-1, 3))
        mixed[:, lips] = mouth.unflatten(1, (-1, 3))[:, lips]
        yield name, mixed.flatten(1)


@torch.no_grad()
def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = actor_parser(__doc__, utterances=24)
    options = parser.parse_args(argv)

    corpus = FaceCorpus(options.corpus, split=options.split)
    scorer = open_scorer(options.reward, {"judge": options.judge}, corpus)
    actor = open_actor(options.checkpoint, corpus)
    lips = corpus.regions["lips"]
    audio = CachedAudio(actor.audio_encoder, corpus)
    noise = torch.Generator().manual_seed(0)
    sizes = {mm: actor.make_policy(noise_mm=mm, noise_vertices=lips) for mm in NOISE_MM}
    rows: list[Row] = []
    for i in spread(len(corpus), options.utterances):
        utterance = corpus[i]
        if utterance.vertices is None:
            continue
        found = one_motion(actor, audio, corpus, i)
        truth = utterance.vertices - utterance.template
        n = min(len(found), len(truth))
        motions = dict(mixtures(found[:n], truth[:n], lips))
        for mm, policy in sizes.items():
            # white noise in the latent, laid over the mean motion: what one sample differs from it, without feedback
            sigma = policy.core.exploration()["noise"]
            drawn = torch.randn(n, len(sigma), generator=noise) * sigma
            motions[f"actor with {mm} mm of policy noise"] = found[:n] + drawn @ policy.core.linear_decode.weight.T
        scored = scorer.scores(i, torch.stack(list(motions.values())) + utterance.template)
        rows += [{"utterance": utterance.name, "motion": m, **s} for m, s in zip(motions, scored, strict=True)]
    if not rows:
        raise UserError(f"{options.corpus}: no utterance of the {options.split} split has vertices to compare with")
    table = {name: summarise([row for row in rows if row["motion"] == name]) for name in motions}
    columns = list(table["actor"])
    lines = ["| motion | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    lines += [f"| {name} | " + " | ".join(f"{values[c]:.3f}" for c in columns) + " |" for name, values in table.items()]
    write_rows(options.out / "diagnosis.csv", rows)
    atomic_write_text(options.out / "diagnosis.md", "\n".join(lines) + "\n")
    print("\n".join(lines))
    return table


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
