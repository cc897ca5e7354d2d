"""What the commands of a suite read, by content: results of another corpus, start, reward or judge are not mixed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from s2f_rl.errors import UserError
from s2f_rl.runs.inputs import actor_hash, corpus_hashes, score_hash


def training_inputs(suite: Mapping[str, Any], start: str | None = None) -> dict[str, Any]:
    """Hashes of the corpus and, for a run from ``start``, of that actor and the reward."""
    found = {"corpus": _tried(corpus_hashes, suite["corpus"]["root"])}
    if start is not None:
        found |= {"start": _tried(actor_hash, start), "reward": _tried(score_hash, suite["reward"])}
    return _known(found)


def evaluation_inputs(suite: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Hashes of one split of the corpus, of the reward and of the judges."""
    judges = {f"judge {name}": _tried(score_hash, path) for name, path in suite["judges"].items()}
    corpus = _tried(lambda root: corpus_hashes(root, splits=(split,)), suite["corpus"]["root"])
    return _known({"corpus": corpus, "reward": _tried(score_hash, suite["reward"]), **judges})


def _tried(read: Callable[[str], Any], path: str) -> Any:
    try:
        return read(str(path))
    except UserError:  # the command that needs it will tell what is wrong
        return None


def _known(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: content for name, content in found.items() if content is not None}
