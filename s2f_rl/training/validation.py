"""Validation during training, and the choice of the best checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s2f_rl.data.contract import Corpus
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer, counts, evaluate_actor, summarise
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.contract import Actor

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
        encoder_trains: the audio encoder changes between calls, so features must be computed anew.
        counts: what each score counts in that sum; None: 1 for every score of the scorer's model ``train``.
        stride, styles: score every stride-th clip, in so many style columns of an utterance at most (the next
            utterance has the next ones; None: all); see ``docs/decisions/0027-a-frozen-encoder-is-kept-once.md``.
        cache: folder for the audio features of an encoder that does not train; None: they are kept in memory.

    A corpus without vertices has no LVE; then the guard is off. A mean is over the sequences where a measure could be
    taken; in how many it could not, ``<measure>_not_measured`` says where there are any.

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
    ) -> None:
        if select not in SELECTORS:
            raise UserError(f"evaluation.select={select!r} is unknown: use one of {', '.join(SELECTORS)}")
        if select == "reward" and scorer is None:
            raise UserError("evaluation.select=reward needs a reward model: give reward.folder or select=lve")
        self.actor, self.corpus, self.scorer, self.conditions = actor, corpus, scorer, conditions
        self.select, self.max_lve_ratio = select, math.inf if max_lve_ratio is None else max_lve_ratio
        self.encoder_trains = encoder_trains
        everything = () if scorer is None else scorer.columns("train")
        self.counts = dict.fromkeys(everything, 1.0) if counts is None else dict(counts)
        self.stride, self.styles = stride, styles
        self.audio = CachedAudio(actor.audio_encoder, corpus, None if encoder_trains else cache)
        self.start_lve: float | None = None

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
            self.start_lve = values.get("lve")
        missing = {column: count["sequences_not_measured"] for column, count in counts(rows).items()}
        return values | {f"{column}_not_measured": float(n) for column, n in missing.items() if n}

    def value(self, values: dict[str, float]) -> float:
        """What is compared, larger is better; -inf for a checkpoint that the LVE guard rules out."""
        if self.select == "lve":
            return -values.get("lve", math.inf)
        if self.start_lve is not None and values.get("lve", -math.inf) > self.max_lve_ratio * self.start_lve:
            return -math.inf
        scored = [weight * values[name] for name, weight in self.counts.items() if name in values]
        if not scored:
            raise UserError(
                "evaluation.select=reward: the reward has a score on no frame of the validation utterances (too short, "
                "or masked); use evaluation.select=lve"
            )
        return sum(scored)

    def state_dict(self) -> dict[str, Any]:
        return {"start_lve": self.start_lve}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start_lve = state["start_lve"]
