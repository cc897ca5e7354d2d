"""An actor's motions in the batches in which they are measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from s2f_rl.data.contract import Corpus
from s2f_rl.evaluation.predict import Prediction, predict_corpus
from s2f_rl.evaluation.summary import MEAN
from s2f_rl.metrics import diversity
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.contract import Actor

WHOLE_S = 20.0
"""Seconds up to which all conditions of an utterance are held at once: 1.1 GB at V=5023 in eight styles."""
_SCORED_FRAMES = 2400
"""Of motions that are held and scored in one batch, each as long as the longest: 150 MB at V=5023."""


@dataclass(frozen=True)
class Motions:
    """Motions of one utterance.

    Attributes:
        utterance: its index.
        vertices: [K, T, V*3], metres.
        names: K conditions, ``mean`` for their mean.
        spread: what the row of the last one says of all conditions.
        last: whether no more of this utterance follow.
    """

    utterance: int
    vertices: Tensor
    names: list[str]
    spread: dict[str, float] = field(default_factory=dict)
    last: bool = True


def motions_together(
    actor: Actor, corpus: Corpus, audio: CachedAudio, columns: Sequence[Sequence[int]], mean: bool
) -> Iterator[list[Motions]]:
    """The motions of every utterance in its style columns, in order, in batches to be measured.

    An utterance that is longer than :data:`WHOLE_S` comes by itself, a condition at a time, so that one motion is held
    and, with several conditions, the sum for their mean and their lips.

    Args:
        columns: those of each utterance.
        mean: also the mean over the conditions, where there are several.
    """
    most = WHOLE_S * corpus.fps
    for long, found in groupby(range(len(corpus)), lambda i: corpus.n_frames(i) > most):
        chosen = list(found)
        if long:
            for i in chosen:
                for each in _one_by_one(actor, corpus, audio, i, columns[i], mean):
                    yield [each]
        else:
            predictions = predict_corpus(actor, audio, chosen, [columns[i] for i in chosen])
            for together in _batches(predictions):
                yield [_motions(prediction, corpus, mean) for prediction in together]


def _one_by_one(
    actor: Actor, corpus: Corpus, audio: CachedAudio, index: int, columns: Sequence[int], mean: bool
) -> Iterator[Motions]:
    template, wanted = corpus[index].template, mean and len(columns) > 1
    total: Tensor | None = None
    lips: list[Tensor] = []
    for k, column in enumerate(columns):
        vertices = next(predict_corpus(actor, audio, [index], [[column]])).displacement.add_(template)
        if wanted:
            total = vertices.clone() if total is None else total.add_(vertices)
            if "lips" in corpus.regions:
                lips.append(vertices[0].unflatten(-1, (-1, 3))[:, corpus.regions["lips"]])
        yield Motions(index, vertices, [corpus.subjects[column]], last=not wanted and k == len(columns) - 1)
        del vertices  # before the next one is made
    if total is not None:
        spread = {"diversity_over_styles": float(diversity(torch.stack(lips)))} if lips else {}
        yield Motions(index, total.div_(len(columns)), [MEAN], spread)


def _batches(found: Iterable[Prediction]) -> Iterator[list[Prediction]]:
    """Predictions in lists that are scored at once; one that is too long for that is alone."""
    batch: list[Prediction] = []
    for prediction in found:
        longest = max(each.displacement.shape[1] for each in (*batch, prediction))
        if batch and longest * sum(len(each.styles) for each in (*batch, prediction)) > _SCORED_FRAMES:
            yield batch
            batch = []
        batch.append(prediction)
    if batch:
        yield batch


def _motions(prediction: Prediction, corpus: Corpus, mean: bool) -> Motions:
    """All conditions of an utterance at once."""
    vertices = prediction.displacement + corpus[prediction.utterance].template
    names = [corpus.subjects[c] for c in prediction.styles]
    spread: dict[str, float] = {}
    if mean and len(names) > 1:
        if "lips" in corpus.regions:
            spread = {"diversity_over_styles": float(diversity(vertices, corpus.regions["lips"]))}
        vertices = torch.cat([vertices, vertices.mean(0, keepdim=True)])
        names.append(MEAN)
    return Motions(prediction.utterance, vertices, names, spread)
