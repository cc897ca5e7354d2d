"""What the user can mend, its kind for numbers that are no longer finite, and names of any origin fit to be shown."""

from __future__ import annotations

_LONGEST, _KEPT_END = 4000, 800


class UserError(Exception):
    """A mistake in a file, a key or an option, told in one line that names it and the remedy.

    The command line and the recipes print the message on stderr and exit with code 2; the library raises it. Whatever
    the message was made of, it is one line and holds nothing that a terminal would obey.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class NotFinite(UserError):
    """A model gave, or holds, a number that is NaN or infinite where only a finite one means anything."""


class Diverged(NotFinite):
    """A run that ended because its numbers are no longer finite: the recipes exit with code 3."""


def printable(text: str) -> str:
    """``text`` with its control, formatting and half characters (of names that are no UTF-8) as escapes.

    A file may be called so that a terminal clears itself, hides what follows or shows it from right to left.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: object) -> str:
    """Anything as one printable line; of a very long one the beginning and the end."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - _KEPT_END]} ... {line[-_KEPT_END:]}"
