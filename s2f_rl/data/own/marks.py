"""What somebody can say of a mesh: regions painted or listed, 68 landmarks, the corners of the mouth."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from s2f_rl.data.files import load_json, load_npy, load_plain_pickle, read_text
from s2f_rl.data.mesh_files import Mesh
from s2f_rl.data.regions import UPPER_FACE_PARTS, checked_indices, read_index_list
from s2f_rl.errors import UserError

Ask = Callable[[str], str]
"""Asks a person a question and returns the answer."""
_LIPS, _UPPER = ("lips", "lip", "mouth"), ("upper_face", "upperface")
_BRIGHT, _DARK = 200, 80
_N_LANDMARKS = 68
HOW = (
    "give the corners of the mouth, as two vertex numbers (--mouth 123,456), a file of regions (--regions) or of 68 "
    "landmarks (--landmarks), or paint the mesh: groups or materials called lips and upper_face, or pure red and blue"
)


@dataclass
class Marks:
    """What is known of a mesh before anything is computed.

    Attributes:
        source: where it is from, in words.
        corners: vertex numbers of the corners of the mouth. lips, upper_face: vertex numbers, or None.
        landmarks: vertex numbers [68], or None.
    """

    source: str
    corners: tuple[int, int]
    lips: np.ndarray | None = None
    upper_face: np.ndarray | None = None
    landmarks: np.ndarray | None = field(default=None, repr=False)


def find_marks(
    mesh: Mesh,
    name: str,
    regions: Path | None = None,
    landmarks: Path | None = None,
    mouth: str | None = None,
    ask: Ask | None = None,
) -> Marks:
    """The first that there is: a file of regions, landmarks, the corners of the mouth, paint on the mesh, an answer.

    Args:
        mesh, name: the mesh and what to call it.
        regions: {region: vertex numbers} as .json or .pkl (FLAME's masks), or the lips alone as .txt.
        landmarks: vertex numbers or positions (in the mesh's own unit and axes), see :func:`read_landmarks`.
        mouth: "123,456", vertex numbers from 0, or two points in the mesh's unit and axes, "x,y,z,x,y,z".
        ask: used when nothing else tells.

    Raises:
        UserError: nothing tells, or what is given does not fit the mesh.
    """
    n_vertices = len(mesh.vertices)
    if regions is not None:
        return _from_parts(mesh, read_regions(regions, n_vertices), str(regions), mouth)
    if landmarks is not None:
        numbers = read_landmarks(landmarks, mesh.vertices)
        return Marks(f"68 landmarks of {landmarks}", (int(numbers[48]), int(numbers[54])), landmarks=numbers)
    if mouth is not None:
        return Marks("the corners of the mouth", _corners(mouth, mesh.vertices))
    parts = _painted(mesh)
    if "lips" in parts:
        return _from_parts(mesh, parts, f"paint on {name}", None)
    if ask is None:
        raise UserError(f"{name}: where is the mouth? {HOW}")
    answer = ask(f"{name}: the corners of the mouth, two vertex numbers or points: ")
    return Marks("the corners of the mouth", _corners(answer, mesh.vertices))


def read_regions(path: Path, n_vertices: int) -> dict[str, np.ndarray]:
    """Vertex numbers of ``lips`` and, where it is there, ``upper_face`` (or FLAME's parts of it) from a file.

    Raises UserError when the file is no such file or has no lips.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        content: object = {"lips": read_index_list(path)}
    elif suffix == ".pkl":
        content = load_plain_pickle(path)
    else:
        content = load_json(path)
    if not isinstance(content, Mapping):
        raise UserError(f'{path}: not of the form {{region: vertex numbers}}; write {{"lips": [..]}}')
    known = {}
    for key, value in content.items():
        if _plain(str(key)) in (*_LIPS, *_UPPER, *UPPER_FACE_PARTS):
            known[str(key)] = checked_indices(value, n_vertices, f"{path}: {key}").numpy()
    parts = _known_parts(known)
    if "lips" not in parts:
        raise UserError(f"{path}: has no region lips; write its vertex numbers under that name")
    return parts


def read_landmarks(path: Path, vertices: np.ndarray) -> np.ndarray:
    """Vertex numbers [68] of iBUG's landmarks: a list of numbers, or positions [68, 3], each then its nearest vertex.

    As .json (a list), .npy, or .txt with numbers or a point a line. Raises UserError for anything else.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".json":
            array = np.asarray(load_json(path), np.float64)
        elif suffix == ".npy":
            array = np.asarray(load_npy(path, mmap=False), np.float64)
        else:
            array = np.array([float(word) for word in re.split(r"[\s,;]+", read_text(path).strip()) if word])
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: holds something else than numbers; write 68 vertex numbers or points") from error
    if array.size == _N_LANDMARKS:
        return checked_indices(array.reshape(-1), len(vertices), str(path)).numpy()
    if array.size != 3 * _N_LANDMARKS or not np.isfinite(array).all():
        raise UserError(f"{path}: holds {array.size} numbers; write 68 vertex numbers or 68 points of three")
    points = array.reshape(_N_LANDMARKS, 1, 3)
    far = np.linalg.norm(points - vertices[None], axis=2)
    nearest = far.argmin(axis=1)
    extent = float(np.ptp(vertices, axis=0).max())
    worst = float(far.min(axis=1).max())
    if worst > 0.05 * extent:
        raise UserError(f"{path}: a landmark is {worst / extent:.0%} of the face away from it; save both in one space")
    return nearest


def _from_parts(mesh: Mesh, parts: Mapping[str, np.ndarray], source: str, mouth: str | None) -> Marks:
    lips = parts["lips"]
    if len(lips) < 3:
        raise UserError(f"{source}: lips of {len(lips)} vertices; paint or list all of them")
    corners = _widest(mesh.vertices, lips) if mouth is None else _corners(mouth, mesh.vertices)
    return Marks(source, corners, lips, parts.get("upper_face"))


def _painted(mesh: Mesh) -> dict[str, np.ndarray]:
    parts = _known_parts(mesh.groups)
    if "lips" not in parts and mesh.colours is not None:
        red, green, blue = mesh.colours.T.astype(int)
        masks = {
            "lips": (red >= _BRIGHT) & (np.maximum(green, blue) <= _DARK),
            "upper_face": (blue >= _BRIGHT) & (np.maximum(red, green) <= _DARK),
        }
        parts |= {name: np.flatnonzero(mask) for name, mask in masks.items() if mask.any()}
    return parts


def _known_parts(groups: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``lips`` and ``upper_face`` by whatever of their names a table of regions uses."""
    plain = {_plain(name): numbers for name, numbers in groups.items()}
    parts = {}
    for region, names in (("lips", _LIPS), ("upper_face", _UPPER)):
        own = next((plain[name] for name in names if name in plain), None)
        if own is None and region == "upper_face":
            pieces = [plain[name] for name in UPPER_FACE_PARTS if name in plain]
            own = np.unique(np.concatenate(pieces)) if pieces else None
        if own is not None:
            parts[region] = np.unique(own)
    return parts


def _plain(name: str) -> str:
    return re.sub(r"[\s.-]+", "_", name.strip().lower())


def _widest(vertices: np.ndarray, lips: np.ndarray) -> tuple[int, int]:
    """The two ends of the lips along the direction in which they spread most."""
    points = vertices[lips] - vertices[lips].mean(axis=0)
    along = points @ np.linalg.svd(points, full_matrices=False)[2][0]
    return int(lips[along.argmin()]), int(lips[along.argmax()])


def _corners(text: str, vertices: np.ndarray) -> tuple[int, int]:
    """Two vertex numbers, or two points, each then its nearest vertex."""
    words = text.replace(",", " ").split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) == 6 and np.isfinite(numbers).all():
        points = np.array(numbers).reshape(2, 1, 3)
        first, second = (int(far.argmin()) for far in np.linalg.norm(vertices[None] - points, axis=2))
        return first, second
    if len(numbers) != 2:
        raise UserError(f"--mouth {text[:60]}: two vertex numbers (123,456) or two points (x,y,z,x,y,z) are expected")
    first, second = checked_indices(numbers, len(vertices), "--mouth").tolist()
    return first, second
