"""Motion that a judge must put below a good actor's before it is used; each is wrong in a way that a score may like."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.evaluate import one_motion, open_actor
from benchmarks.wrong_world import wrong_motion
from s2f_rl.data import FaceCorpus
from s2f_rl.data.synthetic import load_speakers, load_take
from s2f_rl.data.units import MILLIMETRE
from s2f_rl.errors import UserError
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.rewards.corruptions.tools import smoothed, stretched
from s2f_rl.rewards.motion.subspace import MotionSubspace

BLUR_S = 0.09
"""Standard deviation of the smoothing in time."""
OPEN_MM = 2.0
"""Beyond the distance at rest, where the lips of ``open_start`` stop."""
REFERENCES = {
    "adversarial": "start",
    "blurred_start": "start",
    "blurred_truth": "truth",
    "wrong_phones": "start",
    "other_sentence": "start",
    "open_start": "start",
}
"""Negatives, and what each must score below."""


class Negatives:
    """The motions of an utterance by name: ``truth``, ``start`` and those of :data:`REFERENCES`.

    - ``adversarial``: of an actor that a discriminator taught (:mod:`benchmarks.adversarial_actor`).
    - ``blurred_start``, ``blurred_truth``: smoothed by 90 ms, standard deviation.
    - ``wrong_phones``: of the generator, every phone another one of its class at the right time.
    - ``other_sentence``: the start's for another utterance of the split, brought to this one's length.
    - ``open_start``: the start's with lips that never come nearer than 2 mm beyond their distance at rest.

    Args:
        corpus: a split of a built-in corpus.
        start, adversarial: checkpoints.

    Raises:
        UserError: not a built-in corpus, or an actor of another one.
    """

    def __init__(self, corpus: FaceCorpus, start: str | Path, adversarial: str | Path) -> None:
        self.corpus, self.speakers = corpus, load_speakers(corpus.root)
        self.actors = {"start": open_actor(start, corpus), "adversarial": open_actor(adversarial, corpus)}
        self.audio = {name: CachedAudio(actor.audio_encoder, corpus) for name, actor in self.actors.items()}
        train = FaceCorpus(corpus.root, split="train", topology=None)
        self.motion = MotionSubspace.fit(train)

    def __call__(self, index: int) -> dict[str, Tensor]:
        """Displacements [T, V*3], metres, of an utterance with a recording."""
        u = self.corpus[index]
        if u.vertices is None:
            raise UserError(f"{u.name}: has no recording to compare with")
        truth = (u.vertices - u.template).float()
        start = self._of("start", index)
        seed, sigma = index + 1, BLUR_S * self.corpus.fps
        other = (index + len(self.corpus) // 2) % len(self.corpus)
        take = load_take(self.corpus.root, u.name)
        motions = {
            "truth": truth,
            "start": start,
            "adversarial": self._of("adversarial", index),
            "blurred_start": smoothed(start, sigma),
            "blurred_truth": smoothed(truth, sigma),
            "wrong_phones": wrong_motion("wrong_phones", take, self.speakers[u.subject], 1.0, seed),
            "other_sentence": stretched(self._of("start", other), len(start)),
            "open_start": self._opened(start, u.template),
        }
        n_frames = min(map(len, motions.values()))
        return {name: motion[:n_frames] for name, motion in motions.items()}

    @torch.no_grad()
    def _of(self, name: str, index: int) -> Tensor:
        return one_motion(self.actors[name], self.audio[name], self.corpus, index)

    def _opened(self, motion: Tensor, template: Tensor) -> Tensor:
        """The lips are moved apart, along what opening them does to a face, by as much as they lack."""
        rest = self.motion.lip_to_lip(template).norm()
        for _ in range(8):  # the distance is not linear in the motion
            lacking = (rest + OPEN_MM * MILLIMETRE - self.motion.lip_to_lip(template + motion).norm(dim=-1)).clamp_min(
                0
            )
            motion = motion + lacking[:, None] * self.motion.opening
        return motion
