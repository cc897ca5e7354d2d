"""What is killed: recipes in folders of their own, where everything has the same relative path."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from s2f_rl.runs import read_rows, without_times

_COMMON = ["corpus.root=corpus", "root=runs", "name=run", "resume=true", "progress=false", "device=cpu", "logger=csv",
           "page=curves"]  # fmt: skip
_ACTOR = ["actor.audio.width=16", "actor.feature_dim=16", "batch_size=2", "optimizer.lr=1e-3", "max_frames=20"]
_RL = [
    "start=start", "reward.folder=reward", "corpus.cache=cache", "lanes=4", "group_size=2", "minibatch_lanes=2",
    "max_frames=20", "ema_decay=0.9",
]  # fmt: skip
SCENES: dict[str, tuple[str, list[str]]] = {
    "supervised": (
        "supervised",
        [*_ACTOR, "ema_decay=0.9", "reward.folder=reward", "iterations=5", "evaluation.every=2"],
    ),
    "ppo": ("ppo", [*_RL, "kl=adaptive", "constraint=lve", "iterations=5", "evaluation.every=2"]),
    "gdpo": (
        "gdpo",
        [*_RL, "reward.parts.closure={kind: closure, weight: 0.5}", "iterations=4", "evaluation.every=2"],
    ),
    "awr": ("awr", [*_RL, "critic=decoder", "replay.capacity=6", "iterations=5", "evaluation.every=2"]),
    "reward": (
        "reward",
        ["policy=start", "iterations=5", "listening.iterations=2", "listening.recordings=2", "listening.clips=2",
         "evaluation.every=2", "evaluation.utterances=1", "reward_model.width=16", "reward_model.mlp_width=16",
         "reward_model.n_heads=2", "motion_directions=4", "rough_directions=2", "hardening.steps=1",
         "clips.n_stretches=2", "clips.n_windows=2", "clips.stretch_frames=16", "clips.n_corruptions=1"],
    ),
    "judge": (
        "judge",
        ["iterations=5", "evaluation.every=2", "evaluation.utterances=1", "judge_model.width=16",
         "judge_model.hidden=16", "stretches.n_stretches=2", "stretches.stretch_frames=26", "stretches.n_corruptions=1",
         "motion_directions=4", "rough_directions=2"],
    ),
}  # fmt: skip
"""Recipe and overrides; small, and with every part that has a state."""


class Server:
    """Runs recipes; see ``server.py``."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("server.py")
        root = script.parents[2]
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}:{root / 'tests'}"},
        )  # fmt: skip
        assert self._line() == "ready"

    def run(self, folder: Path, scene: str, kill: str | None = None, log: Path | None = None, more: Any = ()) -> int:
        """Exit status of a scene in ``folder``; see :func:`injection.install` for ``kill`` and ``log``."""
        recipe, overrides = SCENES[scene]
        task = {"folder": str(folder), "recipe": recipe, "overrides": [*_COMMON, *overrides, *more], "kill": kill,
                "log": None if log is None else str(log)}  # fmt: skip
        print(json.dumps(task), file=self.process.stdin, flush=True)
        return int(self._line())

    def close(self) -> None:
        """End the server."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def fresh(template: Path, folder: Path) -> Path:
    """A folder with everything that a scene reads."""
    shutil.copytree(template, folder)
    return folder


def assert_same_folders(one: Path, other: Path) -> None:
    """Every file that either holds is in both, with the same content; only clocks may differ.

    The lock, what a process printed, and remembered times of files are no content.
    """
    ours, theirs = _files(one), _files(other)
    assert ours.keys() == theirs.keys()
    for name, path in ours.items():
        compare = _COMPARED.get(path.suffix, _same_bytes)
        compare(path, theirs[name], name)


def _files(root: Path) -> dict[str, Path]:
    skipped = (".lock", ".content.json", "output.txt", "moments.txt")
    found = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    return {name: path for name, path in found.items() if path.name not in skipped and "/time/" not in name}


def _same_bytes(one: Path, other: Path, name: str) -> None:
    assert one.read_bytes() == other.read_bytes(), name


def _same_tensors(one: Path, other: Path, name: str) -> None:
    ours, theirs = (torch.load(path, weights_only=True) for path in (one, other))
    assert_equal(ours, theirs, name)


def _same_rows(one: Path, other: Path, name: str) -> None:
    ours, theirs = ([without_times(row) for row in read_rows(path)] for path in (one, other))
    assert ours == theirs, name


def _same_pages(one: Path, other: Path, name: str) -> None:
    ours, theirs = (
        re.sub(r'(<p class="soft">[^<]*), [^<,]*</p>', r"\1</p>", each.read_text()) for each in (one, other)
    )
    assert ours == theirs, name


def assert_equal(one: Any, other: Any, where: str) -> None:
    """Nested containers of tensors and plain values, equal bit by bit."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}[{place}]")
    else:
        assert one == other or one != one, where


_COMPARED: dict[str, Callable[[Path, Path, str], None]] = {
    ".pt": _same_tensors,
    ".pth": _same_tensors,
    ".jsonl": _same_rows,
    ".html": _same_pages,
}
