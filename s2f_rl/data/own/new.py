"""A corpus folder from a mesh, recordings and motion: written whole, or not at all."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from s2f_rl.data import preparation
from s2f_rl.data.audio import SOUND_SUFFIXES, read_sound, write_wav
from s2f_rl.data.clock import HIGHEST_FPS, LOWEST_FPS
from s2f_rl.data.description import FILE, FORMAT
from s2f_rl.data.files import (
    atomic_folder,
    atomic_save_npy,
    atomic_save_npy_parts,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    is_there,
    open_file,
)
from s2f_rl.data.mesh_files import Mesh
from s2f_rl.data.meshes import SUFFIXES, read_mesh
from s2f_rl.data.own.marks import Ask, Marks, find_marks
from s2f_rl.data.own.motion import list_motion, listed, motion_parts
from s2f_rl.data.own.mouth import Regions, front_of, regions_from_corners, regions_from_landmarks
from s2f_rl.data.own.naming import split_by_subject, utterance_names
from s2f_rl.data.own.placement import DIRECTIONS, Placement, find_placement
from s2f_rl.data.regions import LANDMARKS_FILE, TEXT_LISTS
from s2f_rl.data.splits import parse_name
from s2f_rl.data.templates import FILE as TEMPLATES_FILE
from s2f_rl.errors import UserError
from s2f_rl.signs import watched

_AUDIO_ONLY_FPS = 30.0
_BYTES = 4


@dataclass
class NewCorpus:
    """What was written and what was found out.

    Attributes:
        root: the folder. placement: unit and axes. marks: where the mouth is known from. regions: vertex numbers.
        n_vertices, n_triangles, n_utterances, n_recorded: sizes; recorded is what has motion.
        notes: what does not pair or was assumed, a line each.
    """

    root: Path
    placement: Placement
    marks: Marks
    regions: Regions
    n_vertices: int
    n_triangles: int
    n_utterances: int = 0
    n_recorded: int = 0
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {len(numbers)}" for name, numbers in self.regions.items() if len(numbers) > 2)
        return "\n".join(
            [
                f"mesh: {self.n_vertices} vertices, {self.n_triangles} triangles; {self.placement}",
                f"regions, from {self.marks.source}: {counts}",
                f"utterances: {self.n_utterances}, {self.n_recorded} of them with motion",
                *self.notes,
            ]
        )


def new_corpus(
    out: str | os.PathLike[str],
    mesh: str | os.PathLike[str],
    recordings: str | os.PathLike[str],
    motion: str | os.PathLike[str] | None = None,
    *,
    fps: float | None = None,
    frame_step: int = 1,
    regions: str | os.PathLike[str] | None = None,
    landmarks: str | os.PathLike[str] | None = None,
    mouth: str | None = None,
    unit: str | None = None,
    up: str | None = None,
    front: str | None = None,
    templates: str | os.PathLike[str] | None = None,
    names: str | os.PathLike[str] | None = None,
    subject: str | None = None,
    validation: Sequence[str] = (),
    test: Sequence[str] = (),
    ask: Ask | None = None,
    progress: bool = True,
) -> NewCorpus:
    """Write a corpus in the layout that every recipe reads, in metres, y up, the face to +z.

    It is written beside ``out`` and renamed at the end, so that whatever goes wrong leaves nothing.

    Args:
        out: the corpus folder; must not exist.
        mesh: the face at rest: .obj, .ply, .glb or .npy.
        recordings: folder of sound files; their stems name the utterances (see :func:`utterance_names`).
        motion: folder of ``NAME.npy`` ([T, V*3] or [T, V, 3], the mesh's unit and axes) or ``NAME/`` with a mesh a
            frame. None, or none for a recording: speech alone.
        fps: frames per second of the motion; needed with it. Speech alone: of the corpus, 30 unless given.
        frame_step: every how many-th frame the corpus uses.
        regions, landmarks, mouth, ask: where the mouth is, see :func:`~s2f_rl.data.own.marks.find_marks`.
        unit, up, front: of the mesh, see :func:`~s2f_rl.data.own.placement.find_placement`; None: guessed.
        templates: folder of ``SUBJECT.obj`` (.ply, ...): faces at rest of speakers whose face is not ``mesh``.
        names, subject: see :func:`~s2f_rl.data.own.naming.utterance_names`.
        validation, test: subjects, see :func:`~s2f_rl.data.own.naming.split_by_subject`.
        progress: show bars.

    Raises:
        UserError: anything that is missing, does not fit or cannot be told.
    """
    out, mesh = Path(out), Path(mesh)
    for key, value in (("up", up), ("front", front)):
        if value is not None and value not in DIRECTIONS:
            raise UserError(f"{key} {value}: unknown; use {', '.join(DIRECTIONS)}")
    if is_there(out):
        raise UserError(f"{out}: exists; name a new folder, nothing is overwritten")
    rate = _rate(fps, frame_step, motion is not None)
    face = read_mesh(mesh)
    marks = find_marks(face, str(mesh), _path(regions), _path(landmarks), mouth, ask)
    placement = find_placement(face.vertices, face.faces, marks.corners, unit, up, front)
    points = placement.apply(face.vertices)
    found = _regions(points, face.faces, marks)
    report = NewCorpus(out, placement, marks, found, len(points), len(face.faces))

    sounds = _sounds(Path(recordings))
    named = utterance_names(list(sounds), _path(names), subject)
    moving = list_motion(Path(motion)) if motion is not None else {}
    report.notes += _unpaired(sounds, named, moving, motion is not None)
    parts, training = split_by_subject(list(named.values()), validation, test)
    speakers = sorted({parse_name(name)[0] for name in named.values()})
    rest = _templates(_path(templates), speakers, points, placement)

    description = {
        "format": FORMAT, "dataset": out.name, "units": "metres", "stored_fps": rate, "frame_step": frame_step,
        "n_vertices": len(points), "training_subjects": training, "splits": parts,
    }  # fmt: skip
    with atomic_folder(out) as work:
        _write_face(work, face, found, rest)
        atomic_write_json(work / FILE, description)
        for stem in watched(sorted(named), "corpus", unit="utterance", enabled=progress):
            report.notes += _write_sound(sounds[stem], work / "wav" / f"{named[stem]}.wav")
            if stem in moving:
                n_frames, frames = motion_parts(moving[stem], len(points))
                preparation.require_space(work, n_frames * points.size * _BYTES)
                flat = (placement.apply(part).reshape(len(part), -1).astype(np.float32) for part in frames)
                atomic_save_npy_parts(work / "vertices_npy" / f"{named[stem]}.npy", (n_frames, points.size), flat)
                report.n_recorded += 1
        report.n_utterances = len(named)
    return report


def _rate(fps: float | None, frame_step: int, moves: bool) -> float:
    """Frames per second of the files."""
    if fps is None and moves:
        raise UserError("--fps: how many frames per second has the motion? give it, such as --fps 60")
    rate = _AUDIO_ONLY_FPS * frame_step if fps is None else float(fps)
    if not LOWEST_FPS <= rate / frame_step <= HIGHEST_FPS:
        raise UserError(
            f"--fps {rate:g}, every {frame_step}: {rate / frame_step:g} frames per second; {LOWEST_FPS:g} to "
            f"{HIGHEST_FPS:g} are animated, see --every"
        )
    return int(rate) if rate.is_integer() else rate


def _regions(points: np.ndarray, faces: np.ndarray, marks: Marks) -> Regions:
    face = {"face": front_of(points, marks.corners)}
    if marks.landmarks is not None:
        return regions_from_landmarks(points, faces, marks.landmarks) | face
    given = {"lips": marks.lips, "upper_face": marks.upper_face}
    known = {name: numbers for name, numbers in given.items() if numbers is not None}
    return face | (known if len(known) == 2 else {**regions_from_corners(points, faces, marks.corners), **known})


def _sounds(folder: Path) -> dict[str, Path]:
    """{stem: file}, sorted."""
    found: dict[str, Path] = {}
    for path in listed(folder):
        if path.suffix.lower() in SOUND_SUFFIXES and found.setdefault(path.stem, path) is not path:
            raise UserError(f"{path}: and {found[path.stem].name} have one name; remove one of them")
    if not found:
        raise UserError(f"{folder}: holds no recordings ({', '.join(SOUND_SUFFIXES)}); give the folder that does")
    return found


def _unpaired(sounds: dict[str, Path], named: dict[str, str], moving: dict[str, Path], moves: bool) -> list[str]:
    left_out = sorted(sounds.keys() - named.keys())
    silent = sorted(moving.keys() - named.keys())
    still = sorted(named.keys() - moving.keys()) if moves else []
    told = (
        (left_out, "recordings left out, the table of names does not have them"),
        (silent, "motions left out, no recording bears their name"),
        (still, "recordings without motion: speech alone"),
    )
    if moves and len(still) == len(named):
        example = f", such as {sorted(moving)[0]} and {sorted(named)[0]}" if moving else ""
        raise UserError(f"no motion has the name of a recording{example}; name both alike (NAME.wav and NAME.npy)")
    return [
        f"{len(each)} {what} ({', '.join(each[:3])}{', ...' if len(each) > 3 else ''})" for each, what in told if each
    ]


def _templates(
    folder: Path | None, speakers: Sequence[str], points: np.ndarray, placement: Placement
) -> dict[str, np.ndarray]:
    """{subject: [V, 3] float32}: their own face where the folder has it, else the mesh."""
    found = dict.fromkeys(speakers, points)
    for path in listed(folder) if folder is not None else ():
        if path.suffix.lower() in SUFFIXES:
            if path.stem not in found:
                raise UserError(f"{path}: is the face of nobody who speaks ({', '.join(speakers[:5])}); rename it")
            own = read_mesh(path).vertices
            if len(own) != len(points):
                raise UserError(f"{path}: has {len(own)} vertices, the mesh {len(points)}; one topology is needed")
            found[path.stem] = placement.apply(own)
    return {subject: np.asarray(face, np.float32) for subject, face in found.items()}


def _write_face(root: Path, face: Mesh, regions: Regions, templates: dict[str, np.ndarray]) -> None:
    atomic_write_bytes(root / TEMPLATES_FILE, pickle.dumps(templates, protocol=2))
    if len(face.faces):
        atomic_save_npy(root / "faces.npy", face.faces)
    for region, file in TEXT_LISTS.items():
        atomic_write_text(root / file, ", ".join(str(number) for number in regions[region]) + "\n")
    others = {name: regions[name].tolist() for name in ("upper_lip", "lower_lip", "face") if name in regions}
    atomic_write_json(root / LANDMARKS_FILE, others)


def _write_sound(source: Path, target: Path) -> list[str]:
    """A WAV as it is, anything else decoded to 16 bits; what is odd about it as notes."""
    target.parent.mkdir(exist_ok=True)
    if source.suffix.lower() == ".wav":
        with open_file(source) as old, open(target, "wb") as new:
            shutil.copyfileobj(old, new)
        return []
    waveform, rate, notes = read_sound(source)
    write_wav(target, waveform, rate)
    return [f"{source.name}: {note}" for note in notes]


def _path(path: str | os.PathLike[str] | None) -> Path | None:
    return None if path is None else Path(path)
