"""What every key of a suite may be; the settings of its runs are checked by the schemas of their recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from s2f_rl.errors import UserError
from s2f_rl.runs.schema import Choice, Natural, Positive, Range, RunName, Seed, Share, Text, key
from s2f_rl.schemas import SCHEMAS
from s2f_rl.schemas.others import CorpusSize
from s2f_rl.schemas.shared import Conditions

Recipe = Annotated[str, Choice(*SCHEMAS)]
Split = Annotated[
    str, Choice("validation", "train", note="; the test speakers are opened with open_test=true and evaluated once")
]


def _factors(values: list[Any]) -> str | None:
    """Rule for ``gains``, which may be an empty list: published commands have one."""
    numbers = all(type(value) in (int, float) and 0 < value < 1e9 for value in values)
    return None if numbers else "expected a list of positive numbers, for example [1.2,1.5]"


@dataclass
class Synthesis(CorpusSize):
    """``corpus.synthesize``."""

    seed: Seed = key("of faces, styles and hidden variation")


@dataclass
class SuiteCorpus:
    """``corpus``."""

    root: Text = key("folder of the corpus")
    synthesize: Synthesis | None = key("how it is made when the folder is missing; null: it must be there")


@dataclass
class Cell:
    """One of ``setup`` or ``controls``."""

    recipe: Recipe = key("what runs")
    overrides: dict[str, Any] = key("its settings")
    sweep: dict[str, list[Any]] | None = key("a run for every combination of these values", default=None)
    seeds: list[Seed] | None = key("of the suite's, those that it runs with; null: all", default=None)


@dataclass
class Variant(Cell):
    """One of ``variants``."""

    control: Text = key("the control that it is compared with")
    against: dict[Text, Text] | None = key("further comparisons: what to call one -> a variant", default=None)


@dataclass
class EvaluationSet:
    """One of ``evaluate``: utterances that every run is evaluated on."""

    corpus: Text | None = key("folder of the corpus; null: the suite's", default=None)
    split: Text = key("a split of that corpus, or all")
    names: list[Text] | None = key("patterns of the utterances' names; null: every one of the split", default=None)
    utterances: Annotated[int, Range(1)] | None = key("how many of them; null: all", default=None)
    conditions: Conditions | None = key("style conditions; null: the suite's", default=None)


@dataclass
class Veto:
    """``veto``: what a run may lose to its control before its judges' gain counts no more."""

    lve: Positive = key("its lip error over the control's, at most")
    closure: Share = key("closures lost, at most")
    false_closure: Share = key("false closures won, at most")
    articulation: Text | None = key("a judge whose score must reach the controls' interval; null: none")


@dataclass
class Suite:
    """A file of ``benchmarks/suites`` over ``common.yaml``."""

    name: RunName = key("of the suite")
    root: Text = key("folder of everything that the suite writes")
    jobs: Annotated[int, Range(1, 1024)] | Annotated[str, Choice("ray")] = key(
        "runs side by side; ray: as Ray has CPUs"
    )
    seeds: list[Seed] = key("of the runs")
    split: Split = key("whose motion is evaluated")
    open_test: bool = key("evaluate on the test speakers instead")
    checkpoints: list[Annotated[str, Choice("last", "best")]] = key("of every run, those that are evaluated")
    utterances: Annotated[int, Range(1, note="null: all")] | None = key("how many of them; null: all")
    conditions: Conditions = key("style conditions")
    true_distances: Natural = key("utterances whose distance to the nearest plausible motion is measured")
    gains: Annotated[list[Any], _factors] | None = key("factors of the controls' motion; null or []: none")
    corpus: SuiteCorpus = key("what is trained and evaluated on")
    setup_root: Text = key("folder of the preparations")
    setup: dict[str, Cell] = key("recipes that run once")
    starts: dict[RunName, Text] = key("supervised actors")
    families: dict[RunName, list[Text]] | None = key("groups of starts with tables of their own; null: one of all")
    reward: Text | None = key("what is trained against; null: see rewards")
    rewards: dict[RunName, Text | dict[str, Any]] | None = key("in its place several: a folder each, or overrides")
    judges: dict[Text, Text | dict[str, Any]] = key("what nothing is trained against: a folder, or a part of a reward")
    veto: Veto = key("when the gain of a judge is not counted")
    evaluate: dict[RunName, EvaluationSet] | None = key("sets of utterances in place of split, each with its results")
    base: dict[str, Any] = key("settings of every run")
    controls: dict[str, Cell] = key("runs without the policy gradient")
    variants: dict[str, Variant] = key("runs with it")

    def rules(self) -> None:
        """What must hold between keys."""
        twice = sorted(set(self.variants) & set(self.controls))
        if twice:
            raise UserError(f"{self.name}: {twice[0]} is both a variant and a control; rename one")
        for name, variant in self.variants.items():
            if variant.control not in self.controls:
                known = " or ".join(self.controls) or "one"
                raise UserError(f"variants.{name}.control={variant.control}: no such control; use {known}")
            for other in (variant.against or {}).values():
                if other not in self.variants or other == name:
                    raise UserError(f"variants.{name}.against: {other} is no other variant; name one")
        if (self.reward is None) == (not self.rewards):
            raise UserError(f"{self.name}: give reward=FOLDER or rewards, and of the other null")
        if self.veto.articulation not in (None, *self.judges):
            raise UserError(
                f"veto.articulation={self.veto.articulation}: no such judge; use {' or '.join(self.judges)}"
            )
        grouped = [start for group in (self.families or {}).values() for start in group]
        if self.families is not None and sorted(grouped) != sorted(self.starts):
            raise UserError(f"{self.name}: families must hold each of starts once: {', '.join(self.starts)}")
        if "last" not in self.checkpoints:
            raise UserError(f"checkpoints={self.checkpoints}: last is missing, and it is what the tables are about")
        for each in ("starts", "judges"):
            if not getattr(self, each):
                raise UserError(f"{self.name}: {each} is empty; give at least one")
        if len(set(self.seeds)) != len(self.seeds):
            raise UserError(f"seeds={self.seeds}: the same seed twice; the runs would be the same")
