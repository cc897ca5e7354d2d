"""What a reward's training may keep in memory, divided before it begins."""

from __future__ import annotations

from dataclasses import dataclass

_MB = 2**20
_PROCESS = 500 * _MB
"""Python, torch and what else is imported, and the statistics of a mesh of 5023 vertices."""
_PER_PARAMETER = 20
"""Bytes of what trains: weight, gradient, two moments, and the copy that is saved."""
_PER_FROZEN = 8
"""Weight and copy."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes for each: ``recordings`` and ``features`` are caches, ``step`` is for an update's intermediates."""

    recordings: int
    features: int
    step: int

    @classmethod
    def within(cls, limit_mb: float, trained: int, frozen: int, features: int, step: int) -> MemoryPlan:
        """Divide what the process and the model leave of a limit (at least a quarter of it).

        The features of the audio half come first, since they take longest to make again, then the update; recordings,
        which are read again in milliseconds, get what is left, and at least a quarter.

        Args:
            limit_mb: of the whole process.
            trained, frozen: numbers of parameters.
            features, step: bytes that would hold all audio features, and an update as a whole.
        """
        limit = limit_mb * _MB
        model = _PER_PARAMETER * trained + _PER_FROZEN * frozen
        left = max(limit - _PROCESS - model, limit / 4)
        for_features = min(features, left / 2)
        for_step = min(step, left - for_features - left / 4)
        return cls(int(left - for_features - for_step), int(for_features), int(for_step))
