"""Vertices to coefficients: bounded least squares over a sequence, with a temporal and a sparsity term."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np

from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.errors import UserError

_log = logging.getLogger(__name__)
_CHUNK = 256
_MOST_STEPS = 20000
_TOLERANCE = 1e-7
_DEAD = 1e-6


@dataclass(frozen=True)
class CoefficientFit:
    """What :func:`fit_coefficients` found.

    Attributes:
        coefficients: float32 [T, K], within the bounds.
        mean_mm: float64 [T], the mean distance of the vertices from those of the coefficients, in each frame.
        max_mm: float64 [T], the largest.
    """

    coefficients: np.ndarray
    mean_mm: np.ndarray
    max_mm: np.ndarray


def fit_coefficients(
    vertices: np.ndarray,
    basis: LinearBasis,
    rest: np.ndarray | None = None,
    metres_per_unit: float = 1.0,
    smooth: float = 0.0,
    sparse: float = 1e-6,
) -> CoefficientFit:
    """The coefficients whose shapes lie nearest to a sequence.

    Minimises, over c [T, K] within the basis's bounds,

        sum_t |sum_k c_tk S_k - d_t|^2 / 2  +  sum_k |S_k|^2 (smooth / 2 sum_t (c_tk - c_t-1,k)^2 + sparse sum_t |c_tk|)

    where d_t is frame t less the face at rest. Weighted by |S_k|^2 the two terms ask the same of every shape, however
    far it moves: on a shape that stands alone, ``sparse`` is what is taken off its coefficient, and a movement of f
    Hertz keeps 1 / (1 + smooth (2 - 2 cos(2 pi f / fps))) of its size. The least ``sparse`` only decides where several
    coefficients make the same face (a brow that goes up and one that goes down): then the smallest are taken.

    The problem is reduced once to K x K; all frames are then solved together by accelerated projected gradient with
    restarts (Beck and Teboulle 2009; O'Donoghue and Candes 2015), in float64.

    Args:
        vertices: [T, V*3] or [T, V, 3], in any unit; it may be memory-mapped, and is read piece by piece.
        basis: of this mesh.
        rest: [V, 3] in metres, the face at rest of the sequence; None: the basis's own.
        metres_per_unit: of the vertices.
        smooth, sparse: weights of the two terms, 0 or more.

    Raises:
        UserError: another number of vertices, or a coordinate that is not finite.
    """
    if not (smooth >= 0 and sparse >= 0 and math.isfinite(smooth + sparse)):
        raise UserError(f"smooth is {smooth} and sparse {sparse}; both are 0 or more")
    frames = vertices.reshape(len(vertices), -1)
    if frames.shape[1] != 3 * basis.n_vertices:
        raise UserError(
            f"the sequence has {frames.shape[1] / 3:g} vertices, the basis {basis.n_vertices}; "
            "give the basis of its mesh"
        )
    shapes = basis.matrix.numpy().astype(np.float64)
    still = (basis.neutral.numpy() if rest is None else np.asarray(rest)).astype(np.float64).reshape(-1)

    def displaced(start: int) -> np.ndarray:
        return frames[start : start + _CHUNK].astype(np.float64) * metres_per_unit - still

    starts = range(0, len(frames), _CHUNK)
    products = np.concatenate([displaced(start) @ shapes.T for start in starts])
    if not np.isfinite(products).all():
        t = int(np.flatnonzero(~np.isfinite(products).all(1))[0])
        raise UserError(f"frame {t} holds coordinates that are not finite; predict or export it again")
    found = _solved(shapes @ shapes.T, products, basis.bounds.numpy().astype(np.float64), smooth, sparse)
    coefficients = found.astype(np.float32)
    means, largest = [], []
    for start in starts:
        off = displaced(start) - found[start : start + _CHUNK] @ shapes
        distance = 1e3 * np.linalg.norm(off.reshape(len(off), -1, 3), axis=2)
        means.append(distance.mean(1))
        largest.append(distance.max(1))
    return CoefficientFit(coefficients, np.concatenate(means), np.concatenate(largest))


def _solved(gram: np.ndarray, products: np.ndarray, bounds: np.ndarray, smooth: float, sparse: float) -> np.ndarray:
    """c [T, K] for S S^T [K, K] and S d_t [T, K]. A shape that moves nothing keeps the least it may."""
    norm = np.sqrt(np.diag(gram))
    alive = norm > _DEAD * norm.max(initial=0.0)
    c = np.tile(np.clip(0.0, *bounds.T), (len(products), 1))
    if not alive.any():
        return c
    norm = norm[alive]
    # u = c |S_k|, in units of the median shape: an even problem, and steps that mean the same
    scale = norm / np.median(norm)
    h = gram[np.ix_(alive, alive)] / np.outer(norm, norm)
    q = products[:, alive] / norm / np.median(norm)
    low, high = bounds[alive].T * scale
    threshold = sparse * scale
    step = 1.0 / (np.linalg.eigvalsh(h)[-1] + 4 * smooth)
    u = np.clip(np.linalg.solve(h + 1e-6 * np.eye(len(h)), q.T).T, low, high)
    ahead, pace = u, 1.0
    for _ in range(_MOST_STEPS):
        gradient = ahead @ h - q
        if smooth:
            change = smooth * np.diff(ahead, axis=0)
            gradient[:-1] -= change
            gradient[1:] += change
        moved = ahead - step * gradient
        if sparse:
            moved = np.sign(moved) * np.maximum(np.abs(moved) - step * threshold, 0.0)
        new = np.clip(moved, low, high)  # of one dimension, so the order of threshold and bounds is right
        went = max(float((np.abs(new - since) / scale).max()) for since in (u, ahead))
        if went < _TOLERANCE:
            u = new
            break
        if np.vdot(ahead - new, new - u) > 0:
            pace = 1.0
        following = (1 + math.sqrt(1 + 4 * pace * pace)) / 2
        ahead, u, pace = new + (pace - 1) / following * (new - u), new, following
    else:
        _log.warning("the coefficients still move by %.1g a step: shapes of the basis are nearly the same", went)
    c[:, alive] = u / scale
    return c
