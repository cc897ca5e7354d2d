"""What shells are told to complete is what the parser takes."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from s2f_rl import cli
from s2f_rl.completion import completion_script, places_of
from s2f_rl.errors import UserError

ASK = {
    "bash": 'source /dev/stdin; COMP_WORDS=({words}); COMP_CWORD={at}; _s2f_rl; printf "%s\\n" "${{COMPREPLY[@]}}"',
    # its completion runs in an editor of lines alone, so what it calls there is put in its place
    "zsh": "compdef() {{ }}; _files() {{ }}; compadd() {{ shift; print -l -- $@; }};"
    " _describe() {{ print -l -- ${{${{(P)2}}%%:*}}; }};"
    " source /dev/stdin; words=({words}); CURRENT=$(({at} + 1)); PREFIX=${{words[-1]}}; _s2f_rl",
    "fish": "source; complete -C '{line}' | string replace -r '\\t.*' ''",
}
SHELLS = [shell for shell in ASK if shutil.which(shell)]


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    more = {" recipe": {"ppo": "the clipped one", "rloo": "it's simple"}}
    return {shell: completion_script(shell, cli._parser(), more) for shell in ("bash", "zsh", "fish")}


def offered(shell: str, script: str, line: str) -> set[str]:
    """What the shell offers when the cursor stands at the end of ``line``."""
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    ask = ASK[shell].format(words=quoted, at=len(words) - 1, line=line)
    done = subprocess.run([shell, "-c", ask], input=script, capture_output=True, text=True, check=True, cwd="/")
    assert done.stderr == ""
    return {word for word in done.stdout.split() if word.startswith(words[-1])}


@pytest.mark.parametrize("shell", SHELLS)
class TestShells:
    def test_subcommands(self, shell: str, scripts: dict[str, str]) -> None:
        found = offered(shell, scripts[shell], "s2f-rl ")
        assert {"check", "corpus", "recipe", "completion", "report", "info"} <= found
        assert offered(shell, scripts[shell], "s2f-rl che") == {"check"}
        assert offered(shell, scripts[shell], "s2f-rl corpus ") >= {"new"}

    def test_options(self, shell: str, scripts: dict[str, str]) -> None:
        found = offered(shell, scripts[shell], "s2f-rl check data --")
        assert found == {"--help", "--picture", "--topology", "--debug"}
        assert {"--mesh", "--mouth", "--up"} <= offered(shell, scripts[shell], "s2f-rl corpus new out --")

    def test_choices(self, shell: str, scripts: dict[str, str]) -> None:
        assert offered(shell, scripts[shell], "s2f-rl check data --topology ") == {"vocaset", "biwi"}
        assert offered(shell, scripts[shell], "s2f-rl completion z") == {"zsh"}
        assert offered(shell, scripts[shell], "s2f-rl recipe p") == {"ppo"}


@pytest.mark.parametrize("shell", [shell for shell in ("bash", "zsh", "fish") if shutil.which(shell)])
def test_the_shell_can_read_it(shell: str, scripts: dict[str, str], tmp_path: Path) -> None:
    for name, text in (("whole", scripts[shell]), ("broken", scripts[shell] + "\nif (\n")):
        (tmp_path / name).write_text(text)
        done = subprocess.run([shell, "-n", str(tmp_path / name)], capture_output=True, text=True, cwd="/")
        assert (done.returncode == 0 and done.stderr == "") == (name == "whole"), done.stderr


def test_there_is_a_shell_to_ask() -> None:
    assert "bash" in SHELLS


def test_every_command_is_in_every_script(scripts: dict[str, str]) -> None:
    places = {place.path: place for place in places_of(cli._parser(), {})}
    assert {"", " check", " corpus", " corpus new"} <= places.keys()
    for place in places.values():
        for script in scripts.values():
            assert all(option.lstrip("-") in script for option in place.options), place.path
            assert all(word in script for word in place.words)


def test_places() -> None:
    parser = argparse.ArgumentParser(prog="x", add_help=False)
    parser.add_argument("--size", choices=[1, 2], help="how large (default: %(default)s)", default=1)
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_subparsers().add_parser("run", help="go", add_help=False).add_argument("what", choices=["a", "b"])
    outer, inner = places_of(parser, {" run": {"c": "see"}})
    assert outer.options == {"--size": "how large (default: 1)", "-q": "", "--quiet": ""}
    assert outer.values == {"--size": ("1", "2")} and outer.words == {"run": "go"}
    assert (inner.path, list(inner.words)) == (" run", ["c", "a", "b"])
    with pytest.raises(UserError, match="no such shell"):
        completion_script("csh", parser)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    said = capsys.readouterr().out
    assert "complete -o default -F _s2f_rl s2f-rl" in said and "reward_gradient" in said
