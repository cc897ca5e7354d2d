"""Combinations of options that make no sense, refused before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s2f_rl.envs.frozen_reward import CLIP_FRAMES
from s2f_rl.errors import UserError
from s2f_rl.losses.advantages import CREDITS
from s2f_rl.training.reward_signal import NORMALISATIONS

CHOICES = {
    "critic": ("none", "decoder", "backbone"),
    "kl": ("none", "fixed", "adaptive"),
    "constraint": ("none", "lve"),
}


def check_combination(
    config: Mapping[str, Any],
    baselines: Sequence[str] = ("group", "critic"),
    explorations: Sequence[str] = ("latent", "vertex"),
) -> None:
    """Raise UserError, in one line, for options that contradict each other or the algorithm.

    Args:
        config: a recipe's config as plain values.
        baselines: what the algorithm can compare a sample with: ``"group"``, ``"critic"``, both or nothing.
        explorations: action spaces that it supports.
    """
    name = config["name"]
    for group, kinds in CHOICES.items():
        if config[group]["kind"] not in kinds:
            raise UserError(f"{group}.kind={config[group]['kind']}: use {' or '.join(kinds)}")
    critic, group_size = config["critic"]["kind"], config["group_size"]
    if critic != "none" and "critic" not in baselines:
        raise UserError(f"critic={critic}: the algorithm of {name} has no use for a critic; set critic=none")
    if critic == "none" and "group" in baselines and group_size < 2:
        other = "use group_size=4 or a critic" if "critic" in baselines else "use group_size=4"
        raise UserError(f"critic=none with group_size={group_size}: nothing to compare a sample with; {other}")
    if critic != "none" and not config["critic"]["coeff"] > 0:
        raise UserError(f"critic.coeff={config['critic']['coeff']}: a critic must learn; above 0, or critic=none")
    exploration = config["exploration"]["exploration"]
    if exploration not in explorations and exploration in ("latent", "vertex"):
        raise UserError(
            f"exploration={exploration}: the algorithm of {name} supports {' or '.join(explorations)} exploration only"
        )
    if config.get("credit", CREDITS[0]) not in CREDITS:
        raise UserError(f"credit={config['credit']}: use {' or '.join(CREDITS)}")
    for key in ("gamma", "gae_lambda"):
        if not 0.0 <= config.get(key, 0.0) <= 1.0:
            raise UserError(f"{key}={config[key]}: must lie between 0 and 1")
    normalise = config["reward"]["normalise"]
    if normalise not in NORMALISATIONS:
        raise UserError(f"reward.normalise={normalise}: use {' or '.join(NORMALISATIONS)}")
    _check_numbers(config)
    _check_terms(config)


def _check_numbers(config: Mapping[str, Any]) -> None:
    for key in ("epochs", "minibatch_lanes", "updates"):
        if config.get(key, 1) < 1:
            raise UserError(f"{key}={config[key]}: at least 1")
    if config["evaluation"]["every"] < 1:
        raise UserError(f"evaluation.every={config['evaluation']['every']}: at least 1; the last is always evaluated")
    if config["max_frames"] is not None and config["max_frames"] < CLIP_FRAMES:
        raise UserError(f"max_frames={config['max_frames']}: a scored clip has {CLIP_FRAMES} frames; null: all")
    if not 0.0 < config.get("clip_epsilon", 0.5) < 1.0:
        raise UserError(f"clip_epsilon={config['clip_epsilon']}: must lie between 0 and 1, 0.2 is usual")
    decay = config["ema_decay"]
    if decay is not None and not 0.0 <= decay <= 1.0:
        raise UserError(f"ema_decay={decay}: must lie between 0 and 1, e.g. 0.99; null: no average")
    if not any(config["reward"]["weights"].values()):
        raise UserError("reward.weights: all are 0, so nothing is rewarded; control=true is the run without a reward")


def _check_terms(config: Mapping[str, Any]) -> None:
    supervised = config["supervised"]["mode"] != "none" and bool(config["supervised"]["weight"])
    if config["control"] and not supervised:
        raise UserError(
            "control=true with supervised=none: nothing would train, so it is no control; keep a supervised term"
        )
    if not supervised and not config["policy_weight"]:
        raise UserError("policy_weight=0 with supervised=none: nothing would train")
    if config["constraint"]["kind"] != "none" and not supervised:
        raise UserError(
            "constraint=lve with supervised=none: the multiplier acts on the supervised term; keep it or drop the "
            "constraint"
        )
    if config.get("train_output_map") and not config["optimizer"]["output_lr_factor"]:
        raise UserError("train_output_map=true needs a rate for the output map: optimizer.output_lr_factor=0.03")
    if config["kl"]["kind"] == "fixed" and config["kl"]["weight"] < 0:
        raise UserError(f"kl.weight={config['kl']['weight']}: must not be negative")
