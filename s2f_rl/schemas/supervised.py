"""Keys of ``recipes/supervised.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from s2f_rl.errors import UserError
from s2f_rl.models.actors import ACTORS, DEFAULT
from s2f_rl.models.speech_models import SPEECH_MODELS
from s2f_rl.runs.schema import BelowOne, Choice, Count, Natural, NonNegative, Range, Share, Size, Text, key
from s2f_rl.schemas.shared import Average, CachedCorpus, Conditions, Decay, OneProcess, Ranks, Run


@dataclass
class MelAudio:
    """``actor.audio`` of ``actor=mel``."""

    kind: Annotated[str, Choice("mel")] = key("which encoder")
    width: Size = key("channels")
    n_mels: Annotated[int, Range(1, 257)] = key("mel bands")
    n_layers: Annotated[int, Range(1, 64)] = key("residual convolutions")


@dataclass
class ListenerAudio:
    """``actor.audio`` of ``actor=listener``."""

    kind: Annotated[str, Choice("listener")] = key("which encoder")
    width: Size = key("channels")
    n_layers: Annotated[int, Range(1, 64)] = key("residual convolutions that train")
    pretrained: Text = key("shipped, or a folder that recipes/listener.py wrote")
    errors: Annotated[float, Range(0, 1)] = key("share of frames at which training hears wrong")


@dataclass
class SpeechAudio:
    """``actor.audio`` of ``actor=speech`` and ``actor=wav2vec2``."""

    kind: Annotated[str, Choice("speech", *SPEECH_MODELS)] = key("which model; speech: the one that pretrained holds")
    pretrained: Text | None = key("hub name or folder; null: random weights")
    local_files_only: bool = key("do not ask the hub over the network")
    config: dict[str, Any] | None = key("sizes of a model with random weights, with pretrained=null", default=None)

    def rules(self) -> None:
        if self.kind == "speech" and self.pretrained is None:
            raise UserError("actor.audio.pretrained=null: name a folder, or which model it is by actor.audio.kind")


def _own_kind(name: str) -> str | None:
    known = ":" in name or name in ACTORS.names()
    return None if known else f"use {' or '.join(ACTORS.names())}, or name your own as package.module:Name"


@dataclass
class FaceFormer:
    """Group ``actor``."""

    kind: Annotated[str, Choice(DEFAULT)] = key("which actor")
    feature_dim: Size = key("width of the decoder")
    dropout: BelowOne = key("in training only")
    audio: ListenerAudio | MelAudio | SpeechAudio = key("the audio encoder")

    def rules(self) -> None:
        if self.feature_dim % 4:
            raise UserError(f"actor.feature_dim={self.feature_dim}: the decoder has four heads; give a multiple of 4")


@dataclass
class CodeTalker:
    """The same for ``actor=codetalker``."""

    kind: Annotated[str, Choice("codetalker")] = key("which actor")
    codebook: Text = key("run folder of recipes/codebook.py: stage 1, which stays frozen")
    feature_dim: Size = key("width of stage 2")
    n_layers: Annotated[int, Range(1, 64)] = key("decoder layers of stage 2")
    n_head: Size = key("their attention heads")
    dropout: BelowOne = key("in training only")
    feature_weight: NonNegative = key("of the feature regression, beside the motion's error in mm^2")
    feedback_window: Count | None = key("frames that stage 1 sees when one is fed back; null: all")
    audio: ListenerAudio | MelAudio | SpeechAudio = key("the audio encoder")

    def rules(self) -> None:
        if self.feature_dim % self.n_head:
            raise UserError(f"actor.n_head={self.n_head}: must divide actor.feature_dim={self.feature_dim}")


@dataclass
class OwnActor:
    """The same for an actor of one's own, whose constructor takes what stands here beside ``kind`` and ``audio``."""

    more: ClassVar = True

    kind: Annotated[Text, _own_kind] = key("which actor")
    audio: ListenerAudio | MelAudio | SpeechAudio = key("the audio encoder")


@dataclass
class SupervisedOptimizer(Decay):
    """``optimizer``."""

    output_lr_factor: NonNegative = key("the output map learns at lr times this")
    weight_decay: Share = key("of all weights")


@dataclass
class ValidationReward:
    """``reward``."""

    folder: Text | None = key("score validation predictions with this reward too; null: not")


@dataclass
class SupervisedEvaluation:
    """``evaluation``."""

    every: Count = key("iterations between validations; the last is always one")
    conditions: Conditions = key("style columns: own (all of them for unseen speakers), all, or a list")
    styles: Count | None = key("of these, so many for each utterance at most; null: all")
    stride: Count = key("the reward scores every stride-th clip")


@dataclass
class SupervisedRun(Run):
    """``supervised``."""

    corpus: CachedCorpus = key("what is trained on")
    actor: FaceFormer | CodeTalker | OwnActor = key("the model")
    mode: Annotated[str, Choice("autoregressive", "teacher_forced")] = key("what history the decoder sees")
    warmup_iterations: Natural = key("teacher-forced iterations before autoregressive ones")
    iterations: Count = key("updates")
    batch_size: Size = key("utterances per update")
    max_frames: Annotated[int, Range(2, note="null: all")] | None = key("train on the first frames only; null: all")
    velocity_weight: NonNegative = key("of the squared error of frame-to-frame differences, mm^2")
    lip_weight: NonNegative = key("a lip coordinate counts 1 + lip_weight times another")
    optimizer: SupervisedOptimizer = key("Adam")
    train_encoder: bool = key("train the audio encoder too")
    ema_decay: Average | None = key("exponential moving average of the weights for evaluation; null: none")
    reward: ValidationReward = key("what else validation measures")
    evaluation: SupervisedEvaluation = key("validation")
    parallel: OneProcess | Ranks = key("where it runs")

    def rules(self) -> None:
        if isinstance(self.actor, CodeTalker) and self.mode != "teacher_forced":
            raise UserError(f"mode={self.mode}: an actor of codes learns teacher-forced; use mode=teacher_forced")
