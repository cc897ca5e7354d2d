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


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\nv 1 1 1", "line 4 .*a corner 0"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 -9", "name the vertices -6 to 1"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 " + "9" * 30, "line 4"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 " + "9" * 5000, "line 4"),
        ("v 0 0 0\nv 1 0 0\nf 1 2", "line 3 .*three corners"),
        ("v 0 0 nan", "line 1 .*finite"),
        ("v 0 1e999 0", "line 1 .*finite"),
        ("v 0 0 0\n# " + "x" * 2**20, "line 2 .*longer than any line"),
    ],
)
def test_obj_that_lies(content: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(content)
    with pytest.raises(UserError, match=rf"a\.obj: .*{match}") as caught:
        read_obj(tmp_path / "a.obj")
    assert len(str(caught.value)) < 400


_LIST = b"property list uchar int vertex_indices"


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (b"element face 2", b"element face 1000000000000", "1000000000000 of face"),
        (b"element face 2", b"element face 9999999999", "of face|its header states"),
        (b"element face 2", b"element face -1", "-1 of face"),
        (b"element face 2", b"element face " + b"9" * 5000, "of face"),
        (b"element vertex 5", b"element vertex 9999999999", "of vertex"),
        (b"element face 2\n" + _LIST + b"\nproperty uchar flag", b"element face 9999999999", "without a list"),
        (_LIST + b"\n", b"", "without a list"),
        (_LIST, b"property list float int vertex_indices", "float"),
        (_LIST, b"property list uchar float vertex_indices", "without a list"),
        (_LIST, _LIST + b"\n" + _LIST, "without a list"),
        (b"format", b"comment", "its format is not stated"),
        (b"element vertex 5", b"element thing 9999999999\nelement vertex 5", "without a property"),
    ],
)
def test_ply_headers_that_lie(kind: str, old: bytes, new: bytes, match: str, tmp_path: Path) -> None:
    assert old in _ply(kind)
    (tmp_path / "a.ply").write_bytes(_ply(kind).replace(old, new))
    with pytest.raises(UserError, match=rf"a\.ply: not readable as PLY .*({match})") as caught:
        read_ply_faces(tmp_path / "a.ply")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("length_type", "code"), [("int", "i"), ("uint", "I"), ("char", "b")])
@pytest.mark.parametrize("length", [-1, 10**9, 100])
def test_ply_lists_that_lie(length_type: str, code: str, length: int, tmp_path: Path) -> None:
    header = (
        "ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nelement face 1\n"
        f"property list {length_type} int vertex_index\nend_header\n"
    )
    packed = struct.pack("<q", length)[: struct.calcsize(code)]
    (tmp_path / "a.ply").write_bytes(header.encode() + bytes(12) + packed + bytes(12))
    with pytest.raises(UserError, match=r"a list of -?\d+ entries|less than three corners"):
        read_ply_faces(tmp_path / "a.ply")
    (tmp_path / "a.ply").write_bytes(
        header.replace("binary_little_endian", "ascii").encode() + b"0\n0\n0\n" + b"%d 0 1 2\n" % length
    )
    with pytest.raises(UserError, match="a list of"):
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
