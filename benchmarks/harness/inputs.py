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
    judges = {f"judge {name}": _judge_hash(given) for name, given in suite["judges"].items()}
    corpus = _tried(lambda root: corpus_hashes(root, splits=(each.split,)), each.corpus)
    found: dict[str, Any] = {}
    for name, given in rewards.items():
        found |= _reward_hashes("reward" if name is None else f"reward {name}", given)
    return _known({"corpus": corpus, **found, **judges})


def _reward_hashes(label: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of the folder of a reward, and of the folders of its parts, of whatever kind."""
    found = {}
    for key, path in given.items():
        if key == "reward.folder" and path is not None:
            found[label] = _tried(score_hash, path)
        elif key.startswith("reward.parts.") and key.endswith(".folder"):
            found[f"{label} {key.split('.')[2]}"] = _tried(_folder_hash, path)
    return found


def _judge_hash(given: str | Mapping[str, Any]) -> Any:
    if isinstance(given, str):
        return _tried(score_hash, given)
    return _tried(_folder_hash, given["folder"]) if given.get("folder") else None


def _folder_hash(path: str) -> Any:
    """Of a folder whose kind of reward is not known here: of the files that hold weights."""
    from s2f_rl.data.content import file_hashes
    from s2f_rl.data.tensor_files import content_hash

    files = sorted(file for file in Path(path).glob("*.pt*") if file.is_file())
    return (
        content_hash({file.name: digest for file, digest in file_hashes(Path(path), files).items()}) if files else None
    )


def _tried(read: Callable[[str], Any], path: str) -> Any:
    try:
        return read(str(path))
    except UserError:  # the command that needs it will tell what is wrong
        return None


def _known(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: content for name, content in found.items() if content is not None}
