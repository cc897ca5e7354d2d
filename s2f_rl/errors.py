"""The one exception that means "the user can mend this"."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in a file, a key or an option, told in one line that names it and the remedy.

    The command line and the recipes print the message on stderr and exit with code 2; the library raises it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))
