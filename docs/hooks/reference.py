"""A page of the reference shows every public name of its package, or the build says which it misses."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path
from typing import Any

DIRECTIVE = re.compile(r"^::: (\S+)$", re.MULTILINE)
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
    root = Path(config.config_file_path).parent
    for package in DIRECTIVE.findall(page.markdown):
        folder = root / package.replace(".", "/")
        if (folder / "__init__.py").is_file():
            # a function that has the name of its module is shown by a directive of its own
            missing = [
                name
                for name in public_names(folder)
                if not re.search(rf'id="{re.escape(package)}\.{name}(\.{name})?"', page_html)
            ]
            if missing:
                log.warning(f"{page.file.src_uri}: {package}: no docstring to show of {', '.join(missing)}")
    return page_html
