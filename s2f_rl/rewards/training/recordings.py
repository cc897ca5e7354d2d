"""Motions, mel clips and corruption contexts of a corpus, as reward training and its report need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from s2f_rl.data.contract import Corpus, place_of, recorded, speech_at
from s2f_rl.data.lru import ByteCache
from s2f_rl.data.mel import CLIP_FRAMES, mel_clips
from s2f_rl.data.splits import parse_name
from s2f_rl.errors import UserError
from s2f_rl.rewards.corruptions import CorruptionContext, stretched
from s2f_rl.rewards.motion.subspace import MotionSubspace, with_vertices
from s2f_rl.rewards.training.mse_regressor import SpeechRegressor
from s2f_rl.rewards.training.policy_samples import samples_of


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

    @property
    def nbytes(self) -> int:
        """Bytes of motion and clips."""
        return self.displacement.nbytes + self.mel_clips.nbytes


class MotionBank:
    """The recorded utterances of a corpus, read on demand and kept in memory up to a limit.

    Args:
        corpus: a ``FaceCorpus``; utterances without vertices are left out.
        utterances: indices to use, default all.
        memory_limit_mb: least recently used recordings leave the memory beyond this.
        speeds: every utterance is there once for each, played so much faster, and the motion with it
            (speed perturbation, Ko et al., Interspeech 2015): further voices.
        policy_samples: folder with motions that a policy made for these utterances (:class:`PolicySamples`).

    Raises:
        UserError: nothing recorded is in the corpus, or a speed is not positive.
    """

    def __init__(
        self,
        corpus: Corpus,
        utterances: Sequence[int] | None = None,
        memory_limit_mb: float = 1024.0,
        speeds: Sequence[float] = (1.0,),
        policy_samples: str | Path | None = None,
    ) -> None:
        self.corpus = corpus
        self.fps = float(corpus.fps)
        if not speeds or min(speeds) <= 0:
            raise UserError(f"speeds={list(speeds)}: give positive factors, such as [0.9, 1.0, 1.1]")
        recorded = with_vertices(corpus, utterances)
        self.utterances = [index for index in recorded for _ in speeds]
        self.speeds = [float(speed) for _ in recorded for speed in speeds]
        self.policy = None if policy_samples is None else samples_of(policy_samples, corpus)
        if not self.utterances:
            raise UserError("the corpus has no utterance with vertices: a reward is trained on recorded motion")
        names = [str(corpus.names[index]) for index in self.utterances]
        self.subjects, self.sentences = (list(part) for part in zip(*map(parse_name, names), strict=True))
        if self.policy is not None and not any(name in self.policy for name in names):
            raise UserError(f"{policy_samples}: no prediction of the utterances of {place_of(corpus)}; predict them")
        self._memory: ByteCache[Recording] = ByteCache(int(memory_limit_mb * 2**20))
        self._regressed: dict[tuple[int, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, position: int) -> Recording:
        return self._memory.get(position, lambda: self._read(position))

    def _read(self, position: int) -> Recording:
        u = self.corpus[self.utterances[position]]
        speed = self.speeds[position]
        template = torch.as_tensor(u.template).float().flatten()
        displacement = recorded(u).float().flatten(1) - template
        if speed == 1.0:
            mel = torch.as_tensor(u.mel_clips).float()
        else:
            displacement = stretched(displacement, max(CLIP_FRAMES, round(len(displacement) / speed)))
            mel = mel_clips(speech_at(u, self.corpus.clock.mel_rate_hz, speed))
        return Recording(
            name=u.name,
            subject=u.subject,
            sentence=self.sentences[position],
            displacement=displacement,
            template=template,
            mel_clips=mel,
        )

    def fit_regressor(self, motion: MotionSubspace, max_utterances: int = 200) -> SpeechRegressor:
        """A least-squares regressor of this bank's motion on its speech."""
        plain = [position for position, speed in enumerate(self.speeds) if speed == 1.0] or list(range(len(self)))
        recordings = (self[position] for position in plain[:: max(1, len(plain) // max_utterances)])
        return SpeechRegressor.fit(motion, ((each.displacement, each.mel_clips) for each in recordings))

    def context(
        self,
        position: int,
        motion: MotionSubspace,
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
            policy_sample=self._policy_sample(position, generator, frames),
        )

    def _policy_sample(self, position: int, generator: torch.Generator, frames: slice) -> Tensor | None:
        if self.policy is None:
            return None
        recording = self[position]
        n_frames = self.corpus.n_frames(self.utterances[position])
        sample = self.policy(recording.name, recording.template, n_frames, generator)
        return None if sample is None else stretched(sample, len(recording.displacement), frames)


def _draw(positions: list[int], generator: torch.Generator) -> int | None:
    choice = int(torch.randint(max(1, len(positions)), (1,), generator=generator))
    return positions[choice] if positions else None
