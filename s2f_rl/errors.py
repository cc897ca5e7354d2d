"""The one exception that means "the user can mend this", and its kind for numbers that are no longer finite."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in a file, a key or an option, told in one line that names it and the remedy.

    The command line and the recipes print the message on stderr and exit with code 2; the library raises it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


class NotFinite(UserError):
    """A model gave, or holds, a number that is NaN or infinite where only a finite one means anything."""


class Diverged(NotFinite):
    """A run that ended because its numbers are no longer finite: the recipes exit with code 3."""
