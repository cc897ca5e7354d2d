"""A rig from a file of any known kind: ``basis.npz``, or the morph targets of a GLB."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import torch

from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.glb_files import GlbMesh, read_glb
from s2f_rl.data.units import metres_per_unit
from s2f_rl.errors import UserError

_log = logging.getLogger(__name__)
_SAME_PLACE = 2e-3


def read_basis(
    path: str | os.PathLike[str], mesh: str | None = None, n_vertices: int | None = None, unit: str | None = None
) -> LinearBasis:
    """Read the shapes of a rig.

    Args:
        path: ``.npz`` (:meth:`LinearBasis.load`) or ``.glb``, whose morph targets go from 0 to 1.
        mesh: of a GLB, the name of the mesh; None: the only one with morph targets, or of ``n_vertices``.
        n_vertices: V of the sequences that it is for.
        unit: of a GLB, its unit of length ("m", "cm", ...); None tells it from the size of the face.

    Raises:
        UserError: no such file, none or several such meshes, or nothing in it that is a face.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        return LinearBasis.load(path)
    if path.suffix.lower() != ".glb":
        raise UserError(f"{path}: a basis is a .npz or a .glb file; export the face with its shape keys as .glb")
    found = _chosen(path, mesh, n_vertices)
    size = metres_per_unit(found.vertices, unit, str(path), "--basis-unit")
    return LinearBasis(
        torch.from_numpy(found.vertices * size).float(),
        torch.from_numpy(found.targets * np.float32(size)),
        _unique(found.target_names),
        torch.tensor([0.0, 1.0]).repeat(len(found.targets), 1),
    )


def read_surface(
    path: str | os.PathLike[str], mesh: str | None = None, n_vertices: int | None = None
) -> GlbMesh | None:
    """The mesh of :func:`read_basis`, with triangles and colours; None where the file has none, of V vertices."""
    path = Path(path)
    found = None if path.suffix.lower() != ".glb" else _chosen(path, mesh, n_vertices)
    return None if found is None or n_vertices not in (None, len(found.vertices)) else found


def on_mesh(basis: LinearBasis, rest: np.ndarray, what: str) -> LinearBasis:
    """The basis on the vertices of another file of the same face.

    Programs split vertices along seams and sort them anew when they export. A vertex of ``rest`` takes the shapes of
    the vertex of the basis that lies at its place.

    Args:
        rest: [V, 3] in metres, the same face.
        what: how a message calls it.

    Raises:
        UserError: a vertex of ``rest`` has none at its place, within 0.2 % of the face's size.
    """
    from scipy.spatial import cKDTree

    points = np.asarray(rest, np.float64).reshape(-1, 3)
    distance, nearest = cKDTree(basis.neutral.numpy()).query(points)
    size = float(np.ptp(points, axis=0).max())
    if distance.max() > _SAME_PLACE * size:
        raise UserError(
            f"{what}: has {len(points)} vertices, the basis {basis.n_vertices}, and they do not lie at the same places "
            f"(up to {1e3 * distance.max():.1f} mm apart); export the rig from the mesh that the motion was made for"
        )
    index = torch.from_numpy(nearest)
    return LinearBasis(torch.from_numpy(points).float(), basis.shapes[:, index], basis.names, basis.bounds)


def _chosen(path: Path, name: str | None, n_vertices: int | None) -> GlbMesh:
    meshes = [each for each in read_glb(path) if len(each.targets)]
    if not meshes:
        raise UserError(f"{path}: no mesh in it has morph targets; export the face with its shape keys")
    fitting = [each for each in meshes if (each.name == name if name is not None else True)]
    if len(fitting) > 1 and n_vertices is not None:
        fitting = [each for each in fitting if len(each.vertices) == n_vertices] or fitting
    if len(fitting) != 1:
        known = ", ".join(f"{each.name} ({len(each.vertices)} vertices)" for each in meshes)
        what = "several meshes have morph targets" if fitting else "no such mesh has morph targets"
        raise UserError(f"{path}: {what}: {known}; name one with --mesh")
    return fitting[0]


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names that a table can hold, with a number where one comes twice."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        name = "".join(c if c.isprintable() and c != "," else "_" for c in name).strip() or "target"
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return tuple(result)
