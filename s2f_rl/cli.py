"""The ``s2f-rl`` command: corpora, films, scores, evaluation, and the recipes, which train, from a shell.

Nothing heavy is imported until a subcommand runs, so that ``--help`` answers at once.

Exit codes: 0 done; 1 ``check`` found errors, ``align`` failed for some, or a bug (with its traceback); 2 the user's
mistake, told in one line on stderr; 3 a recipe's run diverged; 130 stopped by Ctrl-C; 141 the reader of a pipe went
away.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import io
import os
import sys
import traceback
from collections.abc import Sequence

from s2f_rl import (
    __version__,
    cli_adapt,
    cli_coefficients,
    cli_commands,
    cli_corpus,
    cli_exchange,
    cli_recipes,
    cli_reward,
    cli_runs,
    cli_view,
)
from s2f_rl.errors import one_line
from s2f_rl.runs.mistakes import mistake_line
from s2f_rl.signs import Watch
from s2f_rl.threads import use_available_cores

INTERRUPTED = 130
BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code (also on mistakes); ``arguments`` default to ``sys.argv[1:]``."""
    options = _parser().parse_args(arguments)
    use_available_cores()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a file's name need not be valid text
    try:
        from s2f_rl.runs.progress import show_log

        show_log()
        with Watch(options.command, bar=False):
            code = int(options.run(options))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("error: stopped by Ctrl-C", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at exit and would complain about the same pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        line = mistake_line(error)
        if line is None:
            raise
        if options.debug:
            traceback.print_exc()
        else:
            print(f"error: {one_line(line)}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="s2f-rl",
        description="Speech-driven 3D face animation: corpora, training, films, scores, evaluation.",
    )
    parser.add_argument("--version", action="version", version=f"s2f-rl {__version__}")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        *cli_commands.COMMANDS,
        *cli_corpus.COMMANDS,
        *cli_exchange.COMMANDS,
        cli_adapt.add_adapt,
        cli_coefficients.add_coefficients,
        cli_reward.add_reward_report,
        cli_view.add_view,
        *cli_recipes.COMMANDS,
    ):
        add(commands)
    cli_runs.add_report(commands)
    cli_runs.add_info(commands)
    cli_runs.add_completion(commands, _parser)
    _add_debug(parser)
    return parser


def _add_debug(parser: argparse.ArgumentParser) -> None:
    """``--debug`` before or after the subcommand, at any depth."""
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of errors")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _add_debug(child)


if __name__ == "__main__":
    sys.exit(main())
