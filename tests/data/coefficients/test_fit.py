from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear, minimize

from s2f_rl.data.coefficients import fit
from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.coefficients.fit import fit_coefficients
from s2f_rl.errors import UserError
from tests.data.coefficients.rigs import make_rig, make_weights


def moved(basis: LinearBasis, weights: np.ndarray) -> np.ndarray:
    """[T, V*3] float64."""
    return basis.neutral.double().numpy().reshape(-1) + weights @ basis.matrix.double().numpy()


class TestFit:
    @pytest.mark.parametrize("width", [0.02, 0.06])  # neighbours that share little, and nearly everything
    def test_known_weights_come_back(self, width: float) -> None:
        basis, weights = make_rig(width=width), make_weights(50, 12)
        found = fit_coefficients(moved(basis, weights).astype(np.float32), basis)
        assert found.coefficients.shape == (50, 12) and found.coefficients.dtype == np.float32
        np.testing.assert_allclose(found.coefficients, weights, atol=1e-3)
        assert found.max_mm.max() < 1e-3

    def test_frames_are_those_of_a_solver_of_one_frame(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Against scipy's active sets, on a motion that no weights within the bounds make."""
        monkeypatch.setattr(fit, "_CHUNK", 7)
        rng = np.random.default_rng(1)
        basis = make_rig()
        bounds = np.stack([rng.uniform(-0.5, 0, 12), rng.uniform(0.5, 1, 12)], 1).astype(np.float32)
        basis = LinearBasis(basis.neutral, basis.shapes, basis.names, torch.from_numpy(bounds))
        target = moved(basis, 3 * make_weights(20, 12) - 1) + 2e-4 * rng.normal(size=(20, 600))
        found = fit_coefficients(1e3 * target, basis, metres_per_unit=1e-3)
        shapes = basis.matrix.double().numpy()
        for t, frame in enumerate(target - basis.neutral.double().numpy().reshape(-1)):
            expected = lsq_linear(shapes.T, frame, tuple(bounds.T), method="bvls", tol=1e-14).x
            np.testing.assert_allclose(found.coefficients[t], expected, atol=1e-4)
            distance = 1e3 * np.linalg.norm((frame - expected @ shapes).reshape(-1, 3), axis=1)
            assert found.mean_mm[t] == pytest.approx(distance.mean(), rel=1e-3)
            assert found.max_mm[t] == pytest.approx(distance.max(), rel=1e-3)

    @pytest.mark.parametrize(("smooth", "sparse"), [(0.3, 0.0), (0.0, 0.05), (0.2, 0.02)])
    def test_terms_are_those_of_the_docstring(self, smooth: float, sparse: float) -> None:
        """Against a general minimiser of the written objective; weights of either sign, so that |c| has its corner."""
        rng = np.random.default_rng(2)
        basis = make_rig(60, 3, width=0.05)
        basis = LinearBasis(basis.neutral, basis.shapes, basis.names, torch.tensor([[-0.4, 0.5]] * 3))
        target = moved(basis, rng.uniform(-0.7, 0.7, (6, 3)))
        shapes = basis.matrix.double().numpy()
        offsets = target - basis.neutral.double().numpy().reshape(-1)
        size = (shapes**2).sum(1)

        def objective(parts: np.ndarray) -> float:  # c = up - down, both positive: smooth, where |c| is not
            up, down = parts.reshape(2, 6, 3)
            c = up - down
            rough = 0.5 * smooth * (size * np.diff(c, axis=0) ** 2).sum() + sparse * (size * (up + down)).sum()
            return 1e5 * (0.5 * ((c @ shapes - offsets) ** 2).sum() + rough)

        limits = [(0, 0.5)] * 18 + [(0, 0.4)] * 18
        best = minimize(objective, np.zeros(36), bounds=limits, options={"maxfun": 10**6, "ftol": 1e-15, "gtol": 1e-10})
        up, down = best.x.reshape(2, 6, 3)
        found = fit_coefficients(target, basis, smooth=smooth, sparse=sparse)
        np.testing.assert_allclose(found.coefficients, up - down, atol=2e-3)

    def test_sparsity_takes_off_what_it_says(self) -> None:
        shapes = torch.zeros(2, 4, 3)
        shapes[0, 0, 0], shapes[1, 1, 1] = 0.01, 1e-4  # of very different sizes, apart from each other
        basis = LinearBasis(torch.rand(4, 3), shapes, ("a", "b"), torch.tensor([[-1.0, 1.0]] * 2))
        found = fit_coefficients(moved(basis, np.array([[0.5, -0.4], [0.03, 0.9]])), basis, sparse=0.05)
        np.testing.assert_allclose(found.coefficients, [[0.45, -0.35], [0.0, 0.85]], atol=1e-5)

    def test_of_weights_that_make_the_same_face_the_smallest(self) -> None:
        rig, weights = make_rig(), make_weights(30, 12)
        shapes = torch.cat([rig.shapes, -rig.shapes[:4]])  # as a brow that goes up and one that goes down
        basis = LinearBasis(rig.neutral, shapes, (*rig.names, *"abcd"), torch.tensor([[0.0, 1.0]] * 16))
        weights = np.concatenate([weights, make_weights(30, 4, seed=5)], 1)
        both = np.minimum(weights[:, :4], weights[:, 12:])
        weights[:, :4] -= both
        weights[:, 12:] -= both
        found = fit_coefficients(moved(basis, weights).astype(np.float32), basis)
        np.testing.assert_allclose(found.coefficients, weights, atol=1e-3)
        assert found.max_mm.max() < 1e-3

    def test_a_face_of_its_own_at_rest(self) -> None:
        basis, weights = make_rig(), make_weights(5, 12)
        rest = basis.neutral.double().numpy() * 1.1 + 0.02
        target = moved(basis, weights) - basis.neutral.double().numpy().reshape(-1) + rest.reshape(-1)
        found = fit_coefficients(target.reshape(5, -1, 3), basis, rest)
        np.testing.assert_allclose(found.coefficients, weights, atol=1e-3)

    def test_shapes_that_move_nothing_stay_at_rest(self) -> None:
        basis = make_rig()
        shapes = basis.shapes.clone()
        shapes[3] = 0
        bounds = basis.bounds.clone()
        bounds[3] = torch.tensor([0.25, 1.0])
        basis = LinearBasis(basis.neutral, shapes, basis.names, bounds)
        found = fit_coefficients(moved(basis, make_weights(5, 12)), basis)
        assert (found.coefficients[:, 3] == 0.25).all() and found.max_mm.max() < 1e-3
        still = LinearBasis(basis.neutral, 0 * shapes, basis.names, basis.bounds)
        assert fit_coefficients(moved(basis, make_weights(5, 12)), still).max_mm.max() > 1

    def test_mistakes(self) -> None:
        basis = make_rig()
        target = moved(basis, make_weights(5, 12))
        with pytest.raises(UserError, match="has 199 vertices, the basis 200"):
            fit_coefficients(target[:, 3:], basis)
        with pytest.raises(UserError, match="smooth is -1"):
            fit_coefficients(target, basis, smooth=-1)
        target[2, 5] = np.nan
        with pytest.raises(UserError, match="frame 2 holds coordinates"):
            fit_coefficients(target, basis)
