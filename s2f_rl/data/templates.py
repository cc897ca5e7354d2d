"""Neutral faces: ``templates.pkl``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from s2f_rl.data.files import load_plain_pickle, require_file
from s2f_rl.errors import UserError

FILE = "templates.pkl"
COEFFICIENTS = (
    "which look like blendshape coefficients: only vertices are animated as such; make a corpus of coefficients "
    "of them (s2f-rl coefficients), or export the mesh, [V, 3] per frame"
)
_FEWEST, _ARKIT, _MOST_ODD = 10, 61, 400


def load_templates(root: Path) -> dict[str, np.ndarray]:
    """Read {subject: vertices} of a corpus as float32 [V*3] each, in the file's order.

    Raises:
        UserError: the file is missing or unreadable, or a template is no finite mesh of the same size as the others.
    """
    path = require_file(root / FILE, "it holds each subject's neutral face and comes with the corpus")
    return checked_templates(load_plain_pickle(path), path)


def looks_like_coefficients(shape: tuple[int, ...]) -> bool:
    """Whether so many numbers of one face, ``shape`` [N], are rather blendshape weights than coordinates.

    ARKit has 51 or 52, with head and eyes up to 61; other rigs have numbers that are no multiple of 3. Meshes of 20
    vertices exist in tests alone, and are stored as [V, 3].
    """
    return len(shape) == 1 and _FEWEST <= shape[0] <= _MOST_ODD and (shape[0] <= _ARKIT or shape[0] % 3 != 0)


def checked_templates(content: object, path: Path) -> dict[str, np.ndarray]:
    """Check {subject: vertices} as read from ``path`` and flatten it; raises UserError as :func:`load_templates`."""
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: holds {type(content).__name__} where {{subject: vertices [V, 3]}} is expected")
    templates: dict[str, np.ndarray] = {}
    for subject, value in content.items():
        if not isinstance(subject, str) or not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
            raise UserError(f"{path}: the template of {str(subject)[:60]!r} is no array of numbers; write [V, 3]")
        flat = np.array(value, dtype=np.float32).reshape(-1)
        if looks_like_coefficients(value.shape):
            raise UserError(f"{path}: the template of {subject} is {value.size} numbers, {COEFFICIENTS}")
        if value.ndim > 1 and value.shape[-1] != 3 or value.ndim > 3 or flat.size % 3 or not flat.size:
            raise UserError(f"{path}: the template of {subject} has the shape {value.shape}; [V, 3] is expected")
        if not np.isfinite(flat).all():
            raise UserError(f"{path}: the template of {subject} holds NaN or infinity; mend it")
        templates[subject] = flat
    sizes = {len(flat) // 3: subject for subject, flat in templates.items()}
    if len(sizes) > 1:
        listed = ", ".join(f"{subject} {size}" for size, subject in sorted(sizes.items()))
        raise UserError(f"{path}: the templates differ in their number of vertices ({listed}); one topology is needed")
    return templates
