"""Meshes with colours and groups out of OBJ, PLY, GLB and npy files, and files that lie."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from s2f_rl.data.mesh_files import read_obj_mesh, read_ply_mesh
from s2f_rl.data.meshes import read_mesh, read_triangles
from s2f_rl.errors import UserError

POINTS = np.array([[0, 0, 0], [1, 0, 0.5], [0, 2, 0], [3, 1, 1]], np.float32)
FACES = np.array([[0, 1, 2], [1, 3, 2]])
COLOURS = np.array([[255, 0, 0], [0, 0, 255], [10, 20, 30], [255, 255, 255]], np.uint8)
ROTATION = Rotation.from_euler("xyz", [20, -50, 75], degrees=True)


def test_obj_groups_and_colours(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(
        "o head\nv 0 0 0 1 0 0\nv 1 0 0 0 0 1\nv 1 1 0 .5 .5 .5\nv 0 1 0 0 1 0\nv 2 2 2 1 1 1\n"
        "g lips skin\nf 1 2 3 4\ng\nusemtl red\nf -5 -4 -1\n"
    )
    mesh = read_obj_mesh(tmp_path / "a.obj")
    assert mesh.colours is not None
    assert mesh.colours.tolist() == [[255, 0, 0], [0, 0, 255], [128, 128, 128], [0, 255, 0], [255, 255, 255]]
    groups = {name: numbers.tolist() for name, numbers in mesh.groups.items()}
    assert groups == {"head": [0, 1, 2, 3, 4], "lips": [0, 1, 2, 3], "skin": [0, 1, 2, 3], "red": [0, 1, 4]}


def test_groups_of_many_names_take_no_more_than_the_file(tmp_path: Path) -> None:
    names = " ".join(f"n{k}" for k in range(16))
    lines = "".join(f"{word} {names.replace('n', word)}\nf 1 2 3\nf 1 3 4\n" for word in ("g", "o", "usemtl"))
    content = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n" + lines + "f 1 2 3\n" * 20000
    (tmp_path / "a.obj").write_text(content)
    tracemalloc.start()
    mesh = read_obj_mesh(tmp_path / "a.obj")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * len(content) and len(mesh.groups) == 48
    assert mesh.groups["g15"].tolist() == mesh.groups["usemtl0"].tolist() == [0, 1, 2, 3]


def test_obj_of_which_some_vertices_have_colours(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0 1 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert read_obj_mesh(tmp_path / "a.obj").colours is None


def ply(kind: str, colour: str = "uchar") -> bytes:
    head = (
        f"ply\nformat {kind} 1.0\nelement camera 1\nproperty int id\nelement vertex 4\nproperty float x\n"
        f"property double y\nproperty float z\nproperty {colour} red\nproperty {colour} green\nproperty {colour} blue\n"
        "element face 2\nproperty list uchar int vertex_indices\nend_header\n"
    ).encode()
    scale = 1 if colour == "uchar" else 1 / 255
    if kind == "ascii":
        rows = [" ".join(map(str, [*p.tolist(), *(scale * c).tolist()])) for p, c in zip(POINTS, COLOURS, strict=True)]
        return head + "\n".join(["7", *rows, "3 0 1 2", "3 1 3 2", ""]).encode()
    order = "<" if "little" in kind else ">"
    code = "B" if colour == "uchar" else "f"
    body = struct.pack(order + "i", 7)
    for point, own in zip(POINTS, COLOURS, strict=True):
        body += struct.pack(f"{order}fdf3{code}", *point, *((scale * own).tolist() if code == "f" else own.tolist()))
    return head + body + b"".join(struct.pack(order + "B3i", 3, *face) for face in FACES)


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("colour", ["uchar", "float"])
def test_ply(kind: str, colour: str, tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(ply(kind, colour))
    mesh = read_ply_mesh(tmp_path / "a.ply")
    assert np.array_equal(mesh.vertices, POINTS) and np.array_equal(mesh.faces, FACES)
    assert mesh.colours is not None and np.array_equal(mesh.colours, COLOURS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"float x", b"float u"),
        (b"0.0 0.0 0.0 255", b"nan 0.0 0.0 255"),
        (b"0.0 0.0 0.0 255", b"0.0 0.0 255"),
        (b"property int id", b"property list uchar int id"),
        (b"element vertex 4", b"element vertex 5"),
    ],
)
def test_ply_whose_vertices_lie(old: bytes, new: bytes, tmp_path: Path) -> None:
    assert old in ply("ascii")
    (tmp_path / "a.ply").write_bytes(ply("ascii").replace(old, new))
    with pytest.raises(UserError, match=r"a\.ply: not readable as PLY"):
        read_ply_mesh(tmp_path / "a.ply")


def glb() -> bytes:
    """A GLB of one mesh, twice: once in a turned, scaled and shifted node below another, once as it is."""
    vertex = b"".join(
        struct.pack("<3f4B", *point, *own, 255) for point, own in zip(POINTS.tolist(), COLOURS.tolist(), strict=True)
    )
    numbers = vertex + np.array(FACES, "<u2").tobytes()
    document = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0, 2]}],
        "nodes": [
            {"name": "root", "translation": [0, 0, 5], "children": [1]},
            {"name": "left", "mesh": 0, "rotation": ROTATION.as_quat().tolist(), "scale": [1, 2, 3],
             "translation": [10, 0, 0]},
            {"name": "right", "mesh": 0},
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"},
            {"bufferView": 0, "byteOffset": 12, "componentType": 5121, "normalized": True, "count": 4, "type": "VEC4"},
            {"bufferView": 1, "componentType": 5123, "count": 6, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": 64, "byteStride": 16},
            {"buffer": 0, "byteOffset": 64, "byteLength": 12},
        ],
        "buffers": [{"byteLength": len(numbers)}],
    }  # fmt: skip
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(numbers), 0x004E4942) + numbers
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def srgb(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, a number at a time; the colours of a GLB are linear light."""
    values = [x / 255 for x in linear.reshape(-1).tolist()]
    curved = [12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055 for x in values]
    return np.array([round(255 * x) for x in curved], np.uint8).reshape(linear.shape)


def test_glb(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(glb())
    mesh = read_mesh(tmp_path / "a.glb")
    left = ROTATION.apply(POINTS * [1.0, 2.0, 3.0]) + [10, 0, 5]
    assert np.allclose(mesh.vertices, np.concatenate([left, POINTS]), rtol=0, atol=1e-9)
    assert mesh.faces.tolist() == [*FACES.tolist(), *(FACES + 4).tolist()]
    assert mesh.colours is not None and np.array_equal(mesh.colours, srgb(np.concatenate([COLOURS] * 2)))
    assert np.array_equal(read_triangles(tmp_path / "a.glb"), mesh.faces)
    groups = {name: numbers.tolist() for name, numbers in mesh.groups.items()}
    assert groups == {"left": [0, 1, 2, 3], "right": [4, 5, 6, 7]}


def test_a_glb_without_a_mesh(tmp_path: Path) -> None:
    text = b'{"nodes": []} '
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
    (tmp_path / "a.glb").write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    with pytest.raises(UserError, match=r"a\.glb: holds no mesh"):
        read_mesh(tmp_path / "a.glb")


def test_npy_and_others(tmp_path: Path) -> None:
    for shape in ((4, 3), (12,)):
        np.save(tmp_path / "a.npy", POINTS.reshape(shape))
        mesh = read_mesh(tmp_path / "a.npy")
        assert np.array_equal(mesh.vertices, POINTS) and mesh.faces.shape == (0, 3)
    for array in (np.zeros((2, 4, 3)), np.zeros(11), np.full((4, 3), np.nan), np.zeros((4, 3), bool)):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(UserError, match=r"a\.npy"):
            read_mesh(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", FACES)
    assert np.array_equal(read_triangles(tmp_path / "a.npy"), FACES)
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\n")
    with pytest.raises(UserError, match=r"a\.obj: holds no triangles"):
        read_triangles(tmp_path / "a.obj")
    with pytest.raises(UserError, match=r"a\.fbx: no mesh that is read here"):
        read_mesh(tmp_path / "a.fbx")
