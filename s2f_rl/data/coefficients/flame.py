"""FLAME (Li et al., SIGGRAPH Asia 2017) as a basis: expressions as they are, the jaw's turn linearised."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.errors import UserError

_N_SHAPES, _JAW, _N_JOINTS = 300, 2, 5
_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")


def flame_basis(model: Mapping[str, np.ndarray], n_expressions: int = 50) -> LinearBasis:
    """The basis of ``expr000``, ..., ``jawX``, ``jawY``, ``jawZ``, which FLAME's parameters are read as.

    A jaw's rotation vector r moves a vertex v by w r x (v - J) plus the pose correctives of the same first order, with
    the jaw's joint J and its skinning weight w. At 10 degrees the second order left out is 9 % of the way.

    Args:
        model: plain arrays of the model that you have a licence for: v_template [V, 3], shapedirs [V, 3, 300 + E],
            posedirs [V, 3, 36], J_regressor [5, V] (dense), weights [V, 5]; metres.
        n_expressions: how many of the E expressions.

    Raises:
        UserError: an array is missing or of another shape.
    """
    missing = [key for key in _KEYS if key not in model]
    if missing:
        raise UserError(f"FLAME: lacks {', '.join(missing)}; give plain arrays of the model")
    template, shapes, poses, joints, weights = (np.asarray(model[key], np.float64) for key in _KEYS)
    n = len(template)
    expected = [(n, 3), (n, 3, 36), (_N_JOINTS, n), (n, _N_JOINTS)]
    for key, array, shape in zip((k for k in _KEYS if k != "shapedirs"), (template, poses, joints, weights), expected,
                                 strict=True):  # fmt: skip
        if array.shape != shape:
            raise UserError(f"FLAME: {key} has the shape {list(array.shape)}; {list(shape)} is expected")
    if shapes.shape[:2] != (n, 3) or not 0 < n_expressions <= shapes.shape[2] - _N_SHAPES:
        raise UserError(
            f"FLAME: shapedirs has the shape {list(shapes.shape)}; [{n}, 3, {_N_SHAPES} + {n_expressions}] or more is "
            "expected"
        )
    moved = [shapes[:, :, _N_SHAPES + k] for k in range(n_expressions)]
    arm = template - joints[_JAW] @ template
    for axis in np.eye(3):
        turn = np.cross(np.eye(3), axis)  # row i is e_i x r, so that it is the matrix of r x v
        correctives = poses[:, :, 9 * (_JAW - 1) : 9 * _JAW] @ turn.reshape(-1)
        moved.append(weights[:, _JAW, None] * np.cross(axis, arm) + correctives)
    names = (*(f"expr{k:03d}" for k in range(n_expressions)), "jawX", "jawY", "jawZ")
    bounds = torch.tensor([[-torch.inf, torch.inf]] * len(names))
    return LinearBasis(torch.from_numpy(template).float(), torch.from_numpy(np.stack(moved)).float(), names, bounds)
