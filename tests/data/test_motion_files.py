"""Predictions in files: vertices as they are, or float16 offsets within the stated error."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s2f_rl.data.motion_files import load_motion, motion_shape, save_motion
from s2f_rl.errors import UserError


@pytest.fixture
def motion():
    """Vertices [T, V*3] and template: a face of 20 cm that moves by up to 15 mm."""
    generator = torch.Generator().manual_seed(0)
    template = 0.2 * torch.rand(300, generator=generator) - 0.1
    size = 10.0 ** -torch.linspace(1.82, 6, 300)  # from 15 mm down to a micrometre
    return template + size * (2 * torch.rand(50, 300, generator=generator) - 1), template


def test_float32_is_exact(motion, tmp_path):
    save_motion(tmp_path / "a_condition_b", *motion)
    assert motion_shape(tmp_path / "a_condition_b.npy") == (50, 300)
    np.testing.assert_array_equal(load_motion(tmp_path / "a_condition_b.npy"), motion[0].numpy())


def test_float16_within_the_stated_error(motion, tmp_path):
    vertices, template = motion
    save_motion(tmp_path / "a", vertices, template, "float16")
    path = tmp_path / "a.npz"
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"] and motion_shape(path) == (50, 300)
    assert path.stat().st_size < 0.6 * vertices.numel() * 4
    loaded = load_motion(path)
    assert loaded.dtype == np.float32
    offsets = (vertices.double() - template.double()).abs().numpy()
    error_mm = 1e3 * np.abs(loaded.astype(np.float64) - vertices.double().numpy())
    rounding_mm = 1e3 * 2.0**-26 * 4  # of float32 sums at 0.1 m
    assert error_mm.max() < 0.0039 and error_mm[offsets < 0.0078].max() < 0.002
    assert (error_mm <= 1e3 * offsets * 2.0**-11 + 1e3 * 2.0**-25 + rounding_mm).all()
    file = np.load(path)  # as the documentation says
    np.testing.assert_array_equal(file["template"] + file["offsets"].astype("float32"), loaded)


def test_there_is_one_file_of_a_motion(motion, tmp_path):
    for precision, suffix in (("float32", ".npy"), ("float16", ".npz"), ("float32", ".npy")):
        save_motion(tmp_path / "a", *motion, precision)
        assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("arrays", [{"x": np.zeros(3)}, {"offsets": np.zeros((4, 6)), "template": np.zeros(3)}])
def test_other_files_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match="holds no offsets"):
        load_motion(tmp_path / "a.npz")


def test_float16_cannot_hold_it(motion, tmp_path):
    """Motion that has exploded is no infinity in a file."""
    vertices, template = motion
    vertices[3, 5] = 7e4
    with pytest.raises(UserError, match="exploded: moves further than float16 holds; .*predictions=float32"):
        save_motion(tmp_path / "exploded", vertices, template, "float16")
    assert not list(tmp_path.iterdir())
