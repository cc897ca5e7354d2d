"""Formulas become MathML while the site is built: browsers draw it by themselves, no script and no font is loaded."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

# what pymdownx.arithmatex leaves with `generic: true`
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)
# a command that the converter does not know comes out as a symbol that shows its name
UNKNOWN = re.compile(r"<m[ion]>(\\[A-Za-z]+)</m[ion]>")


def mathml(latex: str, display: str) -> str:
    """MathML of a formula; ``display`` is "inline" or "block". Raises ValueError for what cannot be shown."""
    latex = html.unescape(latex).strip()
    try:
        shown = convert(latex, display=display)
    except Exception as error:
        raise ValueError(f"not a formula: {latex} ({type(error).__name__}: {error})") from error
    if unknown := UNKNOWN.search(shown):
        raise ValueError(f"{unknown[1]} is not known to latex2mathml: {latex}")
    return f'<div class="formula">{shown}</div>' if display == "block" else shown


def on_page_content(page_html: str, **_: Any) -> str:
    """MkDocs calls this with the HTML of every page."""
    page_html = BLOCK.sub(lambda found: mathml(found[1], "block"), page_html)
    return INLINE.sub(lambda found: mathml(found[1], "inline"), page_html)
