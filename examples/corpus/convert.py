"""Motion from elsewhere to the layout of ``FaceCorpus``: NAME.wav and NAME.npz (``vertices`` [T, V, 3] mm, 50 fps).

    python examples/corpus/convert.py RAW OUT

Names are SUBJECT_sentenceNN; ``RAW/neutral.npz`` holds every subject's face at rest [V, 3] under its name.
"""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path

import numpy as np

from s2f_rl.data.files import atomic_save_npy, atomic_write_bytes, atomic_write_json
from s2f_rl.errors import UserError


def convert(raw: Path, out: Path) -> int:
    """Write the corpus; returns the number of utterances. Files that are complete already are kept."""
    neutral = np.load(raw / "neutral.npz", allow_pickle=False)
    recordings = sorted(path for path in raw.glob("*.npz") if path.name != "neutral.npz")
    if not recordings:
        raise UserError(f"{raw}: holds no NAME.npz beside neutral.npz; give the folder with the recordings")
    for folder in ("wav", "vertices_npy"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for path in recordings:
        target = out / "vertices_npy" / f"{path.stem}.npy"
        if not target.exists():
            vertices = np.load(path, allow_pickle=False)["vertices"]
            shutil.copyfile(path.with_suffix(".wav"), out / "wav" / f"{path.stem}.wav")
            atomic_save_npy(target, vertices.reshape(len(vertices), -1).astype(np.float32))
    subjects = sorted(neutral.files)
    atomic_write_bytes(out / "templates.pkl", pickle.dumps({s: neutral[s].astype(np.float32) for s in subjects}))
    *train, held_out = subjects
    everything = [1, 9999]
    atomic_write_json(
        out / "corpus.json",  # every key: s2f_rl/data/description.py
        {
            "dataset": "mine",
            "units": "mm",
            "stored_fps": 50,
            "frame_step": 2,
            "training_subjects": train,
            "splits": {
                "train": {"subjects": train, "sentences": everything},
                "validation": {"subjects": [held_out], "sentences": everything},
            },
        },
    )
    return len(recordings)


if __name__ == "__main__":
    print(f"{convert(Path(sys.argv[1]), Path(sys.argv[2]))} utterances in {sys.argv[2]}")
