from __future__ import annotations

import logging

import numpy as np
import pytest

from s2f_rl.errors import UserError
from s2f_rl.render.faces import check_faces, find_faces, outward

FACES = np.array([[0, 1, 2], [0, 2, 3]])


def ply(path, faces, n_vertices=4):
    lines = [
        "ply",
        "format ascii 1.0",
        f"element vertex {n_vertices}",
        "property float x",
        "property float y",
        "property float z",
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, *["0 0 0"] * n_vertices, *[f"3 {a} {b} {c}" for a, b, c in faces]]) + "\n")


def test_nothing_there(tmp_path):
    assert find_faces(tmp_path, 4) is None


@pytest.mark.parametrize("name", ["template.ply", "templates/any.ply", "templates/FLAME_sample.ply"])
def test_ply(tmp_path, name):
    ply(tmp_path / name, FACES)
    found = find_faces(tmp_path, 4)
    assert found.dtype == np.int32 and found.tolist() == FACES.tolist()


def test_obj_with_polygons_and_texture_indices(tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "head.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/1 4/1\n")
    assert find_faces(tmp_path, 4).tolist() == FACES.tolist()


def test_faces_npy_comes_first(tmp_path):
    ply(tmp_path / "a.ply", FACES)
    np.save(tmp_path / "faces.npy", FACES[:1])
    assert find_faces(tmp_path, 4).tolist() == FACES[:1].tolist()


def test_what_does_not_fit_is_passed_over_with_a_warning(tmp_path, caplog):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n")
    (tmp_path / "b.ply").write_bytes(b"\x00\x01 not a mesh")
    (tmp_path / "c.obj").write_text("v 0 0 zero\n")
    ply(tmp_path / "d.ply", [], 4)
    with caplog.at_level(logging.WARNING):
        assert find_faces(tmp_path, 4) is None
    for name in ("a.obj", "b.ply", "c.obj", "d.ply"):
        assert name in caplog.text
    ply(tmp_path / "e.ply", FACES)
    assert find_faces(tmp_path, 4).tolist() == FACES.tolist()


def test_a_faces_npy_that_cannot_be_used_is_an_error(tmp_path):
    np.save(tmp_path / "faces.npy", FACES + 9)
    with pytest.raises(UserError, match="faces.npy"):
        find_faces(tmp_path, 4)
    np.save(tmp_path / "faces.npy", FACES[:0])
    with pytest.raises(UserError, match="triangles"):
        find_faces(tmp_path, 4)


def test_outward(sphere):
    vertices, faces = sphere
    np.testing.assert_array_equal(outward(faces, vertices + 7), faces)
    np.testing.assert_array_equal(outward(faces[:, ::-1], vertices + 7), faces)
    # An open, flat mask has no inside: it faces forward, +z.
    flat = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    np.testing.assert_array_equal(outward(FACES, flat), FACES)
    np.testing.assert_array_equal(outward(FACES[:, ::-1], flat), FACES)


def test_check_faces_takes_any_integers():
    for kind in (np.int32, np.int64, np.uint16):
        assert check_faces(FACES.astype(kind), 4).dtype == np.int32
    with pytest.raises(UserError, match="refers to vertex 3 of a mesh with 3 vertices"):
        check_faces(FACES, 3)
