"""Channels into one, unless they cancel each other."""

from __future__ import annotations

import numpy as np

_STRETCH_S = 0.5
_LEFT = 1 / 8
_SHARE = 0.05


class Mixer:
    """The mean over channels, block by block, and whether it lost the sound.

    Unrelated channels leave 1/C of their mean energy in the mean of C channels, equal ones all of it, and one that
    sounds alone 1/C as well. Inverted ones leave nothing: a plug wired the other way, a balanced line on two inputs. A
    stretch of half a second cancels where the mean has less than an eighth (9 dB) of what unrelated channels would
    leave (of two channels: a correlation below -0.87); a file does where such stretches hold more than 5% of its
    energy. Energies are about each stretch's own mean, so that an offset hides nothing.

    Args:
        channels: C.
        rate: in Hz.
    """

    def __init__(self, channels: int, rate: int) -> None:
        self._energy = np.zeros(channels)
        self._cancelled = 0.0
        self._stretch = _STRETCH_S * rate
        self._n = 0
        self._sums, self._products = np.zeros(channels), np.zeros((channels, channels))

    def add(self, block: np.ndarray) -> np.ndarray:
        """The mean [n] of a block [n, C], float32."""
        n_channels = block.shape[1]
        if n_channels == 1:
            return np.ascontiguousarray(block[:, 0])
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused by the reader
            self._n += len(block)
            exact = block.astype(np.float64)
            self._sums += exact.sum(axis=0)
            self._products += exact.T @ exact
            if self._n >= self._stretch:
                self._close()
            return np.asarray(sum(block[:, k] for k in range(n_channels)) / n_channels)

    def _close(self) -> None:
        covariance = self._products - np.outer(self._sums, self._sums) / max(1, self._n)
        channels = np.diagonal(covariance)
        self._energy += channels
        if covariance.sum() < _LEFT * channels.sum():  # both are C^2 times what is left in the mean
            self._cancelled += channels.sum()
        self._n, self._sums, self._products = 0, np.zeros_like(self._sums), np.zeros_like(self._products)

    def cancels(self) -> bool:
        """Whether what was added loses sound in the mean. To be asked at the end."""
        with np.errstate(invalid="ignore"):
            self._close()
        return len(self._energy) > 1 and self._cancelled > _SHARE * self._energy.sum()

    @property
    def loudest(self) -> int:
        """The channel with most energy."""
        return int(self._energy.argmax())
