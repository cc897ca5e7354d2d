"""Motion made small enough for a page: the principal components of its frames, in 16 bits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from s2f_rl.data.components import components_of, frames_looked_at, in_parts, spread_frames
from s2f_rl.errors import UserError

_log = logging.getLogger(__name__)
ERROR_MM = 0.005
"""A mean over a head that mostly stands still: the largest error, at the lips, is some thirty times as large."""
_MOST_COMPONENTS = 128
_LARGEST = 32767


@dataclass(frozen=True)
class Packed:
    """Sequences of one mesh: frame t is ``mean + coefficients[t] @ (scale[:, None] * basis)``.

    Attributes:
        mean: float32 [V*3], metres.
        basis: int16 [K, V*3].
        scale: float32 [K], metres per unit of basis times unit of coefficient.
        coefficients: int16 [N, K], the sequences one after another.
        lengths: frames of each sequence, N in all.
        mean_error_mm: of each sequence, how far its stored vertices are from the true ones, on average.
        max_error_mm: the largest such distance, of any vertex in any frame.
    """

    mean: np.ndarray
    basis: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    lengths: tuple[int, ...] = ()
    mean_error_mm: tuple[float, ...] = ()
    max_error_mm: float = 0.0

    def frames(self, start: int, stop: int) -> np.ndarray:
        """Frames as the page computes them: float32 [stop - start, V, 3], metres."""
        moved = self.coefficients[start:stop].astype(np.float32) @ (self.basis * self.scale[:, None])
        return (moved + self.mean).reshape(stop - start, -1, 3)


def pack(sequences: Sequence[np.ndarray], error_mm: float = ERROR_MM) -> Packed:
    """The fewest components that keep the mean error of every sequence within ``error_mm``, 128 at most.

    The components are those of up to 1200 frames, evenly spread; one basis serves all sequences. The errors are those
    of all frames, after rounding.

    Args:
        sequences: each [T, V, 3] of one V, metres, finite.
        error_mm: wanted mean distance between stored and true vertices; above 0.

    Raises:
        UserError: an error that is not positive.
    """
    if not error_mm > 0:
        raise UserError(f"error_mm is {error_mm}; pass the millimetres that vertices may be off by, above 0")
    looked_at = spread_frames(sequences)
    mean = looked_at.mean(0, dtype=np.float64).astype(np.float32)
    looked_at -= mean
    components = components_of(looked_at, _MOST_COMPONENTS)
    lengths = tuple(map(len, sequences))
    # Which component is the last that is needed is found on the frames looked at, by halving.
    shares = np.array_split(looked_at, np.cumsum(frames_looked_at(lengths))[:-1])
    low, high = 0, len(components)
    while low < high:
        middle = (low + high) // 2
        tried = [_quantised(mean, components[:middle], share) for share in shares]
        worst = max(
            _errors(p.frames(0, len(s)) - mean.reshape(-1, 3), s)[0] for p, s in zip(tried, shares, strict=True)
        )
        low, high = (low, middle) if worst <= error_mm else (middle + 1, high)
    packed = _quantised(mean, components[:low], *sequences)
    means, largest, done = [], 0.0, 0
    for sequence in sequences:
        total = 0.0
        for part in in_parts(sequence):
            stored = packed.frames(done, done + len(part))
            done += len(part)
            mean_error, max_error = _errors(stored, part)
            total, largest = total + mean_error * len(part), max(largest, max_error)
        means.append(total / len(sequence))
    if max(means) > 1.05 * error_mm:
        told = "with %d components vertices are off by %.3g mm on average, not %g; the page says so"
        _log.info(told, low, max(means), error_mm)
    return Packed(packed.mean, packed.basis, packed.scale, packed.coefficients, lengths, tuple(means), largest)


def _quantised(mean: np.ndarray, components: np.ndarray, *sequences: np.ndarray) -> Packed:
    """Components [K, V*3] and their coefficients in 16 bits; sequences [n, V*3] less the mean, or [n, V, 3]."""
    found = []
    for sequence in sequences:
        for part in in_parts(sequence):
            flat = part.reshape(len(part), -1)
            found.append((flat if sequence.ndim == 2 else flat - mean) @ components.T)
    coefficients = np.concatenate(found)
    reach = np.maximum(np.abs(coefficients).max(0), 1e-30)
    size = np.maximum(np.abs(components).max(1), 1e-30)
    return Packed(
        mean,
        np.rint(components / size[:, None] * _LARGEST).astype(np.int16),
        (size * reach / _LARGEST**2).astype(np.float32),
        np.rint(coefficients / reach * _LARGEST).astype(np.int16),
    )


def _errors(stored: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Mean and largest distance between vertices, mm."""
    distance = np.linalg.norm((stored - true.reshape(stored.shape)).astype(np.float64), axis=-1)
    return 1000 * float(distance.mean()), 1000 * float(distance.max())
