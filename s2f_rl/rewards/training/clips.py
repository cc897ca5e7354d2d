"""Batches of true and spoiled clips, from which a reward is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from s2f_rl import ranks
from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.rewards.corruptions import Corruption
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.draw_ahead import Planned
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

_WEIGHTS = ("visible", "heads", "spoiled_visible", "spoiled_heads")
_BASES = ("regression_to_mean", "over_smoothing", "amplitude_down", "policy_samples")
_ON_BASES = (
    "jitter", "policy_noise", "policy_noise_fine", "policy_noise_coarse", "policy_noise_correlated",
    "shift_early", "shift_late",
)  # fmt: skip


@dataclass
class ClipBatch(Comparisons):
    """True and spoiled versions of the same clips. N pairs of clips, R numbers per frame; a row is one of ``clips``.

    Attributes:
        mel: [N, 20, 128] mel clips of the true pairs. recording, clip: [N] where they come from.
        clips: [M, 5, R] mesh frames of all versions (projected, or raw vertices without a projection); the first N are
            the true ones.
        audio: [M] row of ``mel`` that belongs to each of ``clips``.
        n_windows: true pairs and spoiled clips come in runs of so many from one stretch.
        seed: for whatever else is drawn for this batch.
    """

    mel: Tensor
    recording: Tensor
    clip: Tensor
    clips: Tensor
    audio: Tensor
    n_windows: int
    seed: int

    def of_all_ranks(self, mesh: Tensor, audio: Tensor) -> tuple[ClipBatch, Tensor, Tensor]:
        """The batches of all ranks as one, with the features of its clips, which keep their gradient.

        Only what is compared is exchanged: the one batch has no clips of its own.

        Args:
            mesh: [M, E] features of ``clips``. audio: [N, E] of ``mel``.
        """
        if ranks.count() == 1:
            return self, mesh, audio
        n, m = len(self.mel), len(self.clips) - len(self.mel)
        sizes = ranks.rows_of_all(torch.tensor([[n, m]])).tolist()
        here, n_all = ranks.rank(), sum(n for n, _ in sizes)
        true_before, spoiled_before = (sum(size[k] for size in sizes[:here]) for k in (0, 1))
        rows = ranks.rows_with_gradient(torch.cat([mesh, audio]))
        parts = rows.split([k for n, m in sizes for k in (n, m, n)])
        order = [*parts[0::3], *parts[1::3]]

        def of_clips(row: Tensor) -> Tensor:  # the true ones of all ranks come first
            moved = torch.where(row < n, row + true_before, row - n + n_all + spoiled_before)
            return ranks.rows_of_all(moved)

        heard = ranks.rows_of_all(self.audio[:n] + true_before), ranks.rows_of_all(self.audio[n:] + true_before)
        one = ClipBatch(
            mel=self.mel.new_empty(n_all, 0), recording=ranks.rows_of_all(self.recording),
            clip=ranks.rows_of_all(self.clip), clips=self.clips.new_empty(0), audio=torch.cat(heard),
            n_windows=self.n_windows, seed=self.seed, better=of_clips(self.better), worse=of_clips(self.worse),
            spoiled=of_clips(self.spoiled),
            **{name: ranks.rows_of_all(getattr(self, name)) for name in _WEIGHTS},
        )  # fmt: skip
        return one, torch.cat(order), torch.cat(parts[2::3])


class ClipSampler(SpoilingSampler):
    """Draws :class:`ClipBatch` from a bank.

    Several clips come from one stretch of an utterance, at least ``min_spacing`` frames apart: the others are the
    time-shifted hard negatives of each in InfoNCE. Faces are given what another identity would add, and scaled a
    little, so that new speakers are not new to the reward. Of every corruption a weak and a strong version is made,
    with the same draws.

    Args:
        bank: recorded motion of the training speakers.
        motion: its statistics.
        projection: view of the mesh for the first layer, None for raw vertices (a given backbone).
        regressor: for the corruptions that need one.
        corruptions: to draw from.
        seed: of all draws.
        n_stretches: stretches per batch. n_windows: clips per stretch. stretch_frames: length of a stretch.
        n_corruptions: per stretch.
        emphasis: how often a corruption is drawn (by name), compared with those that are not named.
        on_base: share of them laid over an already smoothed motion.
        identity_spread: how different the random identities are, in measured differences; 0 keeps the speaker's own.
        scale_range: displacements are scaled by up to this factor up and down.
        capture_noise_mm: see :class:`SpoilingSampler`.
    """

    def __init__(
        self,
        bank: MotionBank,
        motion: MotionSubspace,
        projection: MeshProjection | None,
        regressor: SpeechRegressor | None,
        corruptions: Sequence[Corruption],
        seed: int = 0,
        *,
        n_stretches: int,
        n_windows: int,
        stretch_frames: int,
        min_spacing: int,
        n_corruptions: int,
        emphasis: Mapping[str, float],
        on_base: float,
        identity_spread: float,
        scale_range: float,
        capture_noise_mm: float,
    ) -> None:
        self._clips = [bank[position].n_clips for position in range(len(bank))]
        usable = [position for position, n_clips in enumerate(self._clips) if n_clips >= n_windows]
        super().__init__(bank, motion, regressor, corruptions, seed, usable, n_corruptions, on_base, capture_noise_mm)
        self.projection, self.min_spacing = projection, min_spacing
        self.n_stretches, self.n_windows, self.stretch_frames = n_stretches, n_windows, stretch_frames
        self.identity_spread, self.scale_range = identity_spread, scale_range
        self.emphasis = dict(emphasis)

    def is_base(self, corruption: Corruption) -> bool:
        return corruption.name in _BASES

    def is_over(self, corruption: Corruption) -> bool:
        return corruption.name in _ON_BASES

    def choose(self, pool: Sequence[Corruption], generator: torch.Generator) -> Corruption:
        """One of ``pool``, as often as ``emphasis`` says."""
        often = torch.tensor([float(self.emphasis.get(each.name, 1.0)) for each in pool])
        return pool[int(torch.multinomial(often, 1, generator=generator))]

    def draw(self) -> ClipBatch:
        """The next batch."""
        return self.plan().made()

    def plan(self) -> Planned[_ClipStretch, ClipBatch]:
        """The next batch, to be made a stretch at a time."""
        parts = self.next_positions(self.n_stretches)
        seed = int(torch.randint(2**62, (), generator=self.generator))
        # not kept: a resume replaces the projection's content
        noise_map = self.motion.basis if self.projection is None else self.motion.basis @ self.projection.matrix.T
        jobs = [partial(self._stretch, position, generator, noise_map) for position, generator in parts]
        return Planned(jobs, partial(self._joined, torch.tensor([position for position, _ in parts]), seed))

    def _joined(self, positions: Tensor, seed: int, stretches: list[_ClipStretch]) -> ClipBatch:
        versions, owners, numbers = in_one_batch(stretches)

        def of_clips(each: Tensor) -> Tensor:  # versions, or stretches, [..] -> their clips [.., n_windows]
            return each[:, None] * self.n_windows + torch.arange(self.n_windows)

        return ClipBatch(
            mel=torch.cat([stretch.mel for stretch in stretches]),
            recording=positions.repeat_interleave(self.n_windows),
            clip=torch.cat([stretch.clip for stretch in stretches]),
            clips=torch.cat(versions).unflatten(0, (-1, CLIP_FRAMES)),
            audio=of_clips(torch.tensor(owners)).flatten(),
            n_windows=self.n_windows,
            seed=seed,
            **compared(stretches, [of_clips(own) for own in numbers], torch.cat),
        )

    # ---------------------------------------------------------------- one stretch

    def _stretch(self, position: int, generator: torch.Generator, noise_map: Tensor) -> _ClipStretch:
        recording = self.bank[position]
        length = min(self.stretch_frames, self._clips[position] + CLIP_FRAMES - 1)
        start = int(torch.randint(self._clips[position] + CLIP_FRAMES - length, (1,), generator=generator))
        windows = self._windows(length - CLIP_FRAMES + 1, generator)
        low, frames = self.with_margin(start, length, len(recording.displacement))
        truth = recording.displacement[frames] * self.scale_range ** uniform(-1, 1, generator)
        context = self.bank.context(position, self.motion, generator, self.regressor, frames)
        clip = start + windows
        face = self.another_face(generator)
        stretch = _ClipStretch(recording.mel_clips[clip], clip, clip - low, generator)
        self.spoil(stretch, truth, context)
        at_rest, view = self.seen(recording.template, face), self.projection
        # linear: what moves is projected apart from the face at rest, so that no sum of the two is made
        stretch.look(lambda d: at_rest + (d if view is None else d @ view.matrix.T), noise_map, self.motion)
        return stretch

    def _windows(self, n_starts: int, generator: torch.Generator) -> Tensor:
        """Starts of ``n_windows`` clips in a stretch, sorted, ``min_spacing`` apart where there is room."""
        spacing = min(self.min_spacing, max(1, (n_starts - 1) // max(1, self.n_windows - 1)))
        room = n_starts - spacing * (self.n_windows - 1)
        draws = torch.randint(room, (self.n_windows,), generator=generator).sort().values
        return draws + spacing * torch.arange(self.n_windows)

    def another_face(self, generator: torch.Generator) -> Tensor | None:
        """What another face at rest adds to the projected frames [R]; None one time in four, and for raw vertices."""
        if self.projection is None or self.identity_spread == 0 or uniform(0, 1, generator) < 0.25:
            return None
        return self.projection.random_offset(generator, self.identity_spread * uniform(0.3, 1.7, generator))

    def seen(self, vertices: Tensor, offset: Tensor | None = None) -> Tensor:
        """Vertices [..., V*3] as the first layer sees them [..., R], on another face."""
        frames = vertices if self.projection is None else self.projection(vertices)
        return frames if offset is None else frames + offset


class _ClipStretch(SpoiledStretch):
    """Versions of the clips of one stretch."""

    def __init__(self, mel: Tensor, clip: Tensor, windows: Tensor, generator: torch.Generator) -> None:
        frames = (windows[:, None] + torch.arange(CLIP_FRAMES)).flatten()
        super().__init__(frames, lambda each: each.unflatten(-1, (-1, CLIP_FRAMES)), generator)
        self.mel, self.clip = mel, clip
