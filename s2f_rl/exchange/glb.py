"""GLB files: a face with morph targets, the animation of their weights, skin as vertex colours (glTF 2.0, binary)."""

from __future__ import annotations

import json
import os
import struct
from typing import TypeAlias

import numpy as np

from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.files import atomic_write_bytes
from s2f_rl.exchange.face import Face

_FLOAT, _UINT, _USHORT = 5126, 5125, 5123
_POINTS = 34962  # a buffer of vertices; indices are 34963
_SKIN = {"metallicFactor": 0.0, "roughnessFactor": 0.7}
_Json: TypeAlias = "dict[str, object]"


def write_glb(path: str | os.PathLike[str], basis: LinearBasis, weights: np.ndarray, fps: float, face: Face) -> None:
    """Write a face and its motion, atomically.

    Lengths are metres, time is seconds. A mesh whose z points up is turned by its node, since the format's y does.
    Normals are those of the face at rest. Shapes are in the order of the basis, their names in ``targetNames``.

    Args:
        path: the file.
        basis: neutral and shapes; its bounds are not written.
        weights: [T, K], at t / fps seconds.
        face: triangles, colours and up axis of the mesh; its sound is not written, the format has none.
    """
    body = _Body()
    neutral = basis.neutral.numpy()
    attributes: _Json = {
        "POSITION": body.add(neutral, "VEC3", _FLOAT, _POINTS, limits=True),
        "NORMAL": body.add(vertex_normals(neutral, face.triangles), "VEC3", _FLOAT, _POINTS),
    }
    colours = face.linear_colours()
    if colours is not None:
        opaque = np.round(65535 * np.pad(colours, ((0, 0), (0, 1)), constant_values=1.0))
        attributes["COLOR_0"] = body.add(opaque, "VEC4", _USHORT, _POINTS, normalized=True)
    targets = [{"POSITION": body.add(shape, "VEC3", _FLOAT, _POINTS, limits=True)} for shape in basis.shapes.numpy()]
    part: _Json = {
        "attributes": attributes,
        "indices": body.add(face.triangles.reshape(-1, 1), "SCALAR", _UINT, 34963),
        "material": 0,
        "targets": targets,
    }
    times = (np.arange(len(weights)) / fps)[:, None]
    sampler: _Json = {
        "input": body.add(times, "SCALAR", _FLOAT, limits=True),
        "output": body.add(weights.reshape(-1, 1), "SCALAR", _FLOAT),
        "interpolation": "LINEAR",
    }
    node: _Json = {"mesh": 0, "name": "face"}
    if face.up == "z":
        node["rotation"] = [-(0.5**0.5), 0, 0, 0.5**0.5]
    tree: _Json = {
        "asset": {"version": "2.0", "generator": "s2f_rl", "extras": {"fps": fps}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [node],
        "meshes": [
            {
                "name": "face",
                "primitives": [part],
                "weights": [0.0] * len(basis.names),
                "extras": {"targetNames": list(basis.names)},
            }
        ],
        "materials": [{"name": "skin", "doubleSided": True, "pbrMetallicRoughness": _SKIN}],
        "animations": [
            {
                "name": "speech",
                "samplers": [sampler],
                "channels": [{"sampler": 0, "target": {"node": 0, "path": "weights"}}],
            }
        ],
        "buffers": [{"byteLength": len(body.content)}],
        "bufferViews": body.views,
        "accessors": body.accessors,
    }
    text = json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    parts = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body.content), b"BIN\0")
    size = 12 + len(parts) + len(body.content)
    atomic_write_bytes(path, struct.pack("<4sII", b"glTF", 2, size) + parts + body.content)


class _Body:
    """The binary part of a file, with what describes it."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.views: list[_Json] = []
        self.accessors: list[_Json] = []

    def add(
        self, values: np.ndarray, kind: str, component: int, target: int | None = None, limits: bool = False,
        normalized: bool = False,
    ) -> int:  # fmt: skip
        """Append values [n, width] and return the number of their accessor."""
        array = np.ascontiguousarray(values, {_FLOAT: "<f4", _UINT: "<u4", _USHORT: "<u2"}[component])
        view: _Json = {"buffer": 0, "byteOffset": len(self.content), "byteLength": array.nbytes}
        if target is not None:
            view["target"] = target
        accessor: _Json = {"bufferView": len(self.views), "componentType": component, "count": len(array), "type": kind}
        if limits:
            accessor |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        if normalized:
            accessor["normalized"] = True
        self.content += array.tobytes()  # widths of 4, 8 and 12 bytes: the next begins at a multiple of 4
        self.views.append(view)
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals [V, 3] of a mesh: the mean of its triangles', weighted by area; +z where a vertex has none."""
    a, b, c = (vertices[triangles[:, corner]].astype(np.float64) for corner in range(3))
    normal = np.cross(b - a, c - a)
    sums = np.zeros((len(vertices), 3))
    for corner in range(3):
        np.add.at(sums, triangles[:, corner], normal)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(length > 0, sums / np.where(length > 0, length, 1), [0.0, 0.0, 1.0])
