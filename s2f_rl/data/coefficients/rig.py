"""The rig of a corpus whose motion is coefficients: ``coefficients.json`` and, where there is a mesh, ``basis.npz``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from s2f_rl.data.coefficients.arkit import ARKIT
from s2f_rl.data.coefficients.basis import FILE as BASIS_FILE
from s2f_rl.data.coefficients.basis import LinearBasis, names_problem
from s2f_rl.data.description import FILE as DESCRIPTION_FILE
from s2f_rl.data.description import CorpusDescription, parse_description, read_description
from s2f_rl.data.files import is_there, load_json
from s2f_rl.data.templates import FILE as TEMPLATES_FILE
from s2f_rl.data.templates import load_templates
from s2f_rl.errors import UserError

FILE = "coefficients.json"
FOLDER = "coefficients_npy"
METRES_PER_COEFFICIENT = 0.01
"""How far the point that stands for a coefficient without a mesh moves when it goes from 0 to 1."""
_LIPS, _UPPER = ("mouth", "jaw", "lip"), ("brow", "eye", "nose", "cheek")
_KEYS = ("names", "fps", "convention")


@dataclass(frozen=True, eq=False)
class Rig:
    """What the coefficients of a corpus are.

    Attributes:
        basis: what they do to the face. Without a mesh it is a stand-in, in which each coefficient is a point of its
            own that moves along x (:data:`METRES_PER_COEFFICIENT`), so that whatever is linear works on the numbers.
        has_mesh: False for the stand-in.
        fps: stored frames per second.
        convention: "arkit", "flame", or a word of one's own.
    """

    basis: LinearBasis
    has_mesh: bool
    fps: float
    convention: str

    @property
    def names(self) -> tuple[str, ...]:
        """Of the K coefficients, in order."""
        return self.basis.names

    def regions(self) -> dict[str, Tensor]:
        """Without a mesh: the coefficients of mouth and jaw as ``lips``, those of brows and eyes as ``upper_face``."""
        found = {}
        for region, beginnings in (("lips", _LIPS), ("upper_face", _UPPER)):
            chosen = [k for k, name in enumerate(self.names) if name.lower().startswith(beginnings)]
            if chosen or region == "lips":  # of names that tell nothing, all count
                found[region] = torch.tensor(chosen or range(len(self.names)))
        return found


def load_rig(root: Path) -> Rig | None:
    """The rig of a corpus folder; None where its motion is vertices (there is no ``coefficients.json``).

    Raises:
        UserError: something is wrong in ``coefficients.json`` or ``basis.npz``, or they do not fit each other.
    """
    path = root / FILE
    if not is_there(path):
        return None
    names, fps, convention = _parsed(load_json(path), path)
    if not is_there(root / BASIS_FILE):
        return Rig(stand_in(names, convention), False, fps, convention)
    basis = LinearBasis.load(root / BASIS_FILE)
    missing = [name for name in names if name not in basis.names]
    if missing:
        raise UserError(
            f"{root / BASIS_FILE}: has no shape {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}, "
            f"which {FILE} names; add it (zeros, where the face cannot do it), or take the coefficient away"
        )
    order = [basis.names.index(name) for name in names]
    ordered = LinearBasis(basis.neutral, basis.shapes[order], names, basis.bounds[order])
    return Rig(ordered, True, fps, convention)


def stand_in(names: tuple[str, ...], convention: str) -> LinearBasis:
    """A basis for coefficients whose mesh is not known; see :class:`Rig`."""
    k = len(names)
    shapes = torch.zeros(k, k, 3)
    shapes[range(k), range(k), 0] = METRES_PER_COEFFICIENT
    unit = convention == "arkit" and set(names) <= set(ARKIT)
    bounds = torch.tensor([0.0, 1.0] if unit else [-torch.inf, torch.inf]).repeat(k, 1)
    return LinearBasis(torch.zeros(k, 3), shapes, names, bounds)


def description_of(root: Path, rig: Rig | None, topology: str | None) -> CorpusDescription:
    """:func:`~s2f_rl.data.description.read_description`, whose rate for coefficients is that of ``coefficients.json``.

    Raises:
        UserError: as there, or the two files state different rates.
    """
    path = root / DESCRIPTION_FILE
    if rig is None:
        return read_description(root, topology)
    content = load_json(path) if is_there(path) else {}
    if isinstance(content, dict):
        content = {"stored_fps": rig.fps, **content}
    description = parse_description(content, path, topology)
    if abs(description.stored_fps - rig.fps) > 1e-3 * rig.fps:
        raise UserError(
            f"{root / FILE}: fps is {rig.fps:g}, but {DESCRIPTION_FILE} states stored_fps {description.stored_fps:g}; "
            "mend the one that is wrong"
        )
    return description


def resting_faces(root: Path, rig: Rig | None, subjects: Iterable[str]) -> tuple[dict[str, np.ndarray], bool]:
    """{subject: [V*3]} of ``templates.pkl`` or, for a rig without one, the basis's own face for everybody.

    Returns:
        the faces, and whether they are in metres for certain: those of a file are in the unit of the corpus's files.

    Raises:
        UserError: the file cannot be read, or has faces of another size than the basis.
    """
    path = root / TEMPLATES_FILE
    if rig is not None and not is_there(path):
        return {subject: rig.basis.neutral.flatten().numpy() for subject in subjects}, True
    templates = load_templates(root)
    size = next(iter(templates.values())).size // 3
    if rig is not None and size != rig.basis.n_vertices:
        raise UserError(
            f"{path}: has faces of {size} vertices, the basis has {rig.basis.n_vertices}; give templates of the "
            "basis's mesh, or none"
        )
    return templates, False


def require_mesh(corpus: object, what: str) -> None:
    """Raise UserError where a corpus has coefficients without a basis, so that ``what`` cannot be had of it."""
    require_basis(getattr(corpus, "root", "the corpus"), getattr(corpus, "rig", None), what)


def require_basis(root: object, rig: Rig | None, what: str) -> None:
    """:func:`require_mesh` of a corpus's folder and its rig."""
    if rig is not None and not rig.has_mesh:
        raise UserError(
            f"{root}: holds {len(rig.names)} coefficients and no {BASIS_FILE}, so "
            f"there is no face: {what} needs one; add {BASIS_FILE} (see docs/how-to/coefficients.md)"
        )


def _parsed(content: object, path: Path) -> tuple[tuple[str, ...], float, str]:
    content = content if isinstance(content, dict) else {}
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}; write names (a list), fps and convention")
    names, fps, convention = (content[key] for key in _KEYS)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: names is no list of words; name the coefficients in the order of their columns")
    problem = names_problem(tuple(names))
    if problem is not None:
        raise UserError(f"{path}: {problem}")
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 1 <= fps <= 1000:
        raise UserError(f"{path}: fps is {str(fps)[:40]}; it must be a number from 1 to 1000")
    if not isinstance(convention, str):
        raise UserError(f'{path}: convention is no word; write "arkit", "flame" or a name of your own')
    return tuple(names), float(fps), convention
