"""What is known of a suite's judges: which negatives fooled them (:mod:`benchmarks.judge_tests`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2f_rl.data.files import load_json
from s2f_rl.errors import UserError
from s2f_rl.rewards.judge.judge import load_scorer

RECORD = Path(__file__).resolve().parents[2] / "docs" / "results" / "judge_tests" / "record.json"


def notes(judges: Mapping[str, object], record: Path = RECORD) -> list[str]:
    """A line for each judge that is not known to pass without the veto."""
    known: dict[str, Any] = {entry["hash"]: entry for entry in load_json(record)} if record.exists() else {}
    lines = []
    for name, path in judges.items():
        if not isinstance(path, (str, Path)):
            continue  # a part of another kind, which is no judge of speech and motion
        try:
            entry = known.get(load_scorer(path).content_hash())
        except UserError:
            continue  # what evaluates with it says so
        if entry is None:
            lines.append(
                f"judge {name}: no record of benchmarks.judge_tests; read its scores beside LVE and closure only"
            )
        elif entry["fooled_by"]:
            rest = ", even after the veto" if entry["fooled_after_veto"] else ""
            lines.append(f"judge {name}: fooled by {', '.join(entry['fooled_by'])}{rest}; use it with the veto only")
    return lines
