"""Distances between motions, density and coverage: against loops, and against samplers of which both are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from s2f_rl import metrics
from s2f_rl.errors import UserError


def test_distances_against_a_loop():
    rng = np.random.default_rng(0)
    one, other, region = rng.normal(size=(2, 4, 5, 3)), rng.normal(size=(3, 4, 5, 3)), [0, 3]
    for chosen, vertices in ((None, range(5)), (region, region)):
        expected = [
            [
                math.sqrt(
                    sum((a[t, v, c] - b[t, v, c]) ** 2 for t in range(4) for v in vertices for c in range(3))
                    / (4 * len(vertices))
                )
                for b in other
            ]
            for a in one
        ]
        found = metrics.motion_distances(one.reshape(2, 4, 15), other, chosen)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    with pytest.raises(UserError, match="expected"):
        metrics.motion_distances(one, other[:, :3])


def test_density_and_coverage_against_a_loop():
    rng = np.random.default_rng(1)
    true, samples = rng.normal(size=(12, 2)), 0.7 * rng.normal(size=(7, 2)) + 0.3
    apart = np.linalg.norm(true[:, None] - true, axis=-1)
    near = np.linalg.norm(true[:, None] - samples, axis=-1)
    reach = [sorted(apart[i][j] for j in range(12) if j != i)[2] for i in range(12)]
    density = sum(near[i][j] <= reach[i] for i in range(12) for j in range(7)) / (3 * 7)
    coverage = sum(any(near[i][j] <= reach[i] for j in range(7)) for i in range(12)) / 12
    assert metrics.density_and_coverage(apart, near, 3) == pytest.approx((density, coverage), rel=1e-12)
    assert 0 < coverage < 1


def test_samplers_that_are_known():
    """The true motions themselves have a density of about 1; what is far off has none."""
    generator = torch.Generator().manual_seed(0)
    true, same = (torch.randn(400, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    apart = torch.cdist(true, true)
    density, coverage = metrics.density_and_coverage(apart, torch.cdist(true, same))
    assert density == pytest.approx(1, abs=0.1) and coverage > 0.9
    assert metrics.density_and_coverage(apart, torch.cdist(true, same + 50)) == (0, 0)
    for wrong in (0, 400):
        with pytest.raises(UserError, match="neighbours"):
            metrics.density_and_coverage(apart, apart, wrong)
    with pytest.raises(UserError, match="shapes"):
        metrics.density_and_coverage(apart, apart[:3])
