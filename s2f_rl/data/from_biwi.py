"""From BIWI's audiovisual corpus B3D(AC)2 (Fanelli et al., 2010) to the corpus layout."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np

from s2f_rl.data import preparation
from s2f_rl.data.audio import read_wav, write_wav
from s2f_rl.data.biwi_raw import (
    N_VERTICES,
    Sequence,
    face_scale,
    find_sequences,
    find_sounds,
    find_templates,
    normalise_frame,
    read_frames,
)
from s2f_rl.data.description import FORMAT, STORED
from s2f_rl.data.files import atomic_path, atomic_save_npy, atomic_write_bytes, atomic_write_json, open_file, read_bytes
from s2f_rl.data.preparation import PreparationReport
from s2f_rl.data.splits import DEFAULT_SPLITS
from s2f_rl.errors import UserError
from s2f_rl.signs import watched

UNITS = ("published", "metres")
_MILLIMETRE = 0.001
_FAR = 0.5  # of the face's half extent: another pose or another person, not speech
_PLAUSIBLE_SCALE_MM = (50.0, 500.0)


def prepare_biwi(
    raw: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    units: str = "published",
    sequences: str = "emotional",
    n_vertices: int = N_VERTICES,
    progress: bool = True,
) -> PreparationReport:
    """Write ``wav/``, ``vertices_npy/``, ``templates.pkl``, ``faces.npy`` and ``corpus.json`` from the raw B3D(AC)2.

    Read are, below ``raw`` (as its archives unpack):

    - ``rigid_scans/F1.obj``, ...: one neutral face per subject, 23370 vertices, millimetres;
    - ``faces/F1/e01/frame_001.vl``, ... or the archive ``faces/F1/e01.tar`` of them, read in place: one binary file per
      frame at 25 fps, a 32-bit vertex count and that many float32 triples;
    - the sound: ``F1_e01.wav`` or ``F1_e01_cut.wav`` anywhere below ``wav``, ``audio`` or ``videos``, else
      ``videos/F1_e01.flv`` (needs the ``render`` extra).

    As in the published preprocessing, on which FaceFormer's and CodeTalker's checkpoints were trained, every face is
    turned by 180 degrees about x (y up, face to +z), centred on the mean of its vertices, and divided by the root of
    its surface area. ``units="metres"`` turns and centres only and writes metres; published checkpoints do not fit
    that. The size of the unit (the mean of the templates' roots) is kept in ``corpus.json`` as ``metres_per_unit``.

    Files are written atomically, and a second run keeps the complete ones. Whatever cannot be converted is listed in
    the report. FaceFormer uses the emotional recordings (``e01`` to ``e40``), so these are converted by default.

    Args:
        raw: the folder with the unpacked archives.
        out: the corpus folder.
        units: "published" or "metres".
        sequences: "emotional", "neutral" or "all".
        n_vertices: vertices expected of every mesh.
        progress: show a progress bar.

    Raises:
        UserError: no templates or sequences, meshes of another set (such as BIWI Kinect head pose), or a full disk.
    """
    raw, out = Path(raw), Path(out)
    if units not in UNITS:
        raise UserError(f"units={units!r}: unknown; known are {', '.join(UNITS)}")
    if sequences not in ("emotional", "neutral", "all"):
        raise UserError(f"sequences={sequences!r}: unknown; known are emotional, neutral, all")
    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder; give the folder with rigid_scans and faces of B3D(AC)2")
    meshes = find_templates(raw, n_vertices)
    report = PreparationReport(out)
    found = [
        sequence
        for sequence in find_sequences(raw, report.problems)
        if sequences == "all" or sequence.is_emotional == (sequences == "emotional")
    ]
    if not found:
        raise UserError(f"{raw / 'faces'}: holds no {sequences} sequences; unpack the archives of B3D(AC)2 as they are")
    scales = {subject: face_scale(vertices, faces) for subject, (vertices, faces) in meshes.items()}
    for subject, scale in scales.items():
        if not _PLAUSIBLE_SCALE_MM[0] <= scale <= _PLAUSIBLE_SCALE_MM[1]:
            raise UserError(
                f"{raw / 'rigid_scans' / subject}.obj: the face's size is {scale:.3g} where about 185 mm is expected; "
                "use the files as published, in millimetres"
            )
    preparation.require_space(out, sum(s.n_frames for s in found) * n_vertices * 3 * 4)
    preparation.make_folders(out)
    _write_small_files(raw, out, meshes, scales, units)

    sounds = find_sounds(raw)
    for sequence in watched(found, "BIWI", unit="utterance", enabled=progress):
        if sequence.subject not in meshes:
            report.problems.append(f"{sequence.name}: has no template rigid_scans/{sequence.subject}.obj; left out")
            continue
        source = sounds.get(sequence.name)
        spoken = source is not None and _write_sound(source, out, sequence.name, report)
        if source is None:
            report.problems.append(f"{sequence.name}: has no sound; left out")
        if not spoken:
            continue
        report.n_utterances += 1
        template, faces = meshes[sequence.subject]
        report.n_recorded += _write_vertices(sequence, out, template, faces, units, report)
    return report.log()


def _write_vertices(
    sequence: Sequence, out: Path, template: np.ndarray, faces: np.ndarray, units: str, report: PreparationReport
) -> bool:
    target = out / "vertices_npy" / f"{sequence.name}.npy"
    shape = (sequence.n_frames, template.size)
    if preparation.is_complete_npy(target, shape):
        report.n_kept += 1
        return True
    try:
        vertices = np.empty(shape, dtype=np.float32)
        for t, frame in enumerate(read_frames(sequence, len(template))):
            vertices[t] = _in_units(frame, faces, units).reshape(-1)
    except UserError as error:
        report.problems.append(f"{sequence.name}: {error}; audio-only")
        return False
    atomic_save_npy(target, vertices)
    report.n_written += 1
    if sequence.n_lacking:
        report.problems.append(
            f"{sequence.name}: lacks {sequence.n_lacking} frames; the motion after them is out of sync"
        )
    neutral = _in_units(template, faces, units).reshape(-1)
    if np.abs(vertices[0] - neutral).max() > _FAR * np.abs(neutral).max():
        report.problems.append(
            f"{sequence.name}: its first frame lies far from rigid_scans/{sequence.subject}.obj; compare their poses"
        )
    return True


def _in_units(frame: np.ndarray, faces: np.ndarray, units: str) -> np.ndarray:
    centred = normalise_frame(frame)
    return centred * _MILLIMETRE if units == "metres" else centred / face_scale(centred, faces)


def _write_sound(source: Path, out: Path, name: str, report: PreparationReport) -> bool:
    target = out / "wav" / f"{name}.wav"
    try:
        if target.exists():
            preparation.wav_header(target)
            report.n_kept += 1
            return True
        if source.suffix.lower() == ".wav":
            preparation.wav_header(source)
            with atomic_path(target) as temporary, open_file(source) as file, open(temporary, "wb") as copy:
                shutil.copyfileobj(file, copy)
        else:
            write_wav(target, *read_wav(source))
    except UserError as error:
        report.problems.append(f"{name}: {error}; left out")
        return False
    report.n_written += 1
    return True


def _write_small_files(
    raw: Path, out: Path, meshes: dict[str, tuple[np.ndarray, np.ndarray]], scales: dict[str, float], units: str
) -> None:
    templates = {s: _in_units(vertices, faces, units).astype(np.float32) for s, (vertices, faces) in meshes.items()}
    atomic_write_bytes(out / "templates.pkl", pickle.dumps(templates, protocol=2))
    atomic_save_npy(out / "faces.npy", next(iter(meshes.values()))[1])
    for name in ("lve.txt", "fdd.txt"):
        source = raw / "regions" / name
        if source.is_file() and not (out / "regions" / name).exists():
            atomic_write_bytes(out / "regions" / name, read_bytes(source))
    splits = DEFAULT_SPLITS["biwi"]
    stored_fps, frame_step = STORED["biwi"]
    published = units == "published"
    atomic_write_json(
        out / "corpus.json",
        {
            "format": FORMAT,
            "dataset": "biwi",
            "topology": "biwi",
            "stored_fps": stored_fps,
            "frame_step": frame_step,
            "units": "root of the face's surface area" if published else "metres",
            "metres_per_unit": float(np.mean(list(scales.values()))) * _MILLIMETRE if published else 1.0,
            "metres_per_unit_by_subject": {s: scale * _MILLIMETRE if published else 1.0 for s, scale in scales.items()},
            "training_subjects": list(splits["train"].subjects),
            "splits": {
                name: {"subjects": list(split.subjects), "sentences": [split.first_sentence, split.last_sentence]}
                for name, split in splits.items()
            },
        },
    )
