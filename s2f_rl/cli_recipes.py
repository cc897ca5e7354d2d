"""The subcommands ``s2f-rl recipe`` and ``s2f-rl copy``: training, for those who have no checkout."""

from __future__ import annotations

import argparse
import runpy
import sys

from s2f_rl.cli_commands import Commands
from s2f_rl.errors import UserError

_EXAMPLE = """examples:
  s2f-rl recipe --list
  s2f-rl recipe supervised corpus.root=data/vocaset actor=wav2vec2
  s2f-rl recipe ppo start=checkpoints/supervised reward.folder=checkpoints/reward seed=3
  s2f-rl recipe ppo --cfg job        all keys and their values
  s2f-rl recipe ppo -m seed=1,2,3 hydra/launcher=joblib ...
"""


def add_recipe(commands: Commands) -> None:
    """``s2f-rl recipe NAME key=value ...``, the same as ``python recipes/NAME.py key=value ...``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.runs.recipes import recipe_names, recipe_script, recipe_summary

        if options.list:
            width = max(map(len, recipe_names()), default=0)
            for name in recipe_names():
                print(f"{name:{width}}  {recipe_summary(name)}")
            return 0
        if options.name is None:
            raise UserError(f"name a recipe: {', '.join(recipe_names())}")
        script = str(recipe_script(options.name))
        overrides = [item for item in options.overrides if item != "--debug"]
        if options.debug or overrides != options.overrides:
            overrides.append("debug=true")
        before = sys.argv
        sys.argv = [script, *overrides]
        try:
            runpy.run_path(script, run_name="__main__")  # leaves the process with the recipe's own exit code
        finally:
            sys.argv = before
        return 0

    description = "run a recipe: training, evaluation, the demo; exit code 3 if the run diverged"
    parser = commands.add_parser(
        "recipe",
        help=description,
        description=description,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--list", action="store_true", help="what there is, a line each")
    parser.add_argument("name", metavar="NAME", nargs="?", help="the recipe")
    parser.add_argument(
        "overrides", metavar="key=value", nargs=argparse.REMAINDER, help="its settings, and Hydra's own options"
    )


def add_copy(commands: Commands) -> None:
    """``s2f-rl copy NAME my_script.py``"""

    def run(options: argparse.Namespace) -> int:
        from s2f_rl.runs.recipes import copy_recipe

        script, config = copy_recipe(options.name, options.out, options.force)
        print(f"{script}\n{config}\nrun it with: python {script} key=value ...   (--cfg job shows all keys)")
        return 0

    description = "copy a recipe's script and config, to edit and run as python my_script.py"
    parser = commands.add_parser("copy", help=description, description=description)
    parser.set_defaults(run=run)
    parser.add_argument("name", metavar="NAME", help="the recipe (s2f-rl recipe --list)")
    parser.add_argument(
        "out",
        metavar="my_script.py",
        help="script to write, its config goes to conf/my_script.yaml beside it; or a folder",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")


COMMANDS = (add_recipe, add_copy)
