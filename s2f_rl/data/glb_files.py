"""Reading meshes, morph targets and vertex colours of a GLB file (glTF 2.0, binary), without running anything in it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from s2f_rl.data.files import read_bytes
from s2f_rl.data.mesh_files import checked_faces
from s2f_rl.errors import UserError

_LARGEST = 1024 * 2**20
_MOST_COORDINATES = 2**28
_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_TRIANGLES = 4
_PACKED = ("KHR_draco_mesh_compression", "EXT_meshopt_compression")
_MOST_DEEP = 256
_BROKEN = (
    ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, MemoryError,
)  # fmt: skip
_Tree: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True)
class GlbMesh:
    """One mesh of a file, as its node places it.

    Attributes:
        name: of its node, else of the mesh.
        vertices: float64 [V, 3], in the file's unit (metres, by the format; not all programs hold to it), y up.
        triangles: int32 [F, 3].
        targets: float32 [K, V, 3], displacements of the morph targets at weight 1.
        target_names: K names; ``target0``, ... where the file has none.
        colours: uint8 [V, 3], sRGB, of the vertices, or None.
    """

    name: str
    vertices: np.ndarray
    triangles: np.ndarray
    targets: np.ndarray
    target_names: tuple[str, ...]
    colours: np.ndarray | None


def read_glb(path: Path) -> list[GlbMesh]:
    """All meshes of triangles of a GLB file that nodes show, in the order of the nodes.

    Skeletons are passed over: the face is as it was bound. What the header states is believed only as far as the file's
    size bears it out.

    Raises:
        UserError: no such file, compressed geometry, parts in other files, or no readable GLB.
    """
    content = read_bytes(path, largest=_LARGEST)
    try:
        document = _Document(*_chunks(content))
        packed = [name for name in document.tree.get("extensionsRequired", []) if name in _PACKED]
        if packed:
            raise UserError(f"{path}: its geometry is compressed ({packed[0]}); export it without compression")
        meshes = [
            document.mesh(mesh, matrix, name, path)
            for mesh, matrix, name in document.placed()
            if any(part.get("mode", _TRIANGLES) == _TRIANGLES for part in mesh.get("primitives", []))
        ]
    except _BROKEN as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:120]
        raise UserError(f"{path}: not readable as GLB ({reason}); export it again as one .glb file") from error
    return meshes


def _chunks(content: bytes) -> tuple[_Tree, bytes]:
    """The JSON tree and the binary chunk."""
    if content[:4] != b"glTF" or len(content) < 20:
        raise ValueError("no GLB header")
    if struct.unpack_from("<I", content, 4)[0] != 2:
        raise ValueError("not version 2")
    at = 12
    found: dict[bytes, bytes] = {}
    while at + 8 <= len(content):
        length, kind = struct.unpack_from("<I4s", content, at)
        if at + 8 + length > len(content):
            raise ValueError(f"a part of {length} bytes, for which the file is too short")
        found.setdefault(kind, content[at + 8 : at + 8 + length])
        at += 8 + length
    tree = json.loads(found[b"JSON"])
    if not isinstance(tree, dict):
        raise ValueError("no tree of nodes")
    return tree, found.get(b"BIN\0", b"")


class _Document:
    """The tree of a file and its numbers."""

    def __init__(self, tree: _Tree, body: bytes) -> None:
        self.tree, self.body, self._left = tree, body, _MOST_COORDINATES

    def item(self, kind: str, index: object) -> _Tree:
        items = self.tree[kind]
        if type(index) is not int or not 0 <= index < len(items):
            raise ValueError(f"one of its {kind} is missing")
        return items[index]

    def placed(self) -> Iterator[tuple[_Tree, np.ndarray, str]]:
        """Every mesh with the matrix [4, 4] of its node to the scene, and its name."""
        nodes = self.tree.get("nodes", [])
        parent = {child: index for index, node in enumerate(nodes) for child in node.get("children", [])}
        for index, node in enumerate(nodes):
            if "mesh" not in node:
                continue
            matrix, at = _matrix(node), index
            for _ in range(_MOST_DEEP):
                if at not in parent:
                    break
                at = parent[at]
                matrix = _matrix(nodes[at]) @ matrix
            else:
                raise ValueError("nodes in a circle")
            mesh = self.item("meshes", node["mesh"])
            yield mesh, matrix, str(node.get("name") or mesh.get("name") or f"mesh{node['mesh']}")

    def mesh(self, mesh: _Tree, matrix: np.ndarray, name: str, path: Path) -> GlbMesh:
        parts = [part for part in mesh["primitives"] if part.get("mode", _TRIANGLES) == _TRIANGLES]
        vertices, triangles, targets, colours, first = [], [], [], [], 0
        n_targets = len(parts[0].get("targets", []))
        for part in parts:
            points = self.numbers(part["attributes"]["POSITION"], 3)
            self._left -= 3 * (n_targets + 1) * len(points)
            if self._left < 0:
                raise ValueError(f"{n_targets} targets of {len(points)} vertices, and the like, are too many")
            if len(part.get("targets", [])) != n_targets:
                raise ValueError("parts with other numbers of targets")
            corners = np.arange(len(points)) if "indices" not in part else self.numbers(part["indices"], 1)[:, 0]
            if len(corners) % 3:
                raise ValueError("triangles of other than three corners")
            triangles.append(first + checked_faces(corners.reshape(-1, 3).astype(np.int64), len(points), path))
            targets.append(self._targets(part, len(points)) @ matrix[:3, :3].T.astype(np.float32))
            colours.append(self._colours(part, len(points)))
            vertices.append(points @ matrix[:3, :3].T + matrix[:3, 3])
            first += len(points)
        joined = np.concatenate(vertices)
        if not np.isfinite(joined).all() or not all(np.isfinite(each).all() for each in targets):
            raise ValueError("coordinates that are not finite")
        names = mesh.get("extras", {}).get("targetNames") if isinstance(mesh.get("extras"), dict) else None
        if not isinstance(names, list) or len(names) != n_targets:
            names = [f"target{k}" for k in range(n_targets)]
        known = [each for each in colours if each is not None]
        coloured = np.concatenate(known) if len(known) == len(parts) else None
        return GlbMesh(
            name, joined, np.concatenate(triangles), np.concatenate(targets, axis=1), tuple(map(str, names)), coloured
        )

    def _targets(self, part: _Tree, n_vertices: int) -> np.ndarray:
        shapes = np.zeros((len(part.get("targets", [])), n_vertices, 3), np.float32)
        for shape, target in zip(shapes, part.get("targets", []), strict=True):
            if "POSITION" in target:  # one that only bends normals moves nothing
                shape[:] = self.numbers(target["POSITION"], 3, n_vertices)
        return shapes

    def _colours(self, part: _Tree, n_vertices: int) -> np.ndarray | None:
        if "COLOR_0" not in part["attributes"]:
            return None
        linear = self.numbers(part["attributes"]["COLOR_0"], None, n_vertices)[:, :3].clip(0, 1)
        srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        return np.round(255 * srgb).astype(np.uint8)

    def numbers(self, index: object, width: int | None, length: int | None = None) -> np.ndarray:
        """An accessor as float64 [n, width]; raises where it is not so long or wide, or the file too short for it."""
        accessor = self.item("accessors", index)
        columns, count, kind = _WIDTHS[accessor["type"]], accessor["count"], accessor["componentType"]
        if type(count) is not int or not 0 < count <= len(self.body) or (width or columns) != columns:
            raise ValueError(f"numbers of shape {str(count)[:20]} x {columns}, which cannot be")
        if length is not None and count != length:
            raise ValueError(f"{count} values for {length} vertices")
        if "bufferView" in accessor:
            values = self._view(accessor, _TYPES[kind], columns, count)
        else:
            values = np.zeros((count, columns))
        if "sparse" in accessor:
            sparse = accessor["sparse"]
            n = sparse["count"]
            integers = _TYPES[sparse["indices"]["componentType"]]
            where = self._view(sparse["indices"], integers, 1, n)[:, 0].astype(np.int64)
            if len(where) and not (0 <= where.min() and where.max() < count):
                raise ValueError("sparse values outside of what they change")
            values = values.copy()
            values[where] = self._view(sparse["values"], _TYPES[kind], columns, n)
        if accessor.get("normalized") and kind != 5126:
            values = np.maximum(values / np.iinfo(_TYPES[kind]).max, -1.0)
        return values

    def _view(self, where: _Tree, kind: str, columns: int, count: int) -> np.ndarray:
        view = self.item("bufferViews", where["bufferView"])
        if view["buffer"] != 0 or "uri" in self.item("buffers", 0):
            raise ValueError("numbers in another file")
        dtype = np.dtype(kind)
        row = view.get("byteStride", columns * dtype.itemsize)
        offset = view.get("byteOffset", 0) + where.get("byteOffset", 0)
        if not all(type(number) is int and number >= 0 for number in (row, offset, count)):
            raise ValueError("negative lengths")
        if count and offset + row * (count - 1) + columns * dtype.itemsize > len(self.body):
            raise ValueError(f"{count} values, for which the file is too short")
        return np.ndarray((count, columns), dtype, self.body, offset, (row, dtype.itemsize)).astype(np.float64)


def _matrix(node: _Tree) -> np.ndarray:
    """A node's own matrix [4, 4]: given, or of translation, rotation (quaternion x y z w) and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = np.array(node.get("rotation", [0, 0, 0, 1]), np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, :3] *= np.array(node.get("scale", [1, 1, 1]), np.float64)
    matrix[:3, 3] = np.array(node.get("translation", [0, 0, 0]), np.float64)
    return matrix
