"""The notebooks run at a tiny size, from their first cell to their last."""

from __future__ import annotations

import json
import re

import pytest
from notebooks import ROOT, printed, run_notebook

FOLDER = ROOT / "docs" / "notebooks"
# fewer and shorter than what a reader sees; names are those of each notebook's parameters
TINY = {
    "corpus": "subjects, sentences = 3, 2",
    "train": "subjects, sentences = 4, 2\nsupervised, reward, judge, rl = 4, 4, 2, 1",
}


@pytest.fixture
def notebook(request, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    return run_notebook(FOLDER / f"{request.param}.ipynb", tmp_path, TINY[request.param])


def test_all_notebooks_are_here():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(TINY)


@pytest.mark.parametrize("notebook", ["corpus"], indirect=True)
def test_corpus(notebook):
    text = printed(notebook)
    assert "no faults found" in text
    sizes = re.search(r"half as large +LVE +([\d.]+) mm², amplitude ratio ([\d.]+)", text)
    assert float(sizes[1]) > 0.1 and sizes[2] == "0.50"


@pytest.mark.parametrize("notebook", ["train"], indirect=True)
def test_train(notebook):
    table = dict(re.findall(r"^(ground truth|supervised|control|PPO) +(.*)$", printed(notebook), re.MULTILINE))
    figures = {name: [float(figure) for figure in row.split()] for name, row in table.items()}
    assert set(figures) == {"ground truth", "supervised", "control", "PPO"}
    assert figures["ground truth"][4] == 0.0 and figures["ground truth"][5] == 1.0
    assert figures["supervised"][4] > 0 and figures["PPO"] != figures["control"]


@pytest.mark.parametrize("name", sorted(TINY))
def test_shows_what_its_cells_print_and_draw(name):
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
