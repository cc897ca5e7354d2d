"""Scoring at full size: `s2f-rl score` against the plain loop that runs both halves on every clip alone.

    python benchmarks/speed/score.py [--sequences 2] [--frames 60] [--styles 1] [--device cpu] [--small]

Motions and sounds are noise, weights are random (V=5023, width 512, depth 10, 8 heads); what is measured does not
depend on them. Both ways score the same files in one run and must agree to 1e-5. Cold: no audio feature is known. Warm:
all are on disk, as in every scoring of the same test set after the first. With ``--styles`` each utterance has several
motions, as in an evaluation: its audio is encoded once. Prints one JSON line.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from s2f_rl.data.audio import write_wav
from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.evaluation.score import score_folder, utterance_name
from s2f_rl.evaluation.speech import WavFolder
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer

TOLERANCE = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=2)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--styles", type=int, default=1, help="motions per utterance")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", action="store_true", help="V=200, width 64, depth 2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), options)))


def measure(root: Path, options: argparse.Namespace) -> dict:
    vertices, width, depth = (200, 64, 2) if options.small else (5023, 512, 10)
    write_files(root, vertices, options)
    torch.manual_seed(0)
    backbone = SpeechMeshTransformer(3 * vertices, width=width, depth=depth, n_heads=8)
    model = RewardModel(backbone, ScoreHead(width, width)).to(options.device)
    frames = options.sequences * options.styles * options.frames
    row: dict = {"vertices": vertices, "width": width, "sequences": options.sequences, "styles": options.styles}
    row |= {"frames": frames, "device": options.device, "threads": torch.get_num_threads()}

    start = now(options.device)
    expected = one_by_one(root, model)
    row["loop_s"] = now(options.device) - start
    for temperature in ("cold", "warm"):
        start = now(options.device)
        rows = score_folder(
            root / "meshes", None, model, root / f"{temperature}.csv", wavs=root / "wav", cache_folder=root / "cache"
        )
        row[f"{temperature}_s"] = now(options.device) - start
        for found in rows:
            for key, value in expected[found["file"]].items():
                row["largest_difference"] = max(row.get("largest_difference", 0.0), abs(found[key] - value))
    assert row["largest_difference"] <= TOLERANCE, row
    row["loop_frames_per_s"] = round(frames / row["loop_s"], 1)
    for temperature in ("cold", "warm"):
        row[f"{temperature}_frames_per_s"] = round(frames / row[f"{temperature}_s"], 1)
        row[f"{temperature}_ratio"] = round(row["loop_s"] / row[f"{temperature}_s"], 2)
    return {k: round(v, 3) if k.endswith("_s") else v for k, v in row.items()}


def write_files(root: Path, vertices: int, options: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    rest = rng.normal(0, 0.05, 3 * vertices)
    (root / "meshes").mkdir()
    for k in range(options.sequences):
        name = f"utterance{k:02d}"
        write_wav(root / "wav" / f"{name}.wav", rng.normal(0, 0.1, int((options.frames / 30 + 0.1) * 22050)), 22050)
        for style in range(options.styles):
            motion = rest + np.cumsum(rng.normal(0, 1e-3, (options.frames, 3 * vertices)), axis=0)
            np.save(root / "meshes" / f"{name}_condition_{style}.npy", motion.astype(np.float32))


@torch.no_grad()
def one_by_one(root: Path, model: RewardModel) -> dict[str, dict[str, float]]:
    """The plain loop: for each clip both halves on that clip alone, then the head."""
    wavs = WavFolder(root / "wav")
    means = {}
    for path in sorted((root / "meshes").glob("*.npy")):
        motion = torch.from_numpy(np.load(path)).to(model.device)
        mel = wavs[wavs.names.index(utterance_name(path))].mel_clips.to(model.device)
        scores = []
        for i in range(min(len(mel), len(motion) - CLIP_FRAMES + 1)):
            mesh, audio = model.backbone(motion[i : i + CLIP_FRAMES][None], mel[i][None, None])
            lip, real, value = model.head(audio, mesh)
            scores.append([float(lip), float(real), float(value)])
        means[path.name] = dict(zip((*model.score_names, "value"), np.mean(scores, axis=0), strict=True))
    return means


def now(device: str) -> float:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    sys.exit(main())
