"""The subcommands ``s2f-rl report`` (what a run looks like), ``info`` (what is installed) and ``completion``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from s2f_rl.cli_commands import Commands
from s2f_rl.errors import UserError, one_line

_COMPLETION = """examples:
  s2f-rl completion bash >> ~/.bashrc
  s2f-rl completion zsh >> ~/.zshrc           (after compinit)
  s2f-rl completion fish > ~/.config/fish/completions/s2f-rl.fish
"""


def add_report(commands: Commands) -> None:
    """``s2f-rl report RUN``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.runs.report.write import write_run_report

        if options.actor_kind is not None:
            from s2f_rl.models.actors import use_actor

            use_actor(options.actor_kind)
        if not Path(options.run_folder).is_dir():
            raise UserError(f"{options.run_folder}: no such run folder; check the path")
        print(f"{one_line(write_run_report(Path(options.run_folder), options.page))}: written")
        return 0

    description = "write a run's report.html: curves, measures, three utterances before and after, config, versions"
    parser = commands.add_parser("report", help=description, description=description)
    parser.set_defaults(run=run)
    parser.add_argument("run_folder", metavar="RUN", help="run folder")
    parser.add_argument(
        "--page", choices=["curves", "stills", "films"], default="films", help="how much (default: %(default)s)"
    )
    parser.add_argument("--actor-kind", metavar="MODULE:NAME", help="class of an actor of your own")


def add_info(commands: Commands) -> None:
    """``s2f-rl info``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.machine import report

        print(report())
        return 0

    description = "versions, devices, and which optional parts are missing and how to get them"
    parser = commands.add_parser("info", help=description, description=description)
    parser.set_defaults(run=run)


def add_completion(commands: Commands, whole: Callable[[], argparse.ArgumentParser]) -> None:
    """``s2f-rl completion SHELL``; ``whole`` makes the parser of all subcommands."""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.completion import completion_script
        from s2f_rl.runs.recipes import recipe_names, recipe_summary

        recipes = {name: recipe_summary(name) for name in recipe_names()}
        print(completion_script(options.shell, whole(), {" recipe": recipes, " copy": recipes}), end="")
        return 0

    description = "print what makes a shell complete this command"
    parser = commands.add_parser(
        "completion",
        help=description,
        description=description,
        epilog=_COMPLETION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell")
