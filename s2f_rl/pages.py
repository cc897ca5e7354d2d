"""What the package's pages share: text of any origin as it can stand in one, and the file around their parts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as escape_html

from s2f_rl.errors import printable


def escape(text: str) -> str:
    """Text of any origin (names of files, speakers, measures) as it can stand in a page, attributes included."""
    return escape_html(printable(text))


def document(title: str, style: str, parts: Sequence[str]) -> str:
    """One HTML file.

    Args:
        title: plain text. style: CSS. parts: HTML of the body, one below the other.
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
