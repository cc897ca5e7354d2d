"""The directions in which faces move: principal components of sequences, of any length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

_FRAMES_LOOKED_AT = 1200
_AT_ONCE = 256
_NOTHING_M = 1e-9  # a component that moves no vertex further is rounding


def frames_looked_at(lengths: Sequence[int]) -> list[int]:
    """How many frames of each sequence are looked at: 1200 in all, at least one of each."""
    share = min(1.0, _FRAMES_LOOKED_AT / sum(lengths))
    return [max(1, int(share * length)) for length in lengths]


def spread_frames(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """:func:`frames_looked_at` of them, evenly spread: float32 [n, V*3] of sequences [T, V, 3] that may be on disk."""
    parts = []
    for sequence, n in zip(sequences, frames_looked_at([len(s) for s in sequences]), strict=True):
        index = np.linspace(0, len(sequence) - 1, n).round().astype(np.int64)
        parts.append(np.asarray(sequence[index], np.float32).reshape(n, -1))
    return np.concatenate(parts)


def components_of(centred: np.ndarray, most: int | None = None) -> np.ndarray:
    """Orthonormal directions float32 [K, V*3] of frames less their mean [n, V*3], metres; the strongest first.

    Found from the frames' inner products (snapshot method: Sirovich, "Turbulence and the dynamics of coherent
    structures", 1987).

    Args:
        most: K at most.
    """
    strengths, mixtures = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    order = np.argsort(strengths)[::-1][:most]
    order = order[strengths[order] > _NOTHING_M**2]
    # of single precision the weak ones are not at right angles to the strong ones
    basis, _ = np.linalg.qr(centred.T @ mixtures[:, order].astype(np.float32))
    return np.ascontiguousarray(basis.T)


def in_parts(sequence: np.ndarray) -> Iterator[np.ndarray]:
    """The frames of a sequence in order, float32, some hundred at a time."""
    for start in range(0, len(sequence), _AT_ONCE):
        yield np.asarray(sequence[start : start + _AT_ONCE], np.float32)
