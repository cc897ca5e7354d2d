"""Batches of true and spoiled clips, from which a reward is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s2f_rl.keys import LIP_SCORE, REAL_SCORE
from s2f_rl.rewards.bank import MotionBank
from s2f_rl.rewards.corruptions import Corruption, CorruptionContext
from s2f_rl.rewards.motion import MotionStatistics
from s2f_rl.rewards.projection import MeshProjection
from s2f_rl.rewards.regression import SpeechRegressor
from s2f_rl.rewards.speech_mesh import CLIP_FRAMES

_MARGIN_FRAMES = 10
_VISIBLE_MM = 0.5
_BASES = ("regression_to_mean", "over_smoothing", "amplitude_down", "policy_samples")
_ON_BASES = (
    "jitter", "policy_noise", "policy_noise_fine", "policy_noise_coarse", "policy_noise_correlated",
    "shift_early", "shift_late",
)  # fmt: skip


@dataclass
class ClipBatch:
    """True and spoiled versions of the same clips. N pairs of clips, P comparisons, R numbers per frame.

    Attributes:
        mel: [N, 20, 128] mel clips of the true pairs. recording, clip: [N] where they come from.
        clips: [M, 5, R] mesh frames of all versions (projected, or raw vertices without a projection); the first N are
            the true ones.
        audio: [M] row of ``mel`` that belongs to each of ``clips``.
        better, worse: [P] rows of ``clips`` to compare.
        visible: [P] in [0, 1], how much of the difference of the two can be seen in these 5 frames.
        heads: [P, 2] bool, which of lip and real ought to notice.
        spoiled: [Q] rows of ``clips`` that are wrong beyond doubt; ``spoiled_visible`` [Q], ``spoiled_heads`` [Q, 2].
        n_windows: true pairs and spoiled clips come in runs of so many from one stretch.
    """

    mel: Tensor
    recording: Tensor
    clip: Tensor
    clips: Tensor
    audio: Tensor
    better: Tensor
    worse: Tensor
    visible: Tensor
    heads: Tensor
    spoiled: Tensor
    spoiled_visible: Tensor
    spoiled_heads: Tensor
    n_windows: int

    def to(self, device: str | torch.device) -> ClipBatch:
        """The batch on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return ClipBatch(**moved, n_windows=self.n_windows)


class ClipSampler:
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
    """

    def __init__(
        self,
        bank: MotionBank,
        motion: MotionStatistics,
        projection: MeshProjection | None,
        regressor: SpeechRegressor | None,
        corruptions: Sequence[Corruption],
        seed: int = 0,
        n_stretches: int = 16,
        n_windows: int = 5,
        stretch_frames: int = 28,
        min_spacing: int = 3,
        n_corruptions: int = 3,
        emphasis: Mapping[str, float] | None = None,
        on_base: float = 0.3,
        identity_spread: float = 1.0,
        scale_range: float = 1.1,
    ) -> None:
        self.bank, self.motion, self.projection, self.regressor = bank, motion, projection, regressor
        self.corruptions = [each for each in corruptions if each.heads]  # controls are not trained on
        self.generator = torch.Generator().manual_seed(seed)
        self.n_stretches, self.n_windows, self.stretch_frames = n_stretches, n_windows, stretch_frames
        self.min_spacing, self.n_corruptions, self.on_base = min_spacing, n_corruptions, on_base
        self.identity_spread, self.scale_range = identity_spread, scale_range
        self.emphasis = dict(emphasis or {})
        self._clips = [bank[position].n_clips for position in range(len(bank))]
        self._usable = [position for position, n_clips in enumerate(self._clips) if n_clips >= n_windows]
        self._order: list[int] = []

    def state_dict(self) -> dict[str, Tensor]:
        """State of the draws, to resume with."""
        return {"generator": self.generator.get_state(), "order": torch.tensor(self._order, dtype=torch.int64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.generator.set_state(state["generator"])
        self._order = [int(position) for position in state["order"]]

    def draw(self) -> ClipBatch:
        """The next batch."""
        positions = [self.next_position() for _ in range(self.n_stretches)]
        stretches = [self._stretch(position) for position in positions]
        n_true = sum(len(stretch.mel) for stretch in stretches)
        clips, audio, better, worse, visible, heads = [], [], [], [], [], []
        spoiled, spoiled_visible, spoiled_heads = [], [], []
        first_mel, first_clip = 0, n_true
        for stretch in stretches:
            n = len(stretch.mel)
            rows = [torch.arange(first_mel, first_mel + n)]  # row of each version's clips in the batch
            for _ in stretch.versions[1:]:
                rows.append(torch.arange(first_clip, first_clip + n))
                first_clip += n
            clips.append(stretch.versions)
            audio.append(torch.arange(first_mel, first_mel + n).expand(len(stretch.versions) - 1, n))
            for one, other, seen, routed in stretch.comparisons:
                better.append(rows[one])
                worse.append(rows[other])
                visible.append(seen)
                heads.append(routed.expand(n, 2))
            for version, seen, routed in stretch.wrong:
                spoiled.append(rows[version])
                spoiled_visible.append(seen)
                spoiled_heads.append(routed.expand(n, 2))
            first_mel += n
        return ClipBatch(
            mel=torch.cat([stretch.mel for stretch in stretches]),
            recording=torch.tensor(positions).repeat_interleave(torch.tensor([len(s.mel) for s in stretches])),
            clip=torch.cat([stretch.clip for stretch in stretches]),
            clips=torch.cat([versions[0] for versions in clips] + [v for versions in clips for v in versions[1:]]),
            audio=torch.cat([torch.arange(n_true), *(rows.flatten() for rows in audio)]),
            better=torch.cat(better),
            worse=torch.cat(worse),
            visible=torch.cat(visible),
            heads=torch.cat(heads),
            spoiled=torch.cat(spoiled),
            spoiled_visible=torch.cat(spoiled_visible),
            spoiled_heads=torch.cat(spoiled_heads),
            n_windows=self.n_windows,
        )

    # ---------------------------------------------------------------- one stretch

    def next_position(self) -> int:
        """A recording of the bank; all are drawn once before one is drawn again."""
        if not self._order:
            order = torch.randperm(len(self._usable), generator=self.generator).tolist()
            self._order = [self._usable[i] for i in order]
        return self._order.pop()

    def _uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def _stretch(self, position: int) -> _Stretch:
        recording = self.bank[position]
        length = min(self.stretch_frames, self._clips[position] + CLIP_FRAMES - 1)
        start = int(torch.randint(self._clips[position] + CLIP_FRAMES - length, (1,), generator=self.generator))
        windows = self._windows(length - CLIP_FRAMES + 1)
        # corruptions that look around (shifts, smoothing) get a margin on both sides
        low = max(0, start - _MARGIN_FRAMES)
        frames = slice(low, min(len(recording.displacement), start + length + _MARGIN_FRAMES))
        truth = recording.displacement[frames] * self.scale_range ** self._uniform(-1, 1)
        context = self.bank.context(position, self.motion, self.generator, self.regressor, frames)
        clip = start + windows
        template, face = recording.template, self.another_face()
        stretch = _Stretch(
            recording.mel_clips[clip], clip, clip - low, lambda motion: self.seen(template + motion, face)
        )
        true = stretch.add(truth)
        for _ in range(self.n_corruptions):
            self._spoil(stretch, true, truth, context)
        return stretch

    def _windows(self, n_starts: int) -> Tensor:
        """Starts of ``n_windows`` clips in a stretch, sorted, ``min_spacing`` apart where there is room."""
        spacing = min(self.min_spacing, max(1, (n_starts - 1) // max(1, self.n_windows - 1)))
        room = n_starts - spacing * (self.n_windows - 1)
        draws = torch.randint(room, (self.n_windows,), generator=self.generator).sort().values
        return draws + spacing * torch.arange(self.n_windows)

    def another_face(self) -> Tensor | None:
        """What another face at rest adds to the projected frames [R]; None one time in four, and for raw vertices."""
        if self.projection is None or self.identity_spread == 0 or self._uniform(0, 1) < 0.25:
            return None
        return self.projection.random_offset(self.generator, self.identity_spread * self._uniform(0.3, 1.7))

    def seen(self, vertices: Tensor, offset: Tensor | None = None) -> Tensor:
        """Vertices [..., V*3] as the first layer sees them [..., R], on another face."""
        frames = vertices if self.projection is None else self.projection(vertices)
        return frames if offset is None else frames + offset

    def _spoil(self, stretch: _Stretch, true: int, truth: Tensor, context: CorruptionContext) -> None:
        """Add a weak and a strong version of one corruption, over the true motion or over a smoothed one."""
        better, base = true, truth
        pool = [each for each in self.corruptions if each.possible(context)]
        if self._uniform(0, 1) < self.on_base:
            bases = [each for each in pool if each.name in _BASES]
            over = [each for each in pool if each.name in _ON_BASES]
            if bases and over:
                chosen = self._choose(bases)
                base = chosen(truth, self._uniform(0.3, 1.0), context)
                better, pool = stretch.add(base), over
        corruption = self._choose(pool)
        strong = self._uniform(0.4, 1.0)
        weak = strong * self._uniform(0.15, 0.6)
        draws = self.generator.get_state()
        faint_motion = corruption(base, weak, context)
        self.generator.set_state(draws)
        spoiled_motion = corruption(base, strong, context)
        faint = stretch.add(faint_motion)
        spoiled = stretch.add(spoiled_motion)
        routed = torch.tensor([[head in corruption.heads for head in (LIP_SCORE, REAL_SCORE)]])
        seen = self._visibility(stretch, base - spoiled_motion)
        stretch.comparisons += [
            (better, faint, self._visibility(stretch, base - faint_motion), routed),
            (faint, spoiled, self._visibility(stretch, faint_motion - spoiled_motion), routed),
            (better, spoiled, seen, routed),
        ]
        stretch.wrong.append((spoiled, seen * strong, routed))

    def _choose(self, pool: Sequence[Corruption]) -> Corruption:
        often = torch.tensor([float(self.emphasis.get(each.name, 1.0)) for each in pool])
        return pool[int(torch.multinomial(often, 1, generator=self.generator))]

    def _visibility(self, stretch: _Stretch, difference: Tensor) -> Tensor:
        """[n] RMS of a difference [frames, V*3] in each clip, of the lips or the face, whichever is more; at most 1."""
        lips = self.motion.lip_rms(difference).square()
        face = difference.square().sum(-1) * (3 / difference.shape[-1])
        seen = torch.maximum(lips, face).unfold(0, CLIP_FRAMES, 1)[stretch.windows].mean(-1).sqrt()
        return (seen / (_VISIBLE_MM * self.motion.millimetre)).clamp_max(1.0)


class _Stretch:
    """Versions of the clips of one stretch, and how they compare."""

    def __init__(self, mel: Tensor, clip: Tensor, windows: Tensor, seen: Callable[[Tensor], Tensor]) -> None:
        self.mel, self.clip, self.seen = mel, clip, seen
        self.frames = windows[:, None] + torch.arange(CLIP_FRAMES)
        self.windows = windows
        self.versions: list[Tensor] = []
        self.comparisons: list[tuple[int, int, Tensor, Tensor]] = []
        self.wrong: list[tuple[int, Tensor, Tensor]] = []

    def add(self, displacement: Tensor) -> int:
        """Add a version [frames, V*3] and return its number."""
        self.versions.append(self.seen(displacement)[self.frames])
        return len(self.versions) - 1
