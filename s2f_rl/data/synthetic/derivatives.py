"""The articulators' curves with their derivatives by the hidden variation: to find the take behind a motion."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from s2f_rl.data.synthetic.coarticulation import (
    EFFORT_RANGE,
    GRID_HZ,
    Array,
    Phones,
    articulate,
    cosines,
    speech_basis,
)
from s2f_rl.data.synthetic.hidden import N_EFFORT_TERMS, N_WANDER_TERMS, WANDER_ARTICULATORS, Hidden
from s2f_rl.data.synthetic.rig import ARTICULATORS, A
from s2f_rl.data.synthetic.speakers import Speaker
from s2f_rl.data.synthetic.visemes import SPEECH_ARTICULATORS

_LAG_STEP_S = 5e-4
_CONTACTS = ("press", "tuck")
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
        self._wander_terms = cosines(N_WANDER_TERMS, times, duration)
        self._gain = np.array([1.0 if n in _CONTACTS else speaker.style.gain(n) for n in SPEECH_ARTICULATORS])
        silent = replace(Hidden.none(len(phones)), undershoot=np.zeros(len(phones)))
        curves, closure = articulate(phones, n_frames, speaker, silent, fps)
        self._habit, self.closure = curves[::step], closure[::step]

    def exact(self, hidden: Hidden) -> Array:
        """Curves [T, 12] as `articulate` gives them, blinks and brows included."""
        return articulate(self.phones, self.n_frames, self.speaker, hidden, self.fps)[0][:: self.step]

    def with_derivatives(self, hidden: Hidden) -> tuple[Array, Derivatives]:
        """Curves [T, 12] without blinks and brows, and their derivatives (by lag: a finite difference)."""
        n_speech, n_frames = len(SPEECH_ARTICULATORS), len(self._at)
        lags: Array = np.where(_JAW, hidden.lag_s[0], hidden.lag_s[1])
        basis = self._basis(lags)
        speech = basis @ hidden.undershoot
        by_lag = (self._basis(lags + _LAG_STEP_S) @ hidden.undershoot - speech) / _LAG_STEP_S

        slow = 1.0 + hidden.effort_curve @ self._effort_terms
        effort = np.clip(hidden.effort * slow, *EFFORT_RANGE)
        free = (effort == hidden.effort * slow).astype(float)[:, None]
        contact = np.array([name in _CONTACTS for name in SPEECH_ARTICULATORS])
        factor = np.where(contact, 1.0, self._gain * effort[:, None])
        by_effort = np.where(contact, 0.0, self._gain * free) * speech

        def whole(part: Array) -> Array:
            return np.concatenate([part, np.zeros((n_frames, len(ARTICULATORS) - n_speech, part.shape[-1]))], 1)

        lag = np.where(_JAW[:, None], [[1.0, 0.0]], [[0.0, 1.0]]) * (by_lag * factor)[..., None]
        drift = np.zeros((n_frames, len(ARTICULATORS), len(WANDER_ARTICULATORS), N_WANDER_TERMS))
        for k, name in enumerate(WANDER_ARTICULATORS):
            drift[:, A[name], k] = self._wander_terms.T
        found = Derivatives(
            effort=whole((by_effort * slow[:, None])[..., None]),
            effort_curve=whole(by_effort[..., None] * hidden.effort * self._effort_terms.T[:, None]),
            lag_s=whole(lag),
            undershoot=whole(basis * factor[..., None]),
            wander=drift.reshape(n_frames, len(ARTICULATORS), -1),
        )
        curves = self._habit + whole((speech * factor)[..., None])[..., 0]
        curves += drift.reshape(n_frames, len(ARTICULATORS), -1) @ hidden.wander.reshape(-1)
        shut = curves[:, A["jaw"]] < 0.0
        for f in fields(found):
            getattr(found, f.name)[shut, A["jaw"]] = 0.0
        curves[shut, A["jaw"]] = 0.0
        return curves, found

    def _basis(self, lags: Array) -> Array:
        return speech_basis(self._grid, self.phones, self.speaker.style, lags)[self._at]
