"""Batches of true and spoiled stretches of motion, from which a judge is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from s2f_rl.data.mel import NATS_PER_UNIT
from s2f_rl.errors import UserError
from s2f_rl.keys import LIP_SCORE, REAL_SCORE
from s2f_rl.rewards.bank import MotionBank
from s2f_rl.rewards.corruptions import Corruption, CorruptionContext
from s2f_rl.rewards.judge_layers import WINDOW_FRAMES, live_bins, mel_frames
from s2f_rl.rewards.motion import MotionStatistics
from s2f_rl.rewards.projection import MeshProjection
from s2f_rl.rewards.regression import SpeechRegressor
from s2f_rl.rewards.speech_mesh import CLIP_FRAMES

_MARGIN_FRAMES = 10
_VISIBLE_MM = 0.5
_BASE_FAMILIES = ("smoothness", "amplitude")
_OVER_FAMILIES = ("smoothness", "noise", "time")


@dataclass
class StretchBatch:
    """True and spoiled versions of the same stretches. S stretches, M versions, L frames, R numbers per frame.

    Attributes:
        mel: [S, L, 4, 128] mel rows of every frame.
        frames: [M, L, R] projected frames of all versions; the first S are the true ones.
        stretch: [M] which stretch each is a version of.
        better, worse: [P] versions to compare.
        visible: [P, L-20] in [0, 1], how much of the difference of the two can be seen in each window.
        heads: [P, 2] bool, which of lip and real ought to notice.
        spoiled: [Q] versions that are wrong beyond doubt; ``spoiled_visible`` [Q, L-20], ``spoiled_heads`` [Q, 2].
    """

    mel: Tensor
    frames: Tensor
    stretch: Tensor
    better: Tensor
    worse: Tensor
    visible: Tensor
    heads: Tensor
    spoiled: Tensor
    spoiled_visible: Tensor
    spoiled_heads: Tensor

    def to(self, device: str | torch.device) -> StretchBatch:
        """The batch on another device."""
        return StretchBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


class StretchSampler:
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

    Raises:
        UserError: no recording is long enough, or the corruptions are controls only.
    """

    def __init__(
        self,
        bank: MotionBank,
        motion: MotionStatistics,
        projection: MeshProjection,
        regressor: SpeechRegressor | None,
        corruptions: Sequence[Corruption],
        seed: int = 0,
        n_stretches: int = 8,
        stretch_frames: int = 64,
        n_corruptions: int = 5,
        on_base: float = 0.25,
        identity_spread: float = 1.0,
        style_spread: float = 0.1,
        scale_range: float = 1.1,
        voice_spread: float = 1.0,
    ) -> None:
        self.bank, self.motion, self.projection, self.regressor = bank, motion, projection, regressor
        self.corruptions = [each for each in corruptions if each.heads]  # controls are not trained on
        if not self.corruptions:
            raise UserError("corruptions: only controls, which no score ought to notice; name others as well")
        self.generator = torch.Generator().manual_seed(seed)
        self.n_stretches, self.stretch_frames, self.n_corruptions = n_stretches, stretch_frames, n_corruptions
        self.on_base, self.identity_spread, self.style_spread = on_base, identity_spread, style_spread
        self.scale_range, self.voice_spread = scale_range, voice_spread
        self._frames = [bank[position].n_clips + CLIP_FRAMES - 1 for position in range(len(bank))]
        self._usable = [position for position, n_frames in enumerate(self._frames) if n_frames >= WINDOW_FRAMES]
        if not self._usable:
            raise UserError(f"no recording has {WINDOW_FRAMES} frames with sound: a judge is trained on longer ones")
        self._order: list[int] = []

    def state_dict(self) -> dict[str, Tensor]:
        """State of the draws, to resume with."""
        return {"generator": self.generator.get_state(), "order": torch.tensor(self._order, dtype=torch.int64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.generator.set_state(state["generator"])
        self._order = [int(position) for position in state["order"]]

    def draw(self) -> StretchBatch:
        """The next batch."""
        positions = [self._next() for _ in range(self.n_stretches)]
        length = min(self.stretch_frames, *(self._frames[position] for position in positions))
        style_map = self.motion.basis @ self.projection.matrix.T  # not kept: a resume replaces the projection's content
        stretches = [self._stretch(position, length, style_map) for position in positions]
        versions, owners = [s.versions[0] for s in stretches], list(range(len(stretches)))
        better, worse, visible, heads, spoiled, spoiled_visible, spoiled_heads = ([] for _ in range(7))
        for number, stretch in enumerate(stretches):
            rows = [number, *range(len(versions), len(versions) + len(stretch.versions) - 1)]
            versions += stretch.versions[1:]
            owners += [number] * (len(stretch.versions) - 1)
            for one, other, seen, routed in stretch.comparisons:
                better.append(rows[one])
                worse.append(rows[other])
                visible.append(seen)
                heads.append(routed)
            for version, seen, routed in stretch.wrong:
                spoiled.append(rows[version])
                spoiled_visible.append(seen)
                spoiled_heads.append(routed)
        return StretchBatch(
            mel=torch.stack([stretch.mel for stretch in stretches]),
            frames=torch.stack(versions),
            stretch=torch.tensor(owners),
            better=torch.tensor(better),
            worse=torch.tensor(worse),
            visible=torch.stack(visible),
            heads=torch.stack(heads),
            spoiled=torch.tensor(spoiled),
            spoiled_visible=torch.stack(spoiled_visible),
            spoiled_heads=torch.stack(spoiled_heads),
        )

    # ---------------------------------------------------------------- one stretch

    def _next(self) -> int:
        if not self._order:
            order = torch.randperm(len(self._usable), generator=self.generator).tolist()
            self._order = [self._usable[i] for i in order]
        return self._order.pop()

    def _uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def _stretch(self, position: int, length: int, style_map: Tensor) -> _Stretch:
        recording = self.bank[position]
        start = int(torch.randint(self._frames[position] - length + 1, (1,), generator=self.generator))
        low = max(0, start - _MARGIN_FRAMES)
        frames = slice(low, min(len(recording.displacement), start + length + _MARGIN_FRAMES))
        truth = recording.displacement[frames]
        context = self.bank.context(position, self.motion, self.generator, self.regressor, frames)
        mel = mel_frames(recording.mel_clips[start : start + length - CLIP_FRAMES + 1])
        if self.voice_spread:
            mel = another_voice(mel, self.generator, self.voice_spread)
        look = _Look(recording.template, self.projection, self.motion, style_map, *self._appearance())
        stretch = _Stretch(mel, slice(start - low, start - low + length), look)
        true = stretch.add(truth)
        for _ in range(self.n_corruptions):
            self._spoil(stretch, true, truth, context)
        return stretch

    def _appearance(self) -> tuple[Tensor, Tensor]:
        """What another face adds to projected frames [R], and factors of the motion's directions [K]."""
        offset = self.projection.random_offset(self.generator, self.identity_spread * self._uniform(0.3, 1.7))
        scale = math.log(self.scale_range) * self._uniform(-1, 1)
        style = torch.randn(len(self.motion.std), generator=self.generator) * self.style_spread
        return offset, (scale + style).exp()

    def _spoil(self, stretch: _Stretch, true: int, truth: Tensor, context: CorruptionContext) -> None:
        """Add a weak and a strong version of one corruption, over the true motion or over a smoothed one."""
        better, base = true, truth
        pool = [each for each in self.corruptions if each.possible(context)]
        if not pool:
            needs = dict.fromkeys(need for each in self.corruptions for need in each.needs)
            raise UserError(
                f"no chosen corruption can be made here, for want of {', '.join(needs)}; choose others as well"
            )
        if self._uniform(0, 1) < self.on_base:
            bases = [each for each in pool if each.family in _BASE_FAMILIES and LIP_SCORE in each.heads]
            over = [each for each in pool if each.family in _OVER_FAMILIES]
            if bases and over:
                base = self._choose(bases)(truth, self._uniform(0.3, 1.0), context)
                better, pool = stretch.add(base), over
        corruption = self._choose(pool)
        strong = self._uniform(0.4, 1.0)
        weak = strong * self._uniform(0.15, 0.6)
        draws = self.generator.get_state()
        faint_motion = corruption(base, weak, context)
        self.generator.set_state(draws)
        spoiled_motion = corruption(base, strong, context)
        faint, spoiled = stretch.add(faint_motion), stretch.add(spoiled_motion)
        routed = torch.tensor([head in corruption.heads for head in (LIP_SCORE, REAL_SCORE)])
        seen = self._visibility(stretch, base - spoiled_motion)
        stretch.comparisons += [
            (better, faint, self._visibility(stretch, base - faint_motion), routed),
            (faint, spoiled, self._visibility(stretch, faint_motion - spoiled_motion), routed),
            (better, spoiled, seen, routed),
        ]
        stretch.wrong.append((spoiled, seen * strong, routed))

    def _choose(self, pool: Sequence[Corruption]) -> Corruption:
        return pool[int(torch.randint(len(pool), (1,), generator=self.generator))]

    def _visibility(self, stretch: _Stretch, difference: Tensor) -> Tensor:
        """[L-20] RMS of a difference [frames, V*3] in each window: of lips or face, whichever is more; at most 1.

        A window in which nothing changed is not punished for what happens elsewhere.
        """
        difference = difference[stretch.frames]
        lips = self.motion.lip_rms(difference).square()
        face = difference.square().sum(-1) * (3 / difference.shape[-1])
        seen = torch.maximum(lips, face).unfold(0, WINDOW_FRAMES, 1).mean(-1).sqrt()
        return (seen / (_VISIBLE_MM * self.motion.millimetre)).clamp_max(1.0)


def long_enough(corpus: Any, utterances: Sequence[int] | None = None) -> list[int]:
    """Indices of the utterances (default all) with vertices and at least one window that a judge scores."""
    bank = MotionBank(corpus, utterances)
    shortest = WINDOW_FRAMES - CLIP_FRAMES + 1
    return [utterance for k, utterance in enumerate(bank.utterances) if bank[k].n_clips >= shortest]


@dataclass
class _Look:
    """How a displacement [T, V*3] looks in a stretch: projected, on another face, in another style."""

    template: Tensor
    projection: MeshProjection
    motion: MotionStatistics
    style_map: Tensor
    offset: Tensor
    factors: Tensor

    def __call__(self, displacement: Tensor) -> Tensor:
        change = self.motion.coefficients(displacement) * (self.motion.std * (self.factors - 1))
        return self.projection(self.template + displacement) + change @ self.style_map + self.offset


class _Stretch:
    """Versions of one stretch, and how they compare."""

    def __init__(self, mel: Tensor, frames: slice, look: _Look) -> None:
        self.mel, self.frames, self.look = mel, frames, look
        self.versions: list[Tensor] = []
        self.comparisons: list[tuple[int, int, Tensor, Tensor]] = []
        self.wrong: list[tuple[int, Tensor, Tensor]] = []

    def add(self, displacement: Tensor) -> int:
        """Add a version [frames with margin, V*3] and return its number."""
        self.versions.append(self.look(displacement[self.frames]))
        return len(self.versions) - 1


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
