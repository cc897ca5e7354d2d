"""What a corruption is: its context, its strength, the scores that ought to notice it, and the registry of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.keys import LIP_SCORE, REAL_SCORE
from s2f_rl.rewards.motion.subspace import MotionSubspace

LIP = LIP_SCORE
"""The score that hears the sound: does the motion fit it?"""
REAL = REAL_SCORE
"""The score of the motion alone: does a face move like that?"""


@dataclass
class CorruptionContext:
    """What a corruption may need to know.

    Attributes:
        motion: statistics of the training subjects.
        generator: source of all draws.
        fps: frames per second.
        template: [V*3] the speaker's face at rest, metres.
        other_utterance: [T', V*3] displacement of the same speaker in another sentence.
        other_speaker: [T', V*3] displacement of another speaker, in the same sentence where there is one.
        regression: [T, V*3] displacement that a least-squares regressor predicts from the speech.
        policy_sample: [T, V*3] displacement that a trained policy makes for the speech.
    """

    motion: MotionSubspace
    generator: torch.Generator
    fps: float
    template: Tensor
    other_utterance: Tensor | None = None
    other_speaker: Tensor | None = None
    regression: Tensor | None = None
    policy_sample: Tensor | None = None


Function = Callable[[Tensor, float, CorruptionContext], Tensor]


@dataclass(frozen=True)
class Corruption:
    """A registered corruption.

    Attributes:
        name: its name. family: for leave-one-family-out. heads: scores that ought to notice it; none for a control,
            which the report shows and training leaves out.
        strength_one: what strength 1 is. needs: context fields it cannot do without.
    """

    name: str
    function: Function
    family: str
    heads: tuple[str, ...]
    strength_one: str
    needs: tuple[str, ...] = ()

    def __call__(self, displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
        """Displacement [T, V*3] -> displacement [T, V*3]; strength in [0, 1]."""
        if not 0.0 <= strength <= 1.0:
            raise UserError(f"strength={strength} of {self.name}: must lie between 0 and 1")
        if not self.possible(context):
            raise UserError(f"corruption {self.name} needs {' and '.join(self.needs)}, which is not given here")
        return self.function(displacement, float(strength), context)

    def possible(self, context: CorruptionContext) -> bool:
        """The context has all it needs."""
        return all(getattr(context, need) is not None for need in self.needs)


CORRUPTIONS: dict[str, Corruption] = {}
"""All corruptions by name; complete once ``s2f_rl.rewards.corruptions`` is imported."""


def register(
    family: str, heads: tuple[str, ...], strength_one: str, needs: tuple[str, ...] = ()
) -> Callable[[Function], Function]:
    """Add a function to :data:`CORRUPTIONS` under its own name."""

    def add(function: Function) -> Function:
        name = function.__name__
        CORRUPTIONS[name] = Corruption(name, function, family, heads, strength_one, needs)
        return function

    return add


def chosen_corruptions(names: list[str] | None = None, leave_out: str | None = None) -> list[Corruption]:
    """Corruptions by name; for None all that a score ought to notice. Those of family ``leave_out`` are left out.

    Raises:
        UserError: an unknown name or family, or nothing is left.
    """
    unknown = [name for name in names or () if name not in CORRUPTIONS]
    if unknown:
        raise UserError(f"unknown corruption {unknown[0]!r}: use some of {', '.join(CORRUPTIONS)}")
    families = list(dict.fromkeys(each.family for each in CORRUPTIONS.values()))
    if leave_out is not None and leave_out not in families:
        raise UserError(f"leave_out={leave_out}: no family of corruptions; use one of {', '.join(families)}")
    chosen = [CORRUPTIONS[name] for name in names] if names else [c for c in CORRUPTIONS.values() if c.heads]
    chosen = [corruption for corruption in chosen if corruption.family != leave_out]
    if not chosen:
        raise UserError(f"leave_out={leave_out} leaves none of the chosen corruptions: choose others as well")
    return chosen
