"""A small corpus for tests: no speech synthesiser, no download, a few kilobytes, written in well under a second."""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 22050
WAV2VEC2 = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
"""Settings of the smallest wav2vec2 that is one, and of HuBERT, WavLM and the others that convolve the waveform."""
WAV2VEC2_BERT = {name: value for name, value in WAV2VEC2.items() if "conv" not in name}


def make_tiny_corpus(
    root: str | Path,
    n_subjects: int = 3,
    n_sentences: int = 2,
    n_vertices: int = 40,
    seconds: tuple[float, float] = (0.6, 1.2),
    topology: str = "vocaset",
    audio_only: Collection[str] | str = (),
    seed: int = 0,
    stored_fps: float | None = None,
    frame_step: int = 1,
    metres_per_unit: float | None = None,
    subjects: Sequence[str] | None = None,
) -> Path:
    """Write a corpus in the VOCASET layout (with ``corpus.json``) and return its folder.

    Subjects are ``S0``, ``S1``, ... (or ``subjects``); utterances ``S0_sentence01``, ... The last subject is the test
    subject, the one before it (from 4 subjects on; else the last as well) the validation subject, the others train.

    Args:
        root: folder to write; made when missing.
        n_subjects, n_sentences, n_vertices: sizes; at least 1, 1 and 24.
        seconds: range of the utterances' lengths.
        topology: "vocaset" (stored at 60 fps, every second frame used) or "biwi" (25 fps).
        audio_only: names of utterances without vertices, or "all".
        seed: same seed, same bytes.
        stored_fps, frame_step: in place of the topology's.
        metres_per_unit: unit of templates and vertices in the files; None: metres.
        subjects: names in place of ``S0``, ...; their order is that of the style columns.
    """
    root = Path(root)
    rng = np.random.default_rng(seed)
    usual_fps, step = {"vocaset": (60, 2), "biwi": (25, 1)}[topology]
    stored_fps, step = (usual_fps, step) if stored_fps is None else (stored_fps, frame_step)
    unit = 1.0 if metres_per_unit is None else metres_per_unit
    face, faces, regions = _face(n_vertices)
    subjects = [f"S{k}" for k in range(n_subjects)] if subjects is None else list(subjects)
    n_subjects = len(subjects)
    for folder in ("wav", "vertices_npy"):
        (root / folder).mkdir(parents=True, exist_ok=True)

    templates = {}
    for subject in subjects:
        templates[subject] = (face * rng.uniform(0.92, 1.08, size=(1, 3))).astype(np.float32)
        for sentence in range(1, n_sentences + 1):
            name = f"{subject}_sentence{sentence:02d}"
            duration = rng.uniform(*seconds)
            loudness = _smooth(rng, int(duration * 100) + 2)
            _write_speech(root / "wav" / f"{name}.wav", rng, duration, loudness)
            n_stored = int(duration * stored_fps)
            motion = _motion(rng, face, regions, loudness, np.arange(n_stored) / stored_fps * 100)
            if audio_only != "all" and name not in audio_only:
                vertices = ((templates[subject] + motion) / unit).reshape(n_stored, -1).astype(np.float32)
                np.save(root / "vertices_npy" / f"{name}.npy", vertices)

    with open(root / "templates.pkl", "wb") as file:
        pickle.dump({subject: (t / unit).astype(np.float32) for subject, t in templates.items()}, file, protocol=2)
    with open(root / "FLAME_masks.pkl", "wb") as file:
        pickle.dump(regions, file, protocol=2)
    np.save(root / "faces.npy", faces)
    lips = regions["lips"]
    off_centre, upper = np.abs(face[lips, 0]), face[lips, 1] > MOUTH[1]
    landmarks = {
        "upper_lip": [int(lips[np.where(upper, off_centre, np.inf).argmin()])],
        "lower_lip": [int(lips[np.where(upper, np.inf, off_centre).argmin()])],
    }
    (root / "landmarks.json").write_text(json.dumps(landmarks))
    whole = [1, n_sentences]
    train = subjects[: max(1, n_subjects - (2 if n_subjects > 3 else 1))]
    description = {
        "format": 1,
        "dataset": "synthetic",
        "topology": topology,
        "stored_fps": stored_fps,
        "frame_step": step,
        "units": "metres" if metres_per_unit is None else "units of its own",
        **({} if metres_per_unit is None else {"metres_per_unit": metres_per_unit}),
        "training_subjects": train,
        "splits": {
            "train": {"subjects": train, "sentences": whole},
            "validation": {"subjects": [subjects[-2 if n_subjects > 3 else -1]], "sentences": whole},
            "test": {"subjects": [subjects[-1]], "sentences": whole},
        },
    }
    (root / "corpus.json").write_text(json.dumps(description, indent=1))
    return root


MOUTH = (0.0, -0.045)


def _face(n_vertices: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """A bulging oval of ``n_vertices`` points, 14 cm by 18 cm, whose first third is a ring of lips.

    Returns vertices [V, 3] (x right, y up, z forward, metres), faces [F, 3] and FLAME's names of some regions.
    """
    n_lips = n_vertices // 3
    angle = 2 * np.pi * np.arange(n_lips) / n_lips + np.pi / n_lips
    mouth = np.stack([0.025 * np.cos(angle) + MOUTH[0], 0.008 * np.sin(angle) + MOUTH[1]], axis=1)
    k = np.arange(n_vertices - n_lips) + 0.5
    radius, turn = np.sqrt(k / len(k)), k * 2.399963  # sunflower: evenly spread over the oval
    rest = np.stack([0.07 * radius * np.cos(turn), 0.09 * radius * np.sin(turn)], axis=1)
    flat = np.concatenate([mouth, rest])
    z = 0.06 * np.sqrt(np.clip(1.05 - (flat[:, 0] / 0.07) ** 2 - (flat[:, 1] / 0.09) ** 2, 0, None))
    vertices = np.column_stack([flat, z])
    ring = np.arange(n_vertices)
    faces = np.column_stack([ring, np.roll(ring, -1), np.roll(ring, -2)]).astype(np.int32)
    y, index = vertices[:, 1], np.arange(n_vertices)
    skin = index >= n_lips
    regions = {
        "lips": index[:n_lips],
        "forehead": index[skin & (y > 0.05)],
        "eye_region": index[skin & (y > 0.02) & (y <= 0.05)],
        "nose": index[skin & (np.abs(y) < 0.02) & (np.abs(vertices[:, 0]) < 0.02)],
        "face": index,
    }
    return vertices, faces, {name: region.astype(np.int64) for name, region in regions.items()}


def _smooth(rng: np.random.Generator, length: int) -> np.ndarray:
    """A random curve in 0..1 with bumps of about 0.1 s at 100 values a second."""
    noise = np.convolve(rng.normal(size=length + 40), np.hanning(15), mode="same")[20 : 20 + length]
    return (noise - noise.min()) / max(np.ptp(noise), 1e-9)


def _write_speech(path: Path, rng: np.random.Generator, duration: float, loudness: np.ndarray) -> None:
    t = np.arange(int(duration * RATE_HZ)) / RATE_HZ
    pitch = rng.uniform(90, 220)
    voice = sum(np.sin(2 * np.pi * pitch * k * t + k) / k for k in range(1, 20))
    wave = (voice / 3 + 0.1 * rng.normal(size=len(t))) * (0.05 + np.interp(t * 100, np.arange(len(loudness)), loudness))
    soundfile.write(path, (0.3 * wave).astype(np.float32), RATE_HZ, subtype="PCM_16")


def _motion(
    rng: np.random.Generator, face: np.ndarray, regions: dict[str, np.ndarray], loudness: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """Displacements [T, V, 3] in metres: the jaw follows the loudness, the brow something of its own."""
    jaw = np.interp(at, np.arange(len(loudness)), loudness)
    brow = np.interp(at, np.arange(len(loudness)), _smooth(rng, len(loudness)))
    below = 1 / (1 + np.exp((face[:, 1] - MOUTH[1]) / 0.003))
    above = 1 / (1 + np.exp(-(face[:, 1] - 0.03) / 0.01))
    motion = np.zeros((len(at), len(face), 3))
    motion[..., 1] = -0.010 * jaw[:, None] * below + 0.003 * brow[:, None] * above
    motion[..., 2] = -0.003 * jaw[:, None] * below
    return motion
