"""Leave one family out: does a reward notice ways of spoiling motion that it was not trained on?

    python benchmarks/leave_one_out.py --corpus data/demo --out runs/leave_one_out [--full FOLDER] [key=value ...]

Trains `recipes/reward.py` once without each family of corruptions (and once on all of them, unless --full names such a
reward), each in a process of its own; overrides go to the recipe. Every reward is then tested on unseen speakers with
the family it never saw, the full reward beside it. A killed run goes on where it was: finished trainings are kept, and
a half-done one resumes. Writes rows.json (for `s2f-rl reward-report --lofo`), rows.csv and table.md.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s2f_rl.data import FaceCorpus
from s2f_rl.data.files import atomic_write_json, atomic_write_text, load_json
from s2f_rl.errors import UserError
from s2f_rl.evaluation.evaluate import write_rows
from s2f_rl.provenance import package_versions, source_commit
from s2f_rl.rewards import RewardModel
from s2f_rl.rewards.calibration.auc import SUM
from s2f_rl.rewards.calibration.report import spread_evenly
from s2f_rl.rewards.calibration.spoiled_versions import discrimination_rows, score_versions
from s2f_rl.rewards.corruptions import CORRUPTIONS, FAMILIES
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.recordings import MotionBank
from s2f_rl.runs.tether import PARENT

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "reward.py"
DONE = "done.json"
_COPIED = ("corruption", "base", "score", "routed", "utterances")


def trained(name: str, family: str | None, options: argparse.Namespace) -> Path:
    """Folder of the reward that was trained without a family (None: on all); trains it unless that is done."""
    folder = Path(options.out) / name
    command = [f"corpus.root={options.corpus}", f"root={options.out}", f"name={name}", "resume=true"]
    command += [] if family is None else [f"leave_out={family}"]
    command += options.overrides
    if (folder / DONE).exists():
        if load_json(folder / DONE)["arguments"] != command:
            raise UserError(f"{folder}: was trained with other arguments; choose another --out")
        return folder
    print(f"{name}: training", file=sys.stderr)
    code = subprocess.run([sys.executable, str(RECIPE), *command], check=False).returncode
    if code:
        raise UserError(f"{name}: the training ended with exit code {code}; mend its error and start this again")
    atomic_write_json(folder / DONE, {"arguments": command})
    return folder


def family_rows(
    without: Any, full: Any, family: str, bank: MotionBank, motion: MotionSubspace, regressor: Any, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows of one family: ``left_out``, ``corruption``, ``base``, ``score``, ``routed``, ``utterances``, and the AUC
    with its interval of the reward that never saw the family (``auc``, ..) and of the full one (``auc_full``, ..)."""
    own = [corruption for corruption in CORRUPTIONS.values() if corruption.family == family]
    found = [
        discrimination_rows(score_versions(model, bank, motion, regressor, own, (0.0, 1.0), seed=seed), seed)
        for model in (without, full)
    ]
    rows = []
    for blind, seeing in zip(*found, strict=True):
        row = {"left_out": family, **{key: blind[key] for key in _COPIED}}
        for key in ("auc", "auc_low", "auc_high", "paired"):
            row |= {key: blind[key], f"{key}_full": seeing[key]}
        rows.append(row)
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows that a head ought to notice as a Markdown table, and the mean of each family."""
    lines = ["| family left out | corruption | score | AUC without | AUC with all |", "|---|---|---|---|---|"]
    shown = [row for row in rows if row["routed"] and row["score"] != SUM]
    for family in dict.fromkeys(row["left_out"] for row in shown):
        own = [row for row in shown if row["left_out"] == family]
        for row in own:
            name = row["corruption"] if row["base"] == "truth" else f"{row['corruption']} over smoothed motion"
            interval = f"{row['auc']:.2f} [{row['auc_low']:.2f}, {row['auc_high']:.2f}]"
            lines.append(f"| {family} | {name} | {row['score']} | {interval} | {row['auc_full']:.2f} |")
        blind, seeing = (sum(row[key] for row in own) / len(own) for key in ("auc", "auc_full"))
        lines.append(f"| {family} | **mean** | | {blind:.2f} | {seeing:.2f} |")
    return "\n".join(lines) + "\n"


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train what is missing, test, write; returns the rows."""
    out = Path(options.out)
    unknown = [family for family in options.families if family not in FAMILIES]
    if unknown:
        raise UserError(f"unknown family {unknown[0]!r}: use some of {', '.join(FAMILIES)}")
    full_folder = Path(options.full) if options.full else trained("full", None, options)
    folders = {family: trained(f"without_{family}", family, options) for family in options.families}

    train = FaceCorpus(options.corpus, "train")
    whole = MotionBank(FaceCorpus(options.corpus, options.split))
    chosen = spread_evenly(len(whole), options.utterances)
    bank = MotionBank(whole.corpus, [whole.utterances[position] for position in chosen])
    motion = MotionSubspace.fit(train)
    regressor = MotionBank(train).fit_regressor(motion)
    full = RewardModel.load(full_folder)
    rows, hashes = [], {"full": full.content_hash()}
    for family, folder in folders.items():
        without = RewardModel.load(folder)
        hashes[family] = without.content_hash()
        rows += family_rows(without, full, family, bank, motion, regressor, options.seed)
    about = {"corpus": str(options.corpus), "split": options.split, "rewards": hashes, "seed": options.seed}
    about |= {"overrides": options.overrides, "commit": source_commit(), "versions": package_versions()}
    atomic_write_json(out / "rows.json", {**about, "rows": rows})
    write_rows(out / "rows.csv", rows)
    atomic_write_text(out / "table.md", markdown(rows))
    return rows


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; whatever is left over goes to the recipe."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", required=True, help="corpus folder")
    parser.add_argument("--out", required=True, help="folder for the runs, rows and table")
    parser.add_argument("--full", help="a reward that was trained on all families; default: trained here")
    parser.add_argument(
        "--families", type=lambda text: text.split(","), default=list(FAMILIES), help="such as time,mouth; default: all"
    )
    parser.add_argument("--split", default="validation", help="whose speakers to test on (default: %(default)s)")
    parser.add_argument("--utterances", type=int, help="how many to test, default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the corruptions of the test (default: %(default)s)")
    options, overrides = parser.parse_known_args(arguments)
    wrong = [text for text in overrides if text.startswith("-") or "=" not in text]
    if wrong:
        parser.error(f"{wrong[0]}: neither an option of this script nor key=value for the recipe")
    options.overrides = overrides
    return options


def main() -> int:
    """Run; a mistake ends in one line."""
    os.environ[PARENT] = str(os.getpid())  # a training ends with this process
    try:
        print(markdown(run(parse())), end="")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
