"""Names and messages of any origin as one line that a terminal does not obey."""

from __future__ import annotations

import logging

import pytest

from s2f_rl.errors import UserError, one_line, printable
from s2f_rl.runs.mistakes import mistake_line
from s2f_rl.runs.progress import show_log


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("face.npy: no such file; Ä ß 顔", "face.npy: no such file; Ä ß 顔"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("two\nlines\r\n\tand\x85more\u2028end", "two lines and more end"),
        ("\u202egnp.face", "\\u202egnp.face"),
        ("a\u2066b\u200bc\ufeffd\x9be", "a\\u2066b\\u200bc\\ufeffd\\x9be"),
        ("\udcff.wav", "\\udcff.wav"),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown and one_line(shown) == shown
    assert str(UserError(text)) == shown
    assert mistake_line(FileNotFoundError(2, "No such file", text)) == f"{shown}: No such file; check the path"


def test_a_long_line_keeps_its_ends() -> None:
    line = str(UserError(f"file: {'x' * 10**6}; the remedy"))
    assert len(line) < 4100 and line.startswith("file: xxx") and line.endswith("; the remedy")


def test_printable_keeps_spaces() -> None:
    assert printable("  a  b") == "  a  b" and printable("\t") == "\\t"


def test_the_log_is_printable_and_names_add_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("s2f_rl")
    root_handlers, logging.getLogger().handlers = logging.getLogger().handlers, []
    try:
        show_log()
        log.warning("%s: unreadable", "x\nERROR forged \x1b[31m")
        log.warning("a report:\n  its second line \u202e")
    finally:
        log.handlers.clear()
        logging.getLogger().handlers = root_handlers
    assert capsys.readouterr().err.splitlines() == [
        "WARNING x ERROR forged \\x1b[31m: unreadable",
        "WARNING a report:",
        "  its second line \\u202e",
    ]


def test_memory_that_cannot_be_had_is_one_line() -> None:
    """torch says it in a RuntimeError; any other RuntimeError is a bug."""
    torch_error = RuntimeError("DefaultCPUAllocator: can't allocate memory:\n you tried to allocate 51539607552 bytes.")
    for error in (torch_error, MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")):
        line = mistake_line(error)
        assert line is not None and line.startswith("not enough memory") and "\n" not in line
    assert mistake_line(RuntimeError("shapes do not match")) is None
