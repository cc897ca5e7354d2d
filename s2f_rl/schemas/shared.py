"""Keys that several recipes have: run, corpus, decaying rate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from s2f_rl.errors import UserError
from s2f_rl.runs.report.write import KINDS
from s2f_rl.runs.schema import Choice, Natural, NonNegative, Positive, Range, RunName, Seed, Text, key


def _no_cache(folder: str) -> str:
    return "this recipe keeps audio features in memory; leave it null"


def _device_problem(name: str) -> str | None:
    known = re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?", name)
    return None if known else "use auto, cpu, cuda, cuda:1 or another of torch's devices"


Device = Annotated[str, _device_problem]
Rate = Annotated[
    float, Range(above=0, most=3e38)
]  # what float32 holds; one that is too large is the step guard's to tell
Logger = Annotated[str, Choice("csv", "tensorboard", "wandb", "none")]
Conditions = Annotated[str, Choice("own", "all")] | list[Natural]
Average = Annotated[float, Range(0, below=1, note="e.g. 0.99; null: no average")]


@dataclass
class Corpus:
    """Group ``corpus``."""

    root: Text = key("folder of the corpus")
    topology: Annotated[str, Choice("vocaset", "biwi")] | None = key("preset; null: as the corpus says itself")
    cache: Annotated[str, _no_cache] | None = key("not of this recipe; null: audio features are kept in memory")


@dataclass
class CachedCorpus(Corpus):
    """The same where audio features are kept."""

    cache: Text | None = key("folder for cached audio features; null: they are kept in memory")


@dataclass
class StoredActor:
    """Group ``actor`` where an actor comes from a file."""

    kind: Text | None = key("package.module:Name of your own, which the file names; null: the file's kind is known")


@dataclass
class OwnRun:
    """What every training recipe has, and all of it where a recipe makes its own data."""

    name: RunName = key("of the run; its folder is root/name")
    root: Text = key("parent of all runs")
    seed: Seed = key("of weights, draws and noise")
    device: Device = key("where to compute; auto: the first CUDA device or the CPU")
    debug: bool = key("show the traceback of a mistake")
    resume: bool = key("go on in a folder that exists")
    progress: bool = key("show progress")
    logger: Logger | list[Logger] | None = key("what draws curves beside metrics.jsonl")
    logger_online: bool = key("let wandb send the run to its server")
    logger_films: bool = key("give wandb films, and tensorboard stills, of three utterances at the end")
    page: Annotated[str, Choice(*KINDS)] = key("report.html at the end: none, curves, with stills or with films")
    checkpoint_minutes: Positive | None = key("a last.pt at least so often; null: at evaluations alone")


@dataclass
class Run(OwnRun):
    """What a recipe has that trains on a corpus."""

    corpus: Corpus = key("what is trained on")


@dataclass
class OneProcess:
    """``parallel=none``."""

    kind: Annotated[str, Choice("none")] = key("one process")


@dataclass
class Workers:
    """``parallel=workers``."""

    kind: Annotated[str, Choice("workers")] = key("worker processes collect")
    workers: Annotated[int, Range(1, 1024)] = key("processes; they share lanes")


@dataclass
class Ray:
    """``parallel=ray``."""

    kind: Annotated[str, Choice("ray")] = key("Ray actors collect")
    workers: Annotated[int, Range(1, 1024)] = key("actors; they share lanes")
    cpus_per_worker: NonNegative = key("CPUs that each reserves")
    gpus_per_worker: NonNegative = key("GPUs that each reserves; above 0 it plays on one")
    address: Text | None = key("of a cluster; null: a Ray of the run's own on this machine")


@dataclass
class Ranks:
    """``parallel=ddp``."""

    kind: Annotated[str, Choice("ddp")] = key("every process that torchrun starts is a rank")
    timeout_s: Positive = key("seconds that a rank waits for the others in an exchange")


@dataclass
class Decay:
    """``optimizer``: a rate that decays."""

    lr: Rate = key("rate at the start")
    final_lr: Annotated[float, Range(0, 3e38)] = key("rate at the end of a cosine decay")
    max_grad_norm: Positive | None = key("gradients are clipped to this norm; null: they are not")

    def rules(self) -> None:
        if self.final_lr > self.lr:
            raise UserError(
                f"optimizer.final_lr={self.final_lr}: above optimizer.lr={self.lr}, but the rate decays; lower it"
            )
