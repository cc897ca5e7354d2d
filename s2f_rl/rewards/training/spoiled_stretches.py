"""What the samplers of a reward's and a judge's training share: recordings in turn, spoiled weakly and strongly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from s2f_rl import ranks
from s2f_rl.data.units import MILLIMETRE
from s2f_rl.errors import UserError
from s2f_rl.keys import LIP_SCORE, REAL_SCORE
from s2f_rl.rewards.corruptions import Corruption, CorruptionContext
from s2f_rl.rewards.corruptions.tools import noise_coefficients
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.mse_regressor import SpeechRegressor
from s2f_rl.rewards.training.recordings import MotionBank

Join = Callable[[list[Tensor]], Tensor]
MARGIN_FRAMES = 10
"""Frames on both sides of a stretch for corruptions that look around, such as shifts and smoothing."""
_VISIBLE_MM = 0.5


@dataclass
class Comparisons:
    """What is better than what in a batch, and what is wrong. "Row" is a row of the versions that the batch holds.

    Attributes:
        better, worse: [P] rows to compare.
        visible: [P] or [P, windows] in [0, 1], how much of the difference of the two can be seen in each window.
        heads: [P, 2] bool, which of lip and real ought to notice.
        spoiled: [Q] rows that are wrong beyond doubt; ``spoiled_visible`` as ``visible``, ``spoiled_heads`` [Q, 2].
    """

    better: Tensor
    worse: Tensor
    visible: Tensor
    heads: Tensor
    spoiled: Tensor
    spoiled_visible: Tensor
    spoiled_heads: Tensor

    def to(self: Batch, device: str | torch.device) -> Batch:
        """The batch on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)


Batch = TypeVar("Batch", bound=Comparisons)


class SpoiledStretch:
    """Versions of one stretch, and how they compare. Drawn by :meth:`SpoilingSampler.spoil`, seen by :meth:`look`.

    Args:
        frames: [F] the frames of the stretch with margin that scores see; only they are kept of a version.
        windowed: values [..., F] -> [..., n, window], those that each score sees.
        generator: of all draws of this stretch.

    Attributes:
        versions: what each version looks like, once it has been looked at.
        comparisons: (better version, worse version, visibility [n], heads [2]).
        wrong: (version, visibility [n], heads [2]) of those that are wrong beyond doubt.
    """

    def __init__(self, frames: Tensor, windowed: Callable[[Tensor], Tensor], generator: torch.Generator) -> None:
        self.frames, self.windowed, self.generator = frames, windowed, generator
        self.versions: list[Tensor] = []
        self.comparisons: list[tuple[int, int, Tensor, Tensor]] = []
        self.wrong: list[tuple[int, Tensor, Tensor]] = []
        self._seen: list[Tensor] = []
        self._noise: list[Tensor] = []
        self._pairs: list[tuple[int, int, Tensor]] = []
        self._strengths: list[float] = []

    def add(self, displacement: Tensor, noise: Tensor | None) -> int:
        """Add a version [frames with margin, V*3] and the capture's noise [frames with margin, K] as coefficients of
        the motion in metres; return its number."""
        self._seen.append(displacement[self.frames])
        if noise is not None:
            self._noise.append(noise[self.frames])
        return len(self._seen) - 1

    def compare(self, better: int, faint: int, spoiled: int, strength: float, heads: Tensor) -> None:
        """Versions of one corruption: ``better`` than ``faint``, that than ``spoiled``, of ``strength`` in [0, 1]."""
        self._pairs += [(better, faint, heads), (faint, spoiled, heads), (better, spoiled, heads)]
        self._strengths.append(strength)

    def look(self, seen: Callable[[Tensor], Tensor], noise_map: Tensor, motion: MotionSubspace) -> None:
        """Look at all versions at once.

        Args:
            seen: displacements [versions, F, V*3] -> what is kept of them [versions, F, R].
            noise_map: [K, R] what a metre along each direction of the motion adds to that.
            motion: says how much of a difference is to be seen.
        """
        kept = seen(torch.stack(self._seen))
        if self._noise:
            kept = kept + torch.stack(self._noise) @ noise_map
        self.versions = list(kept)
        # what did not change within a window is not punished for what happens elsewhere
        # a pair at a time: a difference of two fits into a core's cache, those of all do not
        square = torch.stack([motion.seen_square(self._seen[b] - self._seen[w]) for b, w, _ in self._pairs])
        visible = (self.windowed(square).mean(-1).sqrt() / (_VISIBLE_MM * MILLIMETRE)).clamp_max(1.0)
        self.comparisons = [(*pair[:2], visible[k], pair[2]) for k, pair in enumerate(self._pairs)]
        for k, strength in enumerate(self._strengths):
            _, spoiled, seen_of_it, heads = self.comparisons[3 * k + 2]
            self.wrong.append((spoiled, seen_of_it * strength, heads))
        self._seen, self._noise = [], []


def in_one_batch(stretches: Sequence[SpoiledStretch]) -> tuple[list[Tensor], list[int], list[Tensor]]:
    """All versions of some stretches, the true ones first: the versions, which stretch each is of, and the numbers
    [versions] that those of every stretch have now."""
    versions, owners, numbers = [each.versions[0] for each in stretches], list(range(len(stretches))), []
    for k, stretch in enumerate(stretches):
        numbers.append(torch.tensor([k, *range(len(versions), len(versions) + len(stretch.versions) - 1)]))
        versions += stretch.versions[1:]
        owners += [k] * (len(stretch.versions) - 1)
    return versions, owners, numbers


def compared(stretches: Sequence[SpoiledStretch], rows: Sequence[Tensor], join: Join) -> dict[str, Tensor]:
    """The fields of :class:`Comparisons`.

    Args:
        rows: of each stretch, the rows of its versions: [versions], or [versions, n] where each takes n of them.
        join: ``torch.stack`` in the first case, ``torch.cat`` in the second.
    """
    columns: dict[str, list[Tensor]] = {each.name: [] for each in fields(Comparisons)}

    def add(**entries: Tensor) -> None:
        for name, entry in entries.items():
            columns[name].append(entry)

    for stretch, own in zip(stretches, rows, strict=True):
        shape = *own.shape[1:], 2
        for one, other, seen, routed in stretch.comparisons:
            add(better=own[one], worse=own[other], visible=seen, heads=routed.expand(shape))
        for version, seen, routed in stretch.wrong:
            add(spoiled=own[version], spoiled_visible=seen, spoiled_heads=routed.expand(shape))
    return {name: join(column) for name, column in columns.items()}


class SpoilingSampler(ABC):
    """Draws recordings in turn, and spoils stretches of them; what a batch looks like is the subclass's business.

    Args:
        bank: recorded motion of the training speakers. motion: its statistics.
        regressor: for the corruptions that need one.
        corruptions: to draw from; controls, which no score ought to notice, are left out.
        seed: of all draws.
        usable: positions of the bank to draw from.
        n_corruptions: corruptions per stretch. on_base: share of them laid over an already smoothed motion.
        capture_noise_mm: every version, the true one too, gets noise of up to this root mean square at the lips, so
            that nothing finer tells true from spoiled; 0: none.

    Raises:
        UserError: the corruptions are controls only.
    """

    def __init__(
        self,
        bank: MotionBank,
        motion: MotionSubspace,
        regressor: SpeechRegressor | None,
        corruptions: Sequence[Corruption],
        seed: int,
        usable: Sequence[int],
        n_corruptions: int,
        on_base: float,
        capture_noise_mm: float,
    ) -> None:
        self.bank, self.motion, self.regressor = bank, motion, regressor
        self.corruptions = [each for each in corruptions if each.heads]
        if not self.corruptions:
            raise UserError("corruptions: only controls, which no score ought to notice; name others as well")
        self.generator, self._seed = torch.Generator().manual_seed(seed), seed
        self.n_corruptions, self.on_base = n_corruptions, on_base
        if capture_noise_mm < 0:
            raise UserError(f"capture_noise_mm={capture_noise_mm}: give a root mean square, 0 for none")
        self.capture_noise_mm = capture_noise_mm
        self._usable = list(usable)
        self._order: list[int] = []

    @abstractmethod
    def is_base(self, corruption: Corruption) -> bool:
        """Whether other corruptions may be laid over what this one makes."""

    @abstractmethod
    def is_over(self, corruption: Corruption) -> bool:
        """Whether this one may be laid over smoothed motion."""

    def state_dict(self) -> dict[str, Tensor]:
        """State of the draws, to resume with."""
        return {"generator": self.generator.get_state(), "order": torch.tensor(self._order, dtype=torch.int64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.generator.set_state(state["generator"])
        self._order = [int(position) for position in state["order"]]

    def begin(self, iteration: int, n: int) -> None:
        """Of several ranks: what an iteration (from 0) draws, ``n`` recordings on each, follows from it and the rank.

        Together the ranks go through all recordings before one is drawn again. In one process nothing is changed.
        """
        if ranks.count() == 1:
            return
        self.generator.manual_seed(ranks.step_seed(self._seed, ranks.rank(), iteration))
        order = []
        for k in range(n):
            epoch, place = divmod((iteration * n + k) * ranks.count() + ranks.rank(), len(self._usable))
            shuffled = np.random.default_rng([self._seed, epoch]).permutation(self._usable)
            order.append(int(shuffled[place]))
        self._order = order[::-1]

    def next_positions(self, n: int) -> list[tuple[int, torch.Generator]]:
        """Recordings of the bank, each with a generator of its own for what is drawn there.

        So the batch does not depend on who makes which of its parts, and when. All recordings are drawn once before one
        is drawn again.
        """
        positions = [self._next_position() for _ in range(n)]
        seeds = torch.randint(2**62, (n,), generator=self.generator).tolist()
        return [(p, torch.Generator().manual_seed(seed)) for p, seed in zip(positions, seeds, strict=True)]

    def _next_position(self) -> int:
        if not self._order:
            order = torch.randperm(len(self._usable), generator=self.generator).tolist()
            self._order = [self._usable[i] for i in order]
        return self._order.pop()

    def choose(self, pool: Sequence[Corruption], generator: torch.Generator) -> Corruption:
        """One of ``pool``."""
        return pool[int(torch.randint(len(pool), (1,), generator=generator))]

    def with_margin(self, start: int, length: int, n_frames: int) -> tuple[int, slice]:
        """First frame and slice of a stretch with its margin, in a recording of ``n_frames``."""
        low = max(0, start - MARGIN_FRAMES)
        return low, slice(low, min(n_frames, start + length + MARGIN_FRAMES))

    def spoil(self, stretch: SpoiledStretch, truth: Tensor, context: CorruptionContext) -> None:
        """Add ``truth`` [frames with margin, V*3] to a new stretch, then ``n_corruptions`` weak and strong versions."""
        true = self._add(stretch, truth, context)
        for _ in range(self.n_corruptions):
            self._spoil_once(stretch, true, truth, context)

    def _spoil_once(self, stretch: SpoiledStretch, true: int, truth: Tensor, context: CorruptionContext) -> None:
        """One corruption, with the same draws for both strengths, over the true motion or over a smoothed one."""
        better, base, generator = true, truth, stretch.generator
        pool = [each for each in self.corruptions if each.possible(context)]
        if not pool:
            needs = dict.fromkeys(need for each in self.corruptions for need in each.needs)
            raise UserError(
                f"no chosen corruption can be made here, for want of {', '.join(needs)}; choose others as well"
            )
        if uniform(0, 1, generator) < self.on_base:
            bases = [each for each in pool if self.is_base(each)]
            over = [each for each in pool if self.is_over(each)]
            if bases and over:
                base = self.choose(bases, generator)(truth, uniform(0.3, 1.0, generator), context)
                better, pool = self._add(stretch, base, context), over
        corruption = self.choose(pool, generator)
        strong = uniform(0.4, 1.0, generator)
        weak = strong * uniform(0.15, 0.6, generator)
        draws = generator.get_state()
        faint_motion = corruption(base, weak, context)
        generator.set_state(draws)
        spoiled_motion = corruption(base, strong, context)
        faint, spoiled = (self._add(stretch, each, context) for each in (faint_motion, spoiled_motion))
        routed = torch.tensor([head in corruption.heads for head in (LIP_SCORE, REAL_SCORE)])
        stretch.compare(better, faint, spoiled, strong, routed)

    def _add(self, stretch: SpoiledStretch, displacement: Tensor, context: CorruptionContext) -> int:
        """Add a version as a capture would have it, and return its number."""
        noise = None
        if self.capture_noise_mm:
            size = uniform(0.0, self.capture_noise_mm, stretch.generator)
            correlation = uniform(0.0, 0.9, stretch.generator)
            noise = noise_coefficients(len(displacement), size, correlation, context)
        return stretch.add(displacement, noise)


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A number between the two."""
    return low + (high - low) * float(torch.rand((), generator=generator))
