"""Evaluation of an actor over a split: every utterance in every style condition, one row for each."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from s2f_rl.data import FaceCorpus
from s2f_rl.data.files import atomic_path, atomic_save_npy, atomic_write_text
from s2f_rl.errors import UserError
from s2f_rl.evaluation.measure import Scorer, definitions, motion_measures
from s2f_rl.evaluation.predict import predict_corpus
from s2f_rl.models import FaceFormer
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.rewards import RewardModel
from s2f_rl.runs.rows import package_versions, source_commit

logger = logging.getLogger(__name__)

MEAN = "mean"  # condition of the style-independent prediction
Row = dict[str, Any]


def style_columns(corpus: Any, subject: str, conditions: str | Sequence[int]) -> list[int]:
    """Style columns that an utterance is predicted with.

    ``"all"``: every training subject. ``"own"``: the speaker's own for training subjects, else all. A list: those.
    """
    everyone = list(range(len(corpus.subjects)))
    if conditions == "all":
        return everyone
    if conditions == "own":
        return [corpus.subjects.index(subject)] if subject in corpus.subjects else everyone
    if isinstance(conditions, str):
        raise UserError(f"conditions={conditions!r} is unknown: use all, own or a list of style columns")
    wrong = [c for c in conditions if c not in everyone]
    if wrong:
        raise UserError(f"conditions={list(conditions)}: the corpus has style columns 0 to {len(everyone) - 1}")
    return list(conditions)


def evaluate_actor(
    actor: FaceFormer,
    corpus: Any,
    scorer: Scorer | None = None,
    audio: CachedAudio | None = None,
    conditions: str | Sequence[int] = "all",
    timing: bool = True,
    predictions: Path | None = None,
    progress: bool = False,
) -> list[Row]:
    """Predict and measure every utterance of a corpus split, deterministically.

    Args:
        actor: the model.
        corpus: a :class:`~s2f_rl.data.FaceCorpus` of the split.
        scorer: reward models; None leaves their columns out.
        audio: cached audio features; made when None.
        conditions: see :func:`style_columns`.
        timing: also the slower measures of timing (MTM, lag).
        predictions: folder for ``NAME_condition_SUBJECT.npy`` (vertices [T, V*3], float32, metres) and
            ``NAME_condition_mean.npy``; None: not written.
        progress: show a bar.

    Returns:
        rows with ``utterance``, ``subject``, ``condition`` (a training subject, or ``mean`` for the mean prediction
        over the conditions), ``frames`` and the measures of :func:`motion_measures` and :meth:`Scorer.scores`.
    """
    if actor.decoder.n_outputs != 3 * corpus.n_vertices:
        raise UserError(
            f"the checkpoint animates {actor.n_vertices} vertices, the corpus has {corpus.n_vertices}: use a corpus of "
            "the topology that it was trained on"
        )
    if actor.decoder.n_subjects != len(corpus.subjects):
        raise UserError(
            f"the checkpoint has {actor.decoder.n_subjects} style columns, the corpus {len(corpus.subjects)} training "
            "subjects: use the corpus that it was trained on"
        )
    audio = CachedAudio(actor.audio_encoder, corpus) if audio is None else audio
    styles = [style_columns(corpus, corpus[i].subject, conditions) for i in range(len(corpus))]
    rows: list[Row] = []
    found = predict_corpus(actor, audio, range(len(corpus)), styles)
    for prediction in tqdm(found, total=len(corpus), disable=None if progress else True, desc="evaluate", leave=False):
        utterance = corpus[prediction.utterance]
        vertices = prediction.displacement + utterance.template
        names = [corpus.subjects[c] for c in prediction.styles]
        if len(names) > 1:
            vertices = torch.cat([vertices, vertices.mean(0, keepdim=True)])
            names.append(MEAN)
        rows += _measure(prediction.utterance, utterance, vertices, names, corpus, scorer, timing)
        if predictions is not None:
            for name, motion in zip(names, vertices, strict=True):
                atomic_save_npy(predictions / f"{utterance.name}_condition_{name}.npy", motion.numpy())
    return rows


def evaluate_truth(corpus: Any, scorer: Scorer | None = None, timing: bool = True) -> list[Row]:
    """The same measures of the ground truth itself: what a perfect animation would get. Skips audio-only utterances."""
    rows: list[Row] = []
    for i in range(len(corpus)):
        utterance = corpus[i]
        if utterance.vertices is not None:
            rows += _measure(i, utterance, utterance.vertices.unsqueeze(0), ["truth"], corpus, scorer, timing)
    return rows


def _measure(
    index: int, utterance: Any, vertices: Tensor, names: list[str], corpus: Any, scorer: Scorer | None, timing: bool
) -> list[Row]:
    measured = motion_measures(vertices, utterance, corpus.regions, corpus.fps, timing)
    scored = [{} for _ in names] if scorer is None else scorer.scores(index, vertices)
    return [
        {
            "utterance": utterance.name,
            "subject": utterance.subject,
            "condition": name,
            "frames": vertices.shape[1],
            **measures,
            **scores,
        }
        for name, measures, scores in zip(names, measured, scored, strict=True)
    ]


def summarise(rows: Iterable[Row]) -> dict[str, float]:
    """Mean of every numeric column over the rows where it is finite; ``fdd_abs`` is the mean of |fdd|."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for column, value in row.items():
            if isinstance(value, float) and math.isfinite(value):
                values.setdefault(column, []).append(value)
                if column == "fdd":
                    values.setdefault("fdd_abs", []).append(abs(value))
    return {column: sum(v) / len(v) for column, v in values.items()}


def summaries(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """``style_dependent`` (mean over utterances x training subjects) and ``style_independent`` (mean predictions)."""
    dependent = [row for row in rows if row["condition"] != MEAN]
    independent = [row for row in rows if row["condition"] == MEAN]
    out = {"style_dependent": summarise(dependent)}
    if independent:
        out["style_independent"] = summarise(independent)
    return out


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Rows as csv, atomically; the columns are the union over the rows, in order of first appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_report(out: Path, rows: Sequence[Row], corpus: Any, scorer: Scorer | None, about: Mapping[str, Any]) -> dict:
    """``sequences.csv`` (per sequence) and ``summary.json`` (means, definitions, versions); returns the latter."""
    summary = {
        **about,
        **summaries(rows),
        "sequences": len(rows),
        "definitions": definitions(corpus.regions),
        "reward_models": {} if scorer is None else scorer.hashes,
        "commit": source_commit(),
        "versions": package_versions(),
    }
    write_rows(out / "sequences.csv", rows)
    atomic_write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def evaluate_checkpoint(
    checkpoint: str | Path,
    corpus_root: str | Path,
    out: str | Path,
    split: str = "test",
    topology: str | None = None,
    reward: str | Path | None = None,
    judge: str | Path | None = None,
    conditions: str | Sequence[int] = "all",
    save_predictions: bool = True,
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate a checkpoint file on a split of a corpus folder: ``s2f-rl evaluate`` and ``recipes/evaluate.py``.

    Writes ``out/sequences.csv``, ``out/summary.json`` and, with ``save_predictions``, ``out/predictions/*.npy``.

    Args:
        checkpoint: see :func:`~s2f_rl.models.checkpoint.load_actor`.
        corpus_root, split, topology: see :class:`~s2f_rl.data.FaceCorpus`.
        reward, judge: folders of reward models; they must not be the same model.
        conditions: see :func:`style_columns`.

    Returns:
        the summary.
    """
    corpus = FaceCorpus(corpus_root, split=split, topology=topology)
    actor, _ = load_actor(checkpoint, corpus.topology)
    actor.to(device)
    models = {name: path for name, path in (("train", reward), ("judge", judge)) if path is not None}
    scorer = Scorer({n: RewardModel.load(p, device=device) for n, p in models.items()}, corpus) if models else None
    out = Path(out)
    predictions = out / "predictions" if save_predictions else None
    rows = evaluate_actor(actor, corpus, scorer, None, conditions, True, predictions, progress)
    about = {"checkpoint": str(checkpoint), "corpus": str(corpus_root), "split": split}
    return write_report(out, rows, corpus, scorer, about)
