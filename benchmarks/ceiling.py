"""The most that an articulation reward can give: an actor's motion with its lips where the density has them.

    python -m benchmarks.ceiling CORPUS OUT --checkpoint RUN --articulation FOLDER [--phones FOLDER] [--split adapted]

Of every utterance, in the first style: the actor's motion, and the same with the density's lip coefficients half of the
way, or all of it, to their mean: in the style of the motion, and of a speaker whose style is not known. Where those are
not nearer to the truth than the actor, no amount of training brings it there: mend the phones (``s2f-rl align
--retime``) or train the density longer first. Writes ``ceiling.csv`` and ``ceiling.md``.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.evaluate import one_motion, open_actor, spread_recorded
from benchmarks.slope import shown_style
from s2f_rl.data import FaceCorpus
from s2f_rl.data.files import atomic_write_text
from s2f_rl.data.units import MILLIMETRE
from s2f_rl.errors import UserError
from s2f_rl.evaluation import motion_measures, true_distances, write_rows
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.latent_motion import coordinates
from s2f_rl.rewards.articulation.density import LipDensity
from s2f_rl.rewards.articulation.likelihood import ArticulationReward

SHARES = (0.5, 1.0)
COLUMNS = {"true_distance": MILLIMETRE, "lve": MILLIMETRE**2, "closure_rate": 1.0, "amplitude_ratio": 1.0}


def towards(displacement: Tensor, mean: Tensor, density: LipDensity, share: float) -> Tensor:
    """A motion with its lips a share of the way to a density's mean; what the density does not tell of stays.

    Args:
        displacement: [T, V*3], metres. mean: lip coefficients [n, K], metres; frames beyond them stay.
        density: whose coefficients they are. share: 1 is all the way.
    """
    n = min(len(displacement), len(mean))
    columns = coordinates(density.lips)
    moved = displacement.clone()
    lips = displacement[:n, columns]
    way = mean[:n].to(lips) - density.coefficients(lips)
    moved[:n, columns] = lips + share * math.sqrt(len(density.lips)) * way @ density.basis.to(lips)
    return moved


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over utterances, a row for each motion."""
    shown = [name for name in COLUMNS if any(name in row for row in rows)]
    units = {MILLIMETRE: " mm", MILLIMETRE**2: " mm²", 1.0: ""}
    lines = ["| lips | " + " | ".join(f"{name}{units[COLUMNS[name]]}" for name in shown) + " |"]
    lines.append("|---|" + "---|" * len(shown))
    for motion in dict.fromkeys(row["motion"] for row in rows):
        cells = []
        for name in shown:
            values = [row[name] for row in rows if row["motion"] == motion and math.isfinite(row.get(name, math.nan))]
            cells.append(f"{sum(values) / len(values) / COLUMNS[name]:.3f}" if values else "–")
        lines.append(f"| {motion} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", required=True, help="the actor")
    parser.add_argument("--articulation", required=True, metavar="FOLDER", help="a density of lips")
    parser.add_argument("--phones", metavar="FOLDER", help="timings that it reads (default: the corpus's own)")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--utterances", type=int, default=16, help="spread evenly (default: %(default)s)")
    options = parser.parse_args(argv)
    corpus = FaceCorpus(options.corpus, split=options.split)
    reward = ArticulationReward(corpus, folder=options.articulation, phones=options.phones)
    actor = open_actor(options.checkpoint, corpus)
    audio = CachedAudio(actor.audio_encoder, corpus)
    meter = true_distances(corpus, "auto")
    rows: list[dict[str, Any]] = []
    for i in spread_recorded(corpus, options.utterances):
        utterance = corpus[i]
        found = one_motion(actor, audio, corpus, i)
        motions = {"the actor's": found}
        styles = {"in the style of the motion": shown_style(corpus, i), "of a style not known": None}
        said = reward.prepare(utterance)
        for told, style in styles.items():
            mean, _ = reward.expected(said, style)
            for share in SHARES:
                name = f"{'half of the way to ' if share < 1 else ''}the density's mean {told}"
                motions[name] = towards(found, mean, reward.density, share)
        for name, displacement in motions.items():
            vertices = (displacement + utterance.template)[None]
            row = {"motion": name, "utterance": utterance.name, "subject": utterance.subject}
            row |= motion_measures(vertices, utterance, corpus.regions, corpus.fps, timing=False)[0]
            if meter is not None:
                row |= meter.columns(utterance, vertices, face=False)[0]
            rows.append(row)
    write_rows(options.out / "ceiling.csv", rows)
    text = table(rows)
    atomic_write_text(options.out / "ceiling.md", text)
    print(text)
    return rows


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
