"""A suite killed while it writes its records or results: the same command ends with what the unbroken one has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.test_suite_inputs import ROOT, make_place

SUITE = (
    "import sys; from pathlib import Path; from tests.benchmarks.test_suite_inputs import run; sys.exit(run(Path('.')))"
)
MEASURED = ("wall_s", "attempts")  # by a clock; how often it was begun


def suite(place: Path, **watched: str) -> int:
    """Exit code of the suite, which is watched with the processes that it starts."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}:{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", **watched}
    done = subprocess.run([sys.executable, "-c", SUITE], cwd=place, env=environment, capture_output=True, check=False)
    return done.returncode


def results(place: Path) -> dict[str, Any]:
    """Every record, evaluation and result without what was measured by a clock."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in (place / "out").rglob("*") if path.is_file() and path.suffix != ".log"):
        name, text = str(path.relative_to(place)), path.read_text()
        if path.suffix == ".json" and "records" in name:
            found[name] = {k: v for k, v in json.loads(text).items() if k not in MEASURED}
        elif path.name == "runs.jsonl":
            rows = [json.loads(line) for line in text.splitlines()]
            found[name] = [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]
        else:
            found[name] = text
    return found


def resumed(place: Path, unbroken_suite: Path, *kills: str) -> None:
    for kill in kills:
        assert suite(place, S2F_RL_KILL=kill) in (-9, 0), kill
    assert suite(place) == 0
    assert not [path for path in place.rglob(".*") if ".tmp" in path.name]
    assert results(place) == results(unbroken_suite)


def test_chosen_moment(unbroken_suite: Path, tmp_path: Path) -> None:
    """The record that says "done" is half written; the run was done and is not known to be."""
    place = make_place(tmp_path / "place")
    assert suite(place, S2F_RL_KILL="cut:1:train/ours/first/.seed0") == -9
    resumed(place, unbroken_suite)
