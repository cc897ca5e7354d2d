"""Evaluation of an actor over a split: every utterance in every style condition, one row for each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from s2f_rl.data import FaceCorpus
from s2f_rl.data.coefficients.rig import require_mesh
from s2f_rl.data.contract import Corpus, SpokenUtterance
from s2f_rl.data.files import atomic_save_npy, atomic_write_json
from s2f_rl.data.motion_files import save_motion
from s2f_rl.data.splits import parse_name
from s2f_rl.errors import UserError
from s2f_rl.evaluation.intervals import bootstrap_intervals
from s2f_rl.evaluation.motions import motions_together
from s2f_rl.evaluation.predict import predict_corpus
from s2f_rl.evaluation.scorer import Scorer, styles_of
from s2f_rl.evaluation.summary import MEAN, counts, summaries
from s2f_rl.evaluation.tables import Row, long_rows, require_format, write_rows
from s2f_rl.evaluation.truth import TrueDistances, true_distances
from s2f_rl.metrics.coefficients import coefficient_measures
from s2f_rl.metrics.measures import Measure, definitions, motion_measures, own_measures
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.contract import Actor
from s2f_rl.models.meeting import load_actor_for, refuse_other_corpus
from s2f_rl.provenance import package_versions, source_commit
from s2f_rl.rewards.parts import Rewards
from s2f_rl.rewards.registry import reward_in
from s2f_rl.signs import Watch

logger = logging.getLogger(__name__)

_TOGETHER = 64


def style_columns(corpus: Corpus, subject: str, conditions: str | Sequence[int]) -> list[int]:
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
    actor: Actor,
    corpus: Corpus,
    scorer: Scorer | None = None,
    audio: CachedAudio | None = None,
    conditions: str | Sequence[int] = "all",
    timing: bool = True,
    predictions: Path | None = None,
    progress: bool = False,
    plausible: TrueDistances | None = None,
    more: Sequence[Measure] = (),
    stride: int = 1,
    styles: int | None = None,
    mean: bool = True,
    precision: str = "float32",
) -> list[Row]:
    """Predict and measure every utterance of a corpus split, deterministically.

    Args:
        actor: the model.
        corpus: a :class:`~s2f_rl.data.FaceCorpus` of the split.
        scorer: reward models; None leaves their columns out.
        audio: cached audio features; made when None.
        conditions: see :func:`style_columns`.
        timing: also the slower measures of timing (MTM, lag).
        predictions: folder for ``NAME_condition_SUBJECT`` and ``NAME_condition_mean``, each with the suffix of its
            precision; None: not written.
        progress: show a bar.
        plausible: measures true distances (built-in corpus); None leaves their columns out.
        more: measures of one's own, a column each.
        stride: rewards score every stride-th clip only.
        styles: of the conditions, so many for each utterance at most, the next ones for the next; None: all.
        mean: also measure the mean prediction over the conditions.
        precision: of the predictions' files, see :func:`~s2f_rl.data.motion_files.save_motion`.

    An utterance of more than 20 seconds is predicted and measured in one condition after another. Each holds all of its
    faces and the truth's, since measures of dynamics, strength, lag and closure look at all frames at once.

    Returns:
        rows with ``utterance``, ``subject``, ``condition`` (a training subject, or ``mean`` for the mean prediction
        over the conditions), ``frames`` and the measures of :func:`motion_measures`, :meth:`Scorer.scores` and
        :meth:`TrueDistances.columns`. The ``mean`` row holds ``diversity_over_styles`` of the conditions' lips.
    """
    refuse_other_corpus(actor, corpus)
    audio = CachedAudio(actor.audio_encoder, corpus) if audio is None else audio
    columns = [_in_turn(style_columns(corpus, corpus[i].subject, conditions), styles, i) for i in range(len(corpus))]
    rows: list[Row] = []
    with Watch("evaluate", len(corpus), enabled=progress, leave=False) as watch:
        for motions in motions_together(actor, corpus, audio, columns, mean):
            scored = None
            if scorer is not None:
                scored = scorer.scores_together(
                    [(m.utterance, m.vertices) for m in motions],
                    timing,
                    stride,
                    [styles_of(corpus, m.names) for m in motions],
                )
            for k, own in enumerate(motions):
                utterance = corpus[own.utterance]
                rows += measure_motions(
                    own.utterance, utterance, own.vertices, own.names, corpus, None, timing, plausible, more,
                    None if scored is None else scored[k],
                )  # fmt: skip
                rows[-1] |= own.spread
                if predictions is not None:
                    for name, motion in zip(own.names, own.vertices, strict=True):
                        path = _prediction(predictions, utterance.name, name)
                        save_motion(path, motion, utterance.template, precision)
                watch.update(own.last)
    return rows


def _in_turn(columns: list[int], most: int | None, turn: int) -> list[int]:
    """``most`` of the columns, so that over the turns each is had as often as any other."""
    if most is None or most >= len(columns):
        return columns
    return [columns[(turn * most + k) % len(columns)] for k in range(most)]


def predict_own_styles(actor: Actor, corpus: FaceCorpus, folder: str | Path, cache: str | Path | None = None) -> Path:
    """Write what ``actor`` makes of every recorded utterance in its speaker's own style; files that are there stay.

    Args:
        actor: trained on this corpus. corpus: the training split.
        folder: for ``NAME_condition_SUBJECT.npy``, vertices [T, V*3], float32, metres.
        cache: folder for audio features; None: they are kept in memory.

    Returns:
        ``folder``, as :class:`~s2f_rl.rewards.training.policy_samples.PolicySamples` reads it.

    Raises:
        UserError: the actor is of another corpus.
    """
    refuse_other_corpus(actor, corpus)
    subjects = {i: parse_name(name)[0] for i, name in enumerate(corpus.names) if corpus.has_vertices(i)}
    files = {i: _prediction(Path(folder), corpus.names[i], subject) for i, subject in subjects.items()}
    files = {i: path.with_name(path.name + ".npy") for i, path in files.items()}
    audio, everyone = CachedAudio(actor.audio_encoder, corpus, cache), list(files)
    # always in the same batches: what is predicted together changes the last bits
    for batch in (everyone[k : k + _TOGETHER] for k in range(0, len(everyone), _TOGETHER)):
        if all(files[i].exists() for i in batch):
            continue
        styles = [style_columns(corpus, subjects[i], "own") for i in batch]
        for found in predict_corpus(actor, audio, batch, styles):
            if not files[found.utterance].exists():
                vertices = corpus[found.utterance].template + found.displacement[0]
                atomic_save_npy(files[found.utterance], vertices.numpy())
    return Path(folder)


def _prediction(folder: Path, utterance: str, condition: str) -> Path:
    """Of a file, without its suffix."""
    return folder / f"{utterance}_condition_{condition}"


def evaluate_truth(
    corpus: Corpus,
    scorer: Scorer | None = None,
    timing: bool = True,
    plausible: TrueDistances | None = None,
    more: Sequence[Measure] = (),
) -> list[Row]:
    """The same measures of the ground truth itself: what a perfect animation would get. Skips audio-only utterances."""
    rows: list[Row] = []
    for i in range(len(corpus)):
        utterance = corpus[i]
        if utterance.vertices is not None:
            motion = utterance.vertices.unsqueeze(0)
            rows += measure_motions(i, utterance, motion, ["truth"], corpus, scorer, timing, plausible, more)
    return rows


def measure_motions(
    index: int,
    utterance: SpokenUtterance,
    vertices: Tensor,
    names: list[str],
    corpus: Corpus,
    scorer: Scorer | None = None,
    timing: bool = True,
    plausible: TrueDistances | None = None,
    more: Sequence[Measure] = (),
    scored: list[dict[str, float]] | None = None,
) -> list[Row]:
    """A row for each of the motions [K, T, V*3] (metres) of utterance ``index``; ``names``: their conditions.

    ``scored``: what the scorer says of them, where that is known.
    """
    measured = motion_measures(vertices, utterance, corpus.regions, corpus.fps, timing, more)
    if scored is None:
        scored = [{} for _ in names] if scorer is None else scorer.scores(index, vertices, readability=timing)
    distances = [{} for _ in names] if plausible is None else plausible.columns(utterance, vertices)
    return [
        {
            "utterance": utterance.name,
            "subject": utterance.subject,
            "condition": name,
            "frames": vertices.shape[1],
            **measures,
            **scores,
            **distance,
        }
        for name, measures, scores, distance in zip(names, measured, scored, distances, strict=True)
    ]


def write_report(
    out: Path,
    rows: Sequence[Row],
    corpus: Corpus,
    scorer: Scorer | None,
    about: Mapping[str, object],
    rows_format: str = "csv",
    more: Sequence[Measure] = (),
) -> dict:
    """Write the rows and a summary to folder ``out``; returns the summary.

    ``sequences.csv`` has a row per utterance and condition, ``measures.csv`` (or ``.parquet``) one per value, with
    metric, version, unit and mask; ``summary.json`` has means, over how many utterances each is and how many could not
    be measured (``counts``, see :func:`counts`), their 95% intervals (see
    :func:`~s2f_rl.evaluation.intervals.bootstrap_intervals`), definitions and versions.
    """
    require_format(rows_format)
    defined = definitions(corpus.regions, more)
    parts = {"style_dependent": [r for r in rows if r["condition"] != MEAN]}
    parts["style_independent"] = [r for r in rows if r["condition"] == MEAN]
    summary = {
        **about,
        **summaries(rows),
        "counts": {kind: counts(own) for kind, own in parts.items() if own},
        "intervals_95": {kind: bootstrap_intervals(own) for kind, own in parts.items() if own},
        "sequences": len(rows),
        "definitions": defined,
        "reward_models": {} if scorer is None else scorer.hashes,
        "commit": source_commit(),
        "versions": package_versions(),
    }
    write_rows(out / "sequences.csv", rows)
    write_rows(out / f"measures.{rows_format}", long_rows(rows, defined))
    atomic_write_json(out / "summary.json", summary)
    return summary


def evaluate_checkpoint(
    checkpoint: str | Path,
    corpus_root: str | Path,
    out: str | Path,
    split: str = "test",
    topology: str | None = None,
    reward: str | Path | Rewards | None = None,
    judge: str | Path | Rewards | None = None,
    conditions: str | Sequence[int] = "all",
    save_predictions: bool = True,
    device: str = "cpu",
    progress: bool = True,
    rows_format: str = "csv",
    true_distance: str | bool = "false",
    measures: Sequence[str] = (),
    predictions: str = "float32",
    cache: str | Path | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint file on a split of a corpus folder: ``s2f-rl evaluate`` and ``recipes/evaluate.py``.

    Writes what :func:`write_report` does and, with ``save_predictions``, ``out/predictions/``.

    Args:
        checkpoint: see :func:`~s2f_rl.models.checkpoint.load_actor`.
        corpus_root, split, topology: see :class:`~s2f_rl.data.FaceCorpus`.
        reward, judge: folders of reward models or of densities of lips, or any rewards; they must not be the same.
        conditions: see :func:`style_columns`.
        rows_format: ``csv``, or ``parquet`` (needs pyarrow) for the row per value.
        true_distance: ``true``, ``false`` or ``auto`` (where the corpus is the built-in one): also measure the distance
            to the nearest plausible motion, about two seconds for each prediction.
        measures: of one's own, as ``package.module:NAME`` (:class:`~s2f_rl.metrics.measures.Measure`).
        predictions: precision of the predictions' files, see :func:`~s2f_rl.data.motion_files.save_motion`.
        cache: folder for audio features of the actor and the reward models; None: they are kept in memory.

    Returns:
        the summary.
    """
    require_format(rows_format)
    more = own_measures(measures)
    corpus = FaceCorpus(corpus_root, split=split, topology=topology)
    actor, _ = load_actor_for(checkpoint, corpus)
    actor.to(device)
    models = {name: path for name, path in (("train", reward), ("judge", judge)) if path is not None}
    if models:
        require_mesh(corpus, "a reward")
    if corpus.rig is not None and not corpus.rig.has_mesh:
        more += coefficient_measures(corpus.rig.names)
    opened = {n: reward_in(r, corpus, device) if isinstance(r, (str, Path)) else r for n, r in models.items()}
    scorer = Scorer(opened, corpus, cache) if models else None
    out = Path(out)
    audio = CachedAudio(actor.audio_encoder, corpus, cache)
    rows = evaluate_actor(
        actor, corpus, scorer, audio, conditions, True, out / "predictions" if save_predictions else None, progress,
        true_distances(corpus, true_distance), more, precision=predictions,
    )  # fmt: skip
    about = {"checkpoint": str(checkpoint), "corpus": str(corpus_root), "split": split}
    return write_report(out, rows, corpus, scorer, about, rows_format, more)
