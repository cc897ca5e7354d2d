"""The files of a corpus that hold motion: vertices, or coefficients of a rig."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from s2f_rl.data.files import load_npy, npy_header
from s2f_rl.data.listing import list_names
from s2f_rl.data.templates import COEFFICIENTS, looks_like_coefficients
from s2f_rl.errors import UserError


class MotionFiles:
    """``FOLDER/NAME.npy``, one array of rows per utterance.

    Args:
        folder: where they lie.
        width: numbers of a frame: V*3, or K.
        frame_step: every how many-th row is used.
        is_mesh: rows are vertices, which may also be stored as [frames, V, 3].

    Attributes:
        names: of the utterances that have one.
    """

    def __init__(self, folder: Path, width: int, frame_step: int, is_mesh: bool) -> None:
        self.folder, self.width, self.frame_step, self.is_mesh = folder, width, frame_step, is_mesh
        self.names = list_names(folder, ".npy")

    def file(self, name: str) -> Path:
        """The file of an utterance."""
        return self.folder / f"{name}.npy"

    def n_stored(self, name: str) -> int:
        """Rows of a file, from its header. Raises UserError where its shape is another."""
        path = self.file(name)
        shape, _ = npy_header(path)
        self._check_shape(shape, path)
        return shape[0]

    def n_frames(self, name: str) -> int:
        """Frames of a file, from its header. Raises UserError where its shape is another."""
        return -(-self.n_stored(name) // self.frame_step)

    def read(self, name: str, n_frames: int) -> torch.Tensor:
        """The first frames [T, width] float32, as they are stored; the caller's own.

        Raises:
            UserError: the file is damaged, of another shape, or holds a number that is not finite.
        """
        path = self.file(name)
        stored = load_npy(path)
        self._check_shape(stored.shape, path)
        used = stored[:: self.frame_step][:n_frames]
        rows = torch.from_numpy(np.array(used, dtype=np.float32).reshape(len(used), -1))
        if not torch.isfinite(rows.sum()):  # one pass; NaN and infinity both reach the sum
            raise UserError(f"{path}: holds NaN or infinity; mend or remove it (s2f-rl check lists all such files)")
        return rows

    def first(self, name: str) -> np.ndarray | None:
        """The first row [width] float32; None where the file cannot be read, which is told when it is needed."""
        try:
            stored = load_npy(self.file(name))
        except UserError:
            return None
        if stored.ndim < 2 or not len(stored) or stored[0].size != self.width:
            return None
        return np.array(stored[0], dtype=np.float32).reshape(-1)

    def _check_shape(self, shape: tuple[int, ...], path: Path) -> None:
        n, wanted = self.width // 3, shape[1:]
        if wanted == (self.width,) or (self.is_mesh and wanted == (n, 3)):
            return
        if not self.is_mesh:
            raise UserError(
                f"{path}: has the shape {list(shape)}, but coefficients.json names {self.width} coefficients; "
                f"[frames, {self.width}] is expected"
            )
        if looks_like_coefficients(wanted):
            raise UserError(f"{path}: each frame is {shape[1]} numbers, {COEFFICIENTS}")
        raise UserError(
            f"{path}: has the shape {list(shape)}, but the templates have {n} vertices; [frames, {n * 3}] is expected"
        )
