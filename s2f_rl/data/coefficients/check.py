"""Checks of motion that is coefficients, for ``s2f-rl check``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from s2f_rl.data.check_utterance import MotionStatistics, Setting, check_length
from s2f_rl.data.coefficients.basis import FILE as BASIS_FILE
from s2f_rl.data.coefficients.rig import FILE, FOLDER, Rig, load_rig
from s2f_rl.data.faults import ERROR, WARNING, Faults
from s2f_rl.data.files import is_there, load_npy, npy_header
from s2f_rl.errors import UserError

_BEYOND = 0.05
"""How far beyond its bounds a coefficient may go: trackers and filters overshoot a little."""
_PERCENT = 5.0
"""Coefficients from 0 to 1 are far below this, those in percent above it."""
_COMPARED = 200
"""Frames of an utterance whose faces are compared with recorded vertices, at most."""


def find_rig(root: Path, faults: Faults) -> tuple[bool, Rig | None]:
    """Whether a corpus states coefficients, and its rig; None where it is not sound, which ``faults`` then tell."""
    if not is_there(root / FILE):
        return False, None
    try:
        rig = load_rig(root)
    except UserError as error:
        faults.add_error(root / (BASIS_FILE if str(root / BASIS_FILE) in str(error) else FILE), error)
        return True, None
    if rig is not None and not rig.has_mesh:
        faults.add(
            WARNING, FILE, f"no {BASIS_FILE}, so there is no face for rewards, films and measures of vertices",
            f"add {BASIS_FILE} to have them",
        )  # fmt: skip
    return True, rig


def check_coefficients(
    root: Path, name: str, seconds: float | None, setting: Setting, rig: Rig, statistics: MotionStatistics,
    faults: Faults,
) -> int:  # fmt: skip
    """Check ``coefficients_npy/NAME.npy`` against its sound and its rig. Returns the number of stored frames."""
    relative = f"{FOLDER}/{name}.npy"
    path, k = root / relative, len(rig.names)
    try:
        shape, _ = npy_header(path)
        stored = load_npy(path)
    except UserError as error:
        faults.add_error(path, error)
        return 0
    if len(shape) != 2 or shape[1] != k:
        message = f"has the shape {list(shape)} where [frames, {k}] is expected"
        faults.add(ERROR, relative, message, f"its columns are the names in {FILE}")
        return 0
    if shape[0] == 0:
        faults.add(
            ERROR, relative, "holds no frames", "export it again, or remove it (the utterance is then audio-only)"
        )
        return 0
    if seconds is not None and setting.is_described:
        check_length(relative, name, shape[0], seconds, setting, faults)
    values = np.asarray(stored, np.float64)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        message = f"holds NaN or infinity in {len(bad)} of {len(values)} frames, first in frame {bad[0]}"
        faults.add(ERROR, relative, message, "mend or remove it")
        return shape[0]
    if _check_bounds(relative, values, rig, faults) and rig.has_mesh:
        matrix = rig.basis.matrix.double().numpy() / setting.metres_per_unit  # statistics are in the files' unit
        statistics.add(((np.cov(values.T, bias=True).reshape(k, k) @ matrix) * matrix).sum(axis=0).clip(0))
    return shape[0]


def check_beside_vertices(
    root: Path, names: set[str], templates: dict[str, np.ndarray], metres_per_unit: float, rig: Rig, faults: Faults
) -> None:
    """Tell how far recorded vertices lie from the faces that the coefficients make, where a corpus has both.

    Args:
        names: utterances with coefficients. templates: {subject: [V*3]}, in the files' unit.
        metres_per_unit: of templates and vertices.
    """
    squares, n_faces = 0.0, 0
    for name in sorted(names):
        path, subject = root / "vertices_npy" / f"{name}.npy", name.rpartition("_sentence")[0]
        if not path.exists() or subject not in templates or not rig.has_mesh:
            continue
        try:
            vertices, values = load_npy(path), load_npy(root / FOLDER / f"{name}.npy")
        except UserError:
            continue
        n = min(len(vertices), len(values))
        if n == 0 or vertices[0].size != 3 * rig.basis.n_vertices or values.shape[1:] != (len(rig.names),):
            continue
        frames = np.linspace(0, n - 1, min(n, _COMPARED)).astype(int)
        moved = np.asarray(values[frames], np.float64) @ rig.basis.matrix.double().numpy()
        made = metres_per_unit * templates[subject] + moved
        apart = metres_per_unit * np.asarray(vertices[frames], np.float64).reshape(len(frames), -1) - made
        squares += float(np.square(apart).sum()) / rig.basis.n_vertices
        n_faces += len(frames)
    if n_faces:
        millimetres = 1000 * np.sqrt(squares / n_faces)
        message = f"is not read beside {FILE}; its faces lie {millimetres:.3g} mm rms from those of the coefficients"
        faults.add(WARNING, "vertices_npy", message, f"remove {FILE} to train on vertices")


def _check_bounds(relative: str, values: np.ndarray, rig: Rig, faults: Faults) -> bool:
    """Whether the values are of the size of coefficients."""
    low, high = rig.basis.bounds.double().numpy().T
    outside = (values < low - _BEYOND) | (values > high + _BEYOND)
    if not outside.any():
        return True
    worst = int(outside.sum(axis=0).argmax())
    if np.isfinite(high).all() and values.max() > _PERCENT * high.max():
        message = f"its coefficients reach {values.max():.3g}, their bound is {high.max():g}: they look like percent"
        faults.add(ERROR, relative, message, "divide them, so that 1 is the whole shape")
        return False
    message = (
        f"leaves its bounds in {int(outside.any(axis=1).sum())} of {len(values)} frames, {rig.names[worst]} most often "
        f"(from {values[:, worst].min():.3g} to {values[:, worst].max():.3g})"
    )
    faults.add(WARNING, relative, message, f"check the order of names in {FILE}, or widen the bounds in {BASIS_FILE}")
    return True
