"""The sets of utterances that a suite evaluates its runs on: a split of its corpus, or what ``evaluate`` names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EvaluatedSet:
    """Utterances, and where what is found about them is kept.

    ``name``: the folder below ``results`` and ``evaluations``; ``label``: of the rows, None for a suite without sets.
    ``records``: the folder of the evaluations' records. ``names``: patterns of utterances; empty: all of the split.
    """

    name: str
    label: str | None
    records: str
    corpus: str
    split: str
    names: tuple[str, ...]
    utterances: int | None
    conditions: str | list[int]

    def options(self) -> list[str]:
        """Arguments of ``evaluate.py``."""
        some = [] if self.utterances is None else [f"--utterances={self.utterances}"]
        return [*some, *(f"--name={pattern}" for pattern in self.names)]


def evaluated_sets(suite: Mapping[str, Any]) -> list[EvaluatedSet]:
    """The sets of ``evaluate``; without it ``split``, or the test speakers once those are opened."""
    corpus = str(suite["corpus"]["root"])
    found = []
    for name, each in (suite["evaluate"] or {}).items():
        conditions = suite["conditions"] if each.get("conditions") is None else each["conditions"]
        found.append(
            EvaluatedSet(name, name, f"sets/{name}", each.get("corpus") or corpus, each["split"],
                         tuple(each.get("names") or ()), each.get("utterances"), conditions)
        )  # fmt: skip
    if found:
        return found
    split = "test" if suite["open_test"] else str(suite["split"])
    # training speakers have a style of their own; the key `conditions` stays as it is, since runs validate in it
    conditions = "own" if split == "train" else suite["conditions"]
    records = "train_speakers" if split == "train" else split  # train/ has those of the runs
    return [EvaluatedSet(split, None, records, corpus, split, (), suite["utterances"], conditions)]


def told(suite: Mapping[str, Any], label: str | None) -> str:
    """What a report says of the set with this label: corpus and speakers."""
    each = next((s for s in evaluated_sets(suite) if s.label == label), evaluated_sets(suite)[0])
    chosen = f"set {label}: " if label else ""
    some = f", utterances {', '.join(each.names)}" if each.names else ""
    return f"{chosen}corpus {Path(each.corpus).name}, {each.split} speakers{some}"
