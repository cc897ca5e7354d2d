"""A page of the reference shows every public name of its package, or the build says which it misses."""

from __future__ import annotations

import ast
import logging
from pathlib import Path
from typing import Any

# MkDocs counts warnings of its own loggers, and --strict makes them errors
log = logging.getLogger("mkdocs.hooks.reference")


def public_names(package: Path) -> list[str]:
    """``__all__`` of a package's folder, read without importing it."""
    for node in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return []


def on_page_content(page_html: str, page: Any, config: Any, **_: Any) -> str:
    """MkDocs calls this with the HTML of every page."""
    folder, _, name = page.file.src_uri.removesuffix(".md").partition("/")
    if folder == "reference" and name != "index":
        package = Path(config.config_file_path).parent / "s2f_rl" / name
        missing = [public for public in public_names(package) if f'id="s2f_rl.{name}.{public}"' not in page_html]
        if missing:
            log.warning(f"{page.file.src_uri}: does not show {', '.join(missing)}")
    return page_html
