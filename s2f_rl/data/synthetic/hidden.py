"""What the audio does not tell: effort, lags, undershoot, blinks, brows and drift of one take.

This is why a model trained with squared error on the built-in corpus regresses to the mean, as it does on recordings:
many motions go with one audio.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s2f_rl.data.files import load_npz
from s2f_rl.errors import UserError

Array = NDArray[np.float64]

N_EFFORT_TERMS = 3
N_WANDER_TERMS = 5
WANDER_ARTICULATORS = ("jaw", "spread", "protrude", "brow", "nod", "turn")
WANDER_SIZE = np.array([0.012, 0.07, 0.05, 0.06, 0.25, 0.25])
"""Standard deviation of the drift's first coefficient, for each of them."""
MAX_LAG_S = 0.04


@dataclass(frozen=True, eq=False)
class Hidden:
    """The hidden variation of one utterance.

    effort: factor on the size of all speech movements (0.7 to 1.3). effort_curve [3]: its slow change within the
    utterance, coefficients of cos(pi k t / duration). lag_s [2]: how much later jaw and lips move than the audio,
    within 0.04 s; closures keep to the audio. undershoot [n_phones]: share of its target that each phone reaches.
    blinks, brows [n, 3]: start s, hold s, height. wander [6, 5]: slow drift of `WANDER_ARTICULATORS`, cosine
    coefficients.
    """

    effort: float
    effort_curve: Array
    lag_s: Array
    undershoot: Array
    blinks: Array
    brows: Array
    wander: Array

    @classmethod
    def none(cls, n_phones: int) -> Hidden:
        """No variation: the speaker's mean motion for an audio, near enough."""
        return cls(
            effort=1.0,
            effort_curve=np.zeros(N_EFFORT_TERMS),
            lag_s=np.zeros(2),
            undershoot=np.ones(n_phones),
            blinks=np.zeros((0, 3)),
            brows=np.zeros((0, 3)),
            wander=np.zeros((len(WANDER_ARTICULATORS), N_WANDER_TERMS)),
        )

    @classmethod
    def sample(
        cls,
        rng: np.random.Generator,
        n_phones: int,
        duration_s: float,
        blink_hz: float,
        brow_hz: float,
        brow_height: float,
        scale: float = 1.0,
    ) -> Hidden:
        """Draw a take of an utterance. scale widens (or, at 0, removes) every variation."""

        def about(mean: float, deviation: Array | float) -> Array:
            return mean + scale * np.asarray(deviation)

        common = rng.uniform(-0.8, 0.8) * MAX_LAG_S
        lags = common + rng.uniform(-0.2, 0.2, 2) * MAX_LAG_S
        slow = 1.0 / np.arange(1, N_WANDER_TERMS + 1)
        wander = rng.normal(size=(len(WANDER_ARTICULATORS), N_WANDER_TERMS)) * WANDER_SIZE[:, None] * slow
        return cls(
            effort=float(about(1.0, rng.uniform(-0.3, 0.3))),
            effort_curve=about(0.0, rng.normal(size=N_EFFORT_TERMS) * 0.15 / np.arange(1, N_EFFORT_TERMS + 1)),
            lag_s=about(0.0, lags),
            undershoot=np.clip(about(1.0, rng.normal(-0.05, 0.23, n_phones)), 0.35, 1.6),
            blinks=_draw_events(rng, scale * blink_hz, duration_s, 0.7, hold=(0.0, 0.06), height=(1.0, 0.0)),
            brows=_draw_events(rng, scale * brow_hz, duration_s, 0.8, hold=(0.05, 0.5), height=(brow_height, 0.3)),
            wander=about(0.0, wander),
        )

    def check(self, n_phones: int) -> None:
        """Raise `ValueError` unless this belongs to an utterance of `n_phones` phones."""
        if len(self.undershoot) != n_phones:
            raise ValueError(f"hidden variation of {len(self.undershoot)} phones for an utterance of {n_phones}")

    def to_bytes(self) -> bytes:
        """The npz file of this variation; the same bytes for the same values."""
        buffer = io.BytesIO()
        np.savez(buffer, **{f.name: np.asarray(getattr(self, f.name), dtype=np.float64) for f in fields(self)})  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def load(cls, path: str | Path) -> Hidden:
        """Read `hidden/NAME.npz` of a built-in corpus. Raises `UserError` for anything else."""
        stored = load_npz(path)
        lacking = [f.name for f in fields(cls) if f.name not in stored]
        if lacking:
            raise UserError(f"{path}: not the hidden variation of a built-in corpus (lacks {', '.join(lacking)})")
        values = {f.name: stored[f.name].astype(np.float64) for f in fields(cls)}
        shapes = cls.none(values["undershoot"].size)
        for f in fields(cls):
            value, expected = values[f.name], np.asarray(getattr(shapes, f.name))
            events = f.name in ("blinks", "brows")
            fits = value.ndim == 2 and value.shape[1] == 3 if events else value.shape == expected.shape
            if not fits or not np.isfinite(value).all():
                raise UserError(f"{path}: {f.name} has shape {value.shape} or holds NaN; write the corpus again")
        return cls(effort=float(values.pop("effort")), **values)


def _draw_events(
    rng: np.random.Generator,
    rate_hz: float,
    duration_s: float,
    apart: float,
    hold: tuple[float, float],
    height: tuple[float, float],
) -> Array:
    """Events [n, 3] (start s, hold s, height) at a mean rate, `apart` seconds between them at least."""
    events = []
    at = float(rng.exponential(1.0 / rate_hz)) - 0.2 if rate_hz > 0 else duration_s
    while at < duration_s:
        events.append((at, rng.uniform(*hold), rng.normal(*height)))
        at += apart + float(rng.exponential(1.0 / rate_hz))
    return np.array(events, dtype=np.float64).reshape(-1, 3)
