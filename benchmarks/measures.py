"""All measures side by side on motions whose quality is known: does each rank them as a person would?

    python -m benchmarks.measures CORPUS OUT --checkpoint RUN --reward FOLDER --judge FOLDER

The ground truth, an actor, and the ground truth spoilt in known ways. Writes ``measures.md``, ``sequences.csv``,
``measures.csv`` and ``measures.mp4`` (one utterance, all motions side by side) to compare figures with the eye.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.evaluate import open_actor
from s2f_rl.data import FaceCorpus
from s2f_rl.data.files import atomic_write_text
from s2f_rl.errors import UserError
from s2f_rl.evaluation import (
    Scorer,
    counts,
    long_rows,
    measure_motions,
    predict_corpus,
    summarise,
    true_distances,
    write_rows,
)
from s2f_rl.evaluation.summary import told
from s2f_rl.metrics.measures import definitions
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.render import corpus_look, render_film
from s2f_rl.rewards.judge.judge import load_scorer

SMOOTH_S, GAIN, SHIFT_S = 0.1, 1.5, 0.1
FACTORS = {"m^2": (1e6, "mm²"), "m": (1e3, "mm"), "m/frame": (1e3, "mm/frame")}


def spoilt(truth: Tensor, template: Tensor, fps: float) -> dict[str, Tensor]:
    """The ground truth [T, V*3] (metres), and what was done to it."""
    times = torch.arange(len(truth)) - SHIFT_S * fps
    low = times.floor().clamp(0, len(truth) - 1).long()
    share = (times - times.floor()).unsqueeze(-1)
    later = truth[low] * (1 - share) + truth[(low + 1).clamp(max=len(truth) - 1)] * share
    return {
        "ground truth": truth,
        f"smoothed {SMOOTH_S * 1000:.0f} ms": smooth(truth, SMOOTH_S * fps),
        f"{GAIN} x amplitude": template + GAIN * (truth - template),
        "frozen": template.expand_as(truth),
        f"late by {SHIFT_S * 1000:.0f} ms": later,
    }


def smooth(motion: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing along time [T, ..], sigma in frames, the ends held."""
    reach = max(1, round(4 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    held = torch.cat([motion[:1].expand(reach, -1), motion, motion[-1:].expand(reach, -1)])
    return torch.einsum("tvk,k->tv", held.unfold(0, 2 * reach + 1, 1), kernel / kernel.sum())


def as_markdown(table: dict[str, dict[str, float]], regions: dict[str, Tensor]) -> str:
    """A row per measure, a column per motion."""
    known = definitions(regions)
    lines = ["| measure | unit | " + " | ".join(table) + " |", "|---|---|" + "---|" * len(table)]
    for column in dict.fromkeys(name for values in table.values() for name in values):
        unit = known.get("fdd" if column == "fdd_abs" else column, {}).get("unit", "1")
        factor, shown = FACTORS.get(unit, (1.0, unit))
        cells = [f"{values[column] * factor:.3g}" if column in values else "-" for values in table.values()]
        lines.append(f"| {column} | {shown} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", help="actor to stand beside them, in its first style")
    parser.add_argument("--reward", help="folder of a reward model")
    parser.add_argument("--judge", help="folder of another")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--utterances", type=int, default=10, help="how many, spread evenly (default: %(default)s)")
    parser.add_argument("--film", type=int, default=0, help="which of them to film (default: %(default)s)")
    options = parser.parse_args(argv)

    corpus = FaceCorpus(options.corpus, split=options.split)
    chosen = list(range(0, len(corpus), max(1, len(corpus) // options.utterances)))[: options.utterances]
    models = {n: load_scorer(p) for n, p in (("train", options.reward), ("judge", options.judge)) if p}
    scorer = Scorer(models, corpus) if models else None
    plausible = true_distances(corpus, "auto")
    actor = open_actor(options.checkpoint, corpus) if options.checkpoint else None

    rows = []
    for k, i in enumerate(chosen):
        utterance = corpus[i]
        if utterance.vertices is None:
            continue
        motions = spoilt(utterance.vertices, utterance.template, corpus.fps)
        if actor is not None:
            found = next(predict_corpus(actor, CachedAudio(actor.audio_encoder, corpus), [i], [[0]])).displacement[0]
            motions["actor"] = (found + utterance.template)[: len(utterance.vertices)]
        names = list(motions)
        n = min(map(len, motions.values()))
        stacked = torch.stack([m[:n] for m in motions.values()])
        rows += measure_motions(i, utterance, stacked, names, corpus, scorer, True, plausible)
        if k == options.film:
            faces = None if corpus.faces is None else corpus.faces.numpy()
            sound = (utterance.waveform_raw.numpy(), utterance.sample_rate)
            shown = [m.numpy() for m in stacked]
            look = corpus_look(corpus, shown, utterance.subject)
            render_film(shown, names, faces, sound, corpus.fps, options.out / "measures.mp4", size=320, **look)

    table = {name: summarise([row for row in rows if row["condition"] == name]) for name in names}
    text = as_markdown(table, corpus.regions)
    missing = {
        f"{column} ({name}) {told(count)}"
        for name in names
        for column, count in counts([row for row in rows if row["condition"] == name]).items()
        if count["sequences_not_measured"]
    }
    text += f"\nNot measured everywhere: {'; '.join(sorted(missing))}.\n" if missing else ""
    write_rows(options.out / "sequences.csv", rows)
    write_rows(options.out / "measures.csv", long_rows(rows, definitions(corpus.regions)))
    atomic_write_text(options.out / "measures.md", text)
    print(text)
    return table


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
