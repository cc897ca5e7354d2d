"""Runs recipes in forked children, one after the other: the imports, seconds each, are paid once.

Reads a line of JSON for each run: ``{"folder", "recipe", "overrides", "kill", "log"}``; answers with the exit status:
0, 1 (a bug), 2 (a mistake, one line in ``output.txt``), or minus the number of the signal.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

from kill.injection import install
from recipe_tools import load_recipe

from s2f_rl.provenance import package_versions, source_commit
from s2f_rl.runs.main import show_log
from s2f_rl.runs.mistakes import mistake_line

RECIPES = {name: load_recipe(name) for name in ("supervised", "ppo", "gdpo", "awr", "reward", "judge")}


def child(task: dict[str, Any]) -> int:
    """Run the recipe in ``folder``, with its output in ``output.txt``."""
    os.chdir(task["folder"])
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    show_log()
    install(task["kill"], task["log"])
    try:
        RECIPES[task["recipe"]].run(task["overrides"])
    except Exception as error:
        line = mistake_line(error)
        if line is None:
            traceback.print_exc()
            return 1
        print(f"error: {line}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    source_commit()
    package_versions()  # remembered for the children
    print("ready", flush=True)
    for text in sys.stdin:
        process = os.fork()
        if not process:
            code = 1
            try:
                code = child(json.loads(text))
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        status = os.waitpid(process, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)
