"""Motions in files: ``.npy`` holds vertices; ``.npz`` is half the size and holds float16 offsets from a face.

Offsets have a suffix of their own, so that whoever reads an ``.npy`` with numpy gets vertices. In numpy:
``file = np.load(path); vertices = file["template"] + file["offsets"].astype("float32")``.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from torch import Tensor

from s2f_rl.data.files import atomic_path, atomic_save_npy, load_npy, load_npz, npy_header
from s2f_rl.errors import UserError

PRECISIONS = ("float32", "float16")
SUFFIXES = (".npy", ".npz")


def save_motion(path: Path, vertices: Tensor, template: Tensor, precision: str = "float32") -> None:
    """Write a motion [T, V*3], metres, atomically, in place of what is there in either precision.

    Args:
        path: without a suffix. template: [V*3], the face at rest.
        precision: ``float32``: ``path.npy`` with the vertices; ``float16``: ``path.npz``, where a coordinate is off by
            at most half a float16 step of its offset: 0.004 mm where that is below 15 mm, 0.002 mm below 7 mm, ...

    Raises:
        UserError: an offset is beyond what float16 holds, 65 km.
    """
    if precision == "float32":
        atomic_save_npy(path.with_name(path.name + ".npy"), vertices.numpy())
        path.with_name(path.name + ".npz").unlink(missing_ok=True)
        return
    exact = (vertices - template).numpy()
    with np.errstate(over="ignore"):
        offsets = exact.astype(np.float16)
    if (np.isinf(offsets) & np.isfinite(exact)).any():
        raise UserError(f"{path}: moves further than float16 holds; write it with predictions=float32")
    with atomic_path(path.with_name(path.name + ".npz")) as temporary, open(temporary, "wb") as file:
        np.savez(file, offsets=offsets, template=template.numpy().astype(np.float32))
    path.with_name(path.name + ".npy").unlink(missing_ok=True)


def load_motion(path: str | os.PathLike[str]) -> np.ndarray:
    """The vertices of a file, in metres or the unit that it was written in, as they lie there.

    An ``.npy`` is memory-mapped in its own shape and type, an ``.npz`` becomes float32 [T, V*3].

    Raises:
        UserError: not such a file.
    """
    if Path(path).suffix != ".npz":
        return load_npy(path)
    arrays = load_npz(path)
    offsets, template = arrays.get("offsets"), arrays.get("template")
    if offsets is None or template is None or offsets.ndim != 2 or template.shape != offsets.shape[1:]:
        raise UserError(f"{path}: holds no offsets [T, V*3] and template [V*3]; give a prediction of this project")
    return template.astype(np.float32) + offsets.astype(np.float32)


def motion_shape(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """The shape of :func:`load_motion`. Raises UserError as it does."""
    return npy_header(path)[0] if Path(path).suffix != ".npz" else load_motion(path).shape
