"""What runs were trained against, as their evaluation scores it: folders and parts, each once, added up as in training.

A suite with one reward names its folder, whose scores are the columns of old: ``lip_score``, ``real_score``. With the
axis ``rewards`` a run's row has ``train_reward``, the weighted sum of its own reward's scores, and rows that serve all
rewards (controls, starts, the truth) have ``train_reward_NAME`` for each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness.scores import TRAIN_REWARD
from s2f_rl.data.contract import Corpus
from s2f_rl.rewards import Reward, RewardModel
from s2f_rl.rewards.judge.judge import AnyReward, load_scorer
from s2f_rl.rewards.parts import Rewards
from s2f_rl.rewards.registry import build_part

TRAIN = "train"
Row = dict[str, Any]


def reward_group(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Keys ``folder``, ``weights`` and ``parts`` of the group ``reward`` from dotted overrides.

    Example:
        >>> reward_group({"reward.folder": "a", "reward.parts.lips.kind": "closure", "reward.cap": "truth"})
        {'folder': 'a', 'weights': {}, 'parts': {'lips': {'kind': 'closure'}}}
    """
    found: dict[str, Any] = {"folder": None, "weights": {}, "parts": {}}
    for dotted, value in overrides.items():
        group, *path = dotted.split(".")
        if group != "reward" or path[0] not in found:
            continue
        *parents, name = path
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return found


def reward_arguments(rewards: Mapping[str | None, Mapping[str, Any]], own: str | None) -> list[str]:
    """``--reward`` of ``evaluate.py`` for a run of the reward ``own``, or for what serves all of them (None)."""
    if None in rewards:
        return [f"--reward={rewards[None]['reward.folder']}"]
    named = rewards.items() if own is None else [(TRAIN, rewards[own])]
    return [f"--reward={name}={json.dumps(reward_group(given))}" for name, given in named]


def open_judge(given: str, corpus: Corpus) -> Rewards:
    """A judge of ``--judge``: a folder, or a part of a reward as json."""
    if not given.startswith("{"):
        return load_scorer(given)
    part = json.loads(given)
    options = {key: value for key, value in part.items() if key not in ("kind", "weight", "weights")}
    return build_part(part["kind"], options, corpus, place="judges")


class TrainRewards:
    """The rewards of ``--reward`` on a corpus: every part is scored once, however many rewards have it.

    Args:
        given: a folder, or several ``NAME={json}``, see :func:`reward_arguments`.
        corpus: whose motions are scored.
    """

    def __init__(self, given: Sequence[str], corpus: Corpus) -> None:
        self.counts: dict[str, dict[str, tuple[float, Mapping[str, float]]]] = {}
        """Reward -> its parts -> weight, and weights of single scores."""
        self.model: Rewards
        if len(given) == 1 and "={" not in given[0]:
            self.model = RewardModel.load(given[0])
            return
        parts: dict[str, AnyReward | Reward] = {}
        names: dict[str, str] = {}  # what a part is -> its name here
        for item in given:
            reward, _, text = item.partition("=")
            group = json.loads(text)
            wanted = [dict(part) for part in group["parts"].values()]
            if group["folder"] is not None:
                wanted.append({"folder": group["folder"], "weights": group["weights"]})
            self.counts[reward] = {}
            for part in wanted:
                weight, single = part.pop("weight", None), part.pop("weights", None) or {}
                name = names.setdefault(json.dumps(part, sort_keys=True), f"part{len(names)}")
                if name not in parts:
                    kind = part.pop("kind", None)
                    parts[name] = build_part(kind, part, corpus) if kind else RewardModel.load(part["folder"])
                self.counts[reward][name] = (1.0 if weight is None else weight, single)
        self.model = parts

    def added_up(self, row: Row, columns: Mapping[str, tuple[str, str]]) -> Row:
        """The row with the rewards in place of the scores of their parts.

        columns: of a row -> (part, its score), as :class:`~s2f_rl.rewards.parts.RewardParts` has them.
        """
        if not self.counts:
            return row
        sums = {}
        for reward, counts in self.counts.items():
            name = TRAIN_REWARD if reward == TRAIN else f"{TRAIN_REWARD}_{reward}"
            weights = {
                column: counts[part][0] * counts[part][1].get(score, 1.0)
                for column, (part, score) in columns.items()
                if part in counts
            }
            sums[name] = sum(weight * row[column] for column, weight in weights.items())
        return {key: value for key, value in row.items() if key not in columns} | sums
