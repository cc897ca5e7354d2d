"""What a run of full size writes: the sizes of its checkpoints, in MB (10^6 bytes).

    python benchmarks/speed/checkpoint_sizes.py

A supervised run with wav2vec2-base (random weights; the encoder trains) at V=5023, a PPO run that starts from it and
one that starts from that: one iteration each on a few frames, in a temporary folder; two minutes and 4 GB of disk.
Prints a JSON line per file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from s2f_rl.data.synthetic import synthesize
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder))


def measure(root: Path) -> None:
    corpus = synthesize(root / "corpus", 3, 2, vertices=5023, progress=False)
    RewardModel(SpeechMeshTransformer(3 * 5023, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8)).save(
        root / "reward"
    )
    common = [f"corpus.root={corpus}", f"root={root}", "iterations=1", "max_frames=20", "logger=none"]
    _run("supervised", *common, "name=supervised", "actor=wav2vec2", "actor.audio.pretrained=null", "batch_size=1")
    start = [f"start={root / 'supervised'}", f"reward.folder={root / 'reward'}", "lanes=2", "group_size=2"]
    _run("ppo", *common, "name=ppo", *start, "minibatch_lanes=2")
    _run("ppo", *common, "name=again", f"start={root / 'ppo'}", *start[1:], "minibatch_lanes=2")
    for run in ("supervised", "ppo", "again"):
        for path in sorted((root / run).glob("*.pt")):
            about = path.stat()
            print(
                json.dumps(
                    {"run": run, "file": path.name, "MB": round(about.st_size / 1e6, 1), "links": about.st_nlink}
                )
            )


def _run(recipe: str, *overrides: str) -> None:
    subprocess.run([sys.executable, str(RECIPES / f"{recipe}.py"), *overrides], check=True)


if __name__ == "__main__":
    main()
