"""What the rest of the package needs of a corpus: implement this, and environments, losses and measures take it.

:class:`~s2f_rl.data.FaceCorpus` is the one that we have. Whatever a corpus of one's own reads, what it gives is in
metres at ``fps``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from s2f_rl.data.clock import Clock
from s2f_rl.data.mesh_identity import MeshIdentity
from s2f_rl.errors import UserError

Phone = tuple[str, float, float]
"""(name, start, end) in seconds."""


@runtime_checkable
class SpokenUtterance(Protocol):
    """One sentence: speech, a face at rest and, where it was recorded, the motion. Tensors are float32 on the CPU."""

    @property
    def name(self) -> str:
        """Unique in the corpus."""

    @property
    def subject(self) -> str:
        """The speaker."""

    @property
    def waveform(self) -> Tensor:
        """[N] at 16 kHz, zero mean and unit variance: what audio encoders take."""

    @property
    def waveform_raw(self) -> Tensor:
        """[N] at 16 kHz, -1..1."""

    @property
    def sample_rate(self) -> int:
        """Of both waveforms: 16000."""

    @property
    def mel_clips(self) -> Tensor:
        """[n, 20, 128], clip i for the frames i..i+4."""

    @property
    def template(self) -> Tensor:
        """[V*3] the face at rest, metres."""

    @property
    def vertices(self) -> Tensor | None:
        """[T, V*3] the recorded face, metres; None for speech alone."""

    @property
    def style(self) -> Tensor | None:
        """[S] one-hot for training subjects; None for others."""

    @property
    def phones(self) -> list[Phone] | None:
        """What is said when; None where it is not known."""


class HasMelClips(Protocol):
    """Sound that can be scored."""

    @property
    def mel_clips(self) -> Tensor:
        """[n, 20, 128]."""


class SpokenParts(Protocol):
    """As far as scoring needs a corpus: sound by position."""

    def __getitem__(self, key: int, /) -> HasMelClips: ...


@runtime_checkable
class Corpus(Protocol):
    """Utterances by position, and what all of them share."""

    @property
    def names(self) -> Sequence[str]:
        """Of the utterances, in order."""

    @property
    def subjects(self) -> Sequence[str]:
        """The training subjects in the order of the style columns."""

    @property
    def n_vertices(self) -> int:
        """V."""

    @property
    def clock(self) -> Clock:
        """Rate and audio features per frame."""

    @property
    def fps(self) -> float:
        """Frames per second."""

    @property
    def audio_features_per_frame(self) -> int:
        """A."""

    @property
    def regions(self) -> Mapping[str, Tensor]:
        """Vertex indices by name: "lips", "upper_lip", "lower_lip", "upper_face", as far as they are known."""

    @property
    def mesh_identity(self) -> MeshIdentity:
        """Which mesh the faces are."""

    @property
    def faces(self) -> Tensor | None:
        """Triangles [F, 3]; None where they are not known."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: int, /) -> SpokenUtterance: ...

    def has_vertices(self, i: int) -> bool:
        """Whether the motion of utterance i was recorded, without reading it."""

    def n_frames(self, i: int) -> int:
        """T of utterance i, without reading it."""

    def template(self, subject: str) -> Tensor:
        """[V*3] of a subject, metres."""


def recorded(utterance: SpokenUtterance) -> Tensor:
    """[T, V*3] the recorded face, metres. Raises UserError where there is speech alone."""
    vertices = utterance.vertices
    if vertices is None:
        raise UserError(f"{utterance.name}: its face was not recorded; choose utterances that have vertices")
    return vertices


def speech_at(utterance: SpokenUtterance, rate_hz: int, speed: float) -> Tensor:
    """Speech [N] at ``rate_hz``, played ``speed`` times as fast (see :meth:`~s2f_rl.data.Utterance.speech_at`, which a
    corpus need not have). Raises UserError where it has not."""
    if not hasattr(utterance, "speech_at"):
        raise UserError(f"{utterance.name}: its corpus cannot play it faster or slower; leave the speeds out")
    speech: Tensor = utterance.speech_at(rate_hz, speed)
    return speech


def place_of(corpus: Corpus) -> str:
    """Where a corpus lies, for messages: its ``root``, which only those on disk have."""
    return str(getattr(corpus, "root", "the corpus"))


def metres_per_file_unit(corpus: Corpus) -> float:
    """What a length of 1 in the files of a corpus is; 1.0 where it does not say (``metres_per_unit``)."""
    return float(getattr(corpus, "metres_per_unit", 1.0))
