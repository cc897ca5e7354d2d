"""Docstrings use Sphinx's roles (:class:`RewardModel`) and groups of arguments (``a, b: ...``); the site reads both."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|data|mod|attr|exc|obj):`~?([^`]+)`")
GROUP = re.compile(r"^( +)(\w+(?:, \w+)+)(?=: |$)", re.MULTILINE)
NO_BREAK = "\N{NO-BREAK SPACE}"


def readable(docstring: str) -> str:
    """Roles become code. A group's names are held together, or all but the first would be taken for a type."""
    docstring = ROLE.sub(r"`\1`", docstring)
    return GROUP.sub(lambda found: found[1] + found[2].replace(" ", NO_BREAK), docstring)


class Readable(griffe.Extension):
    """Griffe calls this with every object that it has read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = readable(obj.docstring.value)
