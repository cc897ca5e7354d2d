from __future__ import annotations

import numpy as np
import pytest
import torch

from s2f_rl.exchange.principal import principal_shapes
from s2f_rl.render.meshes import FramesOnDemand
from tests.data.coefficients.rigs import make_rig, make_weights


def test_few_shapes_repeat_the_motion_to_the_error_that_is_told() -> None:
    rig = make_rig()
    motion = rig.vertices(torch.from_numpy(make_weights(40, 12)).float()).numpy().reshape(40, -1, 3)
    sizes = []
    for error_mm in (3.0, 0.5, 0.01):
        basis, weights, worst = principal_shapes(motion, error_mm)
        made = basis.vertices(torch.from_numpy(weights)).numpy().reshape(40, -1, 3)
        off = 1e3 * np.linalg.norm(made.astype(np.float64) - motion, axis=2).max()
        assert off <= error_mm and worst == pytest.approx(off, abs=1e-4)
        assert np.abs(weights).max() == pytest.approx(1)
        sizes.append(len(basis.names))
    assert sizes == sorted(sizes) and sizes[0] < 12 == sizes[2]  # no more than the rig has


def test_a_long_motion_that_is_never_held_whole() -> None:
    rig = make_rig(60)
    motion = rig.vertices(torch.from_numpy(make_weights(3000, 12)).float()).numpy().reshape(3000, -1, 3)
    motion[1499:1501, 7] += 0.001  # between the frames that are looked at
    asked = []

    def frames(index: int | slice | np.ndarray) -> np.ndarray:
        asked.append(motion[index])
        return asked[-1]

    basis, weights, worst = principal_shapes(FramesOnDemand(3000, 60, frames))  # type: ignore[arg-type]
    assert max(map(len, asked)) <= 1200
    made = basis.vertices(torch.from_numpy(weights)).numpy().reshape(3000, -1, 3)
    off = 1e3 * np.linalg.norm(made.astype(np.float64) - motion, axis=2).max()
    assert off < 0.01 and worst == pytest.approx(off, abs=1e-4)
    assert len(basis.names) == 13  # the rig's, and the one of two frames


def test_a_face_that_does_not_move() -> None:
    still = np.tile(make_rig().neutral.numpy(), (5, 1, 1))
    basis, weights, worst = principal_shapes(still)
    assert basis.shapes.shape[0] == 1 and weights.shape == (5, 1) and worst < 1e-4
