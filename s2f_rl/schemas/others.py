"""Keys of ``recipes/evaluate.py`` and ``recipes/demo.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from s2f_rl.data.motion_files import PRECISIONS
from s2f_rl.data.synthetic.sentences import MAX_SENTENCES
from s2f_rl.data.synthetic.topology import MIN_VERTICES
from s2f_rl.data.synthetic.write import MAX_SPEAKERS, MAX_VERTICES, MOTIONS
from s2f_rl.evaluation.tables import FORMATS
from s2f_rl.render.frames import SIZES
from s2f_rl.runs.schema import Choice, Natural, PartOf, Range, RunName, Text, key
from s2f_rl.schemas.reward import JudgeRun, RewardRun
from s2f_rl.schemas.rl import PPO
from s2f_rl.schemas.shared import CachedCorpus, Conditions, Device, StoredActor
from s2f_rl.schemas.supervised import SupervisedRun


@dataclass
class Evaluate:
    """``evaluate``."""

    name: RunName = key("of a job of a sweep")
    debug: bool = key("show the traceback of a mistake")
    device: Device = key("where to compute; auto: the first CUDA device or the CPU")
    progress: bool = key("show progress")
    corpus: CachedCorpus = key("what is evaluated on")
    actor: StoredActor = key("of checkpoint")
    checkpoint: Text = key("run folder, checkpoint or published weights")
    out: Text | None = key("folder of the outputs; null: evaluation/ in the run folder")
    split: Text = key("of the corpus: train, validation, test or one of its own")
    conditions: Conditions = key("style columns: all, own, or a list")
    save_predictions: bool = key("write the predicted vertices")
    predictions: Annotated[str, Choice(*PRECISIONS)] = key("of their files")
    reward_folder: Text | None = key("the reward that was trained against; null: none")
    judge_folder: Text | None = key("a reward that was never trained against; null: none")
    rows_format: Annotated[str, Choice(*FORMATS)] = key("of measures.*")
    measures: list[Text] | None = key("of your own, as package.module:NAME; null: none")
    true_distance: bool | Annotated[str, Choice("auto")] = key("distance to the nearest motion that could have been")


@dataclass
class Film:
    """``film``."""

    utterance: Text | None = key("what is said; null: the first test utterance")
    style: Natural = key("training subject whose way of speaking is used")
    size: Annotated[int, Range(SIZES[0], SIZES[1])] = key("side of one face, pixels")


@dataclass
class CorpusSize:
    """What the built-in corpus is made of."""

    subjects: Annotated[int, Range(3, MAX_SPEAKERS)] = key("speakers of the corpus")
    sentences: Annotated[int, Range(1, MAX_SENTENCES)] = key("per speaker")
    vertices: Annotated[int, Range(MIN_VERTICES, MAX_VERTICES)] = key("of the face")
    motion: Annotated[str, Choice(*MOTIONS)] = key("of the corpus: vertices, or arkit: coefficients with their basis")


@dataclass
class Demo(CorpusSize):
    """``demo``."""

    name: RunName = key("of a job of a sweep")
    debug: bool = key("show the traceback of a mistake")
    progress: bool = key("show progress")
    root: Text = key("parent of all its runs")
    corpus_folder: Text = key("where the corpus is, or is made")
    seed: Annotated[int, Range(0, 2**32 - 1001)] = key("of corpus and runs; the judge's is 1000 more")
    supervised: Annotated[dict[str, Any], PartOf(SupervisedRun)] = key("settings of this stage")
    reward: Annotated[dict[str, Any], PartOf(RewardRun)] = key("settings of this stage")
    judge: Annotated[dict[str, Any], PartOf(JudgeRun)] = key("settings of this stage")
    rl: Annotated[dict[str, Any], PartOf(PPO)] = key("settings of PPO and of its control")
    film: Film = key("four faces side by side")
