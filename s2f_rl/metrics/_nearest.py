"""The motion, among all that the built-in corpus could have made for an audio, that is nearest to a given one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv

from s2f_rl.data.synthetic.coarticulation import blink_curve, brow_curve
from s2f_rl.data.synthetic.derivatives import Articulation
from s2f_rl.data.synthetic.hidden import N_EFFORT_TERMS, Hidden
from s2f_rl.data.synthetic.rig import ARTICULATORS, A
from s2f_rl.data.synthetic.speakers import Speaker
from s2f_rl.metrics._takes import LIMIT_SD, HiddenSpace, reduced_rig

Array = NDArray[np.float64]
Phones = Sequence[tuple[str, float, float]]
Gain = Callable[[Array], tuple[float, float]]  # event [1, 3] -> what it explains (mm^2), and the best height

_FIRST, _MORE = 4, 12  # iterations from each start, and more from the best of them
_STARTS = (-0.6, 0.0, 0.6)  # of the common lag, in shares of its range
_PENALTY_MM2 = 4.0  # per squared standard deviation beyond a joint limit; what is left of it, `inside` removes
_ROUNDS = 10  # of finding the limits that a step meets
_NUDGE = 1e-6  # step of the curves for the rig's derivative
# what Hidden.sample draws: least distance (s) between two starts, shortest and longest hold (s), spread of the height
_BLINK_APART_S, _BLINK_HOLD_S = 0.7, (0.0, 0.06)
_BROW_APART_S, _BROW_HOLD_S, _BROW_HEIGHT_SD = 0.8, (0.05, 0.5), 0.3


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest take: its hidden variation, and the root mean square distance (metres) over vertices and frames."""

    hidden: Hidden
    distance_m: float


class TakeSearch:
    """Finds the nearest take for motions of one utterance.

    phones, n_frames (stored, 60 fps), speaker: the utterance; region: vertices that count; step: every how many stored
    frames a motion has one; scale: the corpus's hidden_scale.
    """

    def __init__(
        self,
        phones: Phones,
        n_frames: int,
        speaker: Speaker,
        region: NDArray[np.int64],
        step: int = 2,
        scale: float = 1.0,
    ) -> None:
        self.articulation = Articulation(phones, n_frames, speaker, step=step)
        self.space = HiddenSpace(self.articulation, scale)
        self.speaker, self.region = speaker, region
        self._rig, self._basis, self._skip = reduced_rig(speaker.rig, region)
        m = self._basis.shape[1]
        fields = self._rig.fields[:, self._skip : self._skip + m] / 1000.0
        n = len(ARTICULATORS)
        self.lid, self.half_lid, self.brow = fields[A["blink"]], fields[n + 1], fields[A["brow"]]
        self.events = scale > 0 and max(np.abs(self.lid).max(), np.abs(self.brow).max()) > 1e-6
        self.times = np.arange(0, n_frames, step) / 60.0

    def nearest(self, motion: Array, starts: Sequence[Array] | None = None) -> Nearest:
        """`motion` [T, R*3]: the region's displacement (m); T may be shorter than the take. `starts`: z to begin from,
        default: three common lags."""
        n = len(motion)
        scale = 1.0 / np.sqrt(n * len(self.region))
        target = motion @ self._basis
        unreachable = max(float((motion**2).sum() - (target**2).sum()), 0.0)
        problem = _Problem(self, target, scale)
        if starts is None:
            starts = [self._start(share) for share in _STARTS]
        found = [problem.descend(z, _FIRST) for z in starts]
        z = min(found, key=problem.cost)
        if self.events:
            for _ in range(2):
                problem.place_events(z)
                z = problem.descend(z, _MORE // 2)
            problem.place_events(z)
        z = self.space.inside(problem.descend(z, _MORE))
        hidden = replace(self.space.hidden(z), blinks=problem.blinks, brows=problem.brows)
        curves = self.articulation.exact(hidden)[:n]
        reached = self.coordinates(curves, self.articulation.closure[:n])
        return Nearest(hidden, float(np.sqrt(((reached - target) ** 2).sum() + unreachable) * scale))

    @property
    def n_frames(self) -> int:
        """Frames of a take at the rate of the motions."""
        return len(self.times)

    def displacement(self, hidden: Hidden) -> Array:
        """A take's displacement of the region [T, m] (m), in coordinates that keep lengths."""
        return self.coordinates(self.articulation.exact(hidden), self.articulation.closure)

    def coordinates(self, curves: Array, closure: Array) -> Array:
        """Displacement of the region [.., T, m] (m) in the basis of what the rig can reach."""
        m = self._basis.shape[1]
        return self._rig.displace(curves, closure)[..., self._skip : self._skip + m]

    def _start(self, lag: float) -> Array:
        z = np.zeros(self.space.size)
        z[N_EFFORT_TERMS + 1] = lag
        return z


class _Problem:
    """One motion's least-squares problem. cost: squared distance in mm^2 plus a penalty beyond the joint limits."""

    def __init__(self, search: TakeSearch, target: Array, scale: float) -> None:
        self.search, self.target, self.n = search, 1000.0 * scale * target, len(target)
        self.factor = 1000.0 * scale
        self.closure = search.articulation.closure[: self.n]
        self.blinks, self.brows = np.zeros((0, 3)), np.zeros((0, 3))

    def residual(self, z: Array) -> Array:
        """What is left of the motion [T, m] (mm, weighted so that the sum of squares is the squared distance)."""
        curves = self.search.articulation.curves(self.search.space.hidden(z))
        return self.target - self.factor * self.search.coordinates(self._with_events(curves), self.closure)

    def _with_events(self, curves: Array) -> Array:
        """Curves of the motion's frames, with the blinks and brows that were found."""
        curves, times = curves[: self.n], self.search.times[: self.n]
        curves[:, A["brow"]] += brow_curve(times, self.brows)
        curves[:, A["blink"]] += blink_curve(times, self.blinks)
        return curves

    def cost(self, z: Array) -> float:
        beyond = np.maximum(self.search.space.limits(z)[2], 0.0)
        return float((self.residual(z) ** 2).sum() + _PENALTY_MM2 * (beyond**2).sum())

    def descend(self, z: Array, iterations: int) -> Array:
        """Levenberg-Marquardt steps within the box."""
        space, cost, damping = self.search.space, self.cost(z), 1e-4
        for _ in range(iterations):
            hessian, gradient = self._normal_equations(z)
            before = cost
            for _ in range(8):
                step = _step(space, z, hessian, gradient, damping)
                tried = self.cost(z + step)
                if tried < cost:
                    z, cost, damping = z + step, tried, 0.3 * damping
                    break
                damping *= 8.0
            if before - cost <= 1e-5 * before:
                break
        return z

    def _normal_equations(self, z: Array) -> tuple[Array, Array]:
        space, articulation = self.search.space, self.search.articulation
        curves, found = articulation.with_derivatives(space.hidden(z))
        curves, by_hidden = self._with_events(curves), found.stacked()[: self.n]
        here = self.search.coordinates(curves, self.closure)
        moved = self.search.coordinates(curves + _NUDGE * np.eye(len(ARTICULATORS))[:, None], self.closure)
        by_curve = ((moved - here) * (self.factor / _NUDGE)).transpose(1, 0, 2)
        # frame by frame in the curves, of which there are fewer than coordinates of the lips
        squared = np.matmul(by_curve @ by_curve.transpose(0, 2, 1), by_hidden)
        along = by_curve @ (self.target - self.factor * here)[..., None]
        flat = by_hidden.reshape(-1, by_hidden.shape[-1])
        hessian = flat.T @ squared.reshape(flat.shape)
        return space.chain(space.chain(hessian).T), -space.chain(along.reshape(-1) @ flat)

    def place_events(self, z: Array) -> None:
        """Choose blinks and brows anew: the best set of events that keep their distance, given everything else."""
        search, style = self.search, self.search.speaker.style
        self.blinks = self.brows = np.zeros((0, 3))
        times, left = search.times[: self.n], self.residual(z)
        lid, half_lid, brow = (self.factor * f for f in (search.lid, search.half_lid, search.brow))

        def blink_gain(events: Array) -> tuple[float, float]:
            level = np.clip(blink_curve(times, events), 0.0, 1.0)[:, None]
            rest = left - level * lid - 4 * level * (1 - level) * half_lid
            return float((left**2).sum() - (rest**2).sum()), 1.0

        limit = LIMIT_SD * _BROW_HEIGHT_SD
        along, norm = left @ brow, float(brow @ brow)

        def brow_gain(events: Array) -> tuple[float, float]:
            bump = brow_curve(times, np.concatenate([events[:, :2], np.ones((len(events), 1))], 1))
            weight = norm * float(bump @ bump)
            if weight < 1e-12:
                return 0.0, 0.0
            height = float(np.clip(bump @ along / weight, style.brow_height - limit, style.brow_height + limit))
            return 2 * height * float(bump @ along) - height**2 * weight, height

        if np.abs(lid).max() > 0:
            self.blinks = _best_events(blink_gain, times, _BLINK_APART_S, _BLINK_HOLD_S)
            left = self.residual(z)
            along = left @ brow
        if norm > 0:
            self.brows = _best_events(brow_gain, times, _BROW_APART_S, _BROW_HOLD_S)


def _step(space: HiddenSpace, z: Array, hessian: Array, gradient: Array, damping: float) -> Array:
    """Minimum of the damped quadratic model within the box, with the penalty on the limits that the step meets."""
    met: list[tuple[Array, float]] = []  # the tangents of a length's limit add up, round by round
    step = np.zeros(len(z))
    for _ in range(_ROUNDS):
        rows, offsets, beyond = space.limits(z + step)
        violated = np.flatnonzero(beyond > 0.02)
        if not len(violated) and len(met):
            break
        met += [(rows[k], offsets[k]) for k in violated]
        hold = np.array([row for row, _ in met]).reshape(-1, len(z))
        beyond_now = hold @ z - np.array([offset for _, offset in met])
        step = _bounded_step(
            hessian + _PENALTY_MM2 * hold.T @ hold,
            gradient + _PENALTY_MM2 * hold.T @ beyond_now,
            damping,
            space.lower - z,
            space.upper - z,
        )
    return step


def _bounded_step(hessian: Array, gradient: Array, damping: float, low: Array, high: Array) -> Array:
    """Minimum of the damped quadratic model; coordinates that would leave their range are put at its end."""
    diagonal = np.diag(hessian)
    damped = hessian.copy()
    np.fill_diagonal(damped, (1 + damping) * diagonal + 1e-7 * diagonal.max() + 1e-12)
    step, free = np.zeros(len(gradient)), np.arange(len(gradient))
    while len(free):
        rows = damped[free]
        # the matrix is symmetric, so that its rows may pass for the columns that LAPACK wants
        found = dposv(rows[:, free].T, -gradient[free] - rows @ step, lower=True, overwrite_a=True)[1]
        outside = (found < low[free]) | (found > high[free])
        if not outside.any():
            step[free] = found
            break
        held = free[outside]
        step[held] = np.clip(found[outside], low[held], high[held])
        free = free[~outside]
    return step


def _best_events(gain: Gain, times: Array, apart: float, holds: tuple[float, float]) -> Array:
    """Events [n, 3] with the largest sum of gains, their starts `apart` or more: dynamic programming over the starts,
    then each start and hold refined where it stands."""
    if not len(times):
        return np.zeros((0, 3))
    pitch = 1.0 / 60.0
    starts = np.arange(-0.2, times[-1], pitch)
    choices = [(0.0, 0.0, 0.0)] * len(starts)
    for k, start in enumerate(starts):
        for hold in np.linspace(*holds, 4):
            value, height = gain(np.array([[start, hold, 1.0]]))
            if value > choices[k][0]:
                choices[k] = (value, hold, height)
    reach = int(np.ceil(apart / pitch - 1e-9))
    best, taken = np.zeros(len(starts) + 1), np.zeros(len(starts), bool)
    for k in range(len(starts)):
        with_this = choices[k][0] + best[max(k + 1 - reach, 0)]
        taken[k] = with_this > best[k]
        best[k + 1] = max(best[k], with_this)
    chosen, k = [], len(starts) - 1
    while k >= 0:
        if taken[k]:
            chosen.append(k)
            k -= reach
        else:
            k -= 1
    events: list[tuple[float, float, float]] = []
    for k in reversed(chosen):
        first = max(starts[k] - pitch, events[-1][0] + apart) if events else starts[k] - pitch
        events.append(_refined(gain, starts[k], choices[k][1], first, pitch, holds))
    return np.array(events, dtype=np.float64).reshape(-1, 3)


def _refined(
    gain: Gain, start: float, hold: float, first: float, pitch: float, holds: tuple[float, float]
) -> tuple[float, float, float]:
    """Best start (from `first` on) and hold near the ones given, with the height."""
    width = (holds[1] - holds[0]) / 3
    around = np.linspace(-1, 1, 5)
    for _ in range(3):
        events = [(s, h) for s in start + pitch * around for h in np.clip(hold + width * around, *holds) if s >= first]
        start, hold = max(events, key=lambda e: gain(np.array([[*e, 1.0]]))[0], default=(start, hold))
        pitch, width = pitch / 3, width / 3
    return float(start), float(hold), gain(np.array([[start, hold, 1.0]]))[1]
