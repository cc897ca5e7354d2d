"""Deterministic predictions of many utterances and styles at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s2f_rl.errors import NotFinite
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.contract import Actor


@dataclass(frozen=True)
class Prediction:
    """One utterance in several style conditions: ``displacement`` [K, T, V*3] metres, ``styles`` the K columns."""

    utterance: int
    styles: tuple[int, ...]
    displacement: Tensor


@torch.no_grad()
def predict_corpus(
    actor: Actor,
    audio: CachedAudio,
    utterances: Sequence[int],
    styles: Sequence[Sequence[int]],
    max_lanes: int = 64,
) -> Iterator[Prediction]:
    """Deterministic autoregressive displacements, utterance by utterance in the order given.

    Args:
        actor: the model; the audio comes from ``audio``.
        audio: cached features of the corpus.
        utterances: indices into the corpus.
        styles: for each utterance the style columns to condition on.
        max_lanes: (utterance, style) pairs that are recursed together.

    Raises:
        NotFinite: a prediction is not finite. It is no missing value: the actor is of no use.
    """
    device = actor.device
    batch: list[tuple[int, tuple[int, ...]]] = []
    for i, conditions in zip(utterances, styles, strict=True):
        if batch and sum(len(c) for _, c in batch) + len(conditions) > max_lanes:
            yield from _predict_batch(actor, audio, batch, device)
            batch = []
        batch.append((i, tuple(conditions)))
    if batch:
        yield from _predict_batch(actor, audio, batch, device)


def _predict_batch(
    actor: Actor, audio: CachedAudio, batch: list[tuple[int, tuple[int, ...]]], device: torch.device
) -> Iterator[Prediction]:
    features = [audio.get(i) for i, _ in batch]
    lanes = torch.nn.utils.rnn.pad_sequence(
        [f for f, (_, conditions) in zip(features, batch, strict=True) for _ in conditions], batch_first=True
    )
    columns = torch.tensor([c for _, conditions in batch for c in conditions])
    style = torch.nn.functional.one_hot(columns, actor.n_styles).float()
    lengths = [len(f) for f, (_, conditions) in zip(features, batch, strict=True) for _ in conditions]
    latent = actor.generate(lanes.to(device), style.to(device), lengths)
    start = 0
    for (i, conditions), feature in zip(batch, features, strict=True):
        own = latent[start : start + len(conditions), : len(feature)]
        start += len(conditions)
        displacement = actor.decode(own).cpu()
        if not bool(torch.isfinite(displacement).all()):
            raise NotFinite(
                f"{audio.corpus.names[i]}: the predicted motion is not finite, so the actor has diverged; use an "
                "earlier checkpoint, or train with a smaller optimizer.lr"
            )
        yield Prediction(i, conditions, displacement)
