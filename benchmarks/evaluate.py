"""Checkpoints on a split, by the reward and by judges, one row per sequence. ``run.py`` starts it for every run."""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.harness.rewards import TRAIN, TrainRewards, open_judge
from s2f_rl.data import FaceCorpus
from s2f_rl.data.splits import parse_name
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer, TrueDistances, motion_measures, predict_corpus, true_distances, write_rows
from s2f_rl.evaluation.evaluate import style_columns
from s2f_rl.evaluation.scorer import styles_of
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.contract import Actor
from s2f_rl.models.meeting import load_actor_for
from s2f_rl.rewards import RewardModel
from s2f_rl.rewards.judge.judge import load_scorer
from s2f_rl.runs.main import show_log
from s2f_rl.runs.mistakes import mistake_line
from s2f_rl.runs.tether import die_with_starter

Row = dict[str, Any]


def open_actor(path: str | Path, corpus: FaceCorpus) -> Actor:
    """The actor of a run folder or checkpoint. Raises UserError, naming it, if it is one of another corpus."""
    return load_actor_for(path, corpus)[0]


def one_motion(actor: Actor, audio: CachedAudio, corpus: FaceCorpus, utterance: int) -> Tensor:
    """Displacement [T, V*3] of one utterance, in its speaker's style, or in the first for a speaker without one."""
    subject = corpus[utterance].subject
    style = corpus.subjects.index(subject) if subject in corpus.subjects else 0
    return next(predict_corpus(actor, audio, [utterance], [[style]])).displacement[0]


def actor_parser(description: str | None, utterances: int) -> argparse.ArgumentParser:
    """Arguments of the scripts that look at one actor with a reward and a judge; ``utterances``: the default number."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", required=True, help="the actor, in its first style for unseen speakers")
    parser.add_argument("--reward", required=True)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--utterances", type=int, default=utterances, help="spread evenly (default: %(default)s)")
    return parser


def open_scorer(reward: str | Path, judges: Mapping[str, str | Path], corpus: FaceCorpus) -> Scorer:
    """The reward that was trained against (``train``) and the judges, which must be other models."""
    return Scorer(
        {"train": RewardModel.load(reward), **{name: load_scorer(path) for name, path in judges.items()}}, corpus
    )


@torch.no_grad()
def evaluate_with_gains(
    checkpoint: str | Path,
    corpus: FaceCorpus,
    scorer: Scorer,
    gains: Sequence[float] = (1.0,),
    conditions: str | Sequence[int] = "own",
    plausible: TrueDistances | None = None,
    n_distances: int = 0,
    utterances: Sequence[int] | None = None,
) -> list[Row]:
    """Measures of every utterance x training style, with all displacements multiplied by each of ``gains``.

    A gain other than 1 is a baseline that learns nothing: what amplitude alone does to every measure. Its timing is
    that of the motion itself, so that the slow measures of timing are left out.

    Args:
        checkpoint: see :func:`~s2f_rl.models.checkpoint.load_actor`.
        corpus: a split.
        scorer: reward and judges.
        gains: factors of the displacement.
        conditions: see :func:`~s2f_rl.evaluation.evaluate.style_columns`.
        plausible: measures the distance to the nearest plausible motion, which takes .15 s or more for each motion;
            therefore only of ``n_distances`` utterances, spread evenly over the others, in their first style.
        utterances: indices of those to measure; None: the whole split.

    Returns:
        rows with ``gain``, ``utterance``, ``subject``, ``condition``, ``frames`` and the measures; lengths in metres.
    """
    actor = open_actor(checkpoint, corpus)
    audio = CachedAudio(actor.audio_encoder, corpus)
    chosen = range(len(corpus)) if utterances is None else utterances
    styles = [style_columns(corpus, corpus[i].subject, conditions) for i in chosen]
    measured = [chosen[k] for k in spread(len(chosen), n_distances)] if plausible is not None else []
    rows: list[Row] = []
    for prediction in predict_corpus(actor, audio, chosen, styles):
        template = corpus[prediction.utterance].template
        names = [corpus.subjects[style] for style in prediction.styles]
        for gain in gains:
            vertices = gain * prediction.displacement + template
            meter = plausible if prediction.utterance in measured else None
            found = measure(prediction.utterance, vertices, names, corpus, scorer, meter, timing=gain == 1)
            rows += [{"gain": gain, **row} for row in found]
    return rows


@torch.no_grad()
def truth_rows(
    corpus: FaceCorpus,
    scorer: Scorer,
    plausible: TrueDistances | None = None,
    n_distances: int = 0,
    utterances: Sequence[int] | None = None,
) -> list[Row]:
    """The same measures of the ground truth itself; audio-only utterances have none."""
    rows: list[Row] = []
    chosen = range(len(corpus)) if utterances is None else utterances
    measured = [chosen[k] for k in spread(len(chosen), n_distances)]
    for i in chosen:
        vertices = corpus[i].vertices
        if vertices is not None:
            meter = plausible if i in measured else None
            rows += measure(i, vertices.unsqueeze(0), ["truth"], corpus, scorer, meter)
    return rows


def measure(
    index: int,
    vertices: Tensor,
    names: Sequence[str],
    corpus: FaceCorpus,
    scorer: Scorer,
    meter: TrueDistances | None = None,
    timing: bool = True,
) -> list[Row]:
    """A row for each of the motions [K, T, V*3] (metres) of an utterance, each in the style that ``names`` has.

    The true distance (lips) is that of the first alone: ``true_distance`` to takes of the utterance's own speaker,
    ``true_distance_style`` to those that the speaker of its style would have made of the same phones.
    """
    utterance = corpus[index]
    about = {"utterance": utterance.name, "subject": utterance.subject}
    measures = motion_measures(vertices, utterance, corpus.regions, corpus.fps, timing)
    style = None if list(names) == ["truth"] else styles_of(corpus, names)
    scores = scorer.scores(index, vertices, style=style)
    rows = [
        {**about, "condition": name, "frames": vertices.shape[1], **measured, **scored}
        for name, measured, scored in zip(names, measures, scores, strict=True)
    ]
    if meter is not None:
        rows[0] |= meter.columns(utterance, vertices[:1], face=False)[0]
        if names[0] in meter.speakers and names[0] != utterance.subject:
            styled = meter.columns(utterance, vertices[:1], names[0], face=False)[0]
            rows[0]["true_distance_style"] = styled["true_distance"]
        else:
            rows[0]["true_distance_style"] = rows[0]["true_distance"]
    return rows


def spread(n: int, chosen: int) -> list[int]:
    """``chosen`` of ``n`` indices, evenly spread.

    Example:
        >>> spread(10, 4)
        [0, 2, 5, 7]
    """
    chosen = min(n, chosen)
    return [k * n // chosen for k in range(chosen)]


def spread_recorded(corpus: FaceCorpus, number: int) -> list[int]:
    """Indices of ``number`` of the utterances that have vertices, evenly spread."""
    seen = [i for i in range(len(corpus)) if corpus.has_vertices(i)]
    return [seen[k] for k in spread(len(seen), number)]


def _pairs(items: Sequence[str]) -> dict[str, str]:
    return dict(item.split("=", 1) for item in items)


def _conditions(text: str) -> str | list[int]:
    return [int(column) for column in text.strip("[]").split(",")] if text[:1] in "[0123456789" else text


def chosen_utterances(
    corpus: FaceCorpus, names: Sequence[str] = (), number: int | None = None, open_test: bool = True
) -> list[int]:
    """Indices of the utterances that are evaluated.

    Args:
        corpus: a split.
        names: patterns (``S33_F_*``), of which one must match; none: every name does.
        number: so many of them, evenly spread; None: all.
        open_test: whether the speakers of the split ``test`` may be among them.

    Raises:
        UserError: nothing is left.
    """
    test = corpus.description.splits.get("test")
    closed = set() if open_test or test is None else set(test.subjects)
    found = [
        i
        for i, name in enumerate(corpus.names)
        if parse_name(name)[0] not in closed and (not names or any(fnmatchcase(name, each) for each in names))
    ]
    if not found:
        told = f" {', '.join(names)}" if names else ""
        closed_too = "" if open_test else ", or only of test speakers, who need open_test=true"
        raise UserError(f"{corpus.root}: split {corpus.split} has no utterances{told}{closed_too}")
    return found if number is None else [found[k] for k in spread(len(found), number)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="corpus folder")
    parser.add_argument("--split", required=True)
    parser.add_argument("--reward", action="append", required=True, help="trained against: FOLDER, or NAME={json} each")
    parser.add_argument("--judge", action="append", default=[], help="NAME=FOLDER, once for each judge")
    parser.add_argument("--checkpoint", action="append", default=[], help="LABEL=FILE; none: the ground truth")
    parser.add_argument("--gain", action="append", type=float, default=[], help="further factors of the displacement")
    parser.add_argument("--conditions", default="own", type=_conditions, help="own, all, or columns such as [0,8,16]")
    parser.add_argument("--true-distances", type=int, default=0, help="of how many utterances (built-in corpus)")
    parser.add_argument("--utterances", type=int, help="evaluate so many, evenly spread; default: all")
    parser.add_argument("--name", action="append", default=[], help="a pattern of utterances; default: all")
    parser.add_argument("--test", default="open", choices=("open", "closed"), help="closed: without the test speakers")
    parser.add_argument("--out", required=True, type=Path, help="csv file to write")
    options = parser.parse_args()
    show_log()
    corpus = FaceCorpus(options.corpus, split=options.split, topology=None)
    utterances = chosen_utterances(corpus, options.name, options.utterances, options.test == "open")
    rewards = TrainRewards(options.reward, corpus)
    judges = {name: open_judge(given, corpus) for name, given in _pairs(options.judge).items()}
    scorer = Scorer({TRAIN: rewards.model, **judges}, corpus)
    plausible = true_distances(corpus, "auto") if options.true_distances else None
    rows: list[Row] = []
    if not options.checkpoint:
        found = truth_rows(corpus, scorer, plausible, options.true_distances, utterances)
        rows += [{"checkpoint": "truth", "gain": 1.0, **row} for row in found]
    for label, file in _pairs(options.checkpoint).items():
        # the best checkpoint was chosen on this split, so that the last one is what is reported
        last = label == "last"
        gains, n_distances = ((1.0, *options.gain), options.true_distances) if last else ((1.0,), 0)
        found = evaluate_with_gains(file, corpus, scorer, gains, options.conditions, plausible, n_distances, utterances)
        rows += [{"checkpoint": label, **row} for row in found]
    columns = scorer.models[TRAIN].columns
    write_rows(options.out, [rewards.added_up(row, columns) for row in rows])


if __name__ == "__main__":
    die_with_starter()
    try:
        main()
    except (UserError, OSError) as error:
        if mistake_line(error) is None:
            raise
        sys.exit(f"error: {mistake_line(error)}")
