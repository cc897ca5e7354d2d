"""Notebooks become pages: text, code and what the code printed or drew, in the site's own look.

(The plugins at hand put half a megabyte of styles and scripts, some from the network, into every page.)
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def as_markdown(notebook: dict[str, Any]) -> str:
    """A notebook's cells, in order, as Markdown; pictures are inside the text."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source:
            parts.append(f"```python\n{source}\n```")
            parts += [text for output in cell["outputs"] if (text := _shown(output))]
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f"![what the cell above draws](data:image/png;base64,{''.join(data['image/png']).strip()})"
    text = "".join(output.get("text", data.get("text/plain", [])))
    return f"```text\n{COLOURS.sub('', text).rstrip()}\n```" if text.strip() else ""


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """MkDocs calls this with all files of the site; a page takes the place of each notebook."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        text = as_markdown(json.loads(Path(file.abs_src_path).read_text(encoding="utf-8")))
        files.remove(file)
        files.append(File.generated(config, file.src_uri.removesuffix(".ipynb") + ".md", content=text))
    return files
