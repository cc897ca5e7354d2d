"""The same speech animated before and after: figures that need no recorded face, and what became of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from s2f_rl.adaptation.corpus import ADAPTED, HELD_BACK, Roles
from s2f_rl.data import FaceCorpus
from s2f_rl.evaluation import Scorer, predict_corpus
from s2f_rl.evaluation.tables import Row
from s2f_rl.metrics.amplitude import motion_amplitude
from s2f_rl.metrics.jitter import rms_jerk
from s2f_rl.metrics.lips import lip_distance
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.meeting import load_actor_for
from s2f_rl.rewards.articulation.closure import ClosureReward

BEFORE, AFTER = "before", "after"
_LEVEL = 0.95
_MM_PER_M = 1000.0


class Figures:
    """Figures of motions that no truth is needed for.

    ``lip_amplitude_mm``: :func:`~s2f_rl.metrics.amplitude.motion_amplitude` of the lips; ``lip_jerk_mm``:
    :func:`~s2f_rl.metrics.jitter.rms_jerk` of the lips, mm per frame^3. With phones ``closed_on_bilabials``: of the
    frames inside /m b p/ the share in which the lips are closed; ``closed_elsewhere``: the same of the other frames of
    speech that are at least 50 ms from a bilabial. Closed is what :class:`ClosureReward` takes for it.
    """

    def __init__(self, corpus: FaceCorpus) -> None:
        self.corpus = corpus
        has_phones = any(corpus[i].phones for i in range(len(corpus)))
        self.closure = ClosureReward(corpus) if has_phones and {"upper_lip", "lower_lip"} <= {*corpus.regions} else None

    def __call__(self, index: int, vertices: Tensor) -> dict[str, float]:
        """Of a motion [T, V*3], metres, of utterance ``index``; nan where something cannot be measured."""
        lips = self.corpus.regions["lips"]
        found = {
            "lip_amplitude_mm": _MM_PER_M * float(motion_amplitude(vertices, lips)),
            "lip_jerk_mm": _MM_PER_M * float(rms_jerk(vertices, lips)),
        }
        if self.closure is not None:
            asked = self.closure.prepare(self.corpus[index])
            closed = lip_distance(vertices, self.closure.upper_lip, self.closure.lower_lip) <= asked.threshold_m
            for name, wanted in (("closed_on_bilabials", asked.closed), ("closed_elsewhere", asked.open)):
                n = min(len(closed), len(wanted))
                there = closed[:n][wanted[:n]]
                found[name] = float(there.double().mean()) if len(there) else math.nan
        return found


def before_and_after(
    checkpoints: Mapping[str, str | Path],
    corpus: FaceCorpus,
    roles: Roles,
    style: str,
    scorer: Scorer,
    device: str | torch.device = "cpu",
) -> list[Row]:
    """Rows ``utterance``, ``sentence``, ``part`` (adapted, held_back), ``actor``, and a column for each figure.

    Args:
        checkpoints: {"before": .., "after": ..}. corpus: all of its utterances. roles: which to animate.
        style: training subject. scorer: on ``corpus``. device: of the actors.
    """
    parts = {name: (part, said) for part in (ADAPTED, HELD_BACK) for name, said in getattr(roles, part).items()}
    indices = [corpus.index(name) for name in parts]
    column, figures = corpus.subjects.index(style), Figures(corpus)
    rows: list[Row] = []
    for label, checkpoint in checkpoints.items():
        actor, _ = load_actor_for(checkpoint, corpus)
        actor.to(device)
        audio = CachedAudio(actor.audio_encoder, corpus)
        for found in predict_corpus(actor, audio, indices, [[column]] * len(indices)):
            name = corpus.names[found.utterance]
            vertices = found.displacement + corpus[found.utterance].template
            (part, said), (scores,) = parts[name], scorer.scores(found.utterance, vertices)
            about = {"utterance": name, "sentence": said, "part": part, "actor": label}
            rows.append({**about, **scores, **figures(found.utterance, vertices[0])})
    return rows


@dataclass(frozen=True)
class Change:
    """What became of one figure over the sentences of one part.

    Attributes:
        part, figure: which. sentences: that it was measured on, before and after.
        before, after: means over them.
        margin: half of the 95% t-interval of the mean change, over sentences; nan for a single one.
    """

    part: str
    figure: str
    sentences: int
    before: float
    after: float
    margin: float

    @property
    def difference(self) -> float:
        return self.after - self.before

    @property
    def is_apart_from_zero(self) -> bool:
        return abs(self.difference) > self.margin  # nan: never


def changes(rows: Sequence[Row]) -> list[Change]:
    """The changes of all figures, paired by sentence, adapted ones first."""
    from scipy.stats import t

    found = []
    for part in (ADAPTED, HELD_BACK):
        own = {actor: {r["utterance"]: r for r in rows if (r["part"], r["actor"]) == (part, actor)} for actor in
               (BEFORE, AFTER)}  # fmt: skip
        figures = dict.fromkeys(k for row in own[BEFORE].values() for k, v in row.items() if isinstance(v, float))
        for figure in figures:
            pairs = np.array([[own[a][name].get(figure, math.nan) for a in (BEFORE, AFTER)] for name in own[BEFORE]])
            pairs = pairs[np.isfinite(pairs).all(1)]
            n = len(pairs)
            if not n:
                continue
            spread = float((pairs[:, 1] - pairs[:, 0]).std(ddof=1)) if n > 1 else math.nan
            margin = float(t.ppf((1 + _LEVEL) / 2, n - 1)) * spread / math.sqrt(n) if n > 1 else math.nan
            before, after = pairs.mean(0).tolist()
            found.append(Change(part, figure, n, before, after, margin))
    return found
