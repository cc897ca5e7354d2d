"""Motions, mel clips and corruption contexts of a corpus, as reward training and its report need them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from s2f_rl.data.splits import parse_name
from s2f_rl.errors import UserError
from s2f_rl.rewards.corruptions import CorruptionContext, stretched
from s2f_rl.rewards.motion import MotionStatistics, with_vertices
from s2f_rl.rewards.regression import SpeechRegressor
from s2f_rl.rewards.speech_mesh import CLIP_FRAMES


@dataclass
class Recording:
    """One utterance: ``displacement`` [T, V*3] and ``template`` [V*3] in metres, ``mel_clips`` [n, 20, 128]."""

    name: str
    subject: str
    sentence: int | None
    displacement: Tensor
    template: Tensor
    mel_clips: Tensor

    @property
    def n_clips(self) -> int:
        """Clips that have both halves."""
        return max(0, min(len(self.mel_clips), len(self.displacement) - CLIP_FRAMES + 1))


class MotionBank:
    """The recorded utterances of a corpus, read on demand and kept in memory up to a limit.

    Args:
        corpus: a ``FaceCorpus``; utterances without vertices are left out.
        utterances: indices to use, default all.
        memory_limit_mb: least recently used recordings leave the memory beyond this.

    Raises:
        UserError: nothing recorded is in the corpus.
    """

    def __init__(self, corpus: Any, utterances: Sequence[int] | None = None, memory_limit_mb: float = 1024.0) -> None:
        self.corpus = corpus
        self.fps = float(corpus.fps)
        self.utterances = with_vertices(corpus, utterances)
        if not self.utterances:
            raise UserError("the corpus has no utterance with vertices: a reward is trained on recorded motion")
        names = [str(corpus.names[index]) for index in self.utterances]
        self.subjects, self.sentences = (list(part) for part in zip(*map(parse_name, names), strict=True))
        self.limit_bytes = int(memory_limit_mb * 2**20)
        self._memory: OrderedDict[int, Recording] = OrderedDict()
        self._regressed: dict[tuple[int, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, position: int) -> Recording:
        if position in self._memory:
            self._memory.move_to_end(position)
            return self._memory[position]
        u = self.corpus[self.utterances[position]]
        template = torch.as_tensor(u.template).float().flatten()
        recording = Recording(
            name=u.name,
            subject=u.subject,
            sentence=self.sentences[position],
            displacement=torch.as_tensor(u.vertices).float().flatten(1) - template,
            template=template,
            mel_clips=torch.as_tensor(u.mel_clips).float(),
        )
        self._memory[position] = recording
        while len(self._memory) > 1 and sum(_bytes(kept) for kept in self._memory.values()) > self.limit_bytes:
            self._memory.popitem(last=False)
        return recording

    def fit_regressor(self, motion: MotionStatistics, max_utterances: int = 200) -> SpeechRegressor:
        """A least-squares regressor of this bank's motion on its speech."""
        step = max(1, len(self) // max_utterances)
        recordings = (self[position] for position in range(0, len(self), step))
        return SpeechRegressor.fit(motion, ((each.displacement, each.mel_clips) for each in recordings))

    def context(
        self,
        position: int,
        motion: MotionStatistics,
        generator: torch.Generator,
        regressor: SpeechRegressor | None = None,
        frames: slice | None = None,
    ) -> CorruptionContext:
        """What corruptions may need to spoil recording ``position``, or its ``frames`` only.

        The other utterance and the other speaker are drawn with ``generator``; None where the bank has none.
        """
        recording = self[position]
        frames = frames or slice(0, len(recording.displacement))
        subject, sentence = recording.subject, recording.sentence
        same = [p for p in range(len(self)) if self.subjects[p] == subject and self.sentences[p] != sentence]
        others = [p for p in range(len(self)) if self.subjects[p] != subject]
        others = [p for p in others if self.sentences[p] == sentence] or others
        utterance, speaker = _draw(same, generator), _draw(others, generator)
        other_speaker = None
        if speaker is not None:
            other_speaker = stretched(self[speaker].displacement, len(recording.displacement), frames)
        regression = None
        if regressor is not None:
            key = (id(regressor), position)
            if key not in self._regressed:
                n_frames = len(recording.displacement)
                self._regressed[key] = regressor.coefficients(recording.mel_clips, n_frames)
            regression = motion.decode(self._regressed[key][frames])
        return CorruptionContext(
            motion=motion,
            generator=generator,
            fps=self.fps,
            template=recording.template,
            other_utterance=None if utterance is None else self[utterance].displacement,
            other_speaker=other_speaker,
            regression=regression,
        )


def _draw(positions: list[int], generator: torch.Generator) -> int | None:
    choice = int(torch.randint(max(1, len(positions)), (1,), generator=generator))
    return positions[choice] if positions else None


def _bytes(recording: Recording) -> int:
    return recording.displacement.nbytes + recording.mel_clips.nbytes
