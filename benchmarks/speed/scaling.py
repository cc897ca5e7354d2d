"""Time and memory of one RL iteration along one axis, in a process of its own.

    python benchmarks/speed/scaling.py frames|lanes|vertices|corpus VALUE

Full size otherwise: 4 lanes, 100 frames, V=5023, every fifth clip scored, the sound known already. ``corpus``: that
many recorded utterances on disk (sparse files), opened and read once. Prints one JSON line.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import json
import os
import pickle
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.speed.clock import PROCESSOR, now  # noqa: E402
from benchmarks.speed.full_size import FULL, GROUP, Iteration, Task  # noqa: E402
from s2f_rl.data import FaceCorpus  # noqa: E402
from s2f_rl.data.audio import write_wav  # noqa: E402

AXES = ("frames", "lanes", "vertices", "corpus")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("axis", choices=AXES)
    parser.add_argument("value", type=int)
    options = parser.parse_args()
    before = peak_mb()
    if os.environ.get(PROCESSOR):
        torch.set_num_threads(1)
    took = read(options.value) if options.axis == "corpus" else iterate(**{options.axis: options.value})
    row = {options.axis: options.value, "seconds": took, "peak MB": peak_mb(), "of it imports, MB": before}
    print(json.dumps(row))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def iterate(frames: int = 100, lanes: int = GROUP, vertices: int = FULL.vertices) -> float:
    size = FULL._replace(vertices=vertices, utterances=lanes // GROUP, shortest=frames, longest=frames)
    task = Task(size, torch.device("cpu"))
    task.model.encode_audio = lambda mel: F.normalize(torch.randn(len(mel), size.width), dim=-1)
    loop = Iteration(task, lanes, stride=5)
    loop.run()
    began = now()
    loop.run()
    return now() - began


def read(utterances: int, frames: int = 120) -> float:
    with tempfile.TemporaryDirectory() as folder:
        root, shape = Path(folder), (frames, 3 * FULL.vertices)
        for name in ("wav", "vertices_npy"):
            (root / name).mkdir()
        (root / "templates.pkl").write_bytes(pickle.dumps({"S0": np.zeros((FULL.vertices, 3), np.float32)}))
        for k in range(1, utterances + 1):
            write_wav(root / "wav" / f"S0_sentence{k:04d}.wav", np.zeros(22050 * 2), 22050)
            with open(root / "vertices_npy" / f"S0_sentence{k:04d}.npy", "wb") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
                file.truncate(file.tell() + 4 * shape[0] * shape[1])
        began = now()
        corpus = FaceCorpus(root, "all")
        for i in range(len(corpus)):
            assert corpus[i].vertices is not None
        return now() - began


if __name__ == "__main__":
    sys.exit(main())
