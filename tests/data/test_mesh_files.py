"""OBJ and PLY meshes."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from s2f_rl.data.mesh_files import find_faces, read_obj, read_ply_faces
from s2f_rl.errors import UserError

OBJ = """# a square and a triangle
mtllib x.mtl
v 0 0 0
v 1 0 0 0.5 0.5 0.5
v 1 1 0
v 0 1 0
v 2 2 2
vt 0 0
vn 0 0 1
f 1/1/1 2/1/1 3/1/1 4/1/1
f -5//1 -4//1 -1//1
"""
FACES = [[0, 1, 2], [0, 2, 3], [0, 1, 4]]


def _ply(kind: str) -> bytes:
    header = (
        f"ply\nformat {kind} 1.0\ncomment x\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
        "property uchar red\nelement face 2\nproperty list uchar int vertex_indices\nproperty uchar flag\nend_header\n"
    ).encode()
    if kind == "ascii":
        return header + b"0 0 0 1\n" * 5 + b"4 0 1 2 3 9\n3 0 1 4 9\n"
    order = "<" if "little" in kind else ">"
    body = b"".join(struct.pack(order + "fffB", 0, 0, 0, 1) for _ in range(5))
    body += struct.pack(order + "B4iB", 4, 0, 1, 2, 3, 9) + struct.pack(order + "B3iB", 3, 0, 1, 4, 9)
    return header + body


def test_obj(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(OBJ)
    vertices, faces = read_obj(tmp_path / "a.obj")
    assert vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 2, 2]]
    assert faces.tolist() == FACES and faces.dtype == np.int32


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(_ply(kind))
    assert read_ply_faces(tmp_path / "a.ply").tolist() == FACES


@pytest.mark.parametrize(
    "content", ["", "# nothing", "v 1 2", "v a b c", "v", "v 0 0 0\nf 1 2 3", "v 0 0 0\nf x", "v 0 0 0\nf"]
)
def test_broken_obj(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(content)
    with pytest.raises(UserError, match=r"a\.obj"):
        read_obj(tmp_path / "a.obj")


def test_broken_ply(tmp_path: Path) -> None:
    whole = _ply("binary_little_endian")
    contents = [
        b"",
        b"ply",
        whole[:-9],
        whole.replace(b"float x", b"thing x"),
        whole.replace(b"format binary", b"format x"),
    ]
    contents += [whole.replace(b"vertex 5", b"vertex 4"), _ply("ascii")[:-9], whole.replace(b"vertex 5", b"vertex x")]
    contents += [b"ply\nformat ascii 1.0\nend_header\n"]
    for content in contents:
        (tmp_path / "a.ply").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.ply"):
            read_ply_faces(tmp_path / "a.ply")


def test_where_a_corpus_keeps_its_faces(tmp_path: Path) -> None:
    assert find_faces(tmp_path, 5) is None
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "FLAME_sample.ply").write_bytes(_ply("ascii"))
    found = find_faces(tmp_path, 5)
    assert found is not None and found.tolist() == FACES
    np.save(tmp_path / "faces.npy", np.array([[0, 1, 2]]))
    found = find_faces(tmp_path, 5)
    assert found is not None and found.tolist() == [[0, 1, 2]]
    for broken, match in ((np.array([[0, 1, 5]]), "0 to 5, but the mesh has 5"), (np.zeros((2, 3)), "whole numbers")):
        np.save(tmp_path / "faces.npy", broken)
        with pytest.raises(UserError, match=match):
            find_faces(tmp_path, 5)
