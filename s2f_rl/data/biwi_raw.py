"""The files that BIWI's audiovisual corpus B3D(AC)2 consists of."""

from __future__ import annotations

import os
import re
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2f_rl.data.files import open_file, read_bytes
from s2f_rl.data.mesh_files import read_obj
from s2f_rl.errors import UserError

N_VERTICES = 23370
_VL_HEADER, _VL_VERTEX = 4, 12  # bytes
_SUBJECT = re.compile(r"[FM][0-9]+")
_SEQUENCE = re.compile(r"e?[0-9]+")
_SOUND = re.compile(r"([FM][0-9]+_e?[0-9]+)(_cut)?")
_FRAME_NUMBER = re.compile(r"(?<![0-9])([0-9]{1,9})\.vl$")
_LARGEST_TABLE = 10**5  # members of an archive; a sentence has some hundred frames


@dataclass(frozen=True)
class Sequence:
    """One recorded sentence: a folder of frames, or a tar archive of them."""

    subject: str
    sentence: str
    path: Path
    frames: tuple[str, ...]
    n_lacking: int

    @property
    def name(self) -> str:
        return f"{self.subject}_{self.sentence}"

    @property
    def is_emotional(self) -> bool:
        return self.sentence.startswith("e")

    @property
    def n_frames(self) -> int:
        return len(self.frames)


def find_templates(raw: Path, n_vertices: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{subject: (vertices [V, 3] in mm, triangles [F, 3])} from ``rigid_scans``. Raises UserError for any other set."""
    paths = {path.stem: path for path in sorted((raw / "rigid_scans").rglob("*.obj")) if _SUBJECT.fullmatch(path.stem)}
    if not paths:
        kinect = any(re.fullmatch(r"[0-9]{2}\.obj", path.name) for path in [*raw.glob("*.obj"), *raw.glob("*/*.obj")])
        hint = (
            "this is the BIWI Kinect head pose set, which has no speech; get B3D(AC)2 instead"
            if kinect
            else "unpack the scans of B3D(AC)2 there, F1.obj to M6.obj"
        )
        raise UserError(f"{raw / 'rigid_scans'}: holds no subject's template; {hint}")
    meshes = {}
    for subject, path in paths.items():
        vertices, faces = read_obj(path)
        if len(vertices) != n_vertices:
            raise UserError(
                f"{path}: has {len(vertices)} vertices where B3D(AC)2 has {n_vertices}; another set, such as the BIWI "
                "Kinect head pose set, cannot be used"
            )
        if not len(faces):
            raise UserError(f"{path}: holds no triangles; copy the file again")
        meshes[subject] = (vertices, faces)
    return meshes


def find_sequences(raw: Path, problems: list[str]) -> list[Sequence]:
    """Every sequence below ``faces``, by name. A folder of frames comes before an archive of the same name.

    What looks like a sequence but holds no readable frame is added to ``problems``.
    """
    found: dict[str, Sequence] = {}
    for subject in _entries(raw / "faces"):
        if not _SUBJECT.fullmatch(subject.name) or not subject.is_dir():
            continue
        for path in _entries(subject):
            sentence = path.name.removesuffix(".tar")
            if not _SEQUENCE.fullmatch(sentence):
                continue
            if not path.is_dir() and path.suffix != ".tar":
                problems.append(f"{path}: is neither a folder of frames nor an archive; unpack B3D(AC)2 again")
                continue
            frames = _frame_names(path)
            if not frames:
                problems.append(f"{path}: holds no readable .vl frames; unpack B3D(AC)2 again")
            elif path.is_dir() or f"{subject.name}_{sentence}" not in found:
                numbers = [_number(name) for name in frames]
                lacking = numbers[-1] - numbers[0] + 1 - len(numbers)
                found[f"{subject.name}_{sentence}"] = Sequence(subject.name, sentence, path, tuple(frames), lacking)
    return [found[name] for name in sorted(found)]


def find_sounds(raw: Path) -> dict[str, Path]:
    """{utterance: sound file}; WAV before video, and the cut recordings before whole ones."""
    sounds: dict[str, tuple[int, Path]] = {}
    for folder in ("wav", "audio", "videos"):
        for path in sorted((raw / folder).rglob("*")):
            match = _SOUND.fullmatch(path.stem)
            if match is None or path.suffix.lower() not in (".wav", ".flv") or not path.is_file():
                continue
            rank = (2 if path.suffix.lower() == ".flv" else 0) + (0 if match.group(2) else 1)
            name = match.group(1)
            if name not in sounds or rank < sounds[name][0]:
                sounds[name] = (rank, path)
    return {name: path for name, (_, path) in sounds.items()}


def read_frames(sequence: Sequence, n_vertices: int) -> Iterator[np.ndarray]:
    """The frames of a sequence in order, [V, 3] float64 in mm. Raises UserError naming a damaged one."""
    if sequence.path.is_dir():
        for name in sequence.frames:
            path = sequence.path / name
            yield parse_vl(read_bytes(path, largest=_VL_HEADER + _VL_VERTEX * n_vertices), n_vertices, str(path))
        return
    try:
        # Members are read in place and never unpacked, so an archive cannot write anywhere.
        with open_file(sequence.path) as tar, tarfile.open(fileobj=tar, mode="r:") as archive:
            for name in sequence.frames:
                file = archive.extractfile(name)
                content = b"" if file is None else file.read(_VL_HEADER + _VL_VERTEX * n_vertices + 1)
                yield parse_vl(content, n_vertices, f"{sequence.path}: {name}")
    except (tarfile.TarError, OSError, KeyError, EOFError, ValueError, OverflowError) as error:
        raise UserError(f"{sequence.path}: damaged archive ({str(error)[:80]}); copy it again") from error


def parse_vl(content: bytes, n_vertices: int, what: str) -> np.ndarray:
    """Parse a ``.vl`` file: a little-endian uint32 count V, then V float32 triples. Returns [V, 3] float64."""
    count = struct.unpack("<I", content[:_VL_HEADER])[0] if len(content) >= _VL_HEADER else 0
    if count != n_vertices or len(content) != _VL_HEADER + _VL_VERTEX * n_vertices:
        raise UserError(f"{what}: {count} vertices in {len(content)} bytes; {n_vertices} are expected; copy it again")
    frame = np.frombuffer(content, dtype="<f4", offset=_VL_HEADER).reshape(-1, 3).astype(np.float64)
    if not np.isfinite(frame).all():
        raise UserError(f"{what}: holds NaN or infinity")
    return frame


def normalise_frame(vertices: np.ndarray) -> np.ndarray:
    """Turn a face by 180 degrees about x and centre it on the mean of its vertices: [V, 3] -> [V, 3], same unit."""
    turned = vertices * np.array([1.0, -1.0, -1.0])
    return turned - turned.mean(axis=0)


def face_scale(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Root of the surface area of a mesh, in the unit of its vertices."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float(np.sqrt(0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()))


def _frame_names(path: Path) -> list[str]:
    """The frames' file names (in an archive: member names) in the order of their numbers."""
    if path.is_dir():
        names = [entry.name for entry in _entries(path)]
    else:
        try:
            names = _member_names(path)
        except (UserError, tarfile.TarError, OSError, EOFError, ValueError, OverflowError):
            return []
    return sorted((name for name in names if _FRAME_NUMBER.search(name)), key=_number)


def _member_names(path: Path) -> list[str]:
    names: list[str] = []
    end = -1
    with open_file(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if not end < member.offset_data or len(names) > _LARGEST_TABLE:  # a negative size leads back, for ever
                raise ValueError("a damaged table of contents")
            end = member.offset_data
            if member.isfile():
                names.append(member.name)
    return names


def _number(name: str) -> int:
    match = _FRAME_NUMBER.search(name)
    return int(match.group(1)) if match else -1


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder))
    except OSError:
        return []
