"""GLB files, written by us and read by pygltflib, and read by us, made by hand."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.coefficients.basis_files import on_mesh, read_basis
from s2f_rl.data.glb_files import read_glb
from s2f_rl.errors import UserError
from s2f_rl.exchange.face import Face
from s2f_rl.exchange.glb import vertex_normals, write_glb
from tests.data.coefficients.rigs import make_weights
from tests.render.shapes import ball


@pytest.fixture(scope="module")
def rig() -> tuple[LinearBasis, Face]:
    """A ball with three bumps, coloured at random."""
    points, triangles = ball()
    rng = np.random.default_rng(0)
    shapes = rng.normal(size=(3, len(points), 3)) * 0.005
    basis = LinearBasis(
        torch.from_numpy(points).float(),
        torch.from_numpy(shapes).float(),
        ("jawOpen", "Lächeln", "blink_L"),
        torch.tensor([[0.0, 1.0]] * 3),
    )
    return basis, Face(triangles.astype(np.int32), rng.integers(0, 256, (len(points), 3), dtype=np.uint8))


def numbers(glb, index: int) -> np.ndarray:
    """An accessor of a file that pygltflib has read."""
    accessor = glb.accessors[index]
    view = glb.bufferViews[accessor.bufferView]
    dtype = {5126: "<f4", 5125: "<u4", 5123: "<u2"}[accessor.componentType]
    assert view.byteOffset % 4 == 0
    return np.frombuffer(glb.binary_blob(), dtype, view.byteLength // np.dtype(dtype).itemsize, view.byteOffset)


class TestWrite:
    def test_another_reader_finds_the_same_vertices(self, rig: tuple[LinearBasis, Face], tmp_path: Path) -> None:
        pygltflib = pytest.importorskip("pygltflib")
        basis, face = rig
        weights = make_weights(9, 3).astype(np.float32)
        write_glb(tmp_path / "face.glb", basis, weights, 25.0, face)
        glb = pygltflib.GLTF2().load(str(tmp_path / "face.glb"))
        mesh, (animation,) = glb.meshes[0], glb.animations
        (part,) = mesh.primitives
        (channel,), (sampler,) = animation.channels, animation.samplers
        assert (channel.target.node, channel.target.path) == (0, "weights")
        np.testing.assert_allclose(numbers(glb, sampler.input), np.arange(9) / 25, atol=1e-7)
        read = numbers(glb, sampler.output).reshape(9, 3)
        neutral = numbers(glb, part.attributes.POSITION).reshape(-1, 3).astype(np.float64)
        shapes = np.stack([numbers(glb, target["POSITION"]).reshape(-1, 3) for target in part.targets])
        made = neutral + np.einsum("tk,kvc->tvc", read, shapes)
        expected = basis.vertices(torch.from_numpy(weights)).double().numpy().reshape(9, -1, 3)
        np.testing.assert_allclose(made, expected, atol=1e-7)
        np.testing.assert_array_equal(numbers(glb, part.indices).reshape(-1, 3), face.triangles)
        assert mesh.extras["targetNames"] == list(basis.names) and mesh.weights == [0, 0, 0]
        limits = glb.accessors[part.attributes.POSITION]
        np.testing.assert_array_equal([limits.min, limits.max], [neutral.min(0), neutral.max(0)])

    def test_our_reader_finds_shapes_names_and_colours(self, rig: tuple[LinearBasis, Face], tmp_path: Path) -> None:
        basis, face = rig
        write_glb(tmp_path / "face.glb", basis, np.zeros((2, 3), np.float32), 30.0, face)
        (mesh,) = read_glb(tmp_path / "face.glb")
        np.testing.assert_array_equal(mesh.colours, face.colours)
        np.testing.assert_array_equal(mesh.triangles, face.triangles)
        read = read_basis(tmp_path / "face.glb")
        torch.testing.assert_close(read.neutral, basis.neutral, rtol=0, atol=0)
        torch.testing.assert_close(read.shapes, basis.shapes, rtol=0, atol=0)
        assert read.names == basis.names and read.bounds.tolist() == [[0, 1]] * 3

    def test_a_face_whose_z_points_up_stands_upright(self, rig: tuple[LinearBasis, Face], tmp_path: Path) -> None:
        basis, face = rig
        write_glb(tmp_path / "face.glb", basis, np.zeros((2, 3), np.float32), 30.0, Face(face.triangles, up="z"))
        (mesh,) = read_glb(tmp_path / "face.glb")
        x, y, z = basis.neutral.double().numpy().T
        np.testing.assert_allclose(mesh.vertices, np.stack([x, z, -y], 1), atol=1e-7)
        assert mesh.colours is None

    def test_normals_of_a_ball_point_away_from_its_middle(self) -> None:
        points, triangles = ball(40, 60)
        inner = slice(60, -60)  # the poles are sixty vertices at one place, each with a part of the cap
        normals = vertex_normals(points, triangles)
        np.testing.assert_allclose(normals[inner], points[inner] / 0.1, atol=0.05)
        assert (vertex_normals(points, triangles[:1])[-1] == [0, 0, 1]).all()


def pack(tree: object, body: bytes) -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    parts = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(parts)) + parts


def by_hand() -> tuple[dict, bytes]:
    """Two triangles in centimetres with a sparse target, interleaved with their texture, below a node that scales."""
    rows = np.zeros((4, 5), "<f4")  # x y z u v
    rows[:, :3] = [[0, 0, 0], [10, 0, 0], [0, 20, 0], [10, 20, 5]]
    corners = np.array([0, 1, 2, 2, 1, 3], "<u2")
    where, moves = np.array([3, 0], "<u1"), np.array([[0, 0, 32767], [-32767, 0, 0]], "<i2")
    parts = [rows.tobytes(), corners.tobytes(), where.tobytes() + b"\0\0", moves.tobytes()]
    views, at = [], 0
    for part in parts:
        views.append({"buffer": 0, "byteOffset": at, "byteLength": len(part)})
        at += len(part)
    views[0]["byteStride"] = 20
    sparse = {
        "count": 2,
        "indices": {"bufferView": 2, "componentType": 5121},
        "values": {"bufferView": 3},
    }
    tree = {
        "asset": {"version": "2.0"},
        "nodes": [
            {"children": [1], "scale": [1, 2, 1], "translation": [0, 0, 7]},
            {"mesh": 0, "name": "Face", "rotation": [0, 0, 0.5**0.5, 0.5**0.5]},
        ],
        "meshes": [
            {
                "primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "targets": [{"POSITION": 2}, {}]}],
                "extras": {"targetNames": ["a", "b"]},
            }
        ],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": 6, "type": "SCALAR"},
            {"componentType": 5122, "normalized": True, "count": 4, "type": "VEC3", "sparse": sparse},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": at}],
    }
    return tree, b"".join(parts)


class TestRead:
    def test_nodes_strides_and_sparse_targets(self, tmp_path: Path) -> None:
        (tmp_path / "face.glb").write_bytes(pack(*by_hand()))
        (mesh,) = read_glb(tmp_path / "face.glb")
        # a quarter turn about z takes (x, y) to (-y, x); then y is doubled and z shifted
        np.testing.assert_allclose(mesh.vertices, [[0, 0, 7], [0, 20, 7], [-20, 0, 7], [-20, 20, 12]], atol=1e-5)
        expected = np.zeros((2, 4, 3))
        expected[0, 3], expected[0, 0] = [0, 0, 1], [0, -2, 0]
        np.testing.assert_allclose(mesh.targets, expected, atol=1e-5)
        assert mesh.name == "Face" and mesh.target_names == ("a", "b")
        np.testing.assert_array_equal(mesh.triangles, [[0, 1, 2], [2, 1, 3]])
        basis = read_basis(tmp_path / "face.glb")  # 20 long: centimetres
        np.testing.assert_allclose(basis.neutral.numpy(), mesh.vertices / 100, atol=1e-6)
        np.testing.assert_allclose(basis.shapes.numpy(), mesh.targets / 100, atol=1e-6)
        told = read_basis(tmp_path / "face.glb", unit="mm")
        np.testing.assert_allclose(told.neutral.numpy(), mesh.vertices / 1000, atol=1e-6)

    def test_the_mesh_is_chosen_by_name_or_size(self, tmp_path: Path) -> None:
        tree, body = by_hand()
        tree["meshes"].append(json.loads(json.dumps(tree["meshes"][0])))
        del tree["meshes"][1]["primitives"][0]["indices"]
        tree["accessors"].append({"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"})
        tree["meshes"][1]["primitives"][0] |= {"attributes": {"POSITION": 3}, "targets": [{}]}
        tree["nodes"].append({"mesh": 1, "name": "Teeth", "scale": [2, 1, 1]})
        path = tmp_path / "face.glb"
        path.write_bytes(pack(tree, body))
        with pytest.raises(UserError, match=r"several .*: Face \(4 vertices\), Teeth \(3 vertices\)"):
            read_basis(path)
        assert read_basis(path, n_vertices=4).names == ("a", "b")
        teeth = read_basis(path, mesh="Teeth")
        assert teeth.names == ("target0",) and teeth.n_vertices == 3 and not teeth.shapes.any()
        with pytest.raises(UserError, match="no such mesh.*Face"):
            read_basis(path, mesh="Tongue")

    def test_mistakes_are_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "face.glb"
        good, body = by_hand()

        def refused(message: str, change: dict, content: bytes = body) -> None:
            tree = json.loads(json.dumps(good))
            for at, value in change.items():
                *way, last = at.split("/")
                place = tree
                for step in way:
                    place = place[int(step) if step.isdigit() else step]
                place[int(last) if last.isdigit() else last] = value
            path.write_bytes(pack(tree, content))
            with pytest.raises(UserError, match=message) as caught:
                read_basis(path)
            assert str(path) in str(caught.value)

        refused("4 values, for which the file is too short", {}, body[:40])
        refused("9 values, for which", {"accessors/0/count": 9})
        refused("which cannot be", {"accessors/2/count": 10**9})
        refused("6 values for 4 vertices", {"accessors/2/count": 6, "accessors/2/sparse/count": 0})
        refused("one of its accessors is missing", {"meshes/0/primitives/0/attributes/POSITION": -1})
        refused("name the vertices 0 to 3, but the mesh has 3", {"accessors/0/count": 3, "accessors/2/count": 3})
        other = {"bufferView": 1, "componentType": 5125}
        refused("outside of what they change", {"accessors/2/sparse/indices": other})
        refused("negative lengths", {"bufferViews/0/byteOffset": -20})
        refused("in another file", {"buffers/0": {"uri": "http://example.org/face.bin", "byteLength": 1}})
        refused("compressed .KHR_draco", {"extensionsRequired": ["KHR_draco_mesh_compression"]})
        refused("in a circle", {"nodes/1/children": [0]})
        refused("no mesh in it has morph targets", {"meshes/0/primitives/0/targets": []})
        refused("no face in any common unit", {"nodes/0/scale": [1e9, 1e9, 1e9]})
        refused("not finite", {"nodes/0/translation": [0, float("nan"), 0]})
        refused("no mesh in it has morph targets", {"meshes/0/primitives/0/mode": 1})  # lines are passed over
        refused("not readable as GLB", {"nodes": 7})
        for content in (b"", b"glTF", pack(good, body)[:-9], b"glTF" + struct.pack("<II", 1, 0) + bytes(20)):
            path.write_bytes(content)
            with pytest.raises(UserError, match="not readable as GLB"):
                read_glb(path)
        with pytest.raises(UserError, match="a basis is a .npz or a .glb"):
            read_basis(tmp_path / "face.fbx")


def test_a_basis_is_laid_on_vertices_in_another_order(rig: tuple[LinearBasis, Face]) -> None:
    basis, _ = rig
    inner = np.arange(16, basis.n_vertices - 16)  # without the poles, where many vertices share a place
    order = np.random.default_rng(3).permutation(inner)[:100]
    laid = on_mesh(basis, basis.neutral.numpy()[order] + 1e-5, "rest.npy")
    torch.testing.assert_close(laid.shapes, basis.shapes[:, order], rtol=0, atol=0)
    assert laid.n_vertices == 100
    with pytest.raises(UserError, match="rest.npy: has 100 vertices, the basis 192, and they do not lie"):
        on_mesh(basis, basis.neutral.numpy()[order] * 1.1, "rest.npy")
