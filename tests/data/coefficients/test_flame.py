"""FLAME as a basis, against the model written out: blend shapes, pose correctives, linear blend skinning."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s2f_rl.data.coefficients.flame import flame_basis
from s2f_rl.errors import UserError

V = 7
RNG = np.random.default_rng(0)
WEIGHTS = RNG.random((V, 5))
MODEL = {
    "v_template": 0.1 * RNG.normal(size=(V, 3)),
    "shapedirs": 0.001 * RNG.normal(size=(V, 3, 320)),
    "posedirs": 0.001 * RNG.normal(size=(V, 3, 36)),
    "J_regressor": (lambda j: j / j.sum(1, keepdims=True))(RNG.random((5, V))),
    "weights": WEIGHTS / WEIGHTS.sum(1, keepdims=True),
}


def rotation(r):
    """Rodrigues' formula."""
    angle = np.linalg.norm(r)
    k = np.array([[0, -r[2], r[1]], [r[2], 0, -r[0]], [-r[1], r[0], 0]]) / angle
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def flame(expression, jaw):
    """Vertices of the model with its neck and eyes at rest."""
    shaped = MODEL["v_template"] + MODEL["shapedirs"][:, :, 300 : 300 + len(expression)] @ expression
    turns = [np.eye(3)] * 4
    turns[1] = rotation(jaw)
    feature = np.concatenate([(turn - np.eye(3)).reshape(-1) for turn in turns])
    posed = shaped + MODEL["posedirs"] @ feature
    joint = MODEL["J_regressor"][2] @ MODEL["v_template"]
    turned = (posed - joint) @ turns[1].T + joint
    w = MODEL["weights"][:, 2, None]
    return w * turned + (1 - w) * posed


def test_first_order_of_the_model():
    basis = flame_basis(MODEL, 5)
    assert basis.names[:1] + basis.names[-3:] == ("expr000", "jawX", "jawY", "jawZ") and basis.n_vertices == V
    for k in range(5):
        given = flame(np.eye(5)[k], np.array([1e-12, 0, 0]))
        made = basis.vertices(torch.eye(8)[k]).numpy().reshape(V, 3)
        np.testing.assert_allclose(made, given, rtol=0, atol=1e-7)
    for axis in range(3):
        small = 1e-5 * np.eye(3)[axis]
        slope = (flame(np.zeros(5), small) - flame(np.zeros(5), -small)) / 2e-5
        np.testing.assert_allclose(basis.shapes[5 + axis].numpy(), slope, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights": None}, "lacks weights"),
        ({"posedirs": np.zeros((V, 3, 9))}, "posedirs has the shape"),
        ({"shapedirs": np.zeros((V, 3, 302))}, "shapedirs has the shape"),
    ],
)
def test_what_is_no_model(change, told):
    model = {key: value for key, value in {**MODEL, **change}.items() if value is not None}
    with pytest.raises(UserError, match=told):
        flame_basis(model, 5)
