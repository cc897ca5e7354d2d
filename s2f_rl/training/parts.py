"""The parts of a reinforcement-learning run, opened from plain options; the loop stays in the recipe."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from s2f_rl.envs import FrozenRewardTransform, SpeechToFaceEnv
from s2f_rl.errors import UserError
from s2f_rl.losses import AdaptiveKL, LagrangeMultiplier, ReferenceKL, SupervisedLoss
from s2f_rl.losses.weighted import Weight
from s2f_rl.models import FaceFormerPolicy
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.critics import BackboneCritic, DecoderCritic
from s2f_rl.rewards import RewardModel
from s2f_rl.runs import MotionAlarm, PolicyAverage
from s2f_rl.training.build_reward import build_reward
from s2f_rl.training.constraint import LipErrorConstraint
from s2f_rl.training.optimizers import load_moments, make_optimizer
from s2f_rl.training.reward_signal import RewardSignal
from s2f_rl.training.setup import Start, actor_entry, load_start, open_corpora, plain
from s2f_rl.training.statistics import AmplitudeReference
from s2f_rl.training.validation import Validation

logger = logging.getLogger(__name__)


@dataclass
class RLParts:
    """What :func:`prepare_rl` opens; see there."""

    train: Any
    start: Start
    policy: FaceFormerPolicy
    env: SpeechToFaceEnv
    reward: FrozenRewardTransform
    signal: RewardSignal
    critic: nn.Module | None
    auxiliary: dict[str, tuple[nn.Module, Weight]]
    adaptive_kl: AdaptiveKL | None
    constraint: LipErrorConstraint | None
    policy_weight: float
    optimizer: Mapping[str, Any]
    validation: Validation
    average: PolicyAverage | None
    alarm: MotionAlarm
    amplitude: AmplitudeReference
    lips: Tensor

    def make_optimizer(self, loss: nn.Module) -> torch.optim.Adam:
        """Adam over the loss's parameters, the decoder's moments carried over from the supervised run."""
        options = self.optimizer
        actor = self.start.actor
        noise = options["noise_lr_factor"]  # what the policy has beyond the actor: the logarithm of its noise
        groups = [(list(actor.named_parameters()), 1.0), (list(self.policy.named_parameters()), noise)]
        if self.critic is not None:
            groups.append((list(self.critic.named_parameters()), options["critic_lr_factor"]))
        wanted = {id(p) for p in loss.parameters() if p.requires_grad}
        groups = [([(n, p) for n, p in named if id(p) in wanted], factor) for named, factor in groups]
        optimizer = make_optimizer(groups, options["lr"], options["output_lr_factor"])
        if options["keep_moments"] and not load_moments(optimizer, actor.named_parameters(), self.start.moments or {}):
            logger.warning(
                "optimizer.keep_moments=true, but start holds no moments that fit: Adam starts without any. Give "
                "start= the best.pt or last.pt of a run, or set optimizer.keep_moments=false"
            )
        return optimizer

    def actor_entry(self) -> dict[str, Any]:
        """The ``actor`` entry of a checkpoint."""
        return actor_entry(self.start.actor, self.train)

    def measure_constraint(self, batch: TensorDictBase) -> dict[str, float]:
        """Before the update: the batch's lip error against the constraint, and the dual step; columns to log."""
        return {} if self.constraint is None else self.constraint.update(batch)

    def adapt_kl(self, outputs: Sequence[TensorDictBase]) -> dict[str, float]:
        """After the update: steer the weight of the KL to the start by its mean over the update; columns to log."""
        if self.adaptive_kl is None:
            return {}
        used = self.adaptive_kl()
        kl = torch.stack([out.get("kl_kl_reference") for out in outputs]).mean()
        self.adaptive_kl.update(float(kl))
        return {"kl_weight": used}


def prepare_rl(config: Mapping[str, Any], device: torch.device) -> RLParts:
    """Open corpora, start actor, policy, environment, reward, critic, auxiliary terms and validation.

    Args:
        config: any nested mapping with the keys of ``recipes/conf/shared/rl.yaml``; their ranges and what contradicts
            what are in :mod:`s2f_rl.schemas.rl`.
        device: of everything.

    Raises:
        UserError: parts that do not fit each other.
    """
    config = plain(config)
    corpus, options = config["corpus"], config["evaluation"]
    train, validation = open_corpora(corpus["root"], corpus["topology"])
    start = load_start(config["start"], train, device)
    actor = start.actor.eval()
    if not config["optimizer"]["output_lr_factor"]:  # left alone: then its gradient, the largest of all, costs nothing
        actor.decoder.vertice_map_r.requires_grad_(False)
    lips = train.regions["lips"].to(device)
    if config["control"] and not any(train.has_vertices(i) for i in range(len(train))):
        raise UserError(
            "control=true: no training utterance has vertices, so nothing would train and it is no control; compare "
            "with the start itself"
        )
    policy = FaceFormerPolicy(actor, **config["exploration"], noise_vertices=lips)
    env = SpeechToFaceEnv(
        train, CachedAudio(actor.audio_encoder, train, corpus["cache"]), config["lanes"], config["group_size"],
        config["style"], config["max_frames"], seed=config["seed"], device=device,
    )  # fmt: skip
    built = build_reward(config, train, validation, device)
    auxiliary, adaptive_kl, constraint = _auxiliary_terms(config, policy, train, lips, device)
    return RLParts(
        train, start, policy, env, built.transform, built.signal,
        critic=_critic(config["critic"]["kind"], config["critic"]["hidden"], policy, train, built.model, device),
        auxiliary=auxiliary, adaptive_kl=adaptive_kl, constraint=constraint,
        policy_weight=0.0 if config["control"] else config["policy_weight"],
        optimizer=config["optimizer"],
        validation=Validation(
            actor, validation, built.scorer, options["conditions"], options["select"], options["max_lve_ratio"],
            counts=built.select,
        ),
        average=None if config["ema_decay"] is None else PolicyAverage(policy, config["ema_decay"]),
        alarm=MotionAlarm(action=config["alarm"]["action"]),
        amplitude=AmplitudeReference(train, lips), lips=lips,
    )  # fmt: skip


def _critic(
    kind: str, hidden: int, policy: FaceFormerPolicy, train: Any, model: RewardModel | None, device: torch.device
) -> nn.Module | None:
    if kind == "none":
        return None
    if kind == "backbone":
        if model is None or model.head is None:
            raise UserError("critic=backbone: this reward model has no head, so no value branch; use critic=decoder")
        return BackboneCritic(model.head).to(device)
    decoder = policy.core.decoder
    width = decoder.feature_dim if policy.core.exploration == "latent" else decoder.n_outputs
    audio_width = decoder.audio_width * train.audio_features_per_frame
    # Its first weights use up no random number, so that algorithms with and without a critic collect the same noise.
    with torch.random.fork_rng(devices=[]):
        return DecoderCritic(width, audio_width, len(train.subjects), hidden).to(device)


def _auxiliary_terms(
    config: Mapping[str, Any], policy: FaceFormerPolicy, train: Any, lips: Tensor, device: torch.device
) -> tuple[dict[str, tuple[nn.Module, Weight]], AdaptiveKL | None, LipErrorConstraint | None]:
    """Supervised term, KL to the start and what steers their weights."""
    terms: dict[str, tuple[nn.Module, Weight]] = {}
    adaptive_kl = constraint = None
    supervised = dict(config["supervised"])
    mode, weight = supervised.pop("mode"), supervised.pop("weight")
    if mode != "none":
        term = SupervisedLoss(policy.actor_module, train, mode, **supervised).to(device)
        if config["constraint"]["kind"] == "lve":
            if not any(train.has_vertices(i) for i in range(len(train))):
                raise UserError("constraint=lve: no training utterance has vertices, so no error; use constraint=none")
            options = config["constraint"]
            multiplier = LagrangeMultiplier(options["max_ratio"], options["rate"], max_value=options["max_multiplier"])
            constraint = LipErrorConstraint(policy.core, term, lips, multiplier, weight)
        terms["supervised"] = (term, constraint or weight)
    kl = config["kl"]
    if kl["kind"] == "adaptive":
        adaptive_kl = AdaptiveKL(kl["weight"], kl["target"], kl["gain"])
    if kl["kind"] != "none":
        terms["kl"] = (ReferenceKL(policy.actor_module), adaptive_kl or kl["weight"])
    return terms, adaptive_kl, constraint


def lane_minibatches(batch: TensorDictBase, lanes: int) -> Iterator[TensorDictBase]:
    """Random minibatches of ``lanes`` whole rows of [B, T]; one epoch, every row once."""
    for rows in torch.randperm(len(batch)).to(batch.device or "cpu").split(lanes):
        yield batch[rows]
