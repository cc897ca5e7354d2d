"""The parts of a reinforcement-learning run, opened from plain options; the loop stays in the recipe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from s2f_rl import ranks
from s2f_rl.data import FaceCorpus
from s2f_rl.data.coefficients.rig import require_mesh
from s2f_rl.device_rows import upload
from s2f_rl.envs import FrozenRewardTransform, SpeechToFaceEnv
from s2f_rl.envs.speech_to_face import DEVICE_CACHE_MB
from s2f_rl.errors import UserError
from s2f_rl.losses import AdaptiveKL, credit_of
from s2f_rl.losses.weighted import Weight
from s2f_rl.models.actors import use_actor
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.contract import Actor
from s2f_rl.models.encoder_kinds import packed_encoder
from s2f_rl.models.hearing import Hearing
from s2f_rl.models.policy import MotionPolicy
from s2f_rl.runs import MotionAlarm, PolicyAverage
from s2f_rl.training.build_policy import build_critic, build_policy
from s2f_rl.training.build_reward import build_reward
from s2f_rl.training.build_terms import build_terms
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

    train: FaceCorpus
    start: Start
    policy: MotionPolicy
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
    hearing: Hearing | None = None
    credit: str | None = None

    def make_optimizer(self, loss: nn.Module) -> torch.optim.Adam:
        """Adam over the loss's parameters, the actor's moments carried over from the supervised run."""
        options = self.optimizer
        actor = self.start.actor
        wanted = {id(p) for p in loss.parameters() if p.requires_grad}
        encoder = [(n, p) for n, p in actor.named_parameters() if id(p) in self._encoder()]
        if any(id(p) not in wanted for _, p in encoder):
            raise UserError(
                "train_encoder=true: the loss of this recipe does not train it; write WeightedLoss(..., "
                "hearing=parts.hearing)"
            )
        rest = [(n, p) for n, p in actor.named_parameters() if id(p) not in self._encoder()]
        noise = options["noise_lr_factor"]  # what the policy has beyond the actor: the logarithm of its noise
        groups = [(rest, 1.0), (list(self.policy.named_parameters()), noise)]
        if encoder:
            groups.insert(1, (encoder, options["encoder_lr_factor"]))
        if self.critic is not None:
            groups.append((list(self.critic.named_parameters()), options["critic_lr_factor"]))
        groups = [([(n, p) for n, p in named if id(p) in wanted], factor) for named, factor in groups]
        output_map = list(actor.output_map())
        optimizer = make_optimizer(groups, options["lr"], options["output_lr_factor"], output_map=output_map)
        moments = self.start.moments or {}
        if options["keep_moments"] and not load_moments(optimizer, rest, moments):
            logger.warning(
                "optimizer.keep_moments=true, but start holds no moments that fit: Adam starts without any. Give "
                "start= the best.pt or last.pt of a run, or set optimizer.keep_moments=false"
            )
        if encoder and options["keep_moments"] and not load_moments(optimizer, encoder, moments):
            logger.warning(
                "train_encoder=true, but start holds no moments of the audio encoder: Adam starts there without any. "
                "Give start= the last.pt of a run that trained it, or set optimizer.keep_moments=false"
            )
        return optimizer

    def _encoder(self) -> set[int]:
        """Which parameters are those of an audio encoder that trains."""
        return set() if self.hearing is None else {id(p) for p in self.hearing.trained}

    def heard(self, batch: TensorDictBase) -> TensorDictBase:
        """A shallow copy of a batch [B, T] with the ``audio`` that the encoder as it is now makes of its speech."""
        return batch.clone(False) if self.hearing is None else self.hearing(batch)

    def actor_entry(self) -> dict[str, Any]:
        """The ``actor`` entry of a checkpoint, with the averaged weights where there is an average."""
        return actor_entry(self.start.actor, self.train, self.average)

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


def prepare_rl(config: Mapping[str, object], device: torch.device) -> RLParts:
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
    lanes = ranks.share_of(config["lanes"], "lanes")
    ranks.share_of(config.get("minibatch_lanes", lanes * ranks.count()), "minibatch_lanes")
    train, validation = open_corpora(corpus["root"], corpus["topology"])
    require_mesh(train, "the reward of reinforcement learning")
    use_actor(config["actor"]["kind"])
    start = load_start(config["start"], train, device)
    actor = start.actor.eval()
    lips = train.regions["lips"].to(device)
    if config["control"] and not any(train.has_vertices(i) for i in range(len(train))):
        raise UserError(
            "control=true: no training utterance has vertices, so nothing would train and it is no control; compare "
            "with the start itself"
        )
    policy = build_policy(
        actor, config["exploration"], lips, bool(config["optimizer"]["output_lr_factor"]),
        some_speech(actor, train, corpus["cache"]),
    )  # fmt: skip
    credit = credit_of(config["credit"], policy.core.frame_wise) if "credit" in config else None
    speech, hearing = None, None
    if config["train_encoder"]:
        if {config["kl"]["kind"], config["constraint"]["kind"]} != {"none"}:  # the start is heard too
            speech = _speech_of_now(actor, train, corpus["cache"])
        hearing = Hearing(actor.audio_encoder, train, corpus["cache"])
        policy.encoder = nn.ParameterList(hearing.trained)
    source = CachedAudio(actor.audio_encoder, train, corpus["cache"]) if hearing is None else hearing
    env = SpeechToFaceEnv(
        train, source, lanes, config["group_size"], config["style"], config["max_frames"], seed=config["seed"],
        device=device, device_cache_mb=DEVICE_CACHE_MB if hearing is None else 0.0,
        times=times_drawn(train, config["unrecorded_share"]),
    )  # fmt: skip
    built = build_reward(config, train, validation, device)
    built.transform.read_latents(policy.core)
    auxiliary, adaptive_kl, constraint = build_terms(config, policy, train, lips, device, speech)
    head = None if built.model is None else built.model.head
    ranks.same_weights(policy.parameters())
    return RLParts(
        train, start, policy, env, built.transform, built.signal,
        critic=build_critic(config["critic"]["kind"], config["critic"]["hidden"], policy, actor, head, device),
        auxiliary=auxiliary, adaptive_kl=adaptive_kl, constraint=constraint,
        policy_weight=0.0 if config["control"] else config["policy_weight"],
        optimizer=config["optimizer"],
        validation=Validation(
            actor, validation, built.scorer, options["conditions"], options["select"], options["max_lve_ratio"],
            encoder_trains=hearing is not None, counts=built.select, stride=options["stride"],
            styles=options["styles"], cache=corpus["cache"], max_closure_drop=options["max_closure_drop"],
        ),
        average=None if config["ema_decay"] is None else PolicyAverage(policy, config["ema_decay"]),
        alarm=MotionAlarm(action=config["alarm"]["action"]),
        amplitude=AmplitudeReference(train, lips), lips=lips, hearing=hearing, credit=credit,
    )  # fmt: skip


def _speech_of_now(actor: Actor, corpus: FaceCorpus, cache: str | None) -> Callable[[int], Tensor]:
    """Utterance -> [T, A, D] on the actor's device, as its audio encoder hears it now, whatever trains it later."""
    device = actor.device
    kept = CachedAudio(packed_encoder(actor.audio_encoder)().to(device), corpus, cache)
    return lambda utterance: kept.get(utterance).to(device)


_SOME = 4
"""Utterances that tell a policy how far it explores."""


def some_speech(actor: Actor, corpus: FaceCorpus, cache: str | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Features [T, A, D] and style [S] of a few utterances over the corpus; encoded when they are asked for."""
    kept = CachedAudio(actor.audio_encoder, corpus, cache)
    for utterance in torch.linspace(0, len(corpus) - 1, min(_SOME, len(corpus))).long().tolist():
        own = corpus[utterance].style
        style = torch.eye(actor.n_styles)[0] if own is None else own
        yield kept.get(utterance).to(actor.device), style.to(actor.device)


def lane_minibatches(batch: TensorDictBase, lanes: int) -> Iterator[TensorDictBase]:
    """Random minibatches of ``lanes`` whole rows of [B, T], of several ranks together; one epoch, every row once."""
    lanes = ranks.share_of(lanes, "minibatch_lanes")
    for rows in upload(torch.randperm(len(batch)), batch.device or torch.device("cpu")).split(lanes):
        yield batch[rows]


_MOST_TIMES = 8
"""What the utterances that are drawn less often are repeated at most, so that a share can be met by whole numbers."""


def times_drawn(corpus: FaceCorpus, unrecorded_share: float | None) -> list[int] | None:
    """How often each utterance is in an epoch, so that about this share of the draws has no vertices; None: once.

    Raises:
        UserError: the share cannot be had by repeating what there is.
    """
    if unrecorded_share is None:
        return None
    silent = [not corpus.has_vertices(i) for i in range(len(corpus))]
    if all(silent) or not any(silent):
        raise UserError(
            f"unrecorded_share={unrecorded_share:g}: {sum(silent)} of {len(silent)} utterances of training have no "
            "meshes: there is no share to choose; use null"
        )
    ratio = unrecorded_share / (1 - unrecorded_share) * (len(silent) - sum(silent)) / sum(silent)
    once = Fraction(ratio if ratio >= 1 else 1 / ratio).limit_denominator(_MOST_TIMES)
    more, less = (once.numerator, once.denominator) if ratio >= 1 else (once.denominator, once.numerator)
    return [more if each else less for each in silent]
