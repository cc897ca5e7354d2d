"""Several takes of one sentence: how different they are, what choosing among them gives, and what they cover.

    python -m benchmarks.takes CORPUS OUT --checkpoint start=RUN --checkpoint rl=RUN --reward FOLDER --judge FOLDER

Every utterance is drawn ``--takes`` times as in reinforcement learning: with the exploration of the checkpoint's run,
or, for a checkpoint of supervised training, with that of the first run of reinforcement learning that is given. Then:
the distance between takes; the judge's score of the take that the reward likes best; and, on the built-in corpus, how
near takes come to motions that could have been. Give the same actor before and after reinforcement learning to see
whether it collapses. Writes ``takes.csv`` and ``takes.md``.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.evaluate import open_scorer, spread_recorded
from benchmarks.slope import shown_style
from s2f_rl.data import FaceCorpus
from s2f_rl.data.files import atomic_write_text
from s2f_rl.data.units import MILLIMETRE
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer, TrueDistances, predict_corpus, true_distances, write_rows
from s2f_rl.evaluation.takes import against_true_takes, best_of, draw_takes, variety
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.checkpoint import actor_file
from s2f_rl.models.contract import Actor
from s2f_rl.models.meeting import load_actor_for
from s2f_rl.models.policy import MotionPolicy
from s2f_rl.runs.checkpoints import load_checkpoint
from s2f_rl.runs.report.write import read_config
from s2f_rl.training.build_policy import build_policy
from s2f_rl.training.parts import some_speech

Row = dict[str, Any]
MM = {"diversity_lips", "diversity_face", "nearest_take", "nearest_plain", "nearest_true"}
COLUMNS = (
    "diversity_lips", "diversity_face", "judge_plain", "judge_mean", "judge_picked", "judge_best", "agreement",
    "nearest_plain", "nearest_take", "nearest_true", "reached", "density", "coverage", "coverage_true", "spanned",
    "spanned_true",
)  # fmt: skip


def exploration_of(run: Path) -> dict[str, Any] | None:
    """The group ``exploration`` of the config beside a checkpoint; None where there is none."""
    found: Any = read_config(run if run.is_dir() else run.parent).get("exploration")
    return found


def open_policy(run: Path, corpus: FaceCorpus, exploration: Mapping[str, Any]) -> tuple[Actor, MotionPolicy]:
    """Actor and policy of a checkpoint; what the policy has beyond the actor (noise) is that of the run's end."""
    actor = load_actor_for(run, corpus)[0].eval()
    train = FaceCorpus(corpus.root, split="train")
    policy = build_policy(actor, exploration, corpus.regions["lips"], speech=some_speech(actor, train, None))
    last = actor_file(run).with_name("last.pt")
    saved = load_checkpoint(last).get("parts", {}).get("policy") if last.exists() else None
    if saved is not None:
        of_actor = {id(tensor) for tensor in actor.state_dict(keep_vars=True).values()}
        own = [name for name, tensor in policy.state_dict(keep_vars=True).items() if id(tensor) not in of_actor]
        policy.load_state_dict({name: saved[name] for name in own if name in saved}, strict=False)
    return actor, policy


def summed(scores: Mapping[str, float], scorer: Scorer, name: str) -> float:
    """The sum of the scores of a model of ``scorer``."""
    return sum(scores[column] for column in scorer.columns(name))


@torch.no_grad()
def take_row(
    actor: Actor, policy: MotionPolicy, audio: CachedAudio, corpus: FaceCorpus, scorer: Scorer,
    meter: TrueDistances | None, utterance: int, number: int, true_number: int,
) -> Row:  # fmt: skip
    """The measures of one utterance, in the style of its speaker or else the first; lengths in metres."""
    spoken, lips, style = corpus[utterance], corpus.regions["lips"], shown_style(corpus, utterance)
    plain = next(predict_corpus(actor, audio, [utterance], [[int(style.argmax())]])).displacement[0]
    drawn = draw_takes(policy, audio.get(utterance), style, number, seed=utterance)
    row: Row = {"utterance": spoken.name, "subject": spoken.subject, "takes": number}
    row |= variety(drawn, lips)
    together = torch.cat([plain[None], drawn]) + spoken.template
    found = scorer.scores(utterance, together, style=style.expand(len(together), -1))
    row["judge_plain"] = summed(found[0], scorer, "judge")
    row |= best_of(*([summed(each, scorer, name) for each in found[1:]] for name in ("train", "judge")))
    if meter is not None:
        whose = corpus.subjects[int(style.argmax())]
        true = meter.takes(spoken, true_number + number, seed=utterance, speaker=whose)
        n = min(true.shape[1], len(plain))
        true, plain, drawn = true[:, :n], plain[:n], drawn[:, :n]
        row |= against_true_takes(drawn, plain, true[:true_number], true[true_number:], lips)
        row |= {f"{name}_true": value for name, value in variety(true[true_number:], lips).items()}
    return row


def table(rows: Sequence[Row]) -> str:
    """Means over utterances, a row for each checkpoint, lengths in mm."""
    shown = [name for name in COLUMNS if any(name in row for row in rows)]
    lines = ["| checkpoint | " + " | ".join(f"{name}{' mm' * (name in MM)}" for name in shown) + " |"]
    lines.append("|---|" + "---|" * len(shown))
    for checkpoint in dict.fromkeys(row["checkpoint"] for row in rows):
        own = [row for row in rows if row["checkpoint"] == checkpoint]
        lines.append(f"| {checkpoint} | " + " | ".join(cell(own, name) for name in shown) + " |")
    true = [f"{name} {cell(rows, f'{name}_true', name)} mm" for name in ("diversity_lips", "diversity_face")]
    known = any("diversity_lips_true" in row for row in rows)
    return "\n".join(lines) + "\n" + (f"\nTakes of the corpus itself: {', '.join(true)}.\n" if known else "")


def cell(rows: Sequence[Row], name: str, unit_of: str | None = None) -> str:
    """The mean of a column over the rows that have it."""
    values = [row[name] for row in rows if math.isfinite(row.get(name, math.nan))]
    factor = MILLIMETRE if (unit_of or name) in MM else 1.0
    return f"{sum(values) / len(values) / factor:.3f}" if values else "–"


def main(argv: Sequence[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", action="append", required=True, metavar="NAME=RUN", help="once for each actor")
    parser.add_argument("--reward", required=True, help="chooses among the takes")
    parser.add_argument("--judge", required=True, help="says what the choice is worth")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--utterances", type=int, default=16, help="spread evenly (default: %(default)s)")
    parser.add_argument("--takes", type=int, default=8, help="of every utterance, 2 or more (default: %(default)s)")
    parser.add_argument("--true-takes", type=int, default=32, help="motions that could have been, 6 or more")
    options = parser.parse_args(argv)
    runs = {name: Path(run) for name, run in (_pair(item) for item in options.checkpoint)}
    explorations = {name: exploration_of(run) for name, run in runs.items()}
    usual = next((each for each in explorations.values() if each is not None), None)
    if usual is None:
        raise UserError(
            "--checkpoint: none is of a run of reinforcement learning, whose exploration would be drawn with"
        )
    if options.takes < 2 or options.true_takes < 6:
        raise UserError(f"--takes {options.takes}, --true-takes {options.true_takes}: use at least 2 and 6")
    corpus = FaceCorpus(options.corpus, split=options.split)
    scorer = open_scorer(options.reward, {"judge": options.judge}, corpus)
    meter = true_distances(corpus, "auto")
    rows: list[Row] = []
    for name, run in runs.items():
        actor, policy = open_policy(run, corpus, explorations[name] or usual)
        audio = CachedAudio(actor.audio_encoder, corpus)
        for i in spread_recorded(corpus, options.utterances):
            measured = take_row(actor, policy, audio, corpus, scorer, meter, i, options.takes, options.true_takes)
            rows.append({"checkpoint": name, **measured})
    write_rows(options.out / "takes.csv", rows)
    text = table(rows)
    atomic_write_text(options.out / "takes.md", text)
    print(text)
    return rows


def _pair(item: str) -> tuple[str, str]:
    name, equals, run = item.partition("=")
    if not equals:
        raise UserError(f"--checkpoint {item}: give it a name, --checkpoint NAME={item}")
    return name, run


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
