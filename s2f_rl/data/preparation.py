"""What the converters share: safe names, resuming, sound files, and the report at the end."""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from s2f_rl.data.audio import wav_header, write_wav
from s2f_rl.data.files import npy_header
from s2f_rl.errors import UserError, one_line

logger = logging.getLogger(__name__)
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


@dataclass
class PreparationReport:
    """What a converter did.

    Attributes:
        root: the corpus folder.
        n_written: files written in this run.
        n_kept: complete files of an earlier run that were kept.
        n_utterances: utterances with speech; of these ``n_recorded`` have vertices.
        problems: one line for each utterance that could not be converted whole.
    """

    root: Path
    n_written: int = 0
    n_kept: int = 0
    n_utterances: int = 0
    n_recorded: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{one_line(self.root)}: {self.n_utterances} utterances, {self.n_recorded} of them with vertices "
            f"({self.n_written} files written, {self.n_kept} kept)"
        ]
        if self.problems:
            lines.append(f"{len(self.problems)} problems:")
            lines.extend(f"  {one_line(problem)}" for problem in self.problems)
        return "\n".join(lines)

    def log(self) -> PreparationReport:
        """Log the problems as one warning; returns itself."""
        if self.problems:
            logger.warning("%s", self)
        return self


def is_safe_name(name: object) -> bool:
    """Whether a name from a file may become a file name: no folders, nothing hidden, nothing exotic."""
    return isinstance(name, str) and len(name) < 120 and _SAFE.fullmatch(name) is not None and ".." not in name


def is_complete_npy(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether an earlier run wrote this array whole."""
    try:
        return npy_header(path)[0] == shape
    except UserError:
        return False


def is_complete_wav(path: Path, n_samples: int, rate: int) -> bool:
    """Whether an earlier run wrote this sound whole."""
    try:
        return wav_header(path) == (n_samples, rate)
    except UserError:
        return False


def save_sound(path: Path, audio: np.ndarray, rate: int) -> None:
    """Write a waveform of any numeric type as it is: 16- and 32-bit integers and floats in -1..1 keep their values.

    Other integers and floats on the scale of 16-bit samples are brought to 16 bits. Raises UserError when the waveform
    is empty, not finite, or not mono.
    """
    audio = np.squeeze(audio)
    if audio.ndim != 1 or audio.size == 0 or audio.dtype.kind not in "iuf":
        raise UserError(f"{path.name}: audio of shape {audio.shape} and type {audio.dtype}; mono numbers are expected")
    if not np.isfinite(audio).all():
        raise UserError(f"{path.name}: audio holds NaN or infinity")
    subtype = {"int16": "PCM_16", "int32": "PCM_32", "float32": "FLOAT", "float64": "DOUBLE"}.get(audio.dtype.name)
    peak = float(np.abs(audio.astype(np.float64)).max())
    if subtype is None or (audio.dtype.kind == "f" and peak > 2):
        if peak > 32768:
            raise UserError(f"{path.name}: audio reaches {peak:g}, beyond 16-bit samples")
        audio, subtype = np.clip(np.round(audio), -32768, 32767).astype(np.int16), "PCM_16"
    write_wav(path, np.ascontiguousarray(audio.astype(audio.dtype.newbyteorder("="))), rate, subtype)


def require_space(folder: Path, n_bytes: int) -> None:
    """Raise a UserError when the disk of ``folder`` has not ``n_bytes`` free."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if n_bytes > free:
        raise UserError(f"{folder}: needs {n_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; choose another disk")


def make_folders(root: Path) -> None:
    """Make ``wav`` and ``vertices_npy`` in ``root``. Raises UserError when that is not possible."""
    for folder in (root / "wav", root / "vertices_npy"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror}); choose a writable folder") from error
