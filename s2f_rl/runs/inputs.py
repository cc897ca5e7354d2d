"""What a run reads, by content: a resumed run must find the corpus and the models with which it began."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s2f_rl.data.files import atomic_write_json, load_json
from s2f_rl.errors import UserError

logger = logging.getLogger(__name__)
FILE = "inputs.json"


def corpus_hashes(
    root: str, topology: str | None = None, splits: Sequence[str] = ("train", "validation"), spare: Path | None = None
) -> dict[str, str]:
    """Hashes of some splits of a corpus by part, see :func:`~s2f_rl.data.content.corpus_content`."""
    from s2f_rl.data import FaceCorpus
    from s2f_rl.data.content import corpus_content

    return corpus_content([FaceCorpus(root, split, topology) for split in splits], spare)


def actor_hash(path: str) -> str:
    """Hash of an actor's file, its optimizer's moments included: run folder, checkpoint or published weights."""
    from s2f_rl.data.tensor_files import content_hash, load_tensors
    from s2f_rl.models.checkpoint import actor_file

    return content_hash(load_tensors(actor_file(path)))


def codebook_hash(path: str) -> str:
    """Hash of a stage 1 of CodeTalker, its weights alone: run folder or file."""
    from s2f_rl.data.tensor_files import content_hash
    from s2f_rl.models.codetalker.codebook_files import TrainedCodebook

    return content_hash(TrainedCodebook.load(path).codebook.state_dict())


def score_hash(path: str) -> str:
    """Content hash of a reward or a judge, whatever the form of its files."""
    from s2f_rl.rewards.judge.judge import load_scorer

    return load_scorer(path).content_hash()


def samples_hash(folder: str) -> str:
    """Hash of a folder of predictions."""
    from s2f_rl.data.content import file_hashes
    from s2f_rl.data.motion_files import SUFFIXES
    from s2f_rl.data.tensor_files import content_hash

    hashes = file_hashes(Path(folder), sorted(p for suffix in SUFFIXES for p in Path(folder).glob(f"[!.]*{suffix}")))
    return content_hash({file.name: digest for file, digest in hashes.items()})


READERS: dict[str, Callable[[str], object]] = {
    "start": actor_hash,
    "policy": actor_hash,
    "actor.codebook": codebook_hash,
    "reward.folder": score_hash,
    "backbone": score_hash,
    "policy_samples": samples_hash,
}
"""Config keys that name what a run reads, and how it is hashed; beside them ``corpus.root``."""


def read_inputs(config: Mapping[str, object], spare: Path | None = None) -> dict[str, object]:
    """Hashes of everything that a config names: ``{"corpus.root": {part: hash}, "start": hash, ...}``.

    Args:
        config: plain nested mapping. spare: see :func:`~s2f_rl.data.content.corpus_content`.

    Raises:
        UserError: something that is named cannot be read.
    """
    found: dict[str, object] = {}
    root = _value(config, "corpus.root")
    if _exists(root):
        found["corpus.root"] = corpus_hashes(root, _value(config, "corpus.topology"), spare=spare)
    for key, read in READERS.items():
        path = _value(config, key)
        if _exists(path):
            found[key] = read(path)
        elif isinstance(path, list):
            found[key] = {each: read(each) for each in path if _exists(each)}
    return found


def changed_inputs(before: Mapping[str, object], now: Mapping[str, object]) -> dict[str, list[str]]:
    """What both have and is not the same, with the parts that differ (of a corpus).

    Example:
        >>> changed_inputs({"start": "a", "corpus.root": {"wav": "b", "faces": "c"}}, {"corpus.root": {"wav": "d"}})
        {'corpus.root': ['wav']}
    """
    found: dict[str, list[str]] = {}
    for key in before.keys() & now.keys():
        old, new = before[key], now[key]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            parts = [part for part in old if part in new and old[part] != new[part]]
            found |= {key: parts} if parts else {}
        elif old != new:
            found[key] = []
    return dict(sorted(found.items()))


def keep_inputs(
    folder: Path, config: Mapping[str, object], resume: bool, more: Mapping[str, str] | None = None
) -> None:
    """Write ``inputs.json`` of a new run; compare it when the run goes on. ``more``: further hashes by config key.

    A run of a version that did not write it goes on, with a warning, and is compared from then on.

    Raises:
        UserError: the run goes on, and what it reads has changed.
    """
    path = folder / FILE
    now = {**read_inputs(config, folder), **(more or {})}
    if resume and path.exists():
        before = load_json(path)
        if not isinstance(before, dict):
            raise UserError(f"{path}: holds no inputs; restore the file, or delete it to go on with what is there now")
        changed = changed_inputs(before, now)
        if changed:
            names = ", ".join(
                f"{key}={_value(config, key)}" + (f" ({', '.join(parts)})" if parts else "")
                for key, parts in changed.items()
            )
            raise UserError(
                f"{path}: a resumed run reads what it began with, but the content of {names} has changed. Put the old "
                "content back or start a new run with name=..."
            )
        now = {**before, **now}
    elif resume and (folder / "last.pt").exists():
        logger.warning(
            "%s: made by a version that did not record what a run reads; whether the corpus and the models are those "
            "it began with cannot be told. It goes on with what is there now",
            folder,
        )
    atomic_write_json(path, now)


def _value(config: Mapping[str, object], key: str) -> Any:
    value: object = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _exists(path: object) -> bool:
    return isinstance(path, str) and os.path.exists(path)
