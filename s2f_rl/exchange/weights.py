"""Weights of shapes as tables: CSV and JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from s2f_rl.data.files import atomic_write_json, atomic_write_text


def write_csv(path: str | os.PathLike[str], names: Sequence[str], weights: np.ndarray, fps: float) -> None:
    """Write ``time_s`` and a column for each shape, a row for each frame, atomically.

    Args:
        names: of the K shapes.
        weights: [T, K], at t / fps seconds; six decimals are kept.
    """
    lines = [",".join(("time_s", *names))]
    lines += [",".join((f"{t / fps:.6f}", *(f"{value:.6f}" for value in row))) for t, row in enumerate(weights)]
    atomic_write_text(path, "\n".join(lines) + "\n")


def write_json(path: str | os.PathLike[str], names: Sequence[str], weights: np.ndarray, fps: float) -> None:
    """Write ``{"names": [K], "fps": f, "frames": [{"time": s, "weights": [K]}, ...]}``, atomically.

    The frames are in the form that BEAT publishes. Six decimals are kept. Arguments as in :func:`write_csv`.
    """
    frames = [
        {"time": round(t / fps, 6), "weights": [round(float(value), 6) for value in row]}
        for t, row in enumerate(weights)
    ]
    atomic_write_json(path, {"names": list(names), "fps": fps, "frames": frames})
