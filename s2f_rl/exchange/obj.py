"""OBJ sequences: a folder with a file for each frame."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from s2f_rl.data.files import atomic_folder
from s2f_rl.errors import UserError
from s2f_rl.exchange.face import Face


def write_obj_sequence(folder: str | os.PathLike[str], vertices: np.ndarray, fps: float, face: Face) -> None:
    """Write ``NAME_0000.obj``, ``NAME_0001.obj``, ... in a folder ``NAME`` that is new or empty: all of them or none.

    The format has no unit, axis or rate: a comment at the top of each file tells them. Colours follow the coordinates
    of a vertex (0 to 1, sRGB), which most programs read.

    Args:
        vertices: [T, V, 3] in metres, written to a tenth of a micrometre.

    Raises:
        UserError: there is something in the folder, or it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is not empty; name a new folder for the sequence")
    corners = "".join(f"f {a} {b} {c}\n" for a, b, c in face.triangles + 1)
    colours = [""] * vertices.shape[1]
    if face.colours is not None:
        colours = [f" {r:.4f} {g:.4f} {b:.4f}" for r, g, b in face.colours / 255]
    digits = max(4, len(str(len(vertices) - 1)))
    try:
        with atomic_folder(folder) as made:
            for t, frame in enumerate(vertices):
                told = f"# metres, {face.up} up; frame {t} at {t / fps:.6f} s of {fps:g} frames per second\n"
                points = "".join(
                    f"v {x:.7f} {y:.7f} {z:.7f}{colour}\n" for (x, y, z), colour in zip(frame, colours, strict=True)
                )
                (made / f"{folder.name}_{t:0{digits}d}.obj").write_text(told + points + corners, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose a writable folder") from error
