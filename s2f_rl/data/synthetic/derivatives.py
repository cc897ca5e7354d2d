"""The articulators' curves with their derivatives by the hidden variation: to find the take behind a motion."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.sparse import csr_array

from s2f_rl.data.synthetic.coarticulation import (
    EFFORT_RANGE,
    GRID_HZ,
    Array,
    Phones,
    articulate,
    cosines,
    gesture_table,
    smooth,
    speech_basis,
)
from s2f_rl.data.synthetic.hidden import N_EFFORT_TERMS, N_WANDER_TERMS, WANDER_ARTICULATORS, Hidden
from s2f_rl.data.synthetic.rig import ARTICULATORS, A
from s2f_rl.data.synthetic.speakers import Speaker
from s2f_rl.data.synthetic.visemes import SPEECH_ARTICULATORS, gestures

_LAG_STEP_S = 5e-4
_CONTACT = np.array([name in ("press", "tuck") for name in SPEECH_ARTICULATORS])
_JAW = np.array([name == "jaw" for name in SPEECH_ARTICULATORS])


@dataclass(frozen=True)
class Derivatives:
    """Derivatives of the curves by the smooth fields of `Hidden`: [T, 12, values of the field, flattened]."""

    effort: Array
    effort_curve: Array
    lag_s: Array
    undershoot: Array
    wander: Array

    def stacked(self) -> Array:
        """All of them in the order of the fields [T, 12, n]."""
        return np.concatenate([getattr(self, f.name) for f in fields(self)], -1)


class Articulation:
    """`articulate` for one utterance and speaker, with derivatives, for many hidden variations.

    phones, n_frames, speaker, fps: as for `articulate`; fps divides `GRID_HZ`. step: every how many frames are wanted.
    """

    def __init__(self, phones: Phones, n_frames: int, speaker: Speaker, fps: float = 60.0, step: int = 1) -> None:
        stride = step * GRID_HZ / fps
        if stride != int(stride):
            raise ValueError(f"fps={fps} does not divide {GRID_HZ}")
        self.phones, self.n_frames, self.speaker, self.fps, self.step = phones, n_frames, speaker, fps, step
        duration = n_frames / fps
        self._grid = np.arange(int(np.ceil(duration * GRID_HZ)) + 2) / GRID_HZ
        self._at = np.arange(0, n_frames, step) * round(GRID_HZ / fps)
        times = self._grid[self._at]
        self._effort_terms = cosines(N_EFFORT_TERMS, times, duration)
        wander_terms = cosines(N_WANDER_TERMS, times, duration).T
        drift = np.zeros((len(times), len(ARTICULATORS), len(WANDER_ARTICULATORS), N_WANDER_TERMS))
        for k, name in enumerate(WANDER_ARTICULATORS):
            drift[:, A[name], k] = wander_terms
        self._drift = drift.reshape(len(times), len(ARTICULATORS), -1)
        self._gain = np.where(_CONTACT, 1.0, [speaker.style.gain(name) for name in SPEECH_ARTICULATORS])
        silent = replace(Hidden.none(len(phones)), undershoot=np.zeros(len(phones)))
        curves, closure = articulate(phones, n_frames, speaker, silent, fps)
        self._habit, self.closure = curves[::step], closure[::step]
        self._table = gesture_table(phones, np.ones(len(phones)))
        self._phone_of = np.repeat(np.arange(len(phones)), [len(gestures()[phone]) for phone, _, _ in phones])
        self._smoothing = csr_array(smooth(np.eye(len(self._grid)), speaker.style.smoothing_s)[self._at])
        self._known: tuple[Array, Array] | None = None

    def exact(self, hidden: Hidden) -> Array:
        """Curves [T, 12] as `articulate` gives them, blinks and brows included."""
        return articulate(self.phones, self.n_frames, self.speaker, hidden, self.fps)[0][:: self.step]

    def curves(self, hidden: Hidden) -> Array:
        """Curves [T, 12] without blinks and brows: what `exact` gives, in less time."""
        speech = self._speech(self._basis(_lags(hidden)), hidden)
        curves = self._habit + self._drift @ hidden.wander.reshape(-1)
        curves[:, : len(SPEECH_ARTICULATORS)] += speech * self._factor(hidden)
        curves[:, A["jaw"]] = np.maximum(curves[:, A["jaw"]], 0.0)
        return curves

    def with_derivatives(self, hidden: Hidden) -> tuple[Array, Derivatives]:
        """Curves [T, 12] without blinks and brows, and their derivatives (by lag: a finite difference)."""
        n_speech, n_frames = len(SPEECH_ARTICULATORS), len(self._at)
        basis, factor = self._basis(_lags(hidden)), self._factor(hidden)
        speech = self._speech(basis, hidden)
        later = speech_basis(self._grid, self._table, self.speaker.style, _lags(hidden) + _LAG_STEP_S)
        by_lag = (self._speech(later, hidden) - speech) / _LAG_STEP_S

        slow = 1.0 + hidden.effort_curve @ self._effort_terms
        effort = hidden.effort * slow
        free = (effort == np.clip(effort, *EFFORT_RANGE)).astype(float)[:, None]
        by_effort = np.where(_CONTACT, 0.0, self._gain * free) * speech

        def whole(part: Array) -> Array:
            return np.concatenate([part, np.zeros((n_frames, len(ARTICULATORS) - n_speech, part.shape[-1]))], 1)

        first = np.flatnonzero(np.diff(self._phone_of, prepend=-1))
        smoothed = (self._smoothing @ basis.reshape(len(basis), -1)).reshape(n_frames, n_speech, -1)
        by_phone = np.add.reduceat(smoothed, first, axis=-1)
        found = Derivatives(
            effort=whole((by_effort * slow[:, None])[..., None]),
            effort_curve=whole(by_effort[..., None] * hidden.effort * self._effort_terms.T[:, None]),
            lag_s=whole(np.where(_JAW[:, None], [[1.0, 0.0]], [[0.0, 1.0]]) * (by_lag * factor)[..., None]),
            undershoot=whole(by_phone * factor[..., None]),
            wander=self._drift.copy(),
        )
        curves = self._habit + whole((speech * factor)[..., None])[..., 0]
        curves += self._drift @ hidden.wander.reshape(-1)
        shut = curves[:, A["jaw"]] < 0.0
        for f in fields(found):
            getattr(found, f.name)[shut, A["jaw"]] = 0.0
        curves[shut, A["jaw"]] = 0.0
        return curves, found

    def _factor(self, hidden: Hidden) -> Array:
        """What the speech curves are multiplied by [T, 8]."""
        effort = hidden.effort * (1.0 + hidden.effort_curve @ self._effort_terms)
        return np.where(_CONTACT, 1.0, self._gain * np.clip(effort, *EFFORT_RANGE)[:, None])

    def _speech(self, basis: Array, hidden: Hidden) -> Array:
        """Smoothed curves [T, 8] before effort and gain, of a basis on the grid."""
        return self._smoothing @ (basis @ hidden.undershoot[self._phone_of])

    def _basis(self, lags: Array) -> Array:
        """`speech_basis`, kept for the next time: steps are tried, and derivatives taken where one succeeded."""
        if self._known is None or not np.array_equal(self._known[0], lags):
            self._known = lags, speech_basis(self._grid, self._table, self.speaker.style, lags)
        return self._known[1]


def _lags(hidden: Hidden) -> Array:
    return np.where(_JAW, hidden.lag_s[0], hidden.lag_s[1])
