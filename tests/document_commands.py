"""Whether a command of the documents would be taken: its options by its own parser, its keys by its own config."""

from __future__ import annotations

import argparse
import re
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

from config_tools import CONF
from document_blocks import ROOT
from hydra.core.override_parser.overrides_parser import OverridesParser

from benchmarks.harness.matrix import open_suite
from s2f_rl import cli
from s2f_rl.errors import UserError
from s2f_rl.runs.configs import compose_config, finish_config, opened
from s2f_rl.schemas import SCHEMAS

# what a shell has, and what is not ours
OTHERS = {"cd", "cp", "curl", "export", "git", "ls", "mkdir", "mv", "ray", "source", "tar", "unzip", "wget"}


class Refused(Exception):
    """Why a command of a document would not be taken."""


class _Parsed(Exception):
    """The options were taken, but for those in its argument; nothing else of the program shall run."""


def check(words: Sequence[str], copies: dict[str, str] | None = None) -> None:
    """Raise Refused unless a command, split into words, would be taken.

    Args:
        copies: names of recipes by the files that earlier commands of the document copied them to; added to.
    """
    copies = {} if copies is None else copies
    words = list(words)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    program = Path(words[0]).name if words else "export"
    arguments = words[1:]
    if program == "s2f-rl":
        _command(arguments, copies)
    elif program in ("python", "python3"):
        _python(arguments, copies)
    elif program == "torchrun":
        script = next((k for k, word in enumerate(arguments) if word.endswith(".py")), None)
        if script is None:
            raise Refused("torchrun: no script")
        _python(arguments[script:], copies)
    elif program == "make":
        _make(arguments)
    elif program == "pip":
        _pip(arguments)
    elif words[0] == ".ci/run" or program in OTHERS:
        return
    else:
        raise Refused(f"{program}: not a command that the documents may use")


def options_only(run: Callable[[], object]) -> None:
    """Call a program up to the point where it has read its options. Raises Refused if it would not take them."""
    parse = argparse.ArgumentParser.parse_known_args
    depth = 0

    def parse_known_args(parser, args=None, namespace=None):  # type: ignore[no-untyped-def]
        nonlocal depth  # a subcommand's parser is called by that of the command
        depth += 1
        try:
            options, rest = parse(parser, args, namespace)
        finally:
            depth -= 1
        if depth == 0:
            raise _Parsed(rest)
        return options, rest

    def parse_args(parser, args=None, namespace=None):  # type: ignore[no-untyped-def]
        try:
            return parser.parse_known_args(args, namespace)
        except _Parsed as parsed:
            if parsed.args[0]:
                parser.error(f"unrecognized arguments: {' '.join(parsed.args[0])}")
            raise

    said: list[str] = []
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_known_args", parse_known_args),
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse_args),
        mock.patch.object(argparse.ArgumentParser, "_print_message", lambda _, text, file=None: said.append(text)),
    ):
        try:
            run()
        except _Parsed:
            return
        except SystemExit as error:
            if error.code:
                raise Refused("".join(said).strip().splitlines()[-1]) from error
            return
    raise Refused("reads no options")


def compose(recipe: str, overrides: Sequence[str]) -> None:
    """Raise Refused unless a recipe takes the overrides: complete, known, of the right type. The first of a sweep's."""
    if recipe not in SCHEMAS:
        raise Refused(f"{recipe}: no such recipe")
    plain = [item for item in overrides if ("=" in item or item[0] == "~") and not item.startswith(("-", "hydra"))]
    known = {*plain, "-m", "--multirun", "--cfg", "job"}
    if unknown := [item for item in overrides if item not in known and not item.startswith("hydra")]:
        raise Refused(f"{recipe}: {' '.join(unknown)}: no override")
    single = []
    for item, override in zip(plain, OverridesParser.create().parse_overrides(plain), strict=True):
        swept = override.is_sweep_override()
        single.append(f"{item.split('=')[0]}={item.split('=', 1)[1].split(',')[0]}" if swept else item)
    if "--cfg" in overrides:  # shows what is there, complete or not
        return
    schema = SCHEMAS[recipe]
    given = opened(single, schema)
    try:
        finish_config(compose_config(CONF, recipe, given), CONF, recipe, given, schema)
    except UserError as error:
        raise Refused(str(error)) from error


def _command(arguments: list[str], copies: dict[str, str]) -> None:
    if arguments[:1] == ["recipe"] and len(arguments) > 1 and arguments[1][0] != "-":
        options_only(lambda: cli.main(arguments[:2]))
        return compose(arguments[1], arguments[2:])
    options_only(lambda: cli.main(arguments))
    if arguments[:1] == ["copy"]:
        copies[arguments[-1]] = arguments[1]


def _python(arguments: list[str], copies: dict[str, str]) -> None:
    if arguments[:1] == ["-m"]:
        target = arguments[1].replace(".", "/") + ".py"
        if target.startswith(("venv", "pip", "pytest")):
            return None
        rest = arguments[2:]
    else:
        target, rest = arguments[0], arguments[1:]
    if target in copies:
        return compose(copies[target], rest)
    script = ROOT / target
    if not script.is_file():
        raise Refused(f"{target}: no such script")
    if script.parent.name == "recipes":
        return compose(script.stem, rest)
    if target == "benchmarks/run.py":
        try:
            open_suite(rest)
        except UserError as error:
            raise Refused(str(error)) from error
        return None
    if not rest or script.parents[1].name == "examples":  # those are run by tests/test_examples.py
        return None
    with mock.patch.object(sys, "argv", [str(script), *rest]), mock.patch.object(sys, "path", [*sys.path]):
        options_only(lambda: runpy.run_path(str(script), run_name="__main__"))


def _make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in arguments:
        known = rf"^{word.split('=')[0]} \?=" if "=" in word else rf"^{re.escape(word)}:"
        if not re.search(known, makefile, re.MULTILINE):
            raise Refused(f"make {word}: not in the Makefile")


def _pip(arguments: list[str]) -> None:
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    for word in arguments:
        for extra in re.findall(r"(?:s2f_rl|\.)\[([^]]*)\]", word):
            if unknown := set(extra.split(",")) - set(extras):
                raise Refused(f"pip install: no extra named {', '.join(unknown)}")
