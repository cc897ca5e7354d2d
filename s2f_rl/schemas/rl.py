"""Keys of the recipes that tune an actor by reinforcement learning, and the combinations that make no sense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.envs.draws import STYLE_MODES
from s2f_rl.errors import UserError
from s2f_rl.losses.advantages import CREDITS
from s2f_rl.losses.weighted import BALANCES
from s2f_rl.models.policy import EXPLORATIONS
from s2f_rl.runs.schema import BelowOne, Choice, Count, Natural, NonNegative, Positive, Range, Share, Size, Text, key
from s2f_rl.schemas.reward_parts import FrozenReward
from s2f_rl.schemas.shared import (
    Average,
    CachedCorpus,
    Conditions,
    Decay,
    OneProcess,
    Ranks,
    Ray,
    Run,
    StoredActor,
    Workers,
)
from s2f_rl.training.validation import SELECTORS

ClipOrMore = Annotated[int, Range(CLIP_FRAMES, words=f"a scored clip has {CLIP_FRAMES} frames; null: all")]


@dataclass
class Exploration:
    """Group ``exploration``."""

    exploration: Annotated[str, Choice(*EXPLORATIONS)] = key("where the noise is added")
    noise_mm: Annotated[float, Range(above=0, most=1000)] = key("RMS movement of the lips by the noise")
    correlation: BelowOne = key("of the noise from frame to frame")
    learn_noise: bool = key("let the policy gradient move the size of the noise")
    changed_codes: Annotated[float, Range(above=0, most=0.5)] = key(
        "share of drawn codes that are not the likeliest, of actors that draw codes", default=0.07
    )

    def rules(self) -> None:
        if self.exploration == "vertex" and self.correlation:
            raise UserError("exploration.correlation: correlated noise exists for latent exploration only, set it to 0")


@dataclass
class Critic:
    """Group ``critic``."""

    kind: Annotated[str, Choice("none", "decoder", "backbone")] = key("what estimates the value")
    coeff: NonNegative = key("weight of its loss")
    hidden: Size = key("width of its hidden layer")

    def rules(self) -> None:
        if self.kind != "none" and not self.coeff:
            raise UserError(f"critic.coeff={self.coeff}: a critic must learn; above 0, or critic=none")


@dataclass
class NoKL:
    """``kl=none``."""

    kind: Annotated[str, Choice("none")] = key("no KL to the policy at the start")
    weight: NonNegative | None = key("left over from a recipe's own file; counts nothing", default=None)


@dataclass
class FixedKL:
    """``kl=fixed``."""

    kind: Annotated[str, Choice("fixed")] = key("KL to the policy at the start, with a fixed weight")
    weight: NonNegative = key("of the KL in nats per frame")


@dataclass
class AdaptiveKL:
    """``kl=adaptive``."""

    kind: Annotated[str, Choice("adaptive")] = key("the same with a weight that holds the KL near a target")
    weight: Positive = key("at the start")
    target: Positive = key("nats per frame")
    gain: Positive = key("of the proportional controller, per iteration")


@dataclass
class NoConstraint:
    """``constraint=none``."""

    kind: Annotated[str, Choice("none")] = key("no constraint")


@dataclass
class LipErrorConstraint:
    """``constraint=lve``."""

    kind: Annotated[str, Choice("lve")] = key("lip vertex error")
    max_ratio: Positive = key("to the error at the start")
    rate: Positive = key("of the multiplier, per iteration")
    max_multiplier: Annotated[float, Range(1)] = key("where the multiplier, 1 at the start, stops")


@dataclass
class SupervisedTerm:
    """Group ``supervised``."""

    mode: Annotated[str, Choice("none", "on_policy", "teacher_forced")] = key("whose history the mean motion follows")
    weight: NonNegative = key("of the term")
    velocity_weight: NonNegative = key("of the squared error of frame-to-frame differences")
    lip_weight: NonNegative = key("of lip vertices, beside 1 for all")
    feature_weight: NonNegative = key("of the error of features, of actors that draw codes", default=1.0)


@dataclass
class Optimizer(Decay):
    """``optimizer``."""

    output_lr_factor: NonNegative = key("the output map learns at lr times this; 0 leaves it alone")
    encoder_lr_factor: Positive = key("the audio encoder learns at lr times this, where it trains")
    critic_lr_factor: Positive = key("the critic learns at lr times this")
    noise_lr_factor: Positive = key("log sigma learns at lr times this")
    keep_moments: bool = key("go on with the supervised run's Adam moments")


@dataclass
class Alarm:
    """``alarm``."""

    action: Annotated[str, Choice("warn", "stop")] = key("when motion collapses or explodes")


@dataclass
class Evaluation:
    """``evaluation``."""

    every: Annotated[int, Range(1, note="the last is always evaluated")] = key("iterations between validations")
    conditions: Conditions = key("style columns: own, all, or a list")
    styles: Count | None = key("of these, so many for each utterance at most; null: all")
    stride: Count = key("rewards score every stride-th clip")
    select: Annotated[str, Choice(*SELECTORS)] = key("what the best checkpoint is chosen by")
    max_lve_ratio: Annotated[float, Range(above=0, infinite=True)] | None = key("guard of select=reward; null: none")
    max_closure_drop: Share | None = key("the same, of the closure rate below the start's; null: none")


@dataclass
class RL(Run):
    """What all of them share (``shared/rl.yaml``)."""

    baselines: ClassVar[tuple[str, ...]] = ("group", "critic")  # what a sample can be compared with
    explorations: ClassVar[tuple[str, ...]] = EXPLORATIONS

    corpus: CachedCorpus = key("what is trained on")
    actor: StoredActor = key("of start")
    start: Text = key("run folder or checkpoint of the supervised actor")
    train_encoder: bool = key("train the audio encoder too")
    control: bool = key("give the policy gradient no weight: the compute-matched control")
    placebo: bool = key("exchange the rewards of a group's samples at random")
    iterations: Count = key("collected batches")
    lanes: Size = key("utterances collected per iteration")
    group_size: Size = key("samples of the same utterance and style")
    style: Annotated[str, Choice(*STYLE_MODES)] | Natural = key("own, random, all, or a style column")
    max_frames: ClipOrMore | None = key("only the first frames of every utterance; null: all")
    unrecorded_share: Annotated[float, Range(above=0, below=1)] | None = key(
        "of the draws that go to sound without meshes; null: what there is"
    )
    policy_weight: NonNegative = key("policy : supervised")
    balance: Annotated[str, Choice(*BALANCES)] = key("whether weights are ratios of gradient norms")
    optimizer: Optimizer = key("Adam")
    ema_decay: Average | None = key("exponential moving average of the policy for evaluation; null: none")
    alarm: Alarm = key("what is watched")
    evaluation: Evaluation = key("validation")
    exploration: Exploration = key("noise of the policy")
    critic: Critic = key("estimate of the value")
    reward: FrozenReward = key("what is rewarded")
    supervised: SupervisedTerm = key("what holds the motion near the recorded one")
    kl: NoKL | FixedKL | AdaptiveKL = key("what holds the policy near the start")
    constraint: NoConstraint | LipErrorConstraint = key("what the lip error must stay below")
    parallel: OneProcess | Workers | Ray | Ranks = key("where it runs")

    def rules(self) -> None:
        """Options that contradict each other or the algorithm."""
        critic, exploration = self.critic.kind, self.exploration.exploration
        if self.lanes % self.group_size:
            raise UserError(f"group_size={self.group_size} must divide lanes={self.lanes}: groups are whole")
        workers = getattr(self.parallel, "workers", 1)
        if self.lanes % (workers * self.group_size):
            raise UserError(
                f"parallel.workers={workers}: each plays whole groups, so lanes={self.lanes} must be a multiple of "
                f"{workers} x {self.group_size}"
            )
        if critic != "none" and "critic" not in self.baselines:
            raise UserError(f"critic={critic}: the algorithm of {self.name} has no use for a critic; set critic=none")
        if critic == "none" and "group" in self.baselines and self.group_size < 2:
            other = "use group_size=4 or a critic" if "critic" in self.baselines else "use group_size=4"
            raise UserError(f"critic=none with group_size={self.group_size}: nothing to compare a sample with; {other}")
        if self.placebo:
            self._refuse_placebo_without_groups()
        if exploration not in self.explorations:
            raise UserError(
                f"exploration={exploration}: the algorithm of {self.name} supports {' or '.join(self.explorations)} "
                "exploration only"
            )
        supervised = self.supervised.mode != "none" and self.supervised.weight > 0
        if self.control and not supervised:
            raise UserError(
                "control=true with supervised=none: nothing would train, so it is no control; keep a supervised term"
            )
        if not supervised and not self.policy_weight:
            raise UserError("policy_weight=0 with supervised=none: nothing would train")
        if self.constraint.kind != "none" and not supervised:
            raise UserError(
                "constraint=lve with supervised=none: the multiplier acts on the supervised term; keep it or drop the "
                "constraint"
            )

    def _refuse_placebo_without_groups(self) -> None:
        if self.control:
            raise UserError("placebo=true with control=true: the rewards have no weight to begin with; use one of them")
        if "group" not in self.baselines:
            raise UserError(
                f"placebo=true: the algorithm of {self.name} compares no samples of a group; use rloo or ppo"
            )
        if self.critic.kind != "none" or self.group_size < 2:
            raise UserError(
                "placebo=true needs the group as baseline, else a share of the true reward would stay: set critic=none "
                "and group_size=4"
            )


@dataclass
class Credited(RL):
    """Those that weigh log-probabilities (``shared/credit.yaml``)."""

    credit: Annotated[str, Choice(*CREDITS)] | None = key(
        "which rewards a frame is credited with; null: discounted, or utterance where frames move their neighbours"
    )
    gamma: Share = key("discount per frame")
    normalise_advantage: bool = key("standardise the advantages of a batch")


@dataclass
class ActorCritic(Credited):
    """``a2c``, ``reinforce``."""

    gae_lambda: Share = key("of the generalised advantage, with a critic")


@dataclass
class Minibatched(Credited):
    """Several updates for a batch."""

    epochs: Annotated[int, Range(1, 1000)] = key("how often a batch is gone through")
    minibatch_lanes: Size = key("utterances per update, at most those that there are")


@dataclass
class PPO(Minibatched, ActorCritic):
    """``ppo``."""

    clip_epsilon: Annotated[float, Range(above=0, below=1, note="0.2 is usual")] = key("of the ratio")


@dataclass
class Penalty:
    """``penalty``."""

    beta: Positive = key("weight of the KL at the start")
    target: Positive = key("KL of the policies before and after an update, nats per frame")


@dataclass
class PPOKL(Minibatched, ActorCritic):
    """``ppo_kl``."""

    penalty: Penalty = key("of the KL of an update")


@dataclass
class GRPO(Minibatched):
    """``grpo``."""

    baselines: ClassVar = ("group",)
    clip_epsilon: Annotated[float, Range(above=0, below=1, note="0.2 is usual")] = key("of the ratio")


@dataclass
class GDPO(GRPO):
    """``gdpo``."""

    def rules(self) -> None:
        super().rules()
        if self.reward.normalise != "none":
            raise UserError("reward.normalise: gdpo normalises every score within its group; use none")


@dataclass
class RLOO(Credited):
    """``rloo``."""

    baselines: ClassVar = ("group",)


@dataclass
class RewardGradient(RL):
    """``reward_gradient``."""

    baselines: ClassVar = ()
    sampled: bool = key("through the sampled motion, or through the mean")
    train_output_map: bool = key("let the reward train the output map too")

    def rules(self) -> None:
        super().rules()
        self.reward.refuse_without_gradient()
        if self.train_output_map and not self.optimizer.output_lr_factor:
            raise UserError("train_output_map=true needs a rate for the output map: optimizer.output_lr_factor=0.03")


@dataclass
class Replay:
    """``replay``."""

    capacity: Size = key("utterances that are kept")


@dataclass
class AWR(ActorCritic):
    """``awr``."""

    explorations: ClassVar = ("latent",)
    updates: Count = key("per iteration, each of minibatch_lanes stored utterances")
    minibatch_lanes: Size = key("utterances per update")
    temperature: Positive = key("of exp(advantage / temperature)")
    max_weight: Positive = key("where the weight of a frame is cut")
    replay: Replay = key("stored rollouts")
