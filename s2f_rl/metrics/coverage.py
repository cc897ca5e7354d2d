"""Coverage: do several animations of the same speech fill the room that its true motions fill?"""

from __future__ import annotations

import torch
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.metrics._meshes import ArrayLike, Indices, as_frames, as_indices, select


def motion_distances(one: ArrayLike, other: ArrayLike, region: Indices | None = None) -> Tensor:
    """Root mean square distance between every two motions, over frames and vertices.

    Args:
        one, other: [N, T, V*3] and [M, T, V*3] (or [.., V, 3]), metres.
        region: vertex indices, or a boolean mask [V]; None for all vertices.

    Returns:
        [N, M] float64, metres; nan for T = 0.

    Raises:
        UserError: other shapes, or indices outside the mesh.
    """
    a, b = as_frames(one, "one"), as_frames(other, "other")
    if a.ndim != 4 or b.ndim != 4 or a.shape[1:] != b.shape[1:]:
        raise UserError(
            f"motions of shapes {list(a.shape)} and {list(b.shape)}: expected [N, T, V, 3] and [M, T, V, 3]"
        )
    chosen = torch.arange(a.shape[-2]) if region is None else as_indices(region, a, "region")
    a, b = select(a, chosen), select(b, chosen)
    # a row at a time: the form |a|^2 - 2ab + |b|^2 loses digits where motions are close
    rows = [(b - each).square().sum(-1).mean((1, 2)).sqrt() for each in a]
    return torch.stack(rows) if rows else a.new_zeros(0, len(b))


def density_and_coverage(apart: ArrayLike, distances: ArrayLike, neighbours: int = 5) -> tuple[float, float]:
    """How many true neighbourhoods hold a sample, and how many true motions have a sample in theirs.

    The neighbourhood of a true motion reaches to the ``neighbours``-th nearest other one (Naeem et al., ICML 2020,
    equations 6 and 7). Density counts neighbourhoods a sample is in, over what is expected of true ones: about 1 for
    a sampler of the true motions, more for samples that crowd where true motions are dense, 0 for samples that are
    nowhere near. Coverage is within 0..1.

    Args:
        apart: [M, M], :func:`motion_distances` of the true motions. distances: [M, N], of those to the samples.
        neighbours: k, 1 to M - 1.

    Returns:
        density (>= 0) and coverage.

    Raises:
        UserError: shapes that do not fit, no sample, or fewer true motions than neighbours.
    """
    among, to_samples = torch.as_tensor(apart), torch.as_tensor(distances)
    m = len(among)
    if among.shape != (m, m) or to_samples.ndim != 2 or len(to_samples) != m or not to_samples.shape[1]:
        raise UserError(f"distances of shapes {list(among.shape)} and {list(to_samples.shape)}: use [M, M] and [M, N]")
    if not 1 <= neighbours < m:
        raise UserError(f"neighbours={neighbours}: {m} true motions have 1 to {m - 1} others")
    reach = among.sort(dim=1).values[:, neighbours]  # the first one is the motion itself
    inside = to_samples <= reach[:, None]
    return float(inside.sum(0).double().mean()) / neighbours, float(inside.any(1).double().mean())
