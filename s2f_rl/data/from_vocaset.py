"""From the files VOCASET is published as to the corpus layout."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from s2f_rl.data import preparation
from s2f_rl.data.files import atomic_save_npy, atomic_write_bytes, load_npy, load_plain_pickle, read_bytes, require_file
from s2f_rl.data.preparation import PreparationReport
from s2f_rl.data.regions import MASKS_FILE
from s2f_rl.data.sound_decoding import RATES_HZ
from s2f_rl.data.templates import FILE as TEMPLATES_FILE
from s2f_rl.data.templates import load_templates
from s2f_rl.errors import UserError
from s2f_rl.signs import watched

_DOWNLOAD = "it is part of VOCASET's training data (https://voca.is.tue.mpg.de)"
_BYTES = 4
_SMALL_FILE = 2**30


def prepare_vocaset(
    raw: str | os.PathLike[str], out: str | os.PathLike[str], *, progress: bool = True
) -> PreparationReport:
    """Write ``wav/``, ``vertices_npy/`` and ``templates.pkl`` from VOCASET's download.

    Read are ``data_verts.npy`` [rows, V, 3] (memory-mapped, never loaded whole), ``raw_audio_fixed.pkl`` {subject:
    {sentence: {"audio", "sample_rate"}}}, ``subj_seq_to_idx.pkl`` {subject: {sentence: {frame: row}}} and
    ``templates.pkl``; ``FLAME_masks.pkl`` and ``FLAME_sample.ply`` are copied if they are there. Values are kept as
    published: metres, 60 fps, the sound at its own rate. Frames are put in the order of their numbers.

    Every file is written atomically and a second run keeps the complete ones, so an interrupted run is simply started
    again. Utterances that lack sound or vertices are listed in the report; those with sound alone are kept.

    Args:
        raw: the folder with the downloaded files.
        out: the corpus folder; may be ``raw``.
        progress: show a progress bar.

    Raises:
        UserError: a file is missing or damaged, the templates do not fit the vertices, or the disk is too small.
    """
    raw, out = Path(raw), Path(out)
    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder; give the folder with VOCASET's downloaded files")
    for name in ("data_verts.npy", "raw_audio_fixed.pkl", "subj_seq_to_idx.pkl", TEMPLATES_FILE):
        require_file(raw / name, _DOWNLOAD)
    templates = load_templates(raw)
    rows = load_npy(raw / "data_verts.npy")
    width = next(iter(templates.values())).size
    if rows.ndim not in (2, 3) or rows[0:1].size != width * min(1, len(rows)):
        raise UserError(
            f"{raw / 'data_verts.npy'}: has the shape {rows.shape}, but the templates have {width // 3} vertices; "
            "[rows, vertices, 3] is expected"
        )
    rows = rows.reshape(len(rows), -1)
    report = PreparationReport(out)
    sequences = _nested(raw / "subj_seq_to_idx.pkl", "{frame: row}", report)
    sounds = _nested(raw / "raw_audio_fixed.pkl", '{"audio", "sample_rate"}', report)

    frames = _check_frames(sequences, len(rows), report)
    to_write = [
        name
        for name, index in frames.items()
        if not preparation.is_complete_npy(out / "vertices_npy" / f"{name}.npy", (len(index), width))
    ]
    preparation.require_space(out, sum(len(frames[name]) for name in to_write) * width * _BYTES)
    preparation.make_folders(out)
    _copy_small_files(raw, out)
    report.n_kept += len(frames) - len(to_write)
    for name in watched(to_write, "vertices", unit="utterance", enabled=progress):
        index = frames[name]
        contiguous = bool((np.diff(index) == 1).all())
        chosen = rows[index[0] : index[-1] + 1] if contiguous else rows[index]
        atomic_save_npy(out / "vertices_npy" / f"{name}.npy", np.asarray(chosen, dtype=np.float32))
        report.n_written += 1
    spoken = set()
    for name in watched(sorted(sounds), "sound", unit="utterance", enabled=progress):
        if _write_sound(out / "wav" / f"{name}.wav", name, sounds[name], report):
            spoken.add(name)

    report.problems += [
        f"{name}: has vertices but no sound; it cannot be used" for name in sorted(set(frames) - spoken)
    ]
    report.problems += [f"{name}: has sound but no vertices; it is audio-only" for name in sorted(spoken - set(frames))]
    subjects = sorted({name.rpartition("_")[0] for name in spoken} - set(templates))
    report.problems += [f"{subject}: has no template in {TEMPLATES_FILE}; add its neutral face" for subject in subjects]
    report.n_utterances, report.n_recorded = len(spoken), len(spoken & set(frames))
    return report.log()


def _nested(path: Path, inner: str, report: PreparationReport) -> dict[str, Mapping[object, object]]:
    """Read {subject: {sentence: inner}} as {"SUBJECT_sentence": inner}."""
    content = load_plain_pickle(path)
    whole = isinstance(content, dict) and all(isinstance(sentences, dict) for sentences in content.values())
    if not whole or not content:
        raise UserError(f"{path}: not of the form {{subject: {{sentence: {inner}}}}}; {_DOWNLOAD}, download it again")
    flat: dict[str, Mapping[object, object]] = {}
    for subject, sentences in content.items():
        for sentence, value in sentences.items():
            name = f"{subject}_{sentence}"
            if not preparation.is_safe_name(name):
                report.problems.append(f"{name[:80]!r} in {path.name}: cannot be a file name; left out")
            elif not isinstance(value, dict):
                report.problems.append(f"{name} in {path.name}: not of the form {inner}; left out")
            else:
                flat[name] = value
    return flat


def _check_frames(
    sequences: Mapping[str, Mapping[Any, Any]], n_rows: int, report: PreparationReport
) -> dict[str, np.ndarray]:
    """Rows [T] int64 of each sequence, ordered by frame number; faulty sequences go to the report."""
    frames: dict[str, np.ndarray] = {}
    for name, rows in sorted(sequences.items()):
        try:
            pairs = sorted((int(frame), int(row)) for frame, row in rows.items())
            index = np.asarray([row for _, row in pairs], dtype=np.int64)
        except (TypeError, ValueError, OverflowError):
            report.problems.append(f"{name}: its frames are not numbered; vertices left out")
            continue
        if not pairs:
            report.problems.append(f"{name}: has no frames; vertices left out")
        elif len(pairs) > n_rows:  # each row once: else a small file would write a large one
            report.problems.append(f"{name}: has {len(pairs)} frames, data_verts.npy {n_rows} rows; left out")
        elif index.min() < 0 or index.max() >= n_rows:
            report.problems.append(f"{name}: names row {index.max()} of data_verts.npy, which has {n_rows}; left out")
        else:
            frames[name] = index
            lacking = pairs[-1][0] - pairs[0][0] + 1 - len(pairs)
            if lacking > 0:  # kept, as FaceFormer keeps it, but the motion runs ahead of the sound from there on
                report.problems.append(f"{name}: lacks {lacking} frames; the motion after them is out of sync")
    return frames


def _write_sound(path: Path, name: str, sound: Mapping[object, object], report: PreparationReport) -> bool:
    audio, rate = sound.get("audio"), sound.get("sample_rate")
    if isinstance(rate, np.ndarray) and rate.size == 1:
        rate = rate.item()
    low, high = RATES_HZ
    real = (int, float, np.integer, np.floating)
    if not isinstance(audio, np.ndarray) or not isinstance(rate, real) or not low <= rate <= high:
        what = f"has no audio or no sample rate from {low} to {high} Hz in raw_audio_fixed.pkl"
        report.problems.append(f"{name}: {what}; left out")
        return False
    if preparation.is_complete_wav(path, audio.size, int(rate)):
        report.n_kept += 1
        return True
    try:
        preparation.save_sound(path, audio, int(rate))
    except UserError as error:
        report.problems.append(f"{error}; sound left out")
        return False
    report.n_written += 1
    return True


def _copy_small_files(raw: Path, out: Path) -> None:
    for name in (TEMPLATES_FILE, MASKS_FILE, "FLAME_sample.ply"):
        source, target = raw / name, out / name
        if not source.is_file() or (target.exists() and source.samefile(target)):
            continue
        content = read_bytes(source, largest=_SMALL_FILE)
        if not target.is_file() or target.read_bytes() != content:
            atomic_write_bytes(target, content)
