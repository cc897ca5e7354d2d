"""One utterance of a corpus. Nothing is read before it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from s2f_rl.data.audio import SPEECH_RATE_HZ, normalise
from s2f_rl.data.splits import parse_name


class UtteranceSource(Protocol):
    """What an utterance reads from: a :class:`~s2f_rl.data.corpus.FaceCorpus`, or a corpus of another layout.

    ``i`` is a position in ``names``; shapes and units are those of the :class:`Utterance`'s property.
    """

    @property
    def names(self) -> Sequence[str]: ...
    def n_frames(self, i: int) -> int: ...
    def has_vertices(self, i: int) -> bool: ...
    def template(self, subject: str) -> torch.Tensor: ...
    def style(self, subject: str) -> torch.Tensor | None: ...
    def read_waveform(self, i: int) -> torch.Tensor: ...
    def read_speech(self, i: int, rate: int, speed: float = 1.0) -> np.ndarray: ...
    def read_vertices(self, i: int) -> torch.Tensor | None: ...
    def read_coefficients(self, i: int) -> torch.Tensor | None: ...
    def read_mel_clips(self, i: int) -> torch.Tensor: ...
    def read_phones(self, name: str) -> list[tuple[str, float, float]] | None: ...
    def read_transcript(self, name: str) -> str | None: ...


class Utterance:
    """A sentence of a corpus: its speech and, where there is a recording of the face, its motion.

    A light handle: every property reads when it is used, so keep the tensor, not the property, in a loop. Tensors are
    float32, on the CPU, and the caller's own (changing them changes nothing in the corpus). All of them raise
    :class:`~s2f_rl.errors.UserError` when a file is missing or damaged.

    Attributes:
        name: ``SUBJECT_sentenceNN``.
        subject: the speaker.
        sentence: the number at the end of the name; None without one.
        index: position in the corpus.
        sample_rate: 16000 Hz, of ``waveform`` and ``waveform_raw``.
    """

    sample_rate = SPEECH_RATE_HZ

    def __init__(self, corpus: UtteranceSource, index: int) -> None:
        self._corpus = corpus
        self.index = index
        self.name = corpus.names[index]
        self.subject, self.sentence = parse_name(self.name)

    def __repr__(self) -> str:
        return f"Utterance({self.name!r}, index={self.index})"

    def __len__(self) -> int:
        return self.n_frames

    @property
    def n_frames(self) -> int:
        """T: the speech's natural frame count, cut to the recorded frames where there are any. From headers alone."""
        return self._corpus.n_frames(self.index)

    @property
    def has_vertices(self) -> bool:
        """Whether the face was recorded; False for audio-only utterances."""
        return self._corpus.has_vertices(self.index)

    @property
    def waveform_raw(self) -> torch.Tensor:
        """Speech [N] at 16 kHz, mono, -1..1."""
        return self._corpus.read_waveform(self.index)

    def speech_at(self, rate_hz: int, speed: float = 1.0) -> torch.Tensor:
        """Speech [N] at ``rate_hz``, mono, -1..1, resampled from the file's own rate; played ``speed`` times as fast.

        Pitch, formants and rate change together: speed perturbation (Ko et al., Interspeech 2015).
        """
        return torch.from_numpy(self._corpus.read_speech(self.index, rate_hz, speed))

    @property
    def waveform(self) -> torch.Tensor:
        """Speech [N] at 16 kHz with zero mean and unit variance: what the speech encoders take."""
        return torch.from_numpy(normalise(self.waveform_raw.numpy()))

    @property
    def vertices(self) -> torch.Tensor | None:
        """The recorded face [T, V*3], metres; None for audio-only utterances."""
        return self._corpus.read_vertices(self.index)

    @property
    def coefficients(self) -> torch.Tensor | None:
        """The recorded coefficients [T, K] of ``corpus.rig``; None where the motion is vertices, or there is none."""
        return self._corpus.read_coefficients(self.index)

    @property
    def template(self) -> torch.Tensor:
        """The subject's neutral face [V*3], metres."""
        return self._corpus.template(self.subject)

    @property
    def mel_clips(self) -> torch.Tensor:
        """Log-mel clips [n, 20, 128], clip i for the frames i..i+4. n may be above or below T-4."""
        return self._corpus.read_mel_clips(self.index)

    @property
    def style(self) -> torch.Tensor | None:
        """One-hot [S] for training subjects, in the order of ``corpus.subjects``; None for all others."""
        return self._corpus.style(self.subject)

    @property
    def phones(self) -> list[tuple[str, float, float]] | None:
        """[(phone, start, end)] in seconds from ``phones/NAME.json``; None where there is no such file."""
        return self._corpus.read_phones(self.name)

    @property
    def transcript(self) -> str | None:
        """The spoken words from ``transcripts.json`` {NAME: text}; None where they are not known."""
        return self._corpus.read_transcript(self.name)
