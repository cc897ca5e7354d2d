"""Whether all faces of a corpus are one mesh that stands upright, with its lips where a mouth is.

Faces are in metres, [V, 3] with y up and the face to +z, as in VOCASET and BIWI. Meshes of fewer than 24 vertices are
somebody's toy and not looked at, regions and triangles of fewer than 200 neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from s2f_rl.data.faults import ERROR, WARNING, Faults
from s2f_rl.data.mesh_identity import FEW_VERTICES, MeshIdentity, difference
from s2f_rl.data.regions import MASKS_FILE, TEXT_LISTS, load_regions
from s2f_rl.data.splits import parse_name
from s2f_rl.data.templates import FILE as TEMPLATES_FILE
from s2f_rl.errors import UserError

_COARSE = 200
_MIN_UPRIGHT = 0.5
"""Cosine of the angle between +y and the way from the lips to the upper face: 60 degrees."""
_MAX_SCATTER = 0.85
"""Spread of the lips relative to the whole face's: a mouth has 0.1 to 0.4, vertices of all over the face 1."""
_MAX_BELOW = 0.25
"""Share of the upper face that may lie below the middle of the lips."""
_LONG_EDGE, _MAX_LONG_SHARE = 0.5, 0.4
"""Edges longer than half of the mean distance of two vertices: a mesh has next to none (0.13 of them at 300 vertices),
wrong triangles 0.8."""
_ABSURD_EXTENT_M = (0.01, 10.0)
"""A face outside is in another unit for certain."""
_REFERENCES = 8
"""Subjects that all others are compared with, at most, in search of what most of them are."""


def check_mesh(
    root: Path,
    templates: Mapping[str, np.ndarray],
    regions: Mapping[str, torch.Tensor] | None,
    faces: np.ndarray | None,
    faults: Faults,
) -> None:
    """Add what is wrong with the mesh of a corpus to ``faults``.

    Args:
        root: the corpus folder.
        templates: {subject: [V*3]}, metres.
        regions: vertex indices by region; None or empty where they are not known.
        faces: triangles [F, 3]; None where there are none.
        faults: added to.
    """
    odd, usual = odd_templates(templates)
    for text in odd.values():
        faults.add_error(root / TEMPLATES_FILE, UserError(text))
    if usual is None:
        return
    points = np.asarray(templates[usual], np.float64).reshape(-1, 3)
    wrong = region_fault(points, regions or {})
    if wrong is not None:
        faults.add_error(root / _regions_file(root), UserError(wrong))
    for text in region_doubts(points, regions or {}):
        faults.add_error(root / _regions_file(root), UserError(text), WARNING)
    share = 0.0 if faces is None else long_edges(points, faces)
    if share > _MAX_LONG_SHARE:
        message = f"{100 * share:.0f} % of its edges reach across the face: its triangles are those of another order"
        faults.add(ERROR, root / "faces.npy", message, "export them together with the templates")


def refuse_mixed_meshes(
    templates: Mapping[str, np.ndarray | torch.Tensor], frames: Mapping[str, np.ndarray], root: Path
) -> None:
    """Refuse what makes training worthless, for a few milliseconds; ``s2f-rl check`` looks at all files.

    Args:
        templates: {subject: [V*3]}, metres.
        frames: {NAME: [V*3]}, a frame of some utterances, metres.
        root: the corpus folder.

    Raises:
        UserError: faces of another vertex order, mirrored, turned or in another unit than the others or than their
            template; faces that are not upright; lips that are not where a mouth is.
    """
    odd, usual = odd_templates(templates, with_neighbours=False)
    if usual is None or (len(odd) > 1 and len(odd) == len(templates) - 1 and _size(templates[usual]) < _COARSE):
        return  # a coarse mesh of which no two agree: random faces of an experiment
    if odd:
        raise UserError(f"{root / TEMPLATES_FILE}: {next(iter(odd.values()))}")
    points = np.asarray(templates[usual], np.float64).reshape(-1, 3)
    extent = float(np.ptp(points, axis=0).max())
    if not _ABSURD_EXTENT_M[0] < extent < _ABSURD_EXTENT_M[1] and extent > 0:
        raise UserError(
            f"{root / TEMPLATES_FILE}: the face of {usual} is {extent:.3g} m long, a head is 0.1 to 0.6 m; name the "
            "unit of the files in corpus.json (units)"
        )
    for name, frame in frames.items():
        subject = parse_name(name)[0]
        if subject in templates and len(frame) == len(templates[subject]):
            told = frame_difference(frame, templates[subject], subject, with_neighbours=False)
            if told is not None:
                raise UserError(f"{root / 'vertices_npy' / name}.npy: {told}")
    if len(points) >= _COARSE:
        wrong = region_fault(points, load_regions(root, len(points), on_fault=lambda *_: None))
        if wrong is not None:
            raise UserError(f"{root / _regions_file(root)}: {wrong}")


def _size(face: np.ndarray | torch.Tensor) -> int:
    return len(face) // 3


def odd_templates(
    templates: Mapping[str, np.ndarray | torch.Tensor], *, with_neighbours: bool = True
) -> tuple[dict[str, str], str | None]:
    """The templates that are another mesh than most.

    Returns:
        {subject: in which way}, and a subject of the others; None where the mesh has too few vertices to tell.
    """
    known = {
        subject: MeshIdentity.of(face, with_neighbours=with_neighbours)
        for subject, face in templates.items()
        if len(face) >= 3 * FEW_VERTICES
    }
    if not known:
        return {}, None
    found: dict[str, dict[str, str]] = {}
    subjects = list(known)
    for usual in subjects[:: -(-len(subjects) // _REFERENCES)]:
        found[usual] = {}
        for subject in subjects:
            told = difference(known[subject], known[usual], f"the template of {subject}", f"that of {usual}")
            if told is not None:
                found[usual][subject] = told
        if not found[usual]:
            break  # a sound corpus is compared with its first subject only
    usual = min(found, key=lambda subject: len(found[subject]))
    return found[usual], usual


def frame_difference(
    frame: np.ndarray, template: np.ndarray | torch.Tensor, subject: str, *, with_neighbours: bool = True
) -> str | None:
    """Why a face [V*3] of a subject is another mesh than its template, None when it is not; metres both."""
    if not np.ptp(np.asarray(frame).reshape(-1, 3), axis=0).any() and np.ptp(np.asarray(template)) > 0:
        return "its first face is a single point; write vertices, not offsets from the template"
    ours, theirs = (MeshIdentity.of(face, with_neighbours=with_neighbours) for face in (frame, template))
    return difference(ours, theirs, "its face", f"the template of {subject}")


def region_fault(points: np.ndarray, regions: Mapping[str, torch.Tensor]) -> str | None:
    """What cannot be in a face [V, 3] that stands upright, as "what; remedy"; None when all is well."""
    size = float(np.ptp(points, axis=0).max())
    if len(points) < _COARSE or "lips" not in regions or size == 0:
        return None
    lips = points[_vertices(regions, "lips")]
    scatter = _spread(lips) / _spread(points)
    if scatter > _MAX_SCATTER:
        return "the lips lie all over the face; use the regions of this mesh, in its vertex order"
    if "upper_face" in regions:
        upper = points[_vertices(regions, "upper_face")]
        way = upper.mean(axis=0) - lips.mean(axis=0)
        if np.linalg.norm(way) > max(_spread(lips), _spread(upper)) and way[1] < _MIN_UPRIGHT * np.linalg.norm(way):
            axis = int(np.abs(way).argmax())
            where = f"{'-' if way[axis] < 0 else '+'}{'xyz'[axis]}"
            return (
                f"the upper face lies on the {where} side of the lips, not above them; turn the faces so that y points "
                "up and they look to +z, or use the regions of this mesh"
            )
        below = float((upper[:, 1] < lips[:, 1].mean()).mean())
        if below > _MAX_BELOW:
            return f"{100 * below:.0f} % of the upper face lie below the lips; use the regions of this mesh"
    if "nose" in regions:
        above = lips[:, 1].mean() - points[_vertices(regions, "nose"), 1].mean()
        if above > 0.03 * size:
            return f"the lips lie {100 * above:.1f} cm above the nose; use the regions of this mesh"
    return None


def region_doubts(points: np.ndarray, regions: Mapping[str, torch.Tensor]) -> list[str]:
    """What is strange about a face [V, 3] yet trains all the same, as "what; remedy"."""
    if len(points) < _COARSE:
        return []
    told = []
    size = float(np.ptp(points, axis=0).max())
    if "lips" in regions:
        side, up, forward = points[_vertices(regions, "lips")].mean(axis=0) - points.mean(axis=0)
        if abs(side) > max(0.1 * size, abs(forward)):
            told.append(
                f"the lips lie on the {'-' if side < 0 else '+'}x side of the face; turn the faces so that they look "
                "to +z"
            )
        elif forward < -0.1 * size:
            told.append("the lips lie at the back of the face; turn the faces so that they look to +z")
        if up > 0.1 * size:
            told.append("the lips lie in the upper half of the face; use the regions of this mesh")
    # Nothing else tells a mirrored face from a sound one: triangles may wind either way here.
    pairs = [
        (name, f"right{name[4:]}") for name in regions if name.startswith("left") and f"right{name[4:]}" in regions
    ]
    across = [np.subtract(*(points[_vertices(regions, side), 0].mean() for side in pair)) for pair in pairs]
    if across and np.median(across) < -0.05 * size and not told:
        told.append(
            f"{pairs[0][0]} lies on the right of the face, its left is at +x: it is mirrored; export it with the same "
            "axes as its regions"
        )
    if "upper_lip" in regions and "lower_lip" in regions:
        upper, lower = (points[_vertices(regions, lip), 1].mean() for lip in ("upper_lip", "lower_lip"))
        if upper < lower - 0.01 * size:
            told.append("upper_lip lies below lower_lip; exchange them")
    return told


def long_edges(points: np.ndarray, faces: np.ndarray) -> float:
    """Share of the triangles' edges that are longer than half of the mean distance of two vertices; V >= 200, else 0.

    Args:
        points: [V, 3].
        faces: [F, 3].
    """
    if len(points) < _COARSE or not len(faces):
        return 0.0
    corners = points[np.asarray(faces)]
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    pairs = np.random.default_rng(0).integers(len(points), size=(2, 4096))
    typical = np.linalg.norm(points[pairs[0]] - points[pairs[1]], axis=1).mean()
    return float((edges > _LONG_EDGE * typical).mean())


def _vertices(regions: Mapping[str, torch.Tensor], name: str) -> np.ndarray:
    return np.asarray(regions[name])


def _spread(points: np.ndarray) -> float:
    """Root mean square distance from the mean."""
    return float(np.sqrt(np.square(points - points.mean(axis=0)).sum(axis=1).mean()))


def _regions_file(root: Path) -> str:
    return MASKS_FILE if (root / MASKS_FILE).exists() else TEXT_LISTS["lips"]
