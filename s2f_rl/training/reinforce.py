"""The parts of a reinforcement-learning run, opened from a recipe's config; the loop stays in the recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from s2f_rl.envs import FrozenRewardTransform, SpeechToFaceEnv
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer
from s2f_rl.losses import ReferenceKL, SupervisedLoss
from s2f_rl.models import FaceFormerPolicy
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.critics import BackboneCritic, DecoderCritic
from s2f_rl.rewards import RewardModel
from s2f_rl.runs import MotionAlarm, PolicyAverage, RunFolder, TrainingState
from s2f_rl.training.optimizers import load_moments, make_optimizer
from s2f_rl.training.setup import Start, actor_entry, load_start, open_corpora
from s2f_rl.training.validation import Validation


@dataclass
class RLParts:
    """What :func:`prepare_rl` opens; see there."""

    cfg: Any
    train: Any
    start: Start
    policy: FaceFormerPolicy
    env: SpeechToFaceEnv
    reward: FrozenRewardTransform
    critic: nn.Module | None
    auxiliary: dict[str, tuple[nn.Module, float]]
    policy_weight: float
    validation: Validation
    average: PolicyAverage | None
    alarm: MotionAlarm
    lips: Tensor
    start_amplitude: float | None = None

    def make_optimizer(self, loss: nn.Module) -> torch.optim.Adam:
        """Adam over the loss's parameters, the decoder's moments carried over from the supervised run."""
        options = self.cfg.optimizer
        actor = self.start.actor
        groups = [(list(actor.named_parameters()), 1.0), (list(self.policy.named_parameters()), 1.0)]
        if self.critic is not None:
            groups.append((list(self.critic.named_parameters()), options.critic_lr_factor))
        wanted = {id(p) for p in loss.parameters() if p.requires_grad}
        groups = [([(n, p) for n, p in named if id(p) in wanted], factor) for named, factor in groups]
        optimizer = make_optimizer(groups, options.lr, options.output_lr_factor)
        if options.keep_moments and self.start.moments:
            load_moments(optimizer, self.start.actor.named_parameters(), self.start.moments)
        return optimizer

    def actor_entry(self) -> dict[str, Any]:
        return actor_entry(self.start.actor, self.train)

    def record_start(self, folder: RunFolder, state: TrainingState) -> None:
        """Validate the start: row 0, the LVE that the guard compares with, and the first ``best.pt``."""
        values = self.validation()
        folder.rows.append({f"validation/{k}": v for k, v in values.items()}, 0, 0)
        self.save_best(folder, state, values)

    def save_best(self, folder: RunFolder, state: TrainingState, values: dict[str, float]) -> None:
        """Write ``best.pt`` (and ``best_head.pt`` with a critic) if ``values`` beat the best so far."""
        value = self.validation.value(values)
        if state.best is not None and not value > state.best:
            return
        state.best = value
        about = {"iteration": state.iteration, "validation": values}
        folder.save_checkpoint("best.pt", {"actor": self.actor_entry(), **about})
        if self.critic is not None:
            head = {k: v.detach().clone() for k, v in self.critic.state_dict().items()}
            folder.save_checkpoint("best_head.pt", {"head": head, "kind": self.cfg.critic.kind, **about})

    def check_alarm(self, row: dict[str, float]) -> None:
        """Compare motion and KL with the bounds of :class:`~s2f_rl.runs.MotionAlarm`; adds ``amplitude_ratio``.

        The ratio is the lip motion of this batch over the running mean of the ground truth's, measured once.
        """
        if self.start_amplitude is None:
            self.start_amplitude = mean_amplitude_mm(self.train, self.lips) or row["amplitude_mm"]
        row["amplitude_ratio"] = row["amplitude_mm"] / max(self.start_amplitude, 1e-9)
        watched = {"amplitude_ratio": row["amplitude_ratio"], "noise_mm": row["noise_mm"]}
        kl = row.get("kl_kl_reference", row.get("policy_kl_approx"))
        self.alarm.check(watched if kl is None else watched | {"kl": kl})


def prepare_rl(cfg: Any, device: torch.device) -> RLParts:
    """Open corpora, start actor, policy, environment, reward, critic, auxiliary terms and validation.

    Args:
        cfg: config of an RL recipe (groups ``corpus``, ``exploration``, ``reward``, ``supervised``, ``critic``).
        device: of everything.

    Raises:
        UserError: a combination that makes no sense, or parts that do not fit each other.
    """
    check_combination(cfg)
    train, validation = open_corpora(cfg.corpus.root, cfg.corpus.topology)
    start = load_start(cfg.start, train, device)
    actor = start.actor.eval()
    lips = train.regions["lips"].to(device)
    policy = FaceFormerPolicy(actor, **cfg.exploration, noise_vertices=lips, metres_per_unit=train.metres_per_unit)
    audio = CachedAudio(actor.audio_encoder, train, cfg.corpus.cache)
    env = SpeechToFaceEnv(
        train, audio, cfg.lanes, cfg.group_size, cfg.style, cfg.max_frames, seed=cfg.seed, device=device
    )
    model = RewardModel.load(cfg.reward.folder, device=device)
    needs_features = cfg.critic.kind == "backbone"
    reward = FrozenRewardTransform(
        model, train, dict(cfg.reward.weights), cfg.reward.scale, cfg.reward.stride, cfg.reward.cap,
        cfg.corpus.cache, write_features=needs_features,
    )  # fmt: skip
    critic: nn.Module | None = None
    if cfg.critic.kind == "decoder":
        width = actor.decoder.feature_dim if cfg.exploration.exploration == "latent" else actor.decoder.n_outputs
        audio_width = actor.decoder.audio_width * train.audio_features_per_frame
        critic = DecoderCritic(width, audio_width, len(train.subjects), cfg.critic.hidden).to(device)
    elif needs_features:
        if model.head is None:
            raise UserError("critic=backbone: this reward model has no head, so no value branch; use critic=decoder")
        critic = BackboneCritic(model.head).to(device)
    auxiliary: dict[str, tuple[nn.Module, float]] = {}
    if cfg.supervised.mode != "none":
        term = SupervisedLoss(
            policy.actor_module, train, cfg.supervised.mode,
            velocity_weight=cfg.supervised.velocity_weight, lip_weight=cfg.supervised.lip_weight,
        )  # fmt: skip
        auxiliary["supervised"] = (term.to(device), cfg.supervised.weight)
    if cfg.kl_weight:
        auxiliary["kl"] = (ReferenceKL(policy.actor_module), cfg.kl_weight)
    return RLParts(
        cfg, train, start, policy, env, reward, critic, auxiliary,
        policy_weight=0.0 if cfg.control else cfg.policy_weight,
        validation=Validation(
            actor, validation, Scorer({"train": model}, validation), cfg.evaluation.conditions,
            cfg.evaluation.select, cfg.evaluation.max_lve_ratio,
        ),
        average=None if cfg.ema_decay is None else PolicyAverage(policy, cfg.ema_decay),
        alarm=MotionAlarm(action=cfg.alarm.action),
        lips=lips,
    )  # fmt: skip


def check_combination(cfg: Any) -> None:
    """Refuse, before anything is opened, combinations of options that make no sense."""
    if cfg.critic.kind not in ("none", "decoder", "backbone"):
        raise UserError(f"critic.kind={cfg.critic.kind}: use none, decoder or backbone")
    if cfg.critic.kind == "none" and cfg.group_size < 2:
        raise UserError("critic=none with group_size=1: nothing to compare a sample with; use group_size=4 or a critic")
    if cfg.control and (cfg.supervised.mode == "none" or not cfg.supervised.weight):
        raise UserError(
            "control=true with supervised=none: nothing would train, so it is no control; keep a supervised term"
        )
    if cfg.supervised.mode == "none" and not cfg.policy_weight:
        raise UserError("policy_weight=0 with supervised=none: nothing would train")


def mean_amplitude_mm(corpus: Any, lips: Tensor, n_utterances: int = 16) -> float | None:
    """RMS lip motion of the ground truth of the first utterances that have one, millimetres; None without any."""
    squares: list[float] = []
    metres_per_unit = float(getattr(corpus, "metres_per_unit", 1.0))
    for i in range(len(corpus)):
        if len(squares) == n_utterances:
            break
        vertices = corpus[i].vertices
        if vertices is not None:
            motion = vertices.unflatten(-1, (-1, 3))[:, lips.cpu()]
            squares.append(float((motion - motion.mean(0)).square().sum(-1).mean()))
    return 1e3 * metres_per_unit * math.sqrt(sum(squares) / len(squares)) if squares else None


def lane_minibatches(batch: TensorDictBase, lanes: int) -> Iterator[TensorDictBase]:
    """Random minibatches of ``lanes`` whole rows of [B, T]; one epoch, every row once."""
    for rows in torch.randperm(len(batch)).to(batch.device or "cpu").split(lanes):
        yield batch[rows]
