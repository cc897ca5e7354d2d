"""Batches of true and spoiled stretches of motion, from which a judge is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s2f_rl.data.contract import Corpus
from s2f_rl.data.mel import CLIP_FRAMES, NATS_PER_UNIT
from s2f_rl.errors import UserError
from s2f_rl.keys import LIP_SCORE
from s2f_rl.rewards.corruptions import Corruption
from s2f_rl.rewards.judge.layers import WINDOW_FRAMES, live_bins, mel_frames
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.mse_regressor import SpeechRegressor
from s2f_rl.rewards.training.projection import MeshProjection
from s2f_rl.rewards.training.recordings import MotionBank
from s2f_rl.rewards.training.spoiled_stretches import (
    Comparisons,
    SpoiledStretch,
    SpoilingSampler,
    compared,
    in_one_batch,
    uniform,
)

_BASE_FAMILIES = ("smoothness", "amplitude")
_OVER_FAMILIES = ("smoothness", "noise", "time")


@dataclass
class StretchBatch(Comparisons):
    """True and spoiled versions of the same stretches. S stretches, M versions, L frames, R numbers per frame; a row is
    a version, with L-20 windows.

    Attributes:
        mel: [S, L, 4, 128] mel rows of every frame.
        frames: [M, L, R] projected frames of all versions; the first S are the true ones.
        stretch: [M] which stretch each is a version of.
    """

    mel: Tensor
    frames: Tensor
    stretch: Tensor


class StretchSampler(SpoilingSampler):
    """Draws :class:`StretchBatch` from a bank.

    So that unseen speakers are not new to the judge, every stretch gets, in all its versions alike, another face,
    another style (each direction of the motion larger or smaller) and another voice (loudness, tilt, noise, vocal
    tract).
    Of every corruption a weak and a strong version is made, with the same draws.

    Args:
        bank: recorded motion of the training speakers. motion: its statistics.
        projection: view of the mesh. regressor: for the corruptions that need one.
        corruptions: to draw from; controls are left out. seed: of all draws.
        n_stretches: stretches per batch. stretch_frames: their length; less where an utterance is shorter.
        n_corruptions: corruptions per stretch. on_base: share of them laid over an already smoothed motion.
        identity_spread: how different the random faces are, in measured differences.
        style_spread: standard deviation of the logarithm of each direction's factor.
        scale_range: all directions together are scaled by up to this factor up and down.
        voice_spread: size of the changes to the voice; 0 keeps the recorded ones.
        capture_noise_mm: see :class:`SpoilingSampler`.

    Raises:
        UserError: no recording is long enough, or the corruptions are controls only.
    """

    def __init__(
        self,
        bank: MotionBank,
        motion: MotionSubspace,
        projection: MeshProjection,
        regressor: SpeechRegressor | None,
        corruptions: Sequence[Corruption],
        seed: int = 0,
        *,
        n_stretches: int,
        stretch_frames: int,
        n_corruptions: int,
        on_base: float,
        identity_spread: float,
        style_spread: float,
        scale_range: float,
        voice_spread: float,
        capture_noise_mm: float,
    ) -> None:
        self._frames = [bank[position].n_clips + CLIP_FRAMES - 1 for position in range(len(bank))]
        usable = [position for position, n_frames in enumerate(self._frames) if n_frames >= WINDOW_FRAMES]
        if not usable:
            raise UserError(f"no recording has {WINDOW_FRAMES} frames with sound: a judge is trained on longer ones")
        super().__init__(bank, motion, regressor, corruptions, seed, usable, n_corruptions, on_base, capture_noise_mm)
        self.projection, self.n_stretches, self.stretch_frames = projection, n_stretches, stretch_frames
        self.identity_spread, self.style_spread = identity_spread, style_spread
        self.scale_range, self.voice_spread = scale_range, voice_spread

    def is_base(self, corruption: Corruption) -> bool:
        return corruption.family in _BASE_FAMILIES and LIP_SCORE in corruption.heads

    def is_over(self, corruption: Corruption) -> bool:
        return corruption.family in _OVER_FAMILIES

    def draw(self) -> StretchBatch:
        """The next batch."""
        parts = self.next_positions(self.n_stretches)
        length = min(self.stretch_frames, *(self._frames[position] for position, _ in parts))
        style_map = self.motion.basis @ self.projection.matrix.T  # not kept: a resume replaces the projection's content
        stretches = [self._stretch(position, generator, length, style_map) for position, generator in parts]
        versions, owners, numbers = in_one_batch(stretches)
        return StretchBatch(
            mel=torch.stack([stretch.mel for stretch in stretches]),
            frames=torch.stack(versions),
            stretch=torch.tensor(owners),
            **compared(stretches, numbers, torch.stack),
        )

    # ---------------------------------------------------------------- one stretch

    def _stretch(self, position: int, generator: torch.Generator, length: int, style_map: Tensor) -> _JudgeStretch:
        recording = self.bank[position]
        start = int(torch.randint(self._frames[position] - length + 1, (1,), generator=generator))
        low, frames = self.with_margin(start, length, len(recording.displacement))
        truth = recording.displacement[frames]
        context = self.bank.context(position, self.motion, generator, self.regressor, frames)
        mel = mel_frames(recording.mel_clips[start : start + length - CLIP_FRAMES + 1])
        if self.voice_spread:
            mel = another_voice(mel, generator, self.voice_spread)
        look = _Look(recording.template, self.projection, self.motion, style_map, *self._appearance(generator))
        stretch = _JudgeStretch(mel, torch.arange(start - low, start - low + length), generator)
        self.spoil(stretch, truth, context)
        stretch.look(look, look.noise_map, self.motion)
        return stretch

    def _appearance(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What another face adds to projected frames [R], and factors of the motion's directions [K]."""
        offset = self.projection.random_offset(generator, self.identity_spread * uniform(0.3, 1.7, generator))
        scale = math.log(self.scale_range) * uniform(-1, 1, generator)
        style = torch.randn(len(self.motion.std), generator=generator) * self.style_spread
        return offset, (scale + style).exp()


def long_enough(corpus: Corpus, utterances: Sequence[int] | None = None) -> list[int]:
    """Indices of the utterances (default all) with vertices and at least one window that a judge scores."""
    bank = MotionBank(corpus, utterances)
    shortest = WINDOW_FRAMES - CLIP_FRAMES + 1
    return [utterance for k, utterance in enumerate(bank.utterances) if bank[k].n_clips >= shortest]


@dataclass
class _Look:
    """How displacements [..., V*3] look in a stretch: projected, on another face, in another style."""

    template: Tensor
    projection: MeshProjection
    motion: MotionSubspace
    style_map: Tensor
    offset: Tensor
    factors: Tensor

    def __call__(self, displacement: Tensor) -> Tensor:
        change = self.motion.coefficients(displacement) * (self.motion.std * (self.factors - 1))
        return self.projection(self.template + displacement) + change @ self.style_map + self.offset

    @property
    def noise_map(self) -> Tensor:
        """[K, R] what a metre along each direction of the motion adds."""
        return self.factors[:, None] * self.style_map


class _JudgeStretch(SpoiledStretch):
    """Versions of one stretch."""

    def __init__(self, mel: Tensor, frames: Tensor, generator: torch.Generator) -> None:
        super().__init__(frames, lambda each: each.unfold(-1, WINDOW_FRAMES, 1), generator)
        self.mel = mel


def another_voice(mel: Tensor, generator: torch.Generator, spread: float = 1.0) -> Tensor:
    """The same speech by another voice in another room.

    Args:
        mel: [..., 128] mel rows as in :func:`s2f_rl.data.mel_clips`.
        spread: of loudness (+-6.5 dB), tilt (+-6.5 dB from end to end), vocal tract length (+-8%) and, every second
            time, noise from 17 to 52 dB below the loudest.

    Returns:
        as ``mel``; filters without a bin keep their constant.
    """
    draws = (2 * torch.rand(5, generator=generator) - 1) * spread
    bins = live_bins()
    rows = mel[..., bins]
    # vocal tract: filters read from a little above or below
    at = (bins * (1 + 0.08 * draws[0])).clamp(float(bins[0]), float(bins[-1]))
    high = torch.searchsorted(bins.float(), at.float()).clamp(1, len(bins) - 1)
    share = (at - bins[high - 1]) / (bins[high] - bins[high - 1])
    rows = torch.lerp(rows[..., high - 1], rows[..., high], share)
    rows = rows + (1.5 * draws[1] + 1.5 * draws[2] * torch.linspace(-0.5, 0.5, len(bins))) / NATS_PER_UNIT
    if draws[3] > 0:
        noise = rows.amax() - (8 + 4 * draws[4]) / NATS_PER_UNIT
        rows = torch.logaddexp(rows * NATS_PER_UNIT, noise * NATS_PER_UNIT) / NATS_PER_UNIT
    changed = mel.clone()
    changed[..., bins] = rows
    return changed
