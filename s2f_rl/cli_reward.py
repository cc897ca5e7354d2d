"""The subcommand ``s2f-rl reward-report``: how far a reward can be trusted."""

from __future__ import annotations

import argparse
from typing import Any

from s2f_rl.cli_commands import Commands
from s2f_rl.errors import UserError

_EXAMPLE = """example:
  s2f-rl reward-report checkpoints/reward --corpus data/demo --judge checkpoints/judge --out report
  then open report/report.html in a browser; all numbers are in report/calibration.json
"""


def add_reward_report(commands: Commands) -> None:
    """``s2f-rl reward-report REWARD --corpus ROOT --out DIR``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.rewards.articulation.density_files import is_articulation
        from s2f_rl.rewards.calibration.articulation_report import articulation_report
        from s2f_rl.rewards.calibration.report import reward_report
        from s2f_rl.runs.device import pick_device

        quick: dict[str, Any] = {}
        if options.quick:
            quick = {"utterances": 8, "attack_utterances": 1, "attack_steps": 25}
            quick |= {"strengths": (0.0, 0.25, 0.5, 1.0), "radii_mm": (0.5, 1.0)}
        for name in ("utterances", "attack_utterances", "attack_steps"):
            if getattr(options, name) is not None:
                quick[name] = getattr(options, name)
        if is_articulation(options.reward):
            for name in ("judge", "actor", "predictions", "lofo"):
                if getattr(options, name):
                    raise UserError(f"--{name}: {options.reward} is a density of lips, whose report has no such part")
            quick.pop("strengths", None)
            articulation_report(
                options.reward,
                options.corpus,
                options.out,
                split=options.split,
                phones=options.phones,
                topology=options.topology,
                seed=options.seed,
                device=str(pick_device(options.device)),
                **quick,
            )
            print(f"{options.out}/articulation.md; rows in articulation.json")
            return 0
        if options.phones is not None:
            raise UserError(f"--phones: {options.reward} reads no phones; leave it out")
        report = reward_report(
            options.reward,
            options.corpus,
            options.out,
            split=options.split,
            judges=options.judge,
            actor=options.actor,
            predictions=options.predictions,
            lofo_rows=options.lofo,
            topology=options.topology,
            seed=options.seed,
            device=str(pick_device(options.device)),
            **quick,
        )
        print(f"{options.out}/report.html: {report['about']['utterances']} utterances; rows in calibration.json")
        return 0

    description = (
        "Calibration report of a reward on unseen speakers: AUC and monotonicity for every corruption, reliability, "
        "ground truth by speaker, and how much score gradient ascent gets for nothing."
    )
    parser = commands.add_parser(
        "reward-report",
        help="how far a reward can be trusted: calibration and an attack, as a page",
        description=description,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("reward", metavar="REWARD", help="folder of the reward model, a judge, or a density of lips")
    parser.add_argument("--corpus", required=True, help="corpus folder; its training split defines the corruptions")
    parser.add_argument("--out", required=True, help="folder for report.html, its figures and calibration.json")
    parser.add_argument(
        "--judge", action="append", default=[], metavar="FOLDER", help="a model that was not climbed; may be repeated"
    )
    parser.add_argument("--phones", metavar="FOLDER", help="timings for a density of lips (default: the corpus's own)")
    parser.add_argument("--split", default="validation", choices=["train", "validation", "test", "test_seen", "all"])
    parser.add_argument("--actor", metavar="CKPT", help="confine the attack to what this actor's output map can do")
    parser.add_argument("--predictions", metavar="FOLDER", help="a policy's predictions: a corruption and a start")
    parser.add_argument("--lofo", metavar="FILE", help="rows of benchmarks/leave_one_out.py to show")
    parser.add_argument("--utterances", type=int, help="how many to score, evenly over the split (default: all)")
    parser.add_argument("--attack-utterances", type=int, help="how many to attack, 0 for none (default: 6)")
    parser.add_argument("--attack-steps", type=int, help="steps of the ascent (default: 60)")
    parser.add_argument("--quick", action="store_true", help="few utterances, strengths and steps: a first look")
    parser.add_argument("--seed", type=int, default=0, help="of corruptions and noise (default: %(default)s)")
    parser.add_argument("--topology", choices=["vocaset", "biwi"], help="where the files do not tell it")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: %(default)s)")
