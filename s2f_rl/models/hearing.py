"""What an audio encoder makes of the speech in a batch while reinforcement learning trains it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.nn import functional as F

from s2f_rl import keys
from s2f_rl.data.contract import Corpus
from s2f_rl.errors import UserError
from s2f_rl.models.audio_cache import TrainingAudio
from s2f_rl.models.audio_encoders import AudioEncoder


class CarriesEncoder(Protocol):
    """A policy that brings the encoder's weights along."""

    encoder: nn.ParameterList | None


class Hearing(nn.Module):
    """An audio encoder that trains, over the speech of a corpus: one function for the rollout and for the update.

    ``hearing.get(i)`` is what an environment observes of utterance i, without a gradient. ``hearing(batch)`` is a batch
    with its ``audio`` made anew, with one. Both give the same numbers before an update. What comes before the part that
    trains is computed once per utterance (:class:`~s2f_rl.models.audio_cache.TrainingAudio`); the rest once for every
    utterance of a batch, alone and unpadded, however many lanes say it. The encoder runs in the mode that it is in:
    evaluation, in RL.

    Args:
        encoder: what of it supervised training would train is set free now (:meth:`AudioEncoder.set_trainable`).
        corpus: whose speech is heard.
        folder: where the features that no training changes are kept; None: in memory.

    Attributes:
        encoder: the encoder.
        trained: its parameters that train, in the encoder's order.

    Raises:
        UserError: the encoder has nothing that trains, or runs at another rate than the corpus.
    """

    def __init__(self, encoder: AudioEncoder, corpus: Corpus, folder: str | Path | None = None) -> None:
        super().__init__()
        encoder.set_trainable(True)
        self.encoder, self.speech = encoder, TrainingAudio(encoder, corpus, folder)
        self.trained = [p for p in encoder.parameters() if p.requires_grad]
        if not self.trained:
            raise UserError(
                f"train_encoder=true: nothing trains in an audio encoder of kind {encoder.kind}; set it to false"
            )
        self.__dict__["_policy"] = None

    @property
    def width(self) -> int:
        """D."""
        return self.encoder.width

    def follow(self, policy: CarriesEncoder) -> None:
        """From now on hear with the weights that ``policy.encoder`` has then: in a worker, where they arrive."""
        if policy.encoder is None:
            raise TypeError("follow: the policy carries no encoder")
        self.__dict__["_policy"] = policy

    @torch.no_grad()
    def get(self, utterance: int) -> Tensor:
        """Features [T, A, D] of an utterance, T its natural length, on the encoder's device."""
        policy: CarriesEncoder | None = self.__dict__["_policy"]
        if policy is not None and policy.encoder is not None:
            for own, sent in zip(self.trained, policy.encoder, strict=True):
                own.data = sent.data  # asked anew each time: what arrives may replace what was there
        return self.speech.get(utterance)

    def forward(self, batch: TensorDictBase) -> TensorDictBase:
        """The batch [B, T] with the ``audio`` [B, T, A, D] that the encoder makes now."""
        return with_speech(batch, self.speech.get)


def with_speech(batch: TensorDictBase, get: Callable[[int], Tensor]) -> TensorDictBase:
    """A shallow copy of a batch [B, T] with other ``audio``; every utterance is asked for once.

    Args:
        get: utterance -> features [T_u, A, D], of which a lane hears as many frames as it has; 0 on padding.
    """
    n_time = batch.shape[1]
    lanes = torch.cat([batch.get(keys.UTTERANCE)[:, 0], batch.get(keys.FRAME_MASK).sum(1)], 1).tolist()
    heard = {utterance: get(utterance) for utterance in dict.fromkeys(u for u, _ in lanes)}
    # by slices: the gradient of an indexed copy has no fixed order of summation on several threads
    audio = [F.pad(heard[u][:n], (0, 0, 0, 0, 0, n_time - n)) for u, n in lanes]
    return batch.clone(False).set(keys.AUDIO, torch.stack(audio))
