"""``check``: every fault of a corpus at once, before hours of training tell of the first."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from s2f_rl.data.annotations import read_transcripts
from s2f_rl.data.check_mesh import check_mesh
from s2f_rl.data.check_utterance import MotionStatistics, Setting, check_sound, check_vertices
from s2f_rl.data.coefficients.check import check_beside_vertices, check_coefficients, find_rig
from s2f_rl.data.coefficients.rig import FILE as RIG_FILE
from s2f_rl.data.coefficients.rig import FOLDER, Rig, description_of, resting_faces
from s2f_rl.data.description import FILE, N_VERTICES, CorpusDescription, default_description
from s2f_rl.data.faults import ERROR, WARNING, Fault, Faults, format_faults
from s2f_rl.data.files import is_there, npy_header
from s2f_rl.data.mesh_files import find_faces
from s2f_rl.data.regions import MASKS_FILE, TEXT_LISTS, Regions, load_regions
from s2f_rl.data.splits import parse_name, select, subjects_of
from s2f_rl.data.templates import COEFFICIENTS, load_templates, looks_like_coefficients
from s2f_rl.data.templates import FILE as TEMPLATES_FILE
from s2f_rl.data.units import PLAUSIBLE_EXTENT_M, guess_unit, published_unit
from s2f_rl.errors import UserError
from s2f_rl.signs import watched

__all__ = ["Fault", "Faults", "check_corpus", "format_faults"]
_STILL_MM, _SMALL_MM, _LARGE_MM = 0.02, 0.3, 20.0
"""Root mean square motion of the lips: none, suspiciously little, more than speech makes (it makes 1 to 5 mm)."""


def check_corpus(root: str | os.PathLike[str], topology: str | None = None, *, progress: bool = False) -> Faults:
    """Look through a whole corpus and list everything that is wrong with it.

    Every file is read once, vertices in pieces; nothing is written, and nothing in the files makes it raise.

    Args:
        root: the corpus folder.
        topology: "vocaset" or "biwi"; None takes what ``corpus.json`` says, else "vocaset".
        progress: show a progress bar.

    Returns:
        A list of :class:`Fault` (empty for a sound corpus) whose ``counts`` say how much was seen.
    """
    root = Path(root)
    faults = Faults(root)
    if not root.is_dir():
        faults.add(ERROR, root, "no such corpus folder", "check the path, or make one with s2f-rl synthesize")
        return faults
    is_rig, rig = find_rig(root, faults)
    described = _description(root, rig, topology, faults)
    # without it, nothing is known of rates, units and splits, and nothing is said of them
    description = described or default_description(topology if topology in N_VERTICES else "vocaset")
    sounds = _listed(root, "wav", ".wav", faults)
    moved = FOLDER if is_rig else "vertices_npy"
    spoken, recorded = set(sounds), set(_listed(root, moved, ".npy", faults))
    if not spoken:
        faults.add(ERROR, "wav", "holds no .wav files", "a corpus needs wav/NAME.wav (s2f-rl prepare makes them)")
    for name in sorted(recorded - spoken):
        faults.add(ERROR, f"{moved}/{name}.npy", "has no sound", f"add wav/{name}.wav or remove it")
    for folder, suffix in (("wav_npy", ".npy"), ("phones", ".json"), ("hidden", ".npz")):
        for name in sorted(_listed(root, folder, suffix, faults, others=False).keys() - spoken):
            faults.add(WARNING, f"{folder}/{name}{suffix}", "belongs to no utterance", "remove it")

    if is_rig and not is_there(root / TEMPLATES_FILE):
        templates = {} if rig is None else _of_basis(rig, sounds, description)
    else:
        templates = _templates(root, description if described else None, faults)
    recorded -= recorded if is_rig and rig is None else _coefficients(root, moved, recorded, templates, faults)
    n_vertices = next(iter(templates.values())).size // 3 if templates else _usual_vertices(root, recorded)
    if rig is not None and not rig.has_mesh:
        setting = Setting(description, 1.0, n_vertices, None, sounds, described is not None)
    else:
        setting = _setting(root, description, described is not None, templates, n_vertices, sounds, faults)
    _check_names(sounds, described, templates, faults)

    motion: dict[str, MotionStatistics] = {}
    names = sorted(spoken)
    for name in watched(names, "check", unit="utterance", enabled=progress):
        subject = parse_name(name)[0]
        try:
            seconds = check_sound(root, name, setting, faults)
            faults.counts.seconds += seconds or 0.0
            if name in recorded:
                statistics = motion.setdefault(subject, MotionStatistics())
                if rig is None:
                    faults.counts.frames += check_vertices(
                        root, name, seconds, setting, templates.get(subject), statistics, faults
                    )
                else:
                    faults.counts.frames += check_coefficients(root, name, seconds, setting, rig, statistics, faults)
        except Exception as error:  # a check reports what it cannot read; it never ends in a traceback
            faults.add(ERROR, sounds[name], f"cannot be checked ({type(error).__name__}: {error})", "replace it")
    for subject, statistics in sorted(motion.items()) if described else ():
        _check_motion(f"{moved}/{subject}_*.npy", statistics, setting, faults)
    if rig is not None:
        check_beside_vertices(root, recorded, templates, setting.metres_per_unit, rig, faults)
    counts = faults.counts
    counts.utterances, counts.recorded, counts.vertices = len(spoken), len(spoken & recorded), n_vertices or 0
    if rig is not None:
        counts.coefficients, counts.vertices = len(rig.names), counts.vertices if rig.has_mesh else 0
    counts.subjects = len({parse_name(name)[0] for name in spoken})
    return faults


def _description(root: Path, rig: Rig | None, topology: str | None, faults: Faults) -> CorpusDescription | None:
    try:
        return description_of(root, rig, topology)
    except UserError as error:
        faults.add_error(root / (RIG_FILE if str(root / RIG_FILE) in str(error) else FILE), error)
        return None


def _of_basis(rig: Rig, sounds: dict[str, Path], description: CorpusDescription) -> dict[str, np.ndarray]:
    """The basis's face for everybody, in the unit of the corpus's files."""
    faces, _ = resting_faces(Path(), rig, dict.fromkeys(parse_name(name)[0] for name in sounds))
    return {subject: face / (description.metres_per_unit or 1.0) for subject, face in faces.items()}


def _coefficients(
    root: Path, folder: str, recorded: set[str], templates: dict[str, np.ndarray], faults: Faults
) -> set[str]:
    """The names of files that hold coefficients where vertices are expected, told in one fault."""
    if folder == FOLDER:
        return set()
    size = next(iter(templates.values())).size if templates else None
    found: dict[str, int] = {}
    for name in sorted(recorded):
        try:
            shape = npy_header(root / "vertices_npy" / f"{name}.npy")[0][1:]
        except UserError:
            continue
        if shape != (size,) and looks_like_coefficients(shape):
            found[name] = shape[0]
    if found and not any("blendshape" in fault.message for fault in faults):
        first = next(iter(found))
        message, _, remedy = f"each frame is {found[first]} numbers, {COEFFICIENTS}".rpartition("; ")
        others = f" (and {len(found) - 1} other files)" if len(found) > 1 else ""
        faults.add(ERROR, f"vertices_npy/{first}.npy", message + others, remedy)
    return set(found)


def _listed(root: Path, folder: str, suffix: str, faults: Faults, others: bool = True) -> dict[str, Path]:
    """{name: file} of a folder; faults for what does not belong there and for files that differ in case only."""
    path = root / folder
    if not path.exists():
        return {}
    try:
        entries = sorted(os.listdir(path))
    except OSError as error:
        faults.add(ERROR, folder, f"cannot be listed ({error.strerror})", "it must be a readable folder")
        return {}

    def belongs(entry: str) -> bool:
        return (entry.lower() if folder == "wav" else entry).endswith(suffix)  # recorders write .WAV

    kept = [entry for entry in entries if belongs(entry) and not entry.startswith(".")]
    if others:
        for entry in entries:
            if entry.startswith(".") and ".tmp" in entry:
                faults.add(WARNING, f"{folder}/{entry}", "was left by an interrupted write", "remove it")
            elif not entry.startswith(".") and not belongs(entry):
                faults.add(WARNING, f"{folder}/{entry}", f"is no {suffix} file", "remove it, or convert it")
    lower = Counter(entry.lower() for entry in kept)
    for entry in kept:
        if lower[entry.lower()] > 1:
            faults.add(ERROR, f"{folder}/{entry}", "differs from another only in case", "rename one of them")
    return {entry[: -len(suffix)]: path / entry for entry in kept}


def _templates(root: Path, description: CorpusDescription | None, faults: Faults) -> dict[str, np.ndarray]:
    try:
        templates = load_templates(root)
    except UserError as error:
        faults.add_error(root / TEMPLATES_FILE, error)
        return {}
    if description is None:
        return templates
    n_vertices = next(iter(templates.values())).size // 3
    expected = N_VERTICES[description.topology]
    if n_vertices != expected and not (root / FILE).exists():
        other = next((name for name, count in N_VERTICES.items() if count == n_vertices), None)
        hint = (
            f"open it with topology {other}"
            if other
            else "get the audiovisual corpus B3D(AC)2 (the BIWI Kinect head pose set has no speech)"
            if description.topology == "biwi"
            else f"describe your own corpus in {FILE}"
        )
        message = f"faces of {n_vertices} vertices, {description.topology} has {expected}"
        faults.add(ERROR if other or description.topology == "biwi" else WARNING, TEMPLATES_FILE, message, hint)
    return templates


def _usual_vertices(root: Path, recorded: set[str]) -> int | None:
    """Without templates: V of most vertex files, so that the odd ones are still found; None without any."""
    widths: Counter[int] = Counter()
    for name in recorded:
        try:
            shape = npy_header(root / "vertices_npy" / f"{name}.npy")[0]
        except UserError:
            continue
        widths[int(np.prod(shape[1:])) // 3] += 1
    return widths.most_common(1)[0][0] if widths else None


def _setting(
    root: Path,
    description: CorpusDescription,
    is_described: bool,
    templates: dict[str, np.ndarray],
    n_vertices: int | None,
    sounds: dict[str, Path],
    faults: Faults,
) -> Setting:
    """Look at units, regions, faces and transcripts, and collect what the checks of an utterance need."""
    extents = {s: float(np.ptp(flat.reshape(-1, 3), axis=0).max()) for s, flat in templates.items()}
    metres = description.metres_per_unit
    if metres is None:
        metres = published_unit(templates)
    wrong = {
        s: extent
        for s, extent in extents.items()
        if is_described and not PLAUSIBLE_EXTENT_M[0] <= extent * metres <= PLAUSIBLE_EXTENT_M[1]
    }
    for subject, extent in wrong.items():
        unit = guess_unit(extent)
        faults.add(
            ERROR,
            TEMPLATES_FILE,
            f"the face of {subject} is {extent * metres:.3g} m long, a head is 0.1 to 0.6 m; it looks like {unit}",
            "name the unit of the files in corpus.json (units), or convert templates and vertices to metres",
        )
    if extents and (len(wrong) == len(extents) or not is_described):  # what follows is measured in the guessed unit
        metres = guess_unit(float(np.median(list(extents.values())))).metres_per_unit or metres
    regions: Regions | None = None
    triangles = None
    if n_vertices is not None:
        regions = _regions(root, n_vertices, faults)
        try:
            triangles = find_faces(root, n_vertices)
            if triangles is None:
                remedy = "add faces.npy [F, 3], FLAME_sample.ply or BIWI.ply to see films"
                faults.add(WARNING, "faces.npy", "no triangles, the faces cannot be drawn", remedy)
        except UserError as error:
            faults.add_error(root / "faces.npy", error)
    alike = {s: flat * metres for s, flat in templates.items() if s not in wrong or len(wrong) == len(extents)}
    check_mesh(root, alike, regions, triangles, faults)
    try:
        read_transcripts(root / "transcripts.json")
    except UserError as error:
        faults.add_error(root / "transcripts.json", error, WARNING)
    lips = regions.get("lips") if regions is not None else None
    return Setting(description, metres, n_vertices, None if lips is None else lips.numpy(), sounds, is_described)


def _regions(root: Path, n_vertices: int, faults: Faults) -> Regions:
    regions = load_regions(root, n_vertices, on_fault=faults.add_error)
    for region in ("lips", "upper_face"):
        if region not in regions:
            faults.add(
                WARNING,
                MASKS_FILE,
                f"no {region} region, its metrics and rewards cannot be computed",
                f"add {MASKS_FILE} (FLAME) or {TEXT_LISTS[region]}",
            )
    return regions


def _check_names(
    sounds: dict[str, Path], description: CorpusDescription | None, templates: dict[str, np.ndarray], faults: Faults
) -> None:
    known = subjects_of(description.splits, description.training_subjects) if description else None
    by_subject: dict[str, list[str]] = {}
    for name in sorted(sounds):
        subject, sentence = parse_name(name)
        by_subject.setdefault(subject, []).append(name)
        if description and (not subject or sentence is None):
            faults.add(WARNING, sounds[name], "its name is not SUBJECT_sentenceNN, no split holds it", "rename it")
    for subject, names in by_subject.items():
        if subject and templates and subject not in templates:
            message = f"no template of {subject}, who has {len(names)} utterances"
            faults.add(ERROR, TEMPLATES_FILE, message, "add the subject's neutral face or remove the utterances")
        if subject and known is not None and subject not in known:
            message = f"{subject} is in no split ({len(names)} utterances)"
            faults.add(WARNING, sounds[names[0]], message, f"check the name, or name the splits in {FILE}")
    if description is None:
        return
    for split in description.splits:
        chosen = select(set(sounds), split, description.splits, description.topology, "")
        faults.counts.splits[split] = len(chosen)
        if sounds and not chosen:
            faults.add(WARNING, "wav", f"no utterance belongs to the split {split}", f"name the splits in {FILE}")
    absent = [subject for subject in description.training_subjects if subject not in by_subject]
    if absent and sounds:
        message = f"no utterance of the training subjects {', '.join(absent)}: their style columns are never trained"
        faults.add(WARNING, "wav", message, "add their recordings")


def _check_motion(where: str, statistics: MotionStatistics, setting: Setting, faults: Faults) -> None:
    amplitude = statistics.amplitude(setting.lips)
    if amplitude is None:
        return
    millimetres = amplitude * setting.metres_per_unit * 1000
    what = "the lips" if setting.lips is not None else "the most mobile tenth of the face"
    if millimetres < _STILL_MM:
        faults.add(ERROR, where, f"the face does not move ({what}: {millimetres:.2g} mm rms)", "check the export")
    elif millimetres < _SMALL_MM:
        message = f"the face hardly moves ({what}: {millimetres:.2g} mm rms; speech makes 1 to 5)"
        faults.add(WARNING, where, message, "check units, and that frames differ")
    elif millimetres > _LARGE_MM:
        message = f"the face moves too much ({what}: {millimetres:.3g} mm rms; speech makes 1 to 5)"
        faults.add(WARNING, where, message, "check units, remove head motion")
