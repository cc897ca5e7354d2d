"""The fenced blocks and the commands of the documents."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if not path.is_relative_to(ROOT / "docs" / "results")  # written by the benchmarks
)
COMMANDS = ("s2f-rl", "python", "make", "pip")
NOT_RUN = re.compile(r'title="not run: [^"]+"')

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<about>.*)$")
_INLINE = re.compile(r"(?<!`)`(s2f-rl [^`]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, what else its first line says, its text without indentation."""

    document: str
    line: int
    language: str
    about: str
    text: str

    @property
    def runs(self) -> bool:
        """False for blocks that say visibly, in their title, why they are not run."""
        return NOT_RUN.search(self.about) is None

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"


def blocks_of(document: str, text: str | None = None) -> list[Block]:
    """All fenced blocks of a document, in order; ``text`` in place of the file's."""
    text = (ROOT / document).read_text(encoding="utf-8") if text is None else text
    found: list[Block] = []
    start, fence, about, lines = 0, "", "", []
    for number, line in enumerate(text.splitlines(), start=1):
        match = _FENCE.match(line)
        if not fence and match:
            start, fence, about, lines = number, match["fence"], match["about"].strip(), []
        elif fence and line.strip() == fence:
            language, _, rest = about.partition(" ")
            found.append(Block(document, start, language, rest, textwrap.dedent("\n".join(lines)) + "\n"))
            fence = ""
        elif fence:
            lines.append(line)
    assert not fence, f"{document}:{start}: the block has no end"
    return found


def prose_of(document: str, text: str | None = None) -> str:
    """A document without its fenced blocks; lines keep their numbers."""
    text = (ROOT / document).read_text(encoding="utf-8") if text is None else text
    lines = text.splitlines()
    for block in blocks_of(document, text):
        for number in range(block.line - 1, block.line + 1 + block.text.count("\n")):
            lines[number] = ""
    return "\n".join(lines)


def indented_commands(document: str) -> list[str]:
    """Places of commands in indented blocks, which no fence names."""
    pattern = re.compile(rf"^ {{4,}}({'|'.join(COMMANDS)}) ")
    lines = prose_of(document).splitlines()
    return [f"{document}:{number}" for number, line in enumerate(lines, start=1) if pattern.match(line)]


def inline_commands(document: str) -> list[str]:
    """`s2f-rl ...` within sentences; line breaks inside are spaces."""
    return [" ".join(found.split()) for found in _INLINE.findall(prose_of(document))]


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell block: comments, prompts, line ends with a backslash are gone."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        command: list[str] = []
        for word in [*words, ";"]:
            if word in ("&&", "||", "|", ";", "&"):
                if command:
                    yield command
                command = []
            else:
                command.append(word)
