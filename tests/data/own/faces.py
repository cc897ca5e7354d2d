"""A built-in face as somebody else would have it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from s2f_rl.data.synthetic.face import regions
from s2f_rl.data.synthetic.speakers import make_speaker

V = 600


@lru_cache(maxsize=8)
def person(number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Face at rest [V, 3], metres, float64, and triangles [F, 3]."""
    speaker = make_speaker(number, 0, V)
    return speaker.face.template_mm / 1000.0, speaker.rig.face.topology.faces


@lru_cache(maxsize=1)
def parts() -> dict[str, np.ndarray]:
    """Vertex numbers by region: the truth."""
    return {name: np.asarray(numbers) for name, numbers in regions(V).items()}


def corners(points: np.ndarray) -> tuple[int, int]:
    lips = parts()["lips"]
    return int(lips[points[lips, 0].argmin()]), int(lips[points[lips, 0].argmax()])


def obj(points: np.ndarray, faces: np.ndarray) -> str:
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in points.tolist()]
    return "\n".join(lines + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces.tolist()]) + "\n"
