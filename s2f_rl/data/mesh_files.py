"""Reading the triangles (and vertices) of published template meshes: Wavefront OBJ and PLY."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from s2f_rl.data.files import load_npy, require_file
from s2f_rl.errors import UserError

_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_PLY_ORDERS = {"ascii": None, "binary_little_endian": "<", "binary_big_endian": ">"}


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read vertices [V, 3] float64 and triangles [F, 3] int32 of an OBJ file; polygons are cut into fans.

    Raises UserError when the file is missing, has no vertices, or a line cannot be read.
    """
    path = require_file(path)
    vertices: list[list[float]] = []
    triangles: list[tuple[int, int, int]] = []
    number = 0
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                number += 1
                kind, *rest = line.split(maxsplit=1) or [""]
                if kind == "v":
                    vertices.append([float(word) for word in rest[0].split()[:3]])
                    if len(vertices[-1]) != 3:
                        raise ValueError("a vertex needs three coordinates")
                elif kind == "f":
                    corners = [int(word.split("/", 1)[0]) for word in rest[0].split()]
                    corners = [corner - 1 if corner > 0 else len(vertices) + corner for corner in corners]
                    triangles.extend((corners[0], corners[k], corners[k + 1]) for k in range(1, len(corners) - 1))
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}: line {number} is not readable as OBJ ({error}); copy the file again") from error
    if not vertices:
        raise UserError(f"{path}: holds no vertices; copy the file again")
    faces = np.asarray(triangles, dtype=np.int64).reshape(-1, 3)
    return np.asarray(vertices), checked_faces(faces, len(vertices), path)


def read_ply_faces(path: Path) -> np.ndarray:
    """Read the triangles [F, 3] int32 of a PLY file (ASCII or binary); polygons are cut into fans.

    Raises UserError when the file is missing or no readable PLY.
    """
    path = require_file(path)
    try:
        n_vertices, polygons = _ply_polygons(path.read_bytes())
    except (ValueError, IndexError, KeyError, TypeError, StopIteration) as error:
        raise UserError(f"{path}: not readable as PLY ({' '.join(str(error).split())[:120]}); copy it again") from error
    if any(len(polygon) < 3 for polygon in polygons):
        raise UserError(f"{path}: not readable as PLY (a face of less than three corners); copy it again")
    fans = [(p[0], p[k], p[k + 1]) for p in polygons for k in range(1, len(p) - 1)]
    return checked_faces(np.asarray(fans, dtype=np.int64).reshape(-1, 3), n_vertices, path)


def find_faces(root: Path, n_vertices: int) -> np.ndarray | None:
    """The triangles of a corpus: ``faces.npy``, else the published ``FLAME_sample.ply`` or ``BIWI.ply`` beside it.

    Returns int32 [F, 3], or None where there is no such file. Raises UserError when there is one that does not fit.
    """
    path = root / "faces.npy"
    if path.exists():
        faces = load_npy(path, mmap=False)
        if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
            raise UserError(f"{path}: holds {faces.dtype} {faces.shape}; triangles are whole numbers [F, 3]")
        return checked_faces(faces.astype(np.int64), n_vertices, path)
    for name in ("FLAME_sample.ply", "BIWI.ply"):
        for path in (root / name, root / "templates" / name):
            if path.is_file():
                return checked_faces(read_ply_faces(path).astype(np.int64), n_vertices, path)
    return None


def checked_faces(faces: np.ndarray, n_vertices: int, path: Path) -> np.ndarray:
    """Return ``faces`` as int32 when every corner is a vertex, else raise a UserError naming ``path``."""
    if len(faces) and not (0 <= faces.min() and faces.max() < n_vertices):
        raise UserError(
            f"{path}: its triangles name the vertices {faces.min()} to {faces.max()}, but the mesh has {n_vertices}; "
            "use the file of this topology"
        )
    return faces.astype(np.int32)


def _ply_polygons(content: bytes) -> tuple[int, list[list[int]]]:
    head, end, body = content.partition(b"end_header")
    if not head.startswith(b"ply") or not end:
        raise ValueError("no PLY header")
    body = body.split(b"\n", 1)[1]
    order: str | None = ""
    elements: list[tuple[str, int, list[list[str]]]] = []
    for line in head.decode("ascii", "replace").splitlines():
        words = line.split()
        if words[:1] == ["format"]:
            order = _PLY_ORDERS[words[1]]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            elements[-1][2].append(words[1:])
    n_vertices = next(count for name, count, _ in elements if name == "vertex")
    if order is None:
        return n_vertices, _ascii_polygons(body, elements)
    return n_vertices, _binary_polygons(body, elements, order)


def _ascii_polygons(body: bytes, elements: list[tuple[str, int, list[list[str]]]]) -> list[list[int]]:
    lines = [line for line in body.decode("ascii", "replace").splitlines() if line.strip()]
    at = 0
    for name, count, _ in elements:
        if name == "face":
            rows = [[int(word) for word in line.split()] for line in lines[at : at + count]]
            if len(rows) != count:
                raise ValueError("fewer faces than its header states")
            return [row[1 : 1 + row[0]] for row in rows]
        at += count
    return []


def _binary_polygons(body: bytes, elements: list[tuple[str, int, list[list[str]]]], order: str) -> list[list[int]]:
    at = 0
    for name, count, properties in elements:
        is_list = [words[0] == "list" for words in properties]
        if name != "face":
            if any(is_list):
                raise ValueError(f"a list among the properties of {name}")
            at += count * sum(np.dtype(_PLY_TYPES[words[0]]).itemsize for words in properties)
            continue
        polygons = []
        for _ in range(count):
            for words in properties:
                if words[0] != "list":
                    at += np.dtype(_PLY_TYPES[words[0]]).itemsize
                    continue
                length_type, item_type = (np.dtype(order + _PLY_TYPES[word]) for word in words[1:3])
                length = int(np.frombuffer(body, length_type, 1, at)[0])
                at += length_type.itemsize
                items = np.frombuffer(body, item_type, length, at)
                at += length * item_type.itemsize
                if words[3] in ("vertex_indices", "vertex_index"):
                    polygons.append(items.tolist())
        return polygons
    return []
