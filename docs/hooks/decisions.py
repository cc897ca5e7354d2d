"""The page of the decisions lists them, so that a new one needs no line elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs calls this with the text of every page; the one of the decisions gets a list of their titles."""
    if page.file.src_uri != "decisions/README.md":
        return markdown
    pages = sorted(Path(page.file.abs_src_path).parent.glob("[0-9]*.md"))
    titles = [path.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ") for path in pages]
    listed = "\n".join(f"- [{title}]({path.name})" for title, path in zip(titles, pages, strict=True))
    return f"{markdown}\n\n{listed}\n"
