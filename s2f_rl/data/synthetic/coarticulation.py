"""From phones to motion: dominance-function coarticulation, a speaker's style, and what the audio does not tell.

`generate` is a pure function: the same phones, speaker and hidden variation always give the same motion, so the corpus
can be rebuilt, and a predicted motion can be compared with every motion that the generator could have made for an
audio (the minimum over the hidden variation).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from s2f_rl.data.synthetic.hidden import WANDER_ARTICULATORS, Hidden
from s2f_rl.data.synthetic.phones import BILABIALS
from s2f_rl.data.synthetic.rig import ARTICULATORS, A
from s2f_rl.data.synthetic.speakers import Speaker, Style
from s2f_rl.data.synthetic.visemes import SPEECH_ARTICULATORS, gestures

Array = NDArray[np.float64]
Phones = Sequence[tuple[str, float, float]]
"""(phone, start, end) in seconds, in order"""

GRID_HZ = 120.0
"""Curves are computed on this grid and read off at the frames, so that 60 and 30 fps agree where they coincide."""
# Decay of dominance (1/s) before and after a gesture: lips start rounding early, closures are quick.
_ONSET = np.array([16.0, 14.0, 9.0, 9.0, 16.0, 16.0, 20.0, 24.0])
_OFFSET = np.array([18.0, 16.0, 13.0, 13.0, 18.0, 18.0, 24.0, 26.0])
_CORE = 0.35
"""Share of a gesture's duration, in its middle, over which its dominance does not fall."""
_REST_DOMINANCE = 0.02
EFFORT_RANGE = (0.5, 1.5)
"""Within which effort and its slow change together stay."""

GestureTable = tuple[Array, Array, Array, Array]


def gesture_table(phones: Phones, undershoot: Array) -> GestureTable:
    """Centres [n], core half lengths [n], targets [n, 8] and dominances [n, 8] of an utterance's gestures."""
    known = gestures()
    rows = []
    for k, (phone, start, end) in enumerate(phones):
        if phone not in known:
            raise ValueError(f"unknown phone {phone!r}; known are {', '.join(sorted(known))}")
        parts = known[phone]
        length = (end - start) / len(parts)
        for j, part in enumerate(parts):
            centre = start + (j + 0.5) * length
            rows.append((centre, 0.5 * _CORE * length, part.target * undershoot[k], part.dominance))
    centres, cores, targets, dominances = zip(*rows, strict=True)
    return np.array(centres), np.array(cores), np.stack(targets), np.stack(dominances)


def speech_curves(times: Array, phones: Phones, style: Style, undershoot: Array, lags: Array) -> Array:
    """Blended targets [n, 8] of the speech articulators at times [n] (s), before effort and gain.

    Cohen and Massaro 1993: F_p(t) = sum_s D_sp(t) T_sp / sum_s D_sp(t) with D_sp(t) = alpha_sp exp(-theta_p d_s(t)).
    Here d_s is the distance from the gesture's core, so that long sounds are held, and a little dominance of rest is
    added.
    lags [8] (s): how much later each articulator moves.
    """
    table = gesture_table(phones, undershoot)
    target = table[2]
    curves = np.empty((len(times), len(SPEECH_ARTICULATORS)))
    for p in range(len(SPEECH_ARTICULATORS)):
        weight = _dominance(times, table, style, p, lags[p])
        curves[:, p] = weight @ target[:, p] / (weight.sum(1) + _REST_DOMINANCE)
    return curves


def _dominance(times: Array, table: GestureTable, style: Style, p: int, lag: float) -> Array:
    """Dominance [n, gestures] of every gesture of a table over articulator `p`."""
    return _at_distance(*_distance(times, table, lag), table, style, p)


def _distance(times: Array, table: GestureTable, lag: float) -> tuple[NDArray[np.bool_], Array]:
    """Which times [n] lie before the middle of a gesture that is `lag` late, and how far from its core."""
    away = (times - lag)[:, None] - table[0]
    return away < 0, np.maximum(np.abs(away) - table[1], 0.0)


def _at_distance(before: NDArray[np.bool_], distance: Array, table: GestureTable, style: Style, p: int) -> Array:
    fall = np.where(before, -(_ONSET[p] / style.anticipation * style.speed), -(_OFFSET[p] * style.speed))
    fall *= distance
    np.exp(fall, out=fall)
    fall *= table[3][:, p]
    return fall


def speech_basis(times: Array, table: GestureTable, style: Style, lags: Array) -> Array:
    """What each gesture of a table (without undershoot) alone adds to `speech_curves`: [n, 8, gestures].

    The curves are linear in the undershoot: they are `speech_basis(..) @ undershoot[phone of each gesture]`.
    """
    basis = np.empty((len(times), len(SPEECH_ARTICULATORS), len(table[0])))
    for lag in np.unique(lags):
        before, distance = _distance(times, table, lag)
        for p in np.flatnonzero(lags == lag).tolist():
            weight = _at_distance(before, distance, table, style, p)
            weight /= weight.sum(1, keepdims=True) + _REST_DOMINANCE
            np.multiply(weight, table[2][:, p], out=basis[:, p])
    return basis


def closure_curve(times: Array, phones: Phones, style: Style) -> Array:
    """How far the lips are brought together [n], 1 = closed, at times [n] (s).

    Full from the first tenth to 0.62 of every bilabial and at least 25 ms to each side of its centre, whatever the
    dominances: the closure is what is heard, so neither effort nor lag touches it.
    """
    closed = np.zeros(len(times))
    for phone, start, end in phones:
        if phone in BILABIALS:
            middle = 0.5 * (start + end)
            first = min(start + 0.1 * (end - start), middle - 0.025)
            last = max(start + 0.62 * (end - start), middle + 0.025)
            outside = np.maximum(np.maximum(first - times, times - last), 0.0)
            ramp = np.clip(1.0 - outside / style.closure_time, 0.0, 1.0)
            closed = np.maximum(closed, ramp * ramp * (3.0 - 2.0 * ramp))
    return closed


def smooth(curves: Array, seconds: float) -> Array:
    """Gaussian smoothing along time (a muscle does not jump); ends are held."""
    reach = int(np.ceil(4 * seconds * GRID_HZ))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (seconds * GRID_HZ)) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(curves, ((reach, reach), (0, 0)), mode="edge")
    return np.stack([np.convolve(padded[:, k], kernel, mode="valid") for k in range(curves.shape[1])], -1)


def _events(times: Array, events: Array, rise: float, fall: float) -> Array:
    """Sum of bumps [n]: events [m, 3] are (start s, hold s, height)."""
    total = np.zeros(len(times))
    for start, hold, height in events:
        up = np.clip((times - start) / rise, 0.0, 1.0)
        down = np.clip((times - start - rise - hold) / fall, 0.0, 1.0)
        bump = up * up * (3 - 2 * up) * (1 - down * down * (3 - 2 * down))
        total = np.maximum(total, height * bump) if height > 0 else np.minimum(total, height * bump)
    return total


def brow_curve(times: Array, brows: Array) -> Array:
    """What `Hidden.brows` [n, 3] add to the brow articulator at times [n] (s)."""
    return _events(times, brows, 0.18, 0.3)


def blink_curve(times: Array, blinks: Array) -> Array:
    """The blink articulator [n] at times [n] (s), of `Hidden.blinks` [n, 3]."""
    return np.maximum(_events(times, blinks, 0.09, 0.16), 0.0)


def cosines(n_terms: int, times: Array, duration: float) -> Array:
    """Slow basis [n_terms, n]: cos(pi k t / duration), k = 1..n_terms."""
    k = np.arange(1, n_terms + 1)[:, None]
    return np.cos(np.pi * k * times / max(duration, 1e-6))


def articulate(
    phones: Phones, n_frames: int, speaker: Speaker, hidden: Hidden, fps: float = 60.0
) -> tuple[Array, Array]:
    """Curves [n_frames, len(ARTICULATORS)] of the articulators and of the lips' closure [n_frames]."""
    hidden.check(len(phones))
    style = speaker.style
    duration = n_frames / fps
    grid = np.arange(int(np.ceil(duration * GRID_HZ)) + 2) / GRID_HZ
    lags = np.where([name == "jaw" for name in SPEECH_ARTICULATORS], hidden.lag_s[0], hidden.lag_s[1])
    speech = speech_curves(grid, phones, style, hidden.undershoot, lags)
    speech = smooth(speech, style.smoothing_s)

    effort = hidden.effort * (1.0 + hidden.effort_curve @ cosines(len(hidden.effort_curve), grid, duration))
    effort = np.clip(effort, *EFFORT_RANGE)
    gain = np.array([style.gain(name) for name in SPEECH_ARTICULATORS])
    curves = np.zeros((len(grid), len(ARTICULATORS)))
    curves[:, : len(SPEECH_ARTICULATORS)] = speech * gain * effort[:, None]
    # press and tuck are contacts, not amplitudes: a lazy /f/ still touches
    for name in ("press", "tuck"):
        curves[:, A[name]] = speech[:, A[name]]
    active = smooth(_speaking(grid, phones)[:, None], 0.05)[:, 0]
    curves[:, A["spread"]] += style.habit_spread * active
    curves[:, A["round"]] += style.habit_round * active
    curves[:, A["protrude"]] += 0.8 * style.habit_round * active

    slow = cosines(hidden.wander.shape[1], grid, duration)
    drift = hidden.wander @ slow
    for k, name in enumerate(WANDER_ARTICULATORS):
        curves[:, A[name]] += drift[k]
    curves[:, A["jaw"]] = np.maximum(curves[:, A["jaw"]], 0.0)
    curves[:, A["brow"]] += brow_curve(grid, hidden.brows)
    curves[:, A["blink"]] = blink_curve(grid, hidden.blinks)
    closure = closure_curve(grid, phones, style)

    at = np.arange(n_frames) / fps
    out = np.stack([np.interp(at, grid, curves[:, k]) for k in range(curves.shape[1])], -1)
    return out, np.interp(at, grid, closure)


def _speaking(times: Array, phones: Phones) -> Array:
    """1 while a phone other than silence sounds, else 0."""
    sounding = np.zeros(len(times))
    for phone, start, end in phones:
        if phone != "sil":
            sounding[(times >= start) & (times < end)] = 1.0
    return sounding


def generate(phones: Phones, n_frames: int, speaker: Speaker, hidden: Hidden, fps: float = 60.0) -> NDArray[np.float64]:
    """Displacement [n_frames, V*3] in metres of a speaker who says `phones`.

    phones: (phone, start s, end s) in order, names of `phones.PHONES`. hidden: the variation that the audio does not
    tell, `Hidden.none(len(phones))` for none. A pure function. Raises `ValueError` for an unknown phone or a hidden
    variation of another utterance.
    """
    curves, closure = articulate(phones, n_frames, speaker, hidden, fps)
    return speaker.rig.displace(curves, closure)
