"""Writes the built-in corpus in the VOCASET layout."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from s2f_rl.data.annotations import read_phones
from s2f_rl.data.coefficients.basis import FILE as BASIS_FILE
from s2f_rl.data.coefficients.rig import FILE as RIG_FILE
from s2f_rl.data.coefficients.rig import FOLDER
from s2f_rl.data.files import atomic_save_npy, atomic_write_bytes, atomic_write_text, load_json
from s2f_rl.data.synthetic.arkit import ArkitFace
from s2f_rl.data.synthetic.coarticulation import generate
from s2f_rl.data.synthetic.face import Face, face_colours, regions
from s2f_rl.data.synthetic.hidden import Hidden
from s2f_rl.data.synthetic.sentences import MAX_SENTENCES, first_unseen, sentence_text
from s2f_rl.data.synthetic.speakers import FORMAT as SPEAKERS_FORMAT
from s2f_rl.data.synthetic.speakers import SPEAKERS_FILE, Complexion, Speaker, make_speaker
from s2f_rl.data.synthetic.speech import Speech, require_espeak, speak
from s2f_rl.data.synthetic.topology import MIN_VERTICES
from s2f_rl.errors import UserError
from s2f_rl.signs import Watch
from s2f_rl.threads import available_cores

MOTIONS = ("vertices", "arkit")
STORED_FPS = 60
FRAME_STEP = 2
REQUEST_FILE = "synthesis.json"
"""What the folder was asked for; an interrupted run with the same request goes on."""
REQUEST_FORMAT = 2
"""Goes up when the same arguments come to give other bytes, so that two versions never mix in one folder."""
MAX_SPEAKERS = 99
MAX_VERTICES = 100_000


@dataclass(frozen=True)
class Cast:
    """The speakers and their parts."""

    train: tuple[Speaker, ...]
    validation: tuple[Speaker, ...]
    test: tuple[Speaker, ...]
    audio_only: tuple[Speaker, ...]

    @property
    def everyone(self) -> tuple[Speaker, ...]:
        return self.train + self.validation + self.test + self.audio_only


@dataclass(frozen=True)
class PlannedUtterance:
    """One utterance to be made. key: seed of the hidden variation, speaker index, sentence number."""

    name: str
    text: str
    speaker: Speaker
    key: tuple[int, int, int]
    has_vertices: bool


@dataclass(frozen=True, eq=False)
class Take:
    """What one stored utterance was made from: `generate(take.phones, take.n_frames, speaker, take.hidden)`."""

    name: str
    subject: str
    phones: list[tuple[str, float, float]]
    n_frames: int
    hidden: Hidden


def synthesize(
    out: str | os.PathLike[str],
    subjects: int = 12,
    sentences: int = 40,
    vertices: int = 600,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    audio_only_subjects: int = 0,
    hidden_seed: int | None = None,
    hidden_scale: float = 1.0,
    motion: str = "vertices",
) -> Path:
    """Write the built-in corpus: speech, phone timings and a moving face. Returns the folder.

    The same arguments give the same bytes, whatever `workers` is. An interrupted run is taken up again when called with
    the same arguments; a folder that holds anything else is refused.

    out: folder, new or empty. subjects: speakers with ground truth, 3 to 99, of whom about a sixth each (at least one)
    are for validation and test (12: 8, 2, 2). sentences: per speaker, 1 to 64; validation and test use the upper half,
    whose words no training speaker says. vertices: V of the face, exactly, 300 or more. seed: of faces, styles and
    hidden variation; voices and texts do not depend on it. workers: threads, the number of cores by default.
    progress: show a progress bar. audio_only_subjects: further training speakers with speech and template but no
    vertices. hidden_seed: of the hidden variation alone (default: seed). hidden_scale: its size; 0 leaves none, so that
    audio and speaker determine the motion. motion: "vertices", or "arkit": coefficients of ARKit's names, on one face
    for all speakers (see `arkit`).

    Files (N utterances, T60 frames at 60 fps, metres): wav/NAME.wav (22.05 kHz, 16 bit), vertices_npy/NAME.npy float32
    [T60, V*3], templates.pkl, FLAME_masks.pkl, faces.npy int32 [F, 3], landmarks.json, colours.npy uint8 [V, 3] and one
    for each speaker in colours/, phones/NAME.json, hidden/NAME.npz, transcripts.json, speakers.json, corpus.json.
    With "arkit" coefficients_npy/NAME.npy float32 [T60, 52], coefficients.json and basis.npz take the place of
    vertices_npy, templates.pkl, colours/, hidden and speakers.json.

    Raises `UserError` for an argument out of range, a folder that is in use, or when espeak-ng is not installed.
    """
    root = Path(out)
    if hidden_seed is None:
        hidden_seed = seed
    request = _checked_request(subjects, sentences, vertices, seed, audio_only_subjects, hidden_seed, hidden_scale)
    if motion not in MOTIONS:
        raise UserError(f"motion={motion!r}: known are {', '.join(MOTIONS)}")
    if motion != MOTIONS[0]:  # the others' request is as it was when there was one motion
        request["motion"] = motion
    n_workers = workers if workers is not None else available_cores()
    if isinstance(n_workers, bool) or not isinstance(n_workers, int) or n_workers < 1:
        raise UserError(f"workers={workers!r}: must be a whole number from 1")
    require_espeak()
    _claim_folder(root, request)
    cast = _cast(request)
    face = ArkitFace(vertices) if motion == "arkit" else None
    _write_common(root, cast, vertices, face)
    jobs = [
        PlannedUtterance(
            name=f"{speaker.name}_sentence{number:02d}",
            text=sentence_text(index, number, sentences, speaker not in cast.validation + cast.test),
            speaker=speaker,
            key=(hidden_seed, index, number),
            has_vertices=speaker not in cast.audio_only,
        )
        for index, speaker in enumerate(cast.everyone)
        for number in range(1, sentences + 1)
    ]
    _run(root, jobs, float(hidden_scale), n_workers, progress, face)
    atomic_write_text(root / "transcripts.json", _json({job.name: job.text for job in jobs}))
    # last: a folder with corpus.json is complete
    atomic_write_text(root / "corpus.json", _json(_description(cast, request)))
    return root


def load_take(root: str | os.PathLike[str], name: str) -> Take:
    """Read what a stored utterance was made from. Raises `UserError` when the corpus is not a built-in one."""
    folder = Path(root)
    phones = read_phones(folder / "phones" / f"{name}.json")
    if phones is None:
        raise UserError(f"{folder / 'phones' / f'{name}.json'}: missing; only the built-in corpus has takes")
    hidden = Hidden.load(folder / "hidden" / f"{name}.npz")
    return Take(name, name.rpartition("_sentence")[0], phones, stored_frames(phones[-1][2]), hidden)


class _Request(TypedDict):
    format: int
    subjects: int
    sentences: int
    vertices: int
    seed: int
    audio_only_subjects: int
    hidden_seed: int
    hidden_scale: float


class Request(_Request, total=False):
    """What is in the request file."""

    motion: str


def _checked_request(
    subjects: int, sentences: int, vertices: int, seed: int, audio_only: int, hidden_seed: int, hidden_scale: float
) -> Request:
    limits = {
        "subjects": (subjects, 3, MAX_SPEAKERS),
        "sentences": (sentences, 1, MAX_SENTENCES),
        "vertices": (vertices, MIN_VERTICES, MAX_VERTICES),
        "seed": (seed, 0, 2**63 - 1),
        "audio_only_subjects": (audio_only, 0, MAX_SPEAKERS - 3),
        "hidden_seed": (hidden_seed, 0, 2**63 - 1),
    }
    for key, (value, low, high) in limits.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
            raise UserError(f"{key}={value!r}: must be a whole number from {low} to {high}")
    if subjects + audio_only > MAX_SPEAKERS:
        raise UserError(f"subjects + audio_only_subjects = {subjects + audio_only}: at most {MAX_SPEAKERS} together")
    if isinstance(hidden_scale, bool) or not isinstance(hidden_scale, (int, float)) or not 0 <= hidden_scale <= 2:
        raise UserError(f"hidden_scale={hidden_scale!r}: must be a number from 0 to 2")
    return {
        "format": REQUEST_FORMAT,
        "subjects": int(subjects),
        "sentences": int(sentences),
        "vertices": int(vertices),
        "seed": int(seed),
        "audio_only_subjects": int(audio_only),
        "hidden_seed": int(hidden_seed),
        "hidden_scale": float(hidden_scale),
    }


def _claim_folder(root: Path, request: Mapping[str, object]) -> None:
    """Start in a new or empty folder, or go on where a run with the same request stopped."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root}: is a file; choose a folder for the corpus")
    record = root / REQUEST_FILE
    try:
        held = sorted(p.name for p in root.iterdir()) if root.exists() else []
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror}); choose another folder") from error
    if record.exists():
        before = load_json(record)
        if before != request:
            made = before if isinstance(before, dict) else {}
            keys = [k for k in {**request, **made} if made.get(k) != request.get(k)]
            raise UserError(f"{root}: holds a corpus made with another {', '.join(keys)}; choose another folder")
        for left_over in root.rglob(".*.tmp*"):  # of a run that was killed while it wrote
            left_over.unlink(missing_ok=True)
        return
    # what a run that was killed in its first moment leaves behind is nobody's data
    foreign = [name for name in held if not (name.startswith(f".{Path(REQUEST_FILE).stem}.") and ".tmp" in name)]
    if foreign:
        raise UserError(f"{root}: is not empty (it holds {foreign[0]}); choose a new folder for the corpus")
    atomic_write_text(record, _json(request))


def _cast(request: Request) -> Cast:
    """All speakers: training first (they are the style columns), then validation, test, audio only."""
    n, extra = request["subjects"], request["audio_only_subjects"]
    everyone = [make_speaker(i, request["seed"], request["vertices"]) for i in range(n + extra)]
    held = max(1, round(n / 6))
    train, validation, test = n - 2 * held, n - held, n
    parts = (everyone[:train], everyone[train:validation], everyone[validation:test], everyone[test:])
    return Cast(*(tuple(part) for part in parts))


def _write_common(root: Path, cast: Cast, vertices: int, arkit: ArkitFace | None) -> None:
    speakers = cast.everyone
    rig = speakers[0].rig if arkit is None else arkit.rig
    atomic_write_bytes(root / "FLAME_masks.pkl", pickle.dumps(regions(vertices), protocol=2))
    atomic_save_npy(root / "faces.npy", rig.face.topology.faces)
    atomic_write_text(root / "landmarks.json", _json({"upper_lip": [rig.upper_lip], "lower_lip": [rig.lower_lip]}))
    atomic_save_npy(root / "colours.npy", _colours(rig.face, Complexion()))
    if arkit is not None:
        arkit.basis.save(root / BASIS_FILE)
        about = {"names": list(arkit.basis.names), "fps": STORED_FPS, "convention": "arkit"}
        atomic_write_text(root / RIG_FILE, _json(about))
        return
    templates = {s.name: s.template for s in speakers}
    atomic_write_bytes(root / "templates.pkl", pickle.dumps(templates, protocol=2))
    for s in speakers:
        atomic_save_npy(root / "colours" / f"{s.name}.npy", _colours(s.face, s.complexion))
    content = {"format": SPEAKERS_FORMAT, "speakers": [s.to_json() for s in speakers]}
    atomic_write_text(root / SPEAKERS_FILE, _json(content))


def _colours(face: Face, complexion: Complexion) -> NDArray[np.uint8]:
    return face_colours(face, complexion.skin, complexion.lips, complexion.hair, complexion.iris)


def _run(
    root: Path,
    jobs: list[PlannedUtterance],
    hidden_scale: float,
    n_workers: int,
    progress: bool,
    arkit: ArkitFace | None,
) -> None:
    """Make all utterances. Threads are enough: espeak-ng runs in processes of its own and numpy lets go of the lock."""
    with (
        ThreadPoolExecutor(n_workers) as pool,
        Watch("synthesize", len(jobs), "utterance", enabled=progress) as bar,
    ):
        waiting = [pool.submit(_make_utterance, root, job, hidden_scale, arkit) for job in jobs]
        try:
            for done in as_completed(waiting):
                done.result()
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _make_utterance(root: Path, job: PlannedUtterance, hidden_scale: float, arkit: ArkitFace | None) -> None:
    """Write one utterance; what is already there is complete, since files appear by renaming, and is kept."""
    wav, phones = root / "wav" / f"{job.name}.wav", root / "phones" / f"{job.name}.json"
    take = root / "hidden" / f"{job.name}.npz"
    motion = root / ("vertices_npy" if arkit is None else FOLDER) / f"{job.name}.npy"
    wanted = [wav, phones]
    if job.has_vertices:
        wanted += [take, motion] if arkit is None else [motion]
    if all(path.exists() for path in wanted):
        return
    speech = speak(job.text, job.speaker.voice)
    atomic_write_text(phones, json.dumps(speech.phones, separators=(", ", ": ")) + "\n")
    if job.has_vertices:
        hidden = draw_hidden(speech, job.speaker, job.key, hidden_scale)
        what = speech.phones, stored_frames(speech.phones[-1][2]), job.speaker, hidden, STORED_FPS
        if arkit is None:
            atomic_write_bytes(take, hidden.to_bytes())
            atomic_save_npy(motion, displaced(job.speaker, generate(*what)))
        else:
            atomic_save_npy(motion, arkit.coefficients(*what))
    atomic_write_bytes(wav, speech.wav_bytes())


def draw_hidden(speech: Speech, speaker: Speaker, key: tuple[int, int, int], scale: float) -> Hidden:
    """The hidden variation of an utterance; key is (seed, speaker index, sentence number)."""
    rng = np.random.default_rng(np.random.SeedSequence([*key, 2]))
    return sample_hidden(rng, len(speech.phones), speech.duration_s, speaker, scale)


def sample_hidden(rng: np.random.Generator, n_phones: int, duration_s: float, speaker: Speaker, scale: float) -> Hidden:
    """The hidden variation of so much speech, in the speaker's manner."""
    style = speaker.style
    return Hidden.sample(rng, n_phones, duration_s, style.blink_hz, style.brow_hz, style.brow_height, scale)


def displaced(speaker: Speaker, displacement: NDArray[np.float64]) -> NDArray[np.float32]:
    """Vertices [T, V*3] float32 (metres) as they are stored: the template plus a displacement of `generate`."""
    return (speaker.template.astype(np.float64).reshape(-1) + displacement).astype(np.float32)


def stored_frames(duration_s: float) -> int:
    """Stored frames of an utterance: those that begin before the sound ends."""
    return int(np.floor(duration_s * STORED_FPS + 1e-6))


def _description(cast: Cast, request: Request) -> dict[str, object]:
    n = request["sentences"]
    upper = [first_unseen(n), n]

    def names(speakers: tuple[Speaker, ...]) -> list[str]:
        return [s.name for s in speakers]

    return {
        "format": 1,
        "dataset": "synthetic",
        "topology": "vocaset",
        "stored_fps": STORED_FPS,
        "frame_step": FRAME_STEP,
        "units": "metres",
        "training_subjects": names(cast.train),
        "splits": {
            "train": {"subjects": names(cast.train + cast.audio_only), "sentences": [1, n]},
            "validation": {"subjects": names(cast.validation), "sentences": upper},
            "test": {"subjects": names(cast.test), "sentences": upper},
        },
        "audio_only_subjects": names(cast.audio_only),
        "synthesis": request,
    }


def _json(content: object) -> str:
    return json.dumps(content, indent=1) + "\n"
