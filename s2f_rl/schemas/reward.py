"""Keys of ``recipes/reward.py``, ``recipes/judge.py`` and ``recipes/articulation.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.errors import UserError
from s2f_rl.rewards.corruptions import CORRUPTIONS, FAMILIES, chosen_corruptions
from s2f_rl.rewards.judge.layers import WINDOW_FRAMES
from s2f_rl.runs.schema import BelowOne, Choice, Count, Natural, NonNegative, Positive, Range, Share, Size, Text, key
from s2f_rl.schemas.shared import CachedCorpus, Decay, OneProcess, Ranks, Run, StoredActor

Corruption = Annotated[str, Choice(*CORRUPTIONS)]


@dataclass
class HeadOptimizer(Decay):
    """``optimizer``."""

    warmup: Natural = key("iterations of rising rate")
    weight_decay: Share = key("of all weights")


@dataclass
class Scoring:
    """``evaluation``."""

    every: Count = key("iterations between evaluations, a checkpoint at each; the last is always one")
    utterances: Count | None = key("how many validation utterances to score; null: all")


@dataclass
class Listening:
    """``listening``."""

    iterations: Natural = key("the first ones, in which the audio half learns to tell the motion")
    recordings: Size = key("per batch")
    clips: Size = key("per recording")
    kept_patches: Annotated[float, Range(above=0, most=1)] = key("share of the mel patches looked at")


@dataclass
class Speech:
    """``speech``."""

    speeds: list[Annotated[float, Range(0.1, 10)]] = key("pitch, formants and rate together, times this")
    gain_db: Annotated[float, Range(0, 100)] = key("standard deviation of the level")
    equaliser_db: Annotated[float, Range(0, 100)] = key("of a smooth curve over frequency")
    noise_db: Annotated[float, Range(0, 100)] = key("above silence, at the strongest")


@dataclass
class Hardening:
    """``hardening``."""

    steps: Annotated[int, Range(0, 1000)] = key("of gradient ascent on the reward; 0: none")
    radii_mm: list[Positive] = key("of the trust region: smallest and largest")
    hold: NonNegative = key("weight of no better than where the climb set out")

    def rules(self) -> None:
        if len(self.radii_mm) != 2 or self.radii_mm[0] > self.radii_mm[1]:
            raise UserError(f"hardening.radii_mm={self.radii_mm}: give the smallest and the largest radius")


@dataclass
class RewardModel:
    """Group ``reward_model``."""

    width: Size = key("of the features")
    depth: Annotated[int, Range(1, 100)] = key("blocks of each encoder")
    mlp_width: Size = key("hidden width of a block")
    n_heads: Size = key("attention heads")
    head_hidden: Size = key("of the score head")
    dropout: BelowOne = key("of the head, in training only")

    def rules(self) -> None:
        if self.width % self.n_heads:
            raise UserError(f"reward_model.n_heads={self.n_heads}: must divide reward_model.width={self.width}")


@dataclass
class RewardWeights:
    """``weights`` of a reward."""

    info_nce: NonNegative = key("of true pairs against others; its gradient is ten times that of the others")
    predict: NonNegative = key("of the motion told from speech")
    rank: NonNegative = key("of true above spoiled clips")
    pooled: NonNegative = key("of true above spoiled means over a stretch")
    hardening: NonNegative = key("of true clips above what gradient ascent finds")
    classify: NonNegative = key("of true against spoiled")
    value: NonNegative = key("of the critic's branch")

    def rules(self) -> None:
        _some_weight(self)


@dataclass
class Clips:
    """``clips``."""

    n_stretches: Size = key("pieces of utterances per batch")
    n_windows: Size = key("clips per piece")
    stretch_frames: Annotated[int, Range(CLIP_FRAMES)] = key("length of a piece")
    min_spacing: Count = key("frames between the clips of a piece")
    n_corruptions: Size = key("per piece, each weak and strong")
    emphasis: dict[Corruption, NonNegative] = key("how often a corruption is drawn; others once")
    on_base: Share = key("share of corruptions laid over an already smoothed motion")
    identity_spread: NonNegative = key("how much unseen faces differ, in measured differences")
    scale_range: Annotated[float, Range(1, 100)] = key("displacements are scaled by up to this factor")
    capture_noise_mm: NonNegative = key("noise of up to this much at the lips in all versions")


@dataclass
class RewardRun(Run):
    """``reward``."""

    corpus: CachedCorpus = key("what is trained on")
    reward_model: RewardModel = key("sizes")
    backbone: Text | None = key("a trained speech-mesh checkpoint that stays frozen; null: train one")
    corruptions: list[Corruption] | None = key("those to train against; null: all")
    leave_out: Annotated[str, Choice(*FAMILIES)] | None = key("a family of corruptions not to train on; null: none")
    actor: StoredActor = key("of policy")
    policy: Text | list[Text] | None = key("supervised actors whose motion is one of the corruptions; null: none")
    policy_samples: Text | None = key("the same from predictions of recipes/evaluate.py; null: none")
    memory_limit_mb: Positive = key("of the whole process")
    precision: Annotated[str, Choice("float32", "bfloat16")] = key("of the backbone while it trains")
    draw_threads: Annotated[int, Range(0, 256)] = key("that make the next batch while the last is used; 0: none")
    iterations: Count = key("updates, those of listening included")
    listening: Listening = key("the first iterations")
    speech: Speech = key("how the training voices are changed")
    hardening: Hardening = key("what gradient ascent finds nearby must score below the truth")
    optimizer: HeadOptimizer = key("AdamW")
    weights: RewardWeights = key("of the terms")
    clips: Clips = key("what a batch is made of")
    motion_directions: Size = key("principal directions of the motion")
    rough_directions: Size = key("further directions of the mesh, in which jitter shows")
    report: bool = key("write the calibration report as well")
    evaluation: Scoring = key("on validation speakers")
    parallel: OneProcess | Ranks = key("where it runs")

    def rules(self) -> None:
        chosen_corruptions(self.corruptions, self.leave_out)
        if self.policy is not None and self.policy_samples is not None:
            raise UserError("policy and policy_samples both say where a policy's motion comes from: give one of them")
        first = self.listening.iterations
        if self.backbone is None and self.iterations <= first:
            raise UserError(
                f"iterations={self.iterations}: the first {first} only listen; give more, or fewer of those "
                "(listening.iterations)"
            )


@dataclass
class JudgeModel:
    """``judge_model``."""

    width: Size = key("channels of both halves")
    hidden: Size = key("of the two heads")
    dropout: BelowOne = key("in training only")

    def rules(self) -> None:
        if self.width % 4:
            raise UserError(f"judge_model.width={self.width}: features come in four groups; give a multiple of 4")


@dataclass
class JudgeWeights:
    """``weights`` of a judge."""

    sync: NonNegative = key("of true against shifted speech")
    rank: NonNegative = key("of true above spoiled motion")
    classify: NonNegative = key("of true against spoiled")
    pooled: NonNegative = key("of true above spoiled means over a stretch")

    def rules(self) -> None:
        _some_weight(self)


@dataclass
class Stretches:
    """``stretches``."""

    n_stretches: Size = key("pieces of utterances per batch")
    stretch_frames: Annotated[int, Range(WINDOW_FRAMES, note="a judge's window")] = key("their length")
    n_corruptions: Size = key("per piece, each weak and strong")
    on_base: Share = key("share of corruptions laid over an already smoothed motion")
    identity_spread: NonNegative = key("how much unseen faces differ, in measured differences")
    style_spread: NonNegative = key("standard deviation of the logarithm of each direction's factor")
    scale_range: Annotated[float, Range(1, 100)] = key("all directions together are scaled by up to this factor")
    capture_noise_mm: NonNegative = key("noise of up to this much at the lips in all versions")
    voice_spread: NonNegative = key("how much the voices are changed; 0: not at all")


@dataclass
class JudgeRun(Run):
    """``judge``."""

    corruptions: list[Corruption] | None = key("those to train against; null: all that a score ought to notice")
    policy_samples: Text | None = key("folder of a policy's predictions, to spoil motion with; null: none")
    register: Text | None = key("json file to append the finished judge to; null: none")
    iterations: Count = key("updates")
    judge_model: JudgeModel = key("sizes")
    optimizer: HeadOptimizer = key("AdamW")
    weights: JudgeWeights = key("of the terms")
    stretches: Stretches = key("what a batch is made of")
    motion_directions: Size = key("principal directions of the motion")
    rough_directions: Size = key("further directions of the mesh, in which jitter shows")
    evaluation: Scoring = key("on validation speakers")

    def rules(self) -> None:
        chosen_corruptions(self.corruptions)


@dataclass
class Mistakes:
    """``mistakes``."""

    substituted: Share = key("of the phones that are another one")
    boundary_noise_s: Annotated[float, Range(0, 1)] = key("standard deviation of every boundary, seconds")
    style_left_out: Share = key("of the utterances whose style is not shown")


@dataclass
class ArticulationRun(Run):
    """``articulation``."""

    phones: Text | None = key("folder of timings that `s2f-rl align --out` wrote; null: those of the corpus")
    iterations: Count = key("updates")
    batch_size: Size = key("utterances per batch")
    coefficients: Annotated[int, Range(1, 64)] = key("principal directions of the lips")
    width: Size = key("of the convolutions")
    depth: Annotated[int, Range(1, 99)] = key("convolutions; each sees two frames more to both sides")
    pca_frames: Annotated[int, Range(2)] = key("that the principal directions are taken from, at most")
    optimizer: HeadOptimizer = key("AdamW")
    mistakes: Mistakes = key("in the phones that training is shown")
    evaluation: Scoring = key("on validation speakers")


def _some_weight(weights: object) -> None:
    if not any(vars(weights).values()):
        raise UserError("weights: all are 0, so nothing would be learned; leave one above 0")
