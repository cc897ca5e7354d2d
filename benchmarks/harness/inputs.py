"""What the commands of a suite read, by content: results of another corpus, start, reward or judge are not mixed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.matrix import reward_settings
from benchmarks.harness.sets import EvaluatedSet
from s2f_rl.errors import UserError
from s2f_rl.runs.inputs import actor_hash, corpus_hashes, score_hash


def training_inputs(
    suite: Mapping[str, Any],
    start: str | None = None,
    corpus: str | None = None,
    reward: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Hashes of the corpus (default: the suite's) and, for a run from ``start``, of that actor and the reward.

    reward: overrides of the run's reward, see :func:`~benchmarks.harness.matrix.reward_settings`; default: the first.
    """
    found = {"corpus": _tried(corpus_hashes, corpus or suite["corpus"]["root"])}
    if start is not None:
        given = next(iter(reward_settings(suite).values())) if reward is None else reward
        found |= {"start": _tried(actor_hash, start), **_reward_hashes("reward", given)}
    return _known(found)


def evaluation_inputs(
    suite: Mapping[str, Any], each: EvaluatedSet, rewards: Mapping[str | None, Mapping[str, Any]]
) -> dict[str, Any]:
    """Hashes of a set's split of its corpus, of the rewards and of the judges."""
    judges: dict[str, Any] = {}
    for name, given in suite["judges"].items():
        judges |= _judge_hashes(name, given)
    corpus = _tried(lambda root: corpus_hashes(root, splits=(each.split,)), each.corpus)
    found: dict[str, Any] = {}
    for name, given in rewards.items():
        found |= _reward_hashes("reward" if name is None else f"reward {name}", given)
    return _known({"corpus": corpus, **found, **judges})


def _reward_hashes(label: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of the folder of a reward, and of the folders of its parts, of whatever kind."""
    found = {}
    for key, path in given.items():
        *place, last = key.split(".")
        if path is None:
            continue
        if key == "reward.folder":
            found[label] = _tried(score_hash, path)
        elif place[:2] == ["reward", "parts"] and last in _FOLDERS:
            found[" ".join([label, *place[2:], *([last] if last != "folder" else [])])] = _folder_hash(path, last)
    return found


def _judge_hashes(name: str, given: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(given, str):
        return {f"judge {name}": _tried(score_hash, given)}
    return _reward_hashes("judge", {f"reward.parts.{name}.{key}": value for key, value in given.items()})


_FOLDERS = {"folder": "*.pt*", "phones": "[!.]*.json"}
"""Keys of a part that name a folder, whatever its kind, and which of the folder's files count."""


def _folder_hash(path: str, key: str) -> Any:
    from s2f_rl.data.content import file_hashes
    from s2f_rl.data.tensor_files import content_hash

    files = sorted(file for file in Path(path).glob(_FOLDERS[key]) if file.is_file())
    found = _tried(lambda root: file_hashes(Path(root), files), path) or {}
    return content_hash({file.name: digest for file, digest in found.items()}) if found else None


def _tried(read: Callable[[str], Any], path: str) -> Any:
    try:
        return read(str(path))
    except UserError:  # the command that needs it will tell what is wrong
        return None


def _known(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: content for name, content in found.items() if content is not None}
