"""The audio half of the reward, computed once per utterance: it does not depend on what the policy does."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from s2f_rl.data.contract import SpokenParts
from s2f_rl.data.files import atomic_save_npy
from s2f_rl.data.lru import ByteCache
from s2f_rl.data.stored_features import stored_features
from s2f_rl.data.temporary import remove_leftovers
from s2f_rl.rewards.judge.judge import AnyReward
from s2f_rl.rewards.model.checked_arrays import ArrayLike


class AudioFeatureCache:
    """Audio features of a corpus's utterances, in memory and, with a folder, on disk.

    A file is keyed by the content of the mel clips and the weights of the audio half, so neither another reward nor
    another recording under the same name can be answered with old features. Files are written atomically; a damaged
    file is computed again.

    Args:
        reward_model: its audio half encodes.
        corpus: whose sound is encoded: a corpus, or a folder of sound files.
        folder: for files, several processes may share it; None keeps the features in memory only.
        memory_limit_mb: least recently used utterances leave the memory beyond this.

    Attributes:
        computed, from_disk, from_memory: how often each answered.
    """

    def __init__(
        self,
        reward_model: AnyReward,
        corpus: SpokenParts | None,
        folder: str | os.PathLike[str] | None = None,
        memory_limit_mb: float = 512.0,
    ) -> None:
        self.reward_model = reward_model
        self.corpus = corpus
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            remove_leftovers(self.folder)
        self.computed = self.from_disk = self.from_memory = 0
        self._weights = reward_model.audio_hash() if folder is not None else ""
        self._memory: ByteCache[Tensor] = ByteCache(int(memory_limit_mb * 2**20))

    def get(self, utterance: int) -> Tensor:
        """Unit features [n, E] of utterance ``utterance``, one row per mel clip, on the reward model's device."""
        utterance, corpus = int(utterance), self.corpus
        if corpus is None:
            raise ValueError("without a corpus there are no utterances to get; encode() takes clips")
        self.from_memory += utterance in self._memory
        features = self._memory.get(utterance, lambda: self.encode(corpus[utterance].mel_clips))
        return features.to(self.reward_model.device)

    def path(self, mel_clips: Tensor) -> Path | None:
        """The file that holds, or would hold, the features of these clips; None without a folder."""
        if self.folder is None:
            return None
        mel = np.ascontiguousarray(mel_clips.detach().cpu().float().numpy())
        key = hashlib.sha256(f"{self._weights}{mel.shape}".encode() + mel.tobytes()).hexdigest()
        return self.folder / key[:2] / f"{key}.npy"

    def encode(self, mel_clips: ArrayLike) -> Tensor:
        """Unit features [n, E] of mel clips [n, 20, 128], on the CPU: from disk, or computed and written there."""
        mel_clips = torch.as_tensor(mel_clips)
        path = self.path(mel_clips)
        if path is not None:
            stored = stored_features(path, (len(mel_clips), self.reward_model.feature_width))
            if stored is not None:
                self.from_disk += 1
                return stored
        with torch.no_grad():
            features = self.reward_model.encode_audio(mel_clips).cpu()
        self.computed += 1
        if path is not None:
            atomic_save_npy(path, features.numpy())
        return features
