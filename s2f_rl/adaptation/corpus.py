"""The corpus that an adaptation trains on: takes without meshes, and some recordings with them."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from s2f_rl.adaptation.faces import Faces
from s2f_rl.adaptation.takes import Take
from s2f_rl.data.alignment import write_phones
from s2f_rl.data.audio import write_wav
from s2f_rl.data.description import FILE
from s2f_rl.data.files import atomic_save_npy, atomic_write_bytes, atomic_write_json, load_json
from s2f_rl.data.regions import LANDMARKS_FILE
from s2f_rl.data.templates import FILE as TEMPLATES
from s2f_rl.errors import UserError
from s2f_rl.rewards.calibration.auc import spread_evenly

KEY = "adaptation"
"""Of ``corpus.json``: what the corpus was made from, and which utterance is what."""
ADAPTED, HELD_BACK = "adapted", "held_back"


@dataclass(frozen=True)
class Roles:
    """{utterance of the corpus: what it was called} by what it is for."""

    recordings: dict[str, str]
    adapted: dict[str, str]
    held_back: dict[str, str]


def held_back_takes(n_takes: int, wanted: int | None) -> list[int]:
    """Which of the takes are held back, evenly over them.

    Args:
        wanted: how many; None: a fifth, at least one of four and two of eight, and none of fewer than four.

    Raises:
        UserError: nothing would be left to adapt to.
    """
    if wanted is None:
        wanted = max(n_takes // 5, min(n_takes // 4, 2))  # a single one has no interval
    if not 0 <= wanted < n_takes:
        raise UserError(f"--hold-back {wanted}: of {n_takes} sentences one at least must be adapted to")
    return spread_evenly(n_takes, wanted) if wanted else []


def write_corpus(
    root: Path, takes: list[Take], faces: Faces, hold_back: int | None, made_from: Mapping[str, object]
) -> Roles:
    """Write the corpus folder, whole or not at all.

    All utterances are called ``SUBJECT_sentenceNNNN``. The takes bear the subject whose face and style they get, so
    that its own style is theirs. Split ``train``: as many recordings as there are adapted takes, and these.
    ``validation``: the adapted takes again, since a training run looks at its validation split. ``held_back``: the
    others, which no run opens.

    Args:
        root: a folder that does not exist. takes: in order. faces: see :class:`~s2f_rl.adaptation.faces.Faces`.
        hold_back: see :func:`held_back_takes`.
        made_from: kept in ``corpus.json``.
    """
    held = held_back_takes(len(takes), hold_back)
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for folder in ("wav", "vertices_npy", "phones"):
            (partial / folder).mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{root.parent}: cannot be written ({error.strerror}); choose another --out") from error
    try:
        roles = _write(partial, takes, faces, set(held), made_from)
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return roles


def _write(folder: Path, takes: list[Take], faces: Faces, held: set[int], made_from: Mapping[str, object]) -> Roles:
    adapted = [take for k, take in enumerate(takes) if k not in held]
    recordings = faces.some_recordings(len(adapted))
    roles = Roles({}, {}, {})
    for number, recording in enumerate(recordings, start=1):
        name = f"{recording.subject}_sentence{number:04d}"
        roles.recordings[name] = recording.name
        _link(recording.wav, folder / "wav" / f"{name}.wav")
        _link(recording.vertices, folder / "vertices_npy" / f"{name}.npy")
        if recording.phones.exists():
            _link(recording.phones, folder / "phones" / f"{name}.json")
    ordered = [(roles.adapted, take) for take in adapted]
    ordered += [(roles.held_back, takes[k]) for k in sorted(held)]
    for number, (role, take) in enumerate(ordered, start=len(recordings) + 1):
        name = f"{faces.style}_sentence{number:04d}"
        role[name] = take.label
        write_wav(folder / "wav" / f"{name}.wav", take.waveform, take.rate, "FLOAT")
        if take.phones is not None:
            write_phones(folder / "phones" / f"{name}.json", take.phones)

    atomic_write_bytes(folder / TEMPLATES, pickle.dumps(faces.templates, protocol=2))
    atomic_write_json(folder / LANDMARKS_FILE, faces.regions)
    if faces.triangles is not None:
        atomic_save_npy(folder / "faces.npy", faces.triangles)
    first, last = len(recordings) + 1, len(recordings) + len(adapted)
    splits = {
        "train": {"subjects": list(faces.subjects), "sentences": [1, last]},
        "validation": {"subjects": [faces.style], "sentences": [first, last]},
        HELD_BACK: {"subjects": [faces.style], "sentences": [last + 1, last + len(held)]},
    }
    about = {"recordings": roles.recordings, ADAPTED: roles.adapted, HELD_BACK: roles.held_back}
    description = {
        "format": 1,
        "dataset": "adaptation",
        **faces.description,
        "training_subjects": list(faces.subjects),
        "splits": splits,
        KEY: {**about, "made_from": dict(made_from)},
    }
    atomic_write_json(folder / FILE, description)
    return roles


def read_roles(root: Path, made_from: Mapping[str, object]) -> Roles:
    """Those of a corpus that is there. Raises UserError if it was made from something else."""
    description = load_json(root / FILE)
    about = description.get(KEY) if isinstance(description, dict) else None
    if not isinstance(about, dict) or not {"recordings", ADAPTED, HELD_BACK, "made_from"} <= about.keys():
        raise UserError(f"{root}: is no corpus of an adaptation; choose another --out")
    before = about["made_from"]
    differs = [key for key, value in made_from.items() if not isinstance(before, dict) or before.get(key) != value]
    if differs:
        raise UserError(f"{root}: was made with another {', '.join(differs)}; choose another --out, or delete this one")
    return Roles(about["recordings"], about[ADAPTED], about[HELD_BACK])


def _link(file: Path, name: Path) -> None:
    try:
        name.symlink_to(file)
    except OSError:  # a system or a disk without links
        shutil.copy2(file, name)
