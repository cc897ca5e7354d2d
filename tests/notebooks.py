"""Runs a notebook as a reader would, with other parameters: ``python tests/notebooks.py docs/notebooks/corpus.ipynb``.

Without parameters the notebook keeps its own, and what its cells print and draw is written into the file.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]


def run_notebook(file: Path, folder: Path, parameters: str | None = None) -> Any:
    """Run a notebook in a folder and return it.

    Args:
        parameters: lines of Python in place of those of the cell that is tagged ``parameters``.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(file, as_version=4)
    if parameters is not None:
        (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        cell.source = parameters
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def printed(notebook: Any) -> str:
    """Everything that the cells printed."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs)


def main(file: Path) -> None:
    """Run a notebook with its own parameters and write it with what it shows."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        notebook = run_notebook(file, Path(folder))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":  # notes and warnings are about this machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec",)}
    nbformat.write(notebook, file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
