"""Pictures of every corruption for docs/corruptions.md: one PNG per family, a panel per corruption.

    python benchmarks/figures/corruptions.py data/demo docs/images [--predictions FOLDER]

Each panel shows the opening of the lips over time in one utterance, true and spoiled at strength 0.33, 0.66 and 1.
``policy_samples`` has a panel if a folder of predictions (``predictions/`` of ``recipes/evaluate.py``) has that
utterance: those of the test split, with ``--split test``. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import io
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2f_rl.data import FaceCorpus
from s2f_rl.data.files import atomic_path
from s2f_rl.data.units import MILLIMETRE
from s2f_rl.rewards.corruptions import CORRUPTIONS, FAMILIES, Corruption, CorruptionContext
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.policy_samples import samples_of
from s2f_rl.rewards.training.recordings import MotionBank

STRENGTHS = {0.33: "#9ecae1", 0.66: "#4292c6", 1.0: "#08459a"}
TRUTH = "#e6550d"
COLUMNS = 2


def opening_mm(displacement: Tensor, context: CorruptionContext) -> Tensor:
    """Distance of the lips [T], mm."""
    motion = context.motion
    return motion.lip_to_lip(context.template + displacement).norm(dim=-1) / MILLIMETRE


def upper_face_mm(displacement: Tensor, context: CorruptionContext) -> Tensor:
    """RMS movement of the upper face from its mean [T], mm."""
    motion = context.motion
    points = (displacement - motion.mean).unflatten(-1, (-1, 3))[:, motion.still]
    return points.square().sum(-1).mean(-1).sqrt() / MILLIMETRE


def draw_family(
    corruptions: list[Corruption], displacement: Tensor, context: CorruptionContext, seed: int, path: Path
) -> None:
    """One picture: true and spoiled curves of some corruptions, in panels with shared axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image  # comes with matplotlib

    rows = math.ceil(len(corruptions) / COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(10, 2.1 * rows + 0.7), dpi=90, sharex=True, squeeze=False)
    seconds = torch.arange(len(displacement)) / context.fps
    for axis, corruption in zip(axes.flat, corruptions, strict=False):
        upper = corruption.name == "upper_face_swap"
        measure = upper_face_mm if upper else opening_mm
        axis.plot(seconds, measure(displacement, context), color=TRUTH, lw=2.4, label="truth")
        for strength, colour in STRENGTHS.items():
            context.generator.manual_seed(seed)
            spoiled = measure(corruption(displacement, strength, context), context)
            axis.plot(seconds, spoiled, color=colour, lw=1.2, label=f"strength {strength:g}")
        axis.set_title(corruption.name, fontsize=10, loc="left")
        axis.set_ylabel("upper face, mm" if upper else "lips apart, mm", fontsize=8)
        axis.set_ylim(bottom=0)
        _plain(axis)
    for axis in axes.flat[len(corruptions) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("seconds", fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncol=4, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / figure.get_figheight()))
    drawn = io.BytesIO()
    figure.savefig(drawn)
    pyplot.close(figure)
    image = Image.open(drawn).convert("RGB").quantize(48)  # a third of the size
    with atomic_path(path) as temporary:
        image.save(temporary, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="pictures of every corruption, one per family")
    parser.add_argument("corpus", help="folder of a corpus, for instance of s2f-rl synthesize data/demo")
    parser.add_argument("out", type=Path, help="folder for corruptions_FAMILY.png")
    parser.add_argument("--split", default="train", help="whose utterance to show")
    parser.add_argument("--utterance", type=int, default=3, help="which one of the split")
    parser.add_argument("--seconds", type=float, default=2.5, help="of it, from its start")
    parser.add_argument("--predictions", help="folder of predicted motion, for policy_samples")
    parser.add_argument("--seed", type=int, default=9, help="of the draws")
    args = parser.parse_args()

    train, corpus = FaceCorpus(args.corpus, "train"), FaceCorpus(args.corpus, args.split)
    bank, motion = MotionBank(corpus), MotionSubspace.fit(train)
    recording = bank[args.utterance]
    frames = slice(0, min(len(recording.displacement), round(args.seconds * corpus.fps)))
    generator = torch.Generator().manual_seed(args.seed)
    context = bank.context(args.utterance, motion, generator, MotionBank(train).fit_regressor(motion), frames)
    if args.predictions:
        samples = samples_of(args.predictions, corpus)
        n_frames = len(recording.displacement)
        context.policy_sample = samples(recording.name, recording.template, n_frames, generator, frames)
    for family in FAMILIES:
        chosen = [each for each in CORRUPTIONS.values() if each.family == family and each.possible(context)]
        path = args.out / f"corruptions_{family}.png"
        draw_family(chosen, recording.displacement[frames], context, args.seed, path)
        print(path)


def _plain(axis: Any) -> None:
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", lw=0.6)
    axis.set_axisbelow(True)


if __name__ == "__main__":
    main()
