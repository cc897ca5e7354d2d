"""Group ``reward`` of the RL recipes: the reward of a folder, further parts, and how they are added up."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

from s2f_rl.errors import UserError
from s2f_rl.rewards.model.perceptual import SCORE_NAMES
from s2f_rl.rewards.model.speech_mesh import PRECISIONS
from s2f_rl.rewards.registry import REWARDS, part_maker
from s2f_rl.runs.schema import Choice, Count, NonNegative, Positive, Text, key, keys_of, read
from s2f_rl.training.build_reward import SHORT_FORM
from s2f_rl.training.reward_signal import NORMALISATIONS


def _part_name_problem(name: str) -> str | None:
    return None if re.fullmatch(r"[A-Za-z]\w{0,63}", name) else "name a part in letters, digits and _"


PartName = Annotated[str, _part_name_problem]


@dataclass
class RewardPart:
    """One of ``reward.parts``; its other keys are those of its kind."""

    kind: Text = key("perceptual, closure, another kind by name, or package.module:Name of your own")
    weight: NonNegative | None = key("of its scores; 1 if it is not given", default=None)
    weights: dict[Text, NonNegative] | None = key("of single scores, times weight; 1 for others", default=None)


@dataclass
class FrozenReward:
    """Group ``reward``."""

    folder: Text | None = key("folder with model_loss.pth and v4_best.pt; null: reward.parts alone")
    weights: dict[Annotated[str, Choice(*SCORE_NAMES)], NonNegative] = key("of the scores of that folder's reward")
    parts: dict[PartName, dict[str, Any]] = key("further rewards by name, each with its kind, weight and options")
    scale: Positive = key("of the reward")
    stride: Count = key("score every stride-th clip only; parts that look at single frames score all")
    precision: Annotated[str, Choice(*PRECISIONS)] = key("of the products of that folder's reward")
    cap: Annotated[str, Choice("truth")] | None = key("truth: no credit above the ground truth's score; null: no cap")
    normalise: Annotated[str, Choice(*NORMALISATIONS)] = key("standardise each score before it is weighted")

    def rules(self) -> None:
        for name, part in self.parts.items():
            _check_part(f"reward.parts.{name}", part)
        if self.folder is None and not self.parts:
            raise UserError(
                "reward.folder must be given, for example reward.folder=..., or a part: reward.parts.NAME.kind=..."
            )
        if self.folder is not None and SHORT_FORM in self.parts:
            raise UserError(
                f"reward.parts.{SHORT_FORM}: that is the name of reward.folder's own part; name it otherwise"
            )
        counts = [] if self.folder is None else list(self.weights.values())
        if not any(counts) and all(part.get("weight") == 0 for part in self.parts.values()):
            raise UserError(
                "reward.weights: all are 0, so nothing is rewarded; control=true is the run without a reward"
            )

    def refuse_without_gradient(self) -> None:
        """Raise UserError where a part's kind cannot be differentiated."""
        for name, part in self.parts.items():
            if not getattr(REWARDS.named_by_person(part["kind"]), "differentiable", True):
                raise UserError(
                    f"reward.parts.{name}: a reward of kind {part['kind']} cannot be differentiated; leave it out, or "
                    "use an algorithm that needs rewards only (rloo, ppo)"
                )


def _check_part(place: str, part: Mapping[str, object]) -> None:
    """Raise UserError for a key that the part's kind does not have, or a value of another type than it says."""
    general = keys_of(RewardPart)
    known = read(RewardPart, {name: value for name, value in part.items() if name in general}, place=place)
    options = {name: value for name, value in part.items() if name not in general}
    make: Any = part_maker(known.kind, options, place)
    try:
        hints = get_type_hints(make if inspect.isroutine(make) else make.__init__, include_extras=True)
    except Exception:  # of a kind whose types can be looked up by type checkers only: whatever their text raises
        hints = {}
    for name, value in options.items():
        if name in hints:
            read(hints[name], value, place=f"{place}.{name}")
