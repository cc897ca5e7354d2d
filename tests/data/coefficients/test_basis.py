"""The basis of a rig: what it gives, that it comes back from its file, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.errors import UserError


def arrays(k=3, v=5):
    rng = np.random.default_rng(0)
    return {
        "neutral": rng.normal(size=(v, 3)),
        "shapes": rng.normal(size=(k, v, 3)),
        "names": np.array(["jawOpen", "mouthPucker", "browInnerUp"][:k]),
        "bounds": np.array([[0.0, 1.0]] * k),
    }


def written(tmp_path, **changes):
    content = {**arrays(), **changes}
    np.savez(tmp_path / "basis.npz", **{key: value for key, value in content.items() if value is not None})
    return tmp_path / "basis.npz"


def test_vertices_are_the_sum_over_shapes(tmp_path):
    content = arrays()
    basis = LinearBasis.load(written(tmp_path))
    c = np.random.default_rng(1).normal(size=(4, 3))
    for t, row in enumerate(basis.vertices(torch.from_numpy(c).float()).numpy()):
        slow = content["neutral"] + sum(c[t, k] * content["shapes"][k] for k in range(3))
        np.testing.assert_allclose(row, slow.reshape(-1), rtol=0, atol=1e-5)


def test_comes_back_from_its_file(tmp_path):
    basis = LinearBasis.load(written(tmp_path, bounds=np.array([[0, 1], [-1, 1], [-np.inf, 2]])))
    basis.save(tmp_path / "again.npz")
    again = LinearBasis.load(tmp_path / "again.npz")
    assert again.names == basis.names == ("jawOpen", "mouthPucker", "browInnerUp")
    for name in ("neutral", "shapes", "bounds"):
        torch.testing.assert_close(getattr(again, name), getattr(basis, name), rtol=0, atol=0)


def test_its_unit_is_converted(tmp_path):
    metres, mm = (LinearBasis.load(written(tmp_path, unit=np.array(unit))) for unit in ("m", "mm"))
    torch.testing.assert_close(mm.neutral, metres.neutral / 1000)
    torch.testing.assert_close(mm.shapes, metres.shapes / 1000)
    assert mm.bounds.tolist() == [[0, 1]] * 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"neutral": None}, "lacks neutral"),
        ({"names": None}, "lacks names"),
        ({"names": np.arange(3)}, "names is no list of words"),
        ({"names": np.array(["a", "a", "b"])}, "names 'a' twice"),
        ({"names": np.array(["a", "b,c", "d"])}, "cannot be the name"),
        ({"names": np.array(["a", "b"])}, r"shapes has the shape \[3, 5, 3\].*\[2, 5, 3\] is expected"),
        ({"neutral": np.zeros(15)}, r"neutral has the shape \[15\]"),
        ({"shapes": np.full((3, 5, 3), np.nan)}, "shapes holds NaN"),
        ({"shapes": np.array(["x"])}, "shapes is no array of numbers"),
        ({"bounds": np.zeros((3, 1))}, r"bounds has the shape \[3, 1\]"),
        ({"bounds": np.array([[0, 1], [1, 0], [0, 1]])}, "the bounds of mouthPucker"),
        ({"unit": np.array("furlong")}, "unit is 'furlong'"),
        ({"unit": np.array([1.0, 2.0])}, "unit is"),
        ({"names": np.array(["a", None, "b"], dtype=object)}, "Python objects"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, changes, told):
    with pytest.raises(UserError, match=told) as caught:
        LinearBasis.load(written(tmp_path, **changes))
    assert str(caught.value).startswith(str(tmp_path / "basis.npz"))
