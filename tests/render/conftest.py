from __future__ import annotations

import numpy as np
import pytest

from tests.render.shapes import ball


@pytest.fixture(scope="session")
def sphere() -> tuple[np.ndarray, np.ndarray]:
    return ball()


@pytest.fixture(scope="session")
def motion(sphere) -> np.ndarray:
    """Five frames of the sphere moving to the side: float32 [5, V, 3]."""
    vertices, _ = sphere
    shift = np.linspace(0, 0.04, 5)[:, None, None] * np.array([1.0, 0, 0])
    return (vertices + shift).astype(np.float32)
