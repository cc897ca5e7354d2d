"""Audio features of a corpus, computed once per utterance: a frozen encoder's output never changes in RL."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from torch import Tensor

from s2f_rl.data.contract import Corpus, place_of
from s2f_rl.data.files import atomic_save_npy
from s2f_rl.data.lru import ByteCache
from s2f_rl.data.stored_features import hash_tensors, stored_features
from s2f_rl.data.temporary import remove_leftovers
from s2f_rl.errors import UserError
from s2f_rl.models.audio_encoders import AudioEncoder

log = logging.getLogger(__name__)


class CachedAudio:
    """``CachedAudio(encoder, corpus).get(i)`` is utterance i's audio features [T, A, D], T = ``corpus.n_frames(i)``.

    Features keep their natural length and are then cut to the shorter of audio and vertices, never stretched, so that
    they stay in step with the mel clips. The encoder runs in evaluation mode without gradient.

    Args:
        audio_encoder: treated as frozen; call :meth:`refresh` if its weights changed.
        corpus: whose speech is encoded.
        folder: also keep features here as ``<hash>.npy``, keyed by waveform content and encoder weights;
            None: in memory only.
        max_megabytes: bound of the memory cache; the least recently used utterance goes first.

    Raises:
        UserError: encoder and corpus run at different rates.
    """

    def __init__(
        self,
        audio_encoder: AudioEncoder,
        corpus: Corpus,
        folder: str | Path | None = None,
        max_megabytes: float = 2048.0,
    ) -> None:
        clocks = audio_encoder.clock.difference(corpus.clock)
        if clocks is not None:
            raise UserError(
                f"the audio encoder and {place_of(corpus)} run at {clocks}; make the encoder with "
                f"fps={corpus.fps:g} and features_per_frame={corpus.clock.features_per_frame}"
            )
        self.audio_encoder, self.corpus = audio_encoder, corpus
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            remove_leftovers(self.folder)
        self._memory: ByteCache[Tensor] = ByteCache(int(max_megabytes * 2**20))
        self._weights: str | None = None

    @property
    def features_per_frame(self) -> int:
        return self.audio_encoder.features_per_frame

    @property
    def width(self) -> int:
        return self.audio_encoder.width

    def refresh(self) -> None:
        """Forget everything in memory; needed after the encoder was trained further."""
        self._memory.clear()
        self._weights = None

    def get(self, index: int) -> Tensor:
        """Features [T, A, D] float32 on the CPU of utterance ``index``."""
        return self._memory.get(index, lambda: self._load_or_compute(index))

    def _load_or_compute(self, index: int) -> Tensor:
        utterance = self.corpus[index]
        n_frames = self.corpus.n_frames(index)
        shape = (n_frames, self.features_per_frame, self.width)
        path = None
        if self.folder is not None:
            weights = self.audio_encoder.state_dict().items()
            self._weights = self._weights or hash_tensors(weights, as_stored=True)[:16]
            content = hashlib.sha256(utterance.waveform.numpy().tobytes()).hexdigest()[:24]
            rate = f"{self.audio_encoder.clock.fps:.9g}"
            path = self.folder / f"audio-{self._weights}-{content}-{rate}-{n_frames}.npy"
            stored = stored_features(path, shape)
            if stored is not None:
                return stored
        features = self._compute(utterance.waveform, n_frames)
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_save_npy(path, features.numpy())
            except (OSError, UserError) as error:
                log.warning("cannot write %s (%s): features stay in memory", path, error)
        return features

    @torch.no_grad()
    def _compute(self, waveform: Tensor, n_frames: int) -> Tensor:
        encoder = self.audio_encoder
        was_training = encoder.training
        encoder.eval()
        try:
            device = next(encoder.parameters()).device
            hidden = encoder(waveform[None].to(device))[0]
        finally:
            encoder.train(was_training)
        return hidden.unflatten(0, (-1, self.features_per_frame))[:n_frames].cpu().contiguous()
