"""The curves of the tour, from a finished demo: ``python benchmarks/figures/tour.py checkpoints/demo docs/images``."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.evaluation import predict_corpus
from s2f_rl.metrics import bilabial_frames, lip_distance, rest_lip_distance
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.runs import read_rows

COLOURS = {"truth": "#222222", "supervised": "#888888", "control": "#3f51b5", "PPO": "#d1541a"}
RUNS = {"control": "control", "PPO": "ppo"}


def curves(demo: Path, out: Path) -> None:
    """Validation scores of PPO and its control over the frames they trained on."""
    columns = {
        "validation/lip_score": ("lip score", 1.0),
        "validation/real_score": ("real score", 1.0),
        "validation/lve": ("LVE, mm²", 1e6),
    }
    figure, axes = plt.subplots(1, len(columns), figsize=(10, 2.8), layout="constrained")
    for axis, (key, (title, factor)) in zip(axes, columns.items(), strict=True):
        for name, folder in RUNS.items():
            rows = [row for row in read_rows(demo / folder / "metrics.jsonl") if key in row]
            axis.plot(
                [row["frames"] / 1000 for row in rows],
                [factor * row[key] for row in rows],
                "o-",
                color=COLOURS[name],
                label=name,
            )
        axis.set(title=title, xlabel="thousand frames")
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(out, dpi=110)


def lips(demo: Path, corpus: FaceCorpus, name: str, out: Path) -> None:
    """Lip opening over one test sentence; grey where the lips should close."""
    index = corpus.index(name)
    utterance = corpus[index]
    pair = {lip: corpus.regions[lip] for lip in ("upper_lip", "lower_lip")}
    motions = {"truth": utterance.vertices}
    for label, file in {"supervised": demo / "supervised", "PPO": demo / "ppo" / "last.pt"}.items():
        actor, _ = load_actor(file)
        prediction = next(predict_corpus(actor, CachedAudio(actor.audio_encoder, corpus), [index], [[0]]))
        motions[label] = torch.as_tensor(prediction.displacement[0]) + utterance.template
    figure, axis = plt.subplots(figsize=(10, 2.8), layout="constrained")
    seconds = np.arange(utterance.n_frames) / corpus.fps
    closed = bilabial_frames(utterance.phones, utterance.n_frames, corpus.fps)
    axis.fill_between(
        seconds, 0, 1, where=closed.numpy(), color="#dddddd", step="mid", transform=axis.get_xaxis_transform()
    )
    for label, motion in motions.items():
        axis.plot(seconds, 1000 * lip_distance(motion, **pair), color=COLOURS[label], label=label)
    axis.axhline(1000 * float(rest_lip_distance(utterance.template, **pair)), color="k", ls="--", lw=0.8)
    axis.set(xlabel="seconds", ylabel="lip opening, mm", title=utterance.transcript, xlim=(0, seconds[-1]))
    axis.legend(frameon=False, ncol=3)
    figure.savefig(out, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder that the demo wrote")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--corpus", default="data/demo", help="its corpus (default: %(default)s)")
    parser.add_argument("--utterance", help="of the test speakers; default: the first")
    options = parser.parse_args(arguments)
    corpus = FaceCorpus(options.corpus, split="test")
    curves(options.demo, options.out / "tour_curves.png")
    lips(options.demo, corpus, options.utterance or corpus[0].name, options.out / "tour_lips.png")


if __name__ == "__main__":
    main()
