"""Wrong motion of the built-in generator's own making: sharp and natural, but not what was said, or not so.

The corruptions that a reward is trained on (:mod:`s2f_rl.rewards.corruptions`) change a recorded motion. Here the
generator makes another motion for the same speaker and take: of other phones, without closures or with more of them, at
other times, larger or smaller than anybody speaks, or with slack muscles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from s2f_rl.data.synthetic import Speaker, Take, generate, load_speakers, load_take
from s2f_rl.data.synthetic.phones import BILABIALS, PHONES, SILENCE
from s2f_rl.data.synthetic.write import FRAME_STEP, STORED_FPS
from s2f_rl.keys import LIP_SCORE, REAL_SCORE
from s2f_rl.rewards.corruptions import Corruption, CorruptionContext
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.mse_regressor import SpeechRegressor
from s2f_rl.rewards.training.recordings import MotionBank

VOWELS = ("aa", "ae", "ah", "ao", "aw", "ax", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw")
_OPEN = ("t", "d", "n", "k", "g", "s", "z")
Wrong = Callable[[Take, Speaker, float, np.random.Generator], tuple[Take, Speaker]]


def another(phone: str, rng: np.random.Generator) -> str:
    """Another phone of the same class: a vowel for a vowel, a consonant for a consonant."""
    if phone == SILENCE:
        return phone
    same = [p for p in PHONES if p not in (phone, SILENCE) and (p in VOWELS) == (phone in VOWELS)]
    return same[int(rng.integers(len(same)))]


def _replaced(take: Take, rng: np.random.Generator, share: float, which: Sequence[str], by: Callable) -> Take:
    """A share of the phones ``which``, replaced by ``by(phone, rng)``; the same draws choose more at a larger share."""
    draws = rng.random(len(take.phones))
    phones = [
        (by(phone, np.random.default_rng(int(1e9 * draw))) if phone in which and draw < share else phone, start, end)
        for (phone, start, end), draw in zip(take.phones, draws, strict=True)
    ]
    return replace(take, phones=phones)


def wrong_phones(take: Take, speaker: Speaker, strength: float, rng: np.random.Generator) -> tuple[Take, Speaker]:
    """Strength 1: every phone is another of its class, at the right time."""
    return _replaced(take, rng, strength, PHONES, another), speaker


def dropped_closures(take: Take, speaker: Speaker, strength: float, rng: np.random.Generator) -> tuple[Take, Speaker]:
    """Strength 1: every bilabial is an alveolar or a velar."""
    return _replaced(take, rng, strength, tuple(BILABIALS), lambda _, r: _OPEN[int(r.integers(len(_OPEN)))]), speaker


def added_closures(take: Take, speaker: Speaker, strength: float, rng: np.random.Generator) -> tuple[Take, Speaker]:
    """Strength 1: three in four of the alveolars and velars are bilabials."""
    return _replaced(take, rng, 0.75 * strength, _OPEN, lambda _, r: ("m", "b", "p")[int(r.integers(3))]), speaker


def moved_boundaries(take: Take, speaker: Speaker, strength: float, rng: np.random.Generator) -> tuple[Take, Speaker]:
    """Strength 1: phone boundaries move by 120 ms, standard deviation, each by itself, and stay in order."""
    times = np.array([start for _, start, _ in take.phones[1:]] or [0.0])
    moved = np.sort(times + 0.12 * strength * rng.standard_normal(len(times)))
    end = take.phones[-1][2]
    edges = [0.0, *np.clip(moved[: len(take.phones) - 1], 0.0, end), end]
    phones = [(phone, edges[k], edges[k + 1]) for k, (phone, _, _) in enumerate(take.phones)]
    return replace(take, phones=phones), speaker


def wrong_effort(take: Take, speaker: Speaker, strength: float, rng: np.random.Generator) -> tuple[Take, Speaker]:
    """Strength 1: jaw and lips move 2.2 times as far or less than half as far, beyond the hidden effort of any take."""
    factor = float(np.exp((1 if rng.random() < 0.5 else -1) * 0.79 * strength))
    style = speaker.style
    return take, replace(speaker, style=replace(style, jaw=style.jaw * factor, lips=style.lips * factor))


def slack(take: Take, speaker: Speaker, strength: float, rng: np.random.Generator) -> tuple[Take, Speaker]:
    """Strength 1: targets are smoothed by 120 ms, standard deviation, where a speaker has 19, and closing takes as
    much longer."""
    style = speaker.style
    slow = replace(
        style, smoothing_s=style.smoothing_s + 0.1 * strength, closure_time=style.closure_time + 0.2 * strength
    )
    return take, replace(speaker, style=slow)


KINDS: dict[str, tuple[Wrong, tuple[str, ...]]] = {
    "wrong_phones": (wrong_phones, (LIP_SCORE,)),
    "dropped_closures": (dropped_closures, (LIP_SCORE,)),
    "added_closures": (added_closures, (LIP_SCORE,)),
    "moved_boundaries": (moved_boundaries, (LIP_SCORE,)),
    "wrong_effort": (wrong_effort, (LIP_SCORE, REAL_SCORE)),
    "slack": (slack, (LIP_SCORE, REAL_SCORE)),
}
"""Ways of being wrong by name, and the scores that ought to notice."""


def wrong_motion(kind: str, take: Take, speaker: Speaker, strength: float, seed: int) -> Tensor:
    """Displacement [T, V*3], metres, at the corpus's rate, of a take that is wrong in one way; strength in [0, 1]."""
    wrong_take, wrong_speaker = KINDS[kind][0](take, speaker, strength, np.random.default_rng(seed))
    vars(wrong_speaker)["rig"] = speaker.rig  # no kind changes the face, and building one takes long
    motion = generate(wrong_take.phones, take.n_frames, wrong_speaker, take.hidden, STORED_FPS)[::FRAME_STEP]
    return torch.from_numpy(motion).float()


@dataclass
class WorldContext(CorruptionContext):
    """Knows which take a stretch is of, and which of its frames it has."""

    take: Take | None = None
    speaker: Speaker | None = None
    frames: slice = field(default_factory=lambda: slice(None))


class WorldBank(MotionBank):
    """The recordings of a built-in corpus, with contexts from which :func:`world_corruptions` can be made."""

    def context(
        self,
        position: int,
        motion: MotionSubspace,
        generator: torch.Generator,
        regressor: SpeechRegressor | None = None,
        frames: slice | None = None,
    ) -> WorldContext:
        known = super().context(position, motion, generator, regressor, frames)
        recording = self[position]
        take = load_take(self.corpus.root, recording.name)
        if not hasattr(self, "speakers"):
            self.speakers = load_speakers(self.corpus.root)
        return WorldContext(
            **vars(known), take=take, speaker=self.speakers[recording.subject], frames=frames or slice(None)
        )


def world_corruptions() -> list[Corruption]:
    """Every kind of this module and a policy's motion, as corruptions of the takes of a :class:`WorldBank`."""
    made = [
        Corruption(kind, _of_kind(kind), "world", heads, function.__doc__ or "", needs=("take", "speaker"))
        for kind, (function, heads) in KINDS.items()
    ]
    own = Corruption("actor", _actor, "world", (LIP_SCORE, REAL_SCORE), "an actor's motion", needs=("policy_sample",))
    return [*made, own]


def _of_kind(kind: str) -> Callable[[Tensor, float, CorruptionContext], Tensor]:
    def corrupt(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
        assert isinstance(context, WorldContext) and context.take is not None and context.speaker is not None
        seed = int(torch.randint(2**62, (1,), generator=context.generator))
        return wrong_motion(kind, context.take, context.speaker, strength, seed)[context.frames][: len(displacement)]

    return corrupt


def _actor(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    assert context.policy_sample is not None
    return torch.lerp(displacement, context.policy_sample, strength)
