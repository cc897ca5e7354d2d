"""The folder of a run of several ranks: the first writes it, the others read what it has written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from s2f_rl import ranks
from s2f_rl.runs.folder import RunFolder
from s2f_rl.runs.rows import L, MetricsRows, Row


def shared_run_folder(
    name: str,
    root: str | Path,
    config: Mapping[str, object],
    resume: bool,
    hashes: Mapping[str, str] | None = None,
) -> RunFolder:
    """A :class:`RunFolder`; on ranks other than the first one of the same folder that writes nothing.

    Raises:
        UserError: see :class:`RunFolder`.
        FirstFailed: the first rank was refused the folder.
    """
    if not ranks.is_first():
        return _Reader(name, root, ranks.alone(lambda: False))
    opened: list[RunFolder] = []

    def opens() -> bool:
        opened.append(RunFolder(name, root, config, resume, hashes=hashes))
        return opened[0].resuming

    try:
        ranks.alone(opens)
    except BaseException:
        for folder in opened:
            folder.close()
        raise
    return opened[0]


class _Reader(RunFolder):
    """The folder as another rank has opened it."""

    def __init__(self, name: str, root: str | Path, resuming: bool) -> None:
        self.name, self.path, self.resuming = name, Path(root) / name, resuming
        self.rows = _NoRows(self.path / "metrics.jsonl")
        self._lock, self._saved_at = None, math.inf

    def share(self, stem: str, tensors: Mapping[str, Tensor], near: Path | None = None) -> None:
        pass

    def save_checkpoint(self, name: str, checkpoint: Mapping[str, object]) -> Path:
        return self.path / name


class _NoRows(MetricsRows):
    def feed(self, logger: L) -> L:
        return logger

    def append(self, values: Mapping[str, object], iteration: int, frames: int = 0, kind: str = "train") -> Row:
        return {}

    def cut_after(self, iteration: int) -> None:
        pass
