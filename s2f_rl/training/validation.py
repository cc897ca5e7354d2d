"""Validation during training, and the choice of the best checkpoint."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s2f_rl.data.contract import Corpus
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer, counts, evaluate_actor, summarise
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.contract import Actor

logger = logging.getLogger(__name__)

SELECTORS = ("lve", "reward")


class Validation:
    """Deterministic predictions on a validation corpus: ``validation() -> {"lve": .., "lip_score": .., ..}``.

    Args:
        actor: the model under training.
        corpus: validation split.
        scorer: reward models; None: geometric measures alone.
        conditions: style columns, ``"all"`` or ``"own"``.
        select: what ``best.pt`` is chosen by: ``"lve"`` (lowest) or ``"reward"`` (highest sum of scores among
            checkpoints whose LVE is at most ``max_lve_ratio`` times that at the start: a reward alone picks the best
            cheat). max_lve_ratio: None for no such limit.
        max_closure_drop: the same for the closure rate, which may fall so far below the start's at most; where it falls
            further while the reward rises, a line says so, once. None for no such limit.
        encoder_trains: the audio encoder changes between calls, so features must be computed anew.
        counts: what each score counts in that sum; None: 1 for every score of the scorer's model ``train``.
        stride, styles: score every stride-th clip, in so many style columns of an utterance at most (the next
            utterance has the next ones; None: all); see ``docs/decisions/0027-a-frozen-encoder-is-kept-once.md``.
        cache: folder for the audio features of an encoder that does not train; None: they are kept in memory.

    A corpus without vertices has no LVE, and one without phone timings no closure rate; then that guard is off. A mean
    is over the sequences where a measure could be taken; in how many it could not, ``<measure>_not_measured`` says
    where there are any.

    Raises (when called):
        NotFinite: a prediction or a score is not finite: the actor has diverged.
    """

    def __init__(
        self,
        actor: Actor,
        corpus: Corpus,
        scorer: Scorer | None = None,
        conditions: str | Sequence[int] = "own",
        select: str = "lve",
        max_lve_ratio: float | None = 1.05,
        encoder_trains: bool = False,
        counts: Mapping[str, float] | None = None,
        stride: int = 1,
        styles: int | None = None,
        cache: str | Path | None = None,
        max_closure_drop: float | None = None,
    ) -> None:
        if select not in SELECTORS:
            raise UserError(f"evaluation.select={select!r} is unknown: use one of {', '.join(SELECTORS)}")
        if select == "reward" and scorer is None:
            raise UserError("evaluation.select=reward needs a reward model: give reward.folder or select=lve")
        self.actor, self.corpus, self.scorer, self.conditions = actor, corpus, scorer, conditions
        self.select, self.max_lve_ratio = select, math.inf if max_lve_ratio is None else max_lve_ratio
        self.max_closure_drop = max_closure_drop
        self.encoder_trains = encoder_trains
        everything = () if scorer is None else scorer.columns("train")
        self.counts = dict.fromkeys(everything, 1.0) if counts is None else dict(counts)
        self.stride, self.styles = stride, styles
        self.audio = CachedAudio(actor.audio_encoder, corpus, None if encoder_trains else cache)
        self.start_lve: float | None = None
        self.start_closure: float | None = None
        self.start_score: float | None = None
        self._told = False

    def __call__(self) -> dict[str, float]:
        if self.encoder_trains:
            self.audio.refresh()
        rows = evaluate_actor(
            self.actor, self.corpus, self.scorer, self.audio, self.conditions, timing=False,
            stride=self.stride, styles=self.styles, mean=False,
        )  # fmt: skip
        values = summarise(rows)
        values.pop("frames", None)
        if self.start_lve is None:
            self.start_lve, self.start_closure = values.get("lve"), values.get("closure_rate")
            self.start_score = self._score(values)
        self._tell_of_sold_closures(values)
        missing = {column: count["sequences_not_measured"] for column, count in counts(rows).items()}
        return values | {f"{column}_not_measured": float(n) for column, n in missing.items() if n}

    def value(self, values: dict[str, float]) -> float:
        """What is compared, larger is better; -inf for a checkpoint that a guard rules out."""
        if self.select == "lve":
            return -values.get("lve", math.inf)
        if self.start_lve is not None and values.get("lve", -math.inf) > self.max_lve_ratio * self.start_lve:
            return -math.inf
        if self._closures_fell(values):
            return -math.inf
        score = self._score(values)
        if score is None:
            raise UserError(
                "evaluation.select=reward: the reward has a score on no frame of the validation utterances (too short, "
                "or masked); use evaluation.select=lve"
            )
        return score

    def _score(self, values: Mapping[str, float]) -> float | None:
        """The weighted sum of the scores; None without any."""
        scored = [weight * values[name] for name, weight in self.counts.items() if name in values]
        return sum(scored) if scored else None

    def _closures_fell(self, values: Mapping[str, float]) -> bool:
        if self.max_closure_drop is None or self.start_closure is None:
            return False
        return self.start_closure - values.get("closure_rate", math.inf) > self.max_closure_drop

    def _tell_of_sold_closures(self, values: Mapping[str, float]) -> None:
        score = self._score(values)
        rose = score is not None and self.start_score is not None and score > self.start_score
        if self._told or not rose or not self._closures_fell(values):
            return
        self._told = True
        logger.warning(
            "closures are being sold: the lips close in %.0f%% of the frames where they should, %.0f%% at the start, "
            "while the reward rises; train the reward longer, or use a smaller policy_weight",
            100 * values["closure_rate"], 100 * (self.start_closure or 0.0),
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {"start_lve": self.start_lve, "start_closure": self.start_closure, "start_score": self.start_score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start_lve = state["start_lve"]
        self.start_closure, self.start_score = state.get("start_closure"), state.get("start_score")  # came later
