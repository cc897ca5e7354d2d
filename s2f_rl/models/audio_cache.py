"""Audio features of a corpus, computed once per utterance as far as no training changes them; in RL none does."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from s2f_rl.data.contract import Corpus, place_of
from s2f_rl.data.files import atomic_save_npy
from s2f_rl.data.lru import ByteCache
from s2f_rl.data.stored_features import hash_tensors, stored_features
from s2f_rl.data.temporary import remove_leftovers
from s2f_rl.errors import UserError
from s2f_rl.models.audio_encoders import AudioEncoder, FrontEnd, evaluating
from s2f_rl.models.windowed_audio import encode_long

log = logging.getLogger(__name__)


class _KeptFeatures:
    """What an encoder hears of a corpus, kept in memory and, with a folder, on disk."""

    def __init__(
        self,
        audio_encoder: AudioEncoder,
        corpus: Corpus,
        folder: str | Path | None = None,
        max_megabytes: float = 2048.0,
    ) -> None:
        self.audio_encoder, self.corpus = audio_encoder, corpus
        self.folder, self.max_megabytes = _opened(audio_encoder, corpus, folder), max_megabytes
        self._memory: ByteCache[Tensor] = ByteCache(int(max_megabytes * 2**20))
        self._weights: str | None = None  # hash of all that a file's features depend on, but for the sound

    @property
    def _device(self) -> torch.device:
        return next(self.audio_encoder.parameters()).device

    def _encoded(self, index: int) -> Tensor:
        """[T, A, D] of the whole encoder, T the natural length."""
        hidden = encode_long(self.audio_encoder, self.corpus[index].waveform[None].to(self._device))[0]
        return hidden.unflatten(0, (-1, self.audio_encoder.features_per_frame))

    def _path(self, kind: str, index: int, weights: Callable[[], str], last: int) -> Path | None:
        """The file of an utterance's features, named by weights, sound and rate; None without a folder."""
        if self.folder is None:
            return None
        self._weights = self._weights or weights()[:16]
        sound = hashlib.sha256(self.corpus[index].waveform.numpy().tobytes()).hexdigest()[:24]
        return self.folder / f"{kind}-{self._weights}-{sound}-{self.audio_encoder.clock.fps:.9g}-{last}.npy"


class CachedAudio(_KeptFeatures):
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
        UserError: encoder and corpus run at different rates, or ``folder`` cannot be made.
    """

    _training: TrainingAudio | None = None

    @property
    def features_per_frame(self) -> int:
        return self.audio_encoder.features_per_frame

    @property
    def width(self) -> int:
        return self.audio_encoder.width

    def refresh(self) -> None:
        """Forget what training changed; needed after the encoder was trained further.

        From then on what does not train is kept by a :class:`TrainingAudio`, and what does in memory alone.
        """
        self._memory.clear()
        self._training = self._training or TrainingAudio(
            self.audio_encoder, self.corpus, self.folder, self.max_megabytes
        )

    def get(self, index: int) -> Tensor:
        """Features [T, A, D] float32 on the CPU of utterance ``index``."""
        return self._memory.get(index, lambda: self._load_or_compute(index))

    def _load_or_compute(self, index: int) -> Tensor:
        n_frames, path = self.corpus.n_frames(index), None
        if self._training is None:
            path = self._path("audio", index, self._hash, n_frames)
        shape = (n_frames, self.features_per_frame, self.width)
        return _kept(path, shape, lambda: self._compute(index)[:n_frames].cpu().contiguous())

    def _hash(self) -> str:
        return hash_tensors(self.audio_encoder.state_dict().items(), as_stored=True)

    @torch.no_grad()
    def _compute(self, index: int) -> Tensor:
        with evaluating(self.audio_encoder):
            return self._encoded(index) if self._training is None else self._training.get(index)


class TrainingAudio(_KeptFeatures):
    """``TrainingAudio(encoder, corpus).get(i)`` is utterance i's audio features [T, A, D] while the encoder trains.

    The encoder runs as it is (its mode, its weights, its device), with a gradient. What comes before the part that
    trains, wav2vec2's convolutions for one, runs once per utterance: the numbers are those of the whole encoder. An
    encoder all of which trains (:meth:`AudioEncoder.front_end` is None) runs as a whole.

    Arguments and errors are those of :class:`CachedAudio`; what trains in the encoder is settled now.
    """

    def __init__(
        self,
        audio_encoder: AudioEncoder,
        corpus: Corpus,
        folder: str | Path | None = None,
        max_megabytes: float = 2048.0,
    ) -> None:
        super().__init__(audio_encoder, corpus, folder, max_megabytes)
        self._front = audio_encoder.front_end()

    def get(self, index: int) -> Tensor:
        """Features [T, A, D] of utterance ``index``, T its natural length, on the encoder's device."""
        encoder, front = self.audio_encoder, self._front
        if front is None:
            return self._encoded(index)
        features = self._memory.get(index, lambda: self._load_or_compute(index, front))
        hidden = encoder.contextualise(features[None].to(self._device))[0]
        return hidden.unflatten(0, (-1, encoder.features_per_frame))

    def _load_or_compute(self, index: int, front: FrontEnd) -> Tensor:
        encoder, waveform = self.audio_encoder, self.corpus[index].waveform
        each = encoder.features_per_frame

        def weights() -> str:
            return hash_tensors(front.tensors.items(), front.settings, as_stored=True)

        path, shape = self._path("front", index, weights, each), (encoder.n_frames(len(waveform)) * each, front.width)
        with torch.no_grad():
            return _kept(path, shape, lambda: encoder.frame_features(waveform[None].to(self._device))[0].cpu())


def _opened(encoder: AudioEncoder, corpus: Corpus, folder: str | Path | None) -> Path | None:
    clocks = encoder.clock.difference(corpus.clock)
    if clocks is not None:
        raise UserError(
            f"the audio encoder and {place_of(corpus)} run at {clocks}; make the encoder with "
            f"fps={corpus.fps:g} and features_per_frame={corpus.clock.features_per_frame}"
        )
    if folder is None:
        return None
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: no folder for cached audio features ({error.strerror}); name another (corpus.cache)"
        ) from error
    remove_leftovers(Path(folder))
    return Path(folder)


def _kept(path: Path | None, shape: tuple[int, ...], compute: Callable[[], Tensor]) -> Tensor:
    """The features in ``path`` where they are there and whole, else computed and written there."""
    stored = None if path is None else stored_features(path, shape)
    if stored is not None:
        return stored
    features = compute()
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_save_npy(path, features.numpy())
        except (OSError, UserError) as error:
            log.warning("cannot write %s (%s): features stay in memory", path, error)
    return features
