"""Shell completion of a command, written out from its argparse parser: nothing is started while somebody types."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from s2f_rl.errors import UserError, one_line


@dataclass
class Place:
    """A command or subcommand.

    Attributes:
        path: the words that lead there, each after a space; empty for the command itself.
        words: subcommands and choices of its first argument, with what they are for.
        options: all spellings of each option with what it is for. values: choices of an option, empty where any value
            does; options that take none are left out.
    """

    path: str
    words: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)


def places_of(
    parser: argparse.ArgumentParser, more: Mapping[str, Mapping[str, str]], path: str = ""
) -> Iterator[Place]:
    """The parser and its subparsers, outermost first.

    Args:
        more: by path, words that a parser does not list itself: a free first argument with known values.
    """
    place = Place(path, dict(more.get(path, {})))
    inner: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        about = one_line((action.help or "") % vars(action) if action.help not in (None, argparse.SUPPRESS) else "")
        if isinstance(action, argparse._SubParsersAction):
            told = {choice.dest: one_line(choice.help or "") for choice in action._choices_actions}
            place.words |= {name: told.get(name, "") for name in action.choices}
            inner += action.choices.items()
        elif not action.option_strings:
            place.words |= {str(choice): about for choice in action.choices or ()}
        else:
            place.options |= dict.fromkeys(action.option_strings, about)
            if action.nargs != 0:
                choices = tuple(str(choice) for choice in action.choices or ())
                place.values |= dict.fromkeys(action.option_strings, choices)
    yield place
    for name, child in inner:
        yield from places_of(child, more, f"{path} {name}")


def completion_script(
    shell: str, parser: argparse.ArgumentParser, more: Mapping[str, Mapping[str, str]] | None = None
) -> str:
    """A script that completes the parser's subcommands, options and choices, and files elsewhere.

    Args:
        shell: bash, zsh or fish. parser: with ``prog`` the command's name. more: see :func:`places_of`.
    """
    writers = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    if shell not in writers:
        raise UserError(f"{shell}: no such shell here; use {', '.join(writers)}")
    return writers[shell](parser.prog, list(places_of(parser, more or {})))


def _walk(places: list[Place], words: str, first: int, last: str) -> list[str]:
    """Shell lines (bash, zsh) that set ``place`` to where the words before the cursor lead."""
    known = "|".join(shlex.quote(place.path) for place in places if place.path)
    return [
        '    local place="" i',
        f"    for ((i = {first}; i < {last}; i++)); do",
        f'        case "$place ${{{words}[i]}}" in',
        f'            {known}) place="$place ${{{words}[i]}}" ;;',
        "        esac",
        "    done",
    ]


def _choices(places: list[Place], before: str, offer: str) -> list[str]:
    """Shell lines (bash, zsh) that offer what may follow an option, or files, and return."""
    lines = [f'    case "$place:{before}" in']
    for place in places:
        for option, choices in place.values.items():
            act = offer.format(shlex.join(choices)) if choices else "_files" if "compadd" in offer else ":"
            lines.append(f"        {shlex.quote(f'{place.path}:{option}')}) {act}; return ;;")
    return [*lines, "    esac"]


def _bash(name: str, places: list[Place]) -> str:
    function = f"_{name.replace('-', '_')}"
    lines = [f"# bash completion of {name}", f"{function}() {{"]
    lines += ['    local current="${COMP_WORDS[COMP_CWORD]}" words="" options=""']
    lines += _walk(places, "COMP_WORDS", 1, "COMP_CWORD")
    lines += _choices(places, "${COMP_WORDS[COMP_CWORD-1]}", 'COMPREPLY=($(compgen -W "{0}" -- "$current"))')
    lines += ['    case "$place" in']
    for place in places:
        words, options = " ".join(place.words), " ".join(place.options)
        lines.append(f'        {shlex.quote(place.path)}) words="{words}" options="{options}" ;;')
    lines += ["    esac"]
    lines += ['    if [[ $current == -* ]]; then words="$options"; fi']
    lines += ['    COMPREPLY=($(compgen -W "$words" -- "$current"))', "}"]
    return "\n".join([*lines, f"complete -o default -F {function} {name}"]) + "\n"


def _zsh(name: str, places: list[Place]) -> str:
    function = f"_{name.replace('-', '_')}"
    lines = [f"#compdef {name}", f"{function}() {{", "    local -a commands options"]
    lines += _walk(places, "words", 2, "CURRENT")
    lines += _choices(places, "${words[CURRENT-1]}", "compadd -- {0}")
    lines += ['    case "$place" in']
    for place in places:
        lists = [
            f"{kind}=({' '.join(shlex.quote(_described(word, about)) for word, about in entries.items())})"
            for kind, entries in (("commands", place.words), ("options", place.options))
        ]
        lines.append(f"        {shlex.quote(place.path)}) {' '.join(lists)} ;;")
    lines += ["    esac"]
    lines += ["    if [[ $PREFIX == -* ]]; then _describe option options"]
    lines += ["    elif (( $#commands )); then _describe command commands", "    else _files; fi", "}"]
    return "\n".join([*lines, f"compdef {function} {name}"]) + "\n"


def _described(word: str, about: str) -> str:
    return f"{word}:{about}" if about else word


def _fish(name: str, places: list[Place]) -> str:
    function = f"__{name.replace('-', '_')}_at"
    known = " ".join(shlex.quote(place.path) for place in places if place.path)
    lines = [f"# fish completion of {name}", f"function {function}", '    set -l place ""']
    lines += ["    for word in (commandline -opc)[2..]", '        switch "$place $word"']
    lines += [f"            case {known}", '                set place "$place $word"', "        end", "    end"]
    lines += ['    test "$place" = "$argv[1]"', "end"]
    for place in places:
        there = f"complete -c {name} -n {shlex.quote(f'{function} {shlex.quote(place.path)}')}"
        lines += [f"{there} -f -a {word} -d {_fish_quoted(about)}" for word, about in place.words.items()]
        for option, about in place.options.items():
            kind = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            takes = ""
            if option in place.values:
                choices = place.values[option]
                takes = f" -x -a {shlex.quote(' '.join(choices))}" if choices else " -r"
            lines.append(f"{there} {kind}{takes} -d {_fish_quoted(about)}")
    return "\n".join(lines) + "\n"


def _fish_quoted(text: str) -> str:
    backslash = chr(92)
    return "'" + text.replace(backslash, 2 * backslash).replace("'", backslash + "'") + "'"
