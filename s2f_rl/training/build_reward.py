"""The reward of an RL run from its config: the parts, the signal that is maximised, and what validation scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from s2f_rl.data.contract import Corpus
from s2f_rl.envs import FrozenRewardTransform
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer
from s2f_rl.rewards import RewardModel
from s2f_rl.rewards.parts import score_columns
from s2f_rl.rewards.registry import build_part
from s2f_rl.training.placebo import Placebo
from s2f_rl.training.reward_signal import RewardSignal

SHORT_FORM = "perceptual"
"""Name of the part that ``reward.folder`` stands for, beside others."""


@dataclass
class BuiltReward:
    """What :func:`build_reward` opens.

    Attributes:
        transform, signal: reward the batches.
        scorer: scores the validation motions under the same names.
        select: what each score counts when the best checkpoint is chosen. Those of ``reward.folder`` count 1 whatever
            their weights, so that runs with other weights choose alike; those of ``reward.parts`` their weight.
        model: the reward model whose features a critic may read; None without one.
    """

    transform: FrozenRewardTransform
    signal: RewardSignal
    scorer: Scorer
    select: dict[str, float]
    model: RewardModel | None


def build_reward(config: Mapping[str, Any], train: Corpus, validation: Corpus, device: torch.device) -> BuiltReward:
    """Load the reward's parts and bring them to the corpora.

    Args:
        config: with the keys ``reward``, ``critic.kind``, ``corpus.cache``, ``placebo``, ``group_size`` and ``seed`` of
            ``recipes/conf/shared/rl.yaml``.
        train, validation: corpora. device: of the models.

    Raises:
        UserError: a part that cannot be read, or does not fit the corpus or the critic.
    """
    options, cache = dict(config["reward"]), config["corpus"]["cache"]
    folder, weights, normalise = options.pop("folder"), options.pop("weights"), options.pop("normalise")
    precision = options.pop("precision")
    parts: Mapping[str, Any] = options.pop("parts")
    rewards: dict[str, Any] = {}
    counts: dict[str, dict[str, float]] = {}
    if folder is not None:
        rewards[SHORT_FORM] = RewardModel.load(folder, device=device)
        rewards[SHORT_FORM].backbone.precision = precision
        counts[SHORT_FORM] = dict(weights)
    for name, part in parts.items():
        own = {key: value for key, value in part.items() if key not in ("kind", "weight", "weights")}
        rewards[name] = build_part(part["kind"], own, train, device, cache, f"reward.parts.{name}")
        counts[name] = _part_weights(f"reward.parts.{name}", part, rewards[name].score_names)
    alone = folder is not None and not parts
    columns = score_columns(rewards)
    transform = FrozenRewardTransform(
        rewards[SHORT_FORM] if alone else rewards,
        train,
        counts[SHORT_FORM] if alone else {column: counts[n].get(score, 0.0) for column, (n, score) in columns.items()},
        **options,
        cache_folder=cache,
        write_features=config["critic"]["kind"] == "backbone",
    )
    if not any(transform.weights.values()):
        raise UserError("reward: the weights of all scores are 0, so nothing is rewarded; control=true is such a run")
    own_name = SHORT_FORM if folder is not None else None
    select = {column: 1.0 if n == own_name else counts[n][score] for column, (n, score) in columns.items()}
    scorer = Scorer({"train": transform.parts.rewards}, validation)
    placebo = Placebo(config["group_size"], config["seed"]) if config["placebo"] else None
    signal = RewardSignal(transform, normalise, placebo)
    return BuiltReward(transform, signal, scorer, select, transform.reward_model)


def _part_weights(place: str, part: Mapping[str, Any], score_names: Sequence[str]) -> dict[str, float]:
    """What each score of a part counts: ``weight`` times its own of ``weights``, both 1 where they are not given."""
    weight, single = part.get("weight"), part.get("weights") or {}
    for score in single:
        if score not in score_names:
            raise UserError(f"{place}.weights.{score}: unknown score, use {' or '.join(score_names)}")
    return {score: (1.0 if weight is None else weight) * single.get(score, 1.0) for score in score_names}
