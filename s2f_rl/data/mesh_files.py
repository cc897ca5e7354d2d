"""Meshes in files, Wavefront OBJ and PLY: vertices, triangles, colours and groups; the triangles of a corpus."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from s2f_rl.data.files import is_there, load_npy, open_file, read_bytes
from s2f_rl.errors import UserError

_LARGEST = 256 * 2**20
_LONGEST_LINE = 2**20
_INTEGERS = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
}  # fmt: skip
_PLY_TYPES = {**_INTEGERS, "float": "f4", "float32": "f4", "double": "f8", "float64": "f8"}
_PLY_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_COUNT = re.compile("[0-9]{1,10}")
_CORNERS = ("vertex_indices", "vertex_index")
_PLY_COLOURS = ("red", "green", "blue")
_PARTS = (b"g", b"o", b"usemtl")
_MOST_NAMES = 16
_BOM = b"\xef\xbb\xbf"


@dataclass
class Mesh:
    """A mesh as a file holds it, in the file's own unit and axes.

    Attributes:
        vertices: [V, 3] float64. faces: triangles [F, 3] int32; F is 0 where the file has none.
        colours: of the vertices, uint8 [V, 3], or None.
        groups: vertex numbers (sorted) of each named part: groups, objects and materials of an OBJ, objects of
            a GLB.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray | None = None
    groups: dict[str, np.ndarray] = field(default_factory=dict)


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read vertices [V, 3] float64 and triangles [F, 3] int32 of an OBJ file; polygons are cut into fans.

    Raises UserError when the file is missing, has no vertices, or a line cannot be read.
    """
    mesh, _ = _read_obj(path)
    return mesh.vertices, mesh.faces


def read_obj_mesh(path: Path) -> Mesh:
    """:func:`read_obj` with colours, where every vertex line has three more numbers (0 to 1), and groups.

    A group is what the faces after a line ``g``, ``o`` or ``usemtl`` touch.
    """
    mesh, marks = _read_obj(path)
    spans: dict[str, list[slice]] = {}
    for kind in _PARTS:
        own = [(names, first) for found, names, first in marks if found == kind]
        ends = [*(first for _, first in own), len(mesh.faces)][1:]
        for (names, first), end in zip(own, ends, strict=True):
            for name in names.split()[:_MOST_NAMES] if end > first else ():
                spans.setdefault(name.decode("utf-8", "replace"), []).append(slice(first, end))
    for group, ranges in spans.items():
        mesh.groups[group] = np.unique(np.concatenate([mesh.faces[each] for each in ranges])).astype(np.int64)
    return mesh


def _read_obj(path: Path) -> tuple[Mesh, list[tuple[bytes, bytes, int]]]:
    """A mesh without groups, and the lines that begin one: keyword, names, the number of triangles before it."""
    vertices, colours, triangles = array("d"), array("d"), array("q")
    marks: list[tuple[bytes, bytes, int]] = []
    number = 0
    with open_file(path, largest=_LARGEST) as file:
        try:
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if len(line) == _LONGEST_LINE:
                    raise ValueError("it is longer than any line of an OBJ")
                words = line.removeprefix(_BOM if number == 1 else b"").split()
                if words[:1] == [b"v"]:
                    vertices.extend(_point(words[1:]))
                    if len(words) == 7:
                        colours.extend(_point(words[4:]))
                elif words[:1] == [b"f"]:
                    corners = [_corner(word, len(vertices) // 3) for word in words[1:]]
                    if len(corners) < 3:
                        raise ValueError("a face needs three corners")
                    for k in range(1, len(corners) - 1):
                        triangles.extend((corners[0], corners[k], corners[k + 1]))
                elif words[:1] and words[0] in _PARTS:
                    marks.append((words[0], b" ".join(words[1:]), len(triangles) // 3))
        except (ValueError, OverflowError) as error:
            reason = " ".join(str(error).split())[:80]
            raise UserError(f"{path}: line {number} is not readable as OBJ ({reason}); copy the file again") from error
    if not vertices:
        raise UserError(f"{path}: holds no vertices; copy the file again")
    points = np.array(vertices, dtype=np.float64).reshape(-1, 3)
    faces = checked_faces(np.array(triangles, dtype=np.int64).reshape(-1, 3), len(points), path)
    return Mesh(points, faces, _bytes(np.array(colours)) if len(colours) == len(vertices) else None), marks


def read_ply_faces(path: Path) -> np.ndarray:
    """Read the triangles [F, 3] int32 of a PLY file (ASCII or binary); polygons are cut into fans.

    What its header states is believed only as far as the file's size bears it out. Raises UserError when the file is
    missing or no readable PLY.
    """
    return _read_ply(path, with_vertices=False).faces


def read_ply_mesh(path: Path) -> Mesh:
    """:func:`read_ply_faces` with vertices (properties x, y, z) and colours (red, green, blue); a cloud has no face."""
    return _read_ply(path, with_vertices=True)


def _read_ply(path: Path, with_vertices: bool) -> Mesh:
    content = read_bytes(path, largest=_LARGEST)
    try:
        order, elements, body = _header(content.removeprefix(_BOM))
        vertex = next(element for element in elements if element.name == "vertex")
        polygons = _ascii_polygons(body, elements) if order == "" else _binary_polygons(body, elements, order)
        triangles = array("q")
        for polygon in polygons:
            if len(polygon) < 3:
                raise ValueError("a face of less than three corners")
            for k in range(1, len(polygon) - 1):
                triangles.extend((polygon[0], polygon[k], polygon[k + 1]))
        columns = _ply_vertices(body, elements, order) if with_vertices else {}
        points = np.stack([columns[axis] for axis in "xyz"], 1) if with_vertices else np.empty((0, 3))
        if not np.isfinite(points).all() or (with_vertices and not len(points)):
            raise ValueError("vertices that are no finite numbers, or none")
        colours = None
        if all(name in columns for name in _PLY_COLOURS):
            whole = next(each for each in vertex.properties if each.name == "red").item_type[0] != "f"
            colours = _bytes(np.stack([columns[name] for name in _PLY_COLOURS], 1) / (255 if whole else 1))
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, StopIteration) as error:
        raise UserError(f"{path}: not readable as PLY ({' '.join(str(error).split())[:120]}); copy it again") from error
    return Mesh(points, checked_faces(np.array(triangles, dtype=np.int64).reshape(-1, 3), vertex.count, path), colours)


def _ply_vertices(body: bytes, elements: list[_Element], order: str) -> dict[str, np.ndarray]:
    """The scalar columns of the vertices, float64 [V] each. The rows of all tables were counted before."""
    before = elements[: next(k for k, element in enumerate(elements) if element.name == "vertex")]
    vertex = elements[len(before)]
    if any(column.length_type for element in [*before, vertex] for column in element.properties):
        raise ValueError("a list before or among the properties of vertex")
    if order == "":
        first = sum(element.count for element in before)
        lines = islice((line for line in body.splitlines() if line.strip()), first, first + vertex.count)
        rows = np.array([[float(word) for word in line.split()] for line in lines])
        if rows.shape != (vertex.count, len(vertex.properties)):
            raise ValueError("a vertex of too few or too many numbers")
        return {column.name: rows[:, k] for k, column in enumerate(vertex.properties)}
    types = [
        np.dtype([(f"{k}", order + column.item_type) for k, column in enumerate(element.properties)])
        for element in [*before, vertex]
    ]
    at = sum(element.count * one.itemsize for element, one in zip(before, types, strict=False))
    table = np.frombuffer(body, types[-1], vertex.count, at)
    return {column.name: table[f"{k}"].astype(np.float64) for k, column in enumerate(vertex.properties)}


def _bytes(colours: np.ndarray) -> np.ndarray:
    """Colours in 0..1 as uint8 [V, 3]."""
    return np.rint(255 * np.clip(colours.reshape(-1, 3), 0, 1)).astype(np.uint8)


def find_faces(root: Path, n_vertices: int) -> np.ndarray | None:
    """The triangles of a corpus: ``faces.npy``, else the published ``FLAME_sample.ply`` or ``BIWI.ply`` beside it.

    Returns int32 [F, 3], or None where there is no such file. Raises UserError when there is one that does not fit.
    """
    path = root / "faces.npy"
    if is_there(path):
        faces = load_npy(path, mmap=False)
        if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
            raise UserError(f"{path}: holds {faces.dtype} {faces.shape}; triangles are whole numbers [F, 3]")
        return checked_faces(faces.astype(np.int64), n_vertices, path)
    for name in ("FLAME_sample.ply", "BIWI.ply"):
        for path in (root / name, root / "templates" / name):
            if is_there(path):
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


def _point(words: list[bytes]) -> list[float]:
    point = [float(word) for word in words[:3]]
    if len(point) != 3 or not np.isfinite(point).all():
        raise ValueError("a vertex needs three coordinates, and finite ones")
    return point


def _corner(word: bytes, n_vertices: int) -> int:
    """The vertex, from 0, that a corner such as ``7/1/3`` or ``-1`` (the last so far) names."""
    corner = int(word.split(b"/", 1)[0])
    if corner == 0:
        raise ValueError("a corner 0; OBJ counts from 1")
    return corner - 1 if corner > 0 else n_vertices + corner


@dataclass
class _Property:
    """A column of a PLY element; ``length_type`` is empty but for lists."""

    name: str
    item_type: str
    length_type: str = ""


@dataclass
class _Element:
    """A table of a PLY file."""

    name: str
    count: int
    properties: list[_Property] = field(default_factory=list)


def _header(content: bytes) -> tuple[str, list[_Element], bytes]:
    """Byte order ("" for ASCII), tables and body of a PLY file."""
    head, end, body = content.partition(b"end_header")
    if not head.startswith(b"ply") or not end or len(head) > _LONGEST_LINE:
        raise ValueError("no PLY header")
    body = body.split(b"\n", 1)[1]
    order: str | None = None
    elements: list[_Element] = []
    for line in head.decode("ascii", "replace").splitlines():
        words = line.split()
        if words[:1] == ["format"]:
            order = _PLY_ORDERS[words[1]]
        elif words[:1] == ["element"]:
            if not _COUNT.fullmatch(words[2]):
                raise ValueError(f"{words[2][:40]} of {words[1][:40]}")
            elements.append(_Element(words[1], int(words[2])))
        elif words[:2] == ["property", "list"]:
            elements[-1].properties.append(_Property(words[4], _PLY_TYPES[words[3]], _INTEGERS[words[2]]))
        elif words[:1] == ["property"]:
            elements[-1].properties.append(_Property(words[2], _PLY_TYPES[words[1]]))
    if order is None:
        raise ValueError("its format is not stated")
    for element in elements:
        corners = [column for column in element.properties if column.length_type and column.name in _CORNERS]
        if element.count and element.name == "face" and (len(corners) != 1 or corners[0].item_type[0] == "f"):
            raise ValueError("faces without a list of vertex indices")
        if element.count and not element.properties:
            raise ValueError(f"{element.count} of {element.name[:40]} without a property")
    return order, elements, body


def _ascii_polygons(body: bytes, elements: list[_Element]) -> Iterator[list[int]]:
    lines = (line for line in body.splitlines() if line.strip())
    for element in elements:
        rows = islice(lines, element.count)
        n_rows = 0
        for row in rows:
            n_rows += 1
            if element.name == "face":
                yield _ascii_corners(row.split(), element.properties)
        if n_rows < element.count:
            raise ValueError(f"{n_rows} of {element.name[:40]}, its header states {element.count}")
        if element.name == "face":
            return


def _ascii_corners(words: list[bytes], properties: list[_Property]) -> list[int]:
    at, corners = 0, []
    for column in properties:
        if not column.length_type:
            at += 1
            continue
        length = int(words[at])
        items = words[at + 1 : at + 1 + length] if length >= 0 else []
        if len(items) != length:
            raise ValueError(f"a list of {length} entries on a line of {len(words)}")
        at += 1 + length
        if column.name in _CORNERS:
            corners = [int(item) for item in items]
    return corners


def _binary_polygons(body: bytes, elements: list[_Element], order: str) -> Iterator[list[int]]:
    at = 0
    for element in elements:
        types = [np.dtype(order + (column.length_type or column.item_type)) for column in element.properties]
        if at + element.count * sum(one.itemsize for one in types) > len(body):
            raise ValueError(f"less than the {element.count} of {element.name[:40]} that its header states")
        if element.name != "face":
            if any(column.length_type for column in element.properties):
                raise ValueError(f"a list among the properties of {element.name[:40]}")
            at += element.count * sum(one.itemsize for one in types)
            continue
        for _ in range(element.count):
            corners: list[int] = []
            for column, one in zip(element.properties, types, strict=True):
                length = int(np.frombuffer(body, one, 1, at)[0]) if column.length_type else 1
                at += one.itemsize
                if not column.length_type:
                    continue
                item_type = np.dtype(order + column.item_type)
                if not 0 <= length <= (len(body) - at) // item_type.itemsize:
                    raise ValueError(f"a list of {length} entries, for which the file is too short")
                if column.name in _CORNERS:
                    corners = np.frombuffer(body, item_type, length, at).tolist()
                at += length * item_type.itemsize
            yield corners
        return
