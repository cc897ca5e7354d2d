"""True distance: how far is a motion from the nearest one that the built-in corpus could have made for the audio?

Only the built-in corpus can answer, because its generator is known. No reward or judge enters, so nothing that learns
to please a judge can flatter it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.metrics._meshes import ArrayLike, Indices, as_frames, as_indices, select

if TYPE_CHECKING:
    from s2f_rl.data.synthetic.hidden import Hidden
    from s2f_rl.data.synthetic.speakers import Speaker

_STORED_FPS = 60


@dataclass(frozen=True, eq=False)
class PlausibleTake:
    """The nearest plausible motion: its distance (metres), that over the size of the movement, and what it hides."""

    distance_m: float
    relative: float
    hidden: Hidden


class TakeMeter:
    """True distances of motions of one utterance, whose preparation they share.

    Args:
        phones: (phone, start_s, end_s) of the utterance, of the built-in corpus.
        speaker: who speaks, from :func:`s2f_rl.data.synthetic.load_speakers`.
        region: vertex indices or a boolean mask [V] over which the distance is taken; None for all vertices.
        fps: frames per second of the motions; must divide 60.
        scale: ``hidden_scale`` that the corpus was made with.

    Raises:
        UserError: unknown phones, another frame rate, or indices outside the speaker's mesh.
    """

    def __init__(
        self,
        phones: Sequence[tuple[str, float, float]],
        speaker: Speaker,
        region: Indices | None = None,
        fps: float = 30.0,
        scale: float = 1.0,
    ) -> None:
        from s2f_rl.data.synthetic import Hidden
        from s2f_rl.metrics._nearest import TakeSearch

        step = _STORED_FPS / fps if fps > 0 else 0.5
        if step != int(step):
            raise UserError(f"fps is {fps}; the built-in corpus has motions at {_STORED_FPS} and its whole fractions")
        if not len(phones):
            raise UserError("phones are empty; pass the phone timings of an utterance of the built-in corpus")
        self.speaker, self.fps = speaker, fps
        template = torch.from_numpy(np.asarray(speaker.template)).reshape(1, -1, 3)
        whole = torch.arange(speaker.n_vertices)
        self.region = whole if region is None else as_indices(region, template, "region").unique()
        self._rest = select(template, self.region)
        n_frames = int(np.floor(phones[-1][2] * _STORED_FPS + 1e-6))
        try:
            self._search = TakeSearch(phones, n_frames, speaker, self.region.numpy(), int(step), scale)
        except ValueError as error:
            raise UserError(f"phones: {error}; pass phone timings of the built-in corpus") from None
        usual = self._search.displacement(Hidden.none(len(phones)))
        self.movement_m = float(np.sqrt(((usual - usual.mean(0)) ** 2).sum() / (len(usual) * len(self.region))))
        """Size of the usual movement for this audio and speaker: root mean square about its mean, metres."""

    def nearest(self, vertices: ArrayLike) -> PlausibleTake:
        """The take nearest to one motion [T, V*3] or [T, V, 3] (metres), cut to the audio's length.

        Not finite, or without frames: distances are nan.
        """
        frames = as_frames(vertices, "vertices")
        if frames.ndim != 3:
            raise UserError(f"vertices have batch shape {list(frames.shape[:-3])}; pass one sequence")
        if frames.shape[-2] != self.speaker.n_vertices:
            raise UserError(
                f"vertices have V={frames.shape[-2]}, speaker {self.speaker.name} {self.speaker.n_vertices}"
            )
        motion = (select(frames.detach().cpu(), self.region) - self._rest).flatten(1).numpy()
        motion = motion[: self._search.n_frames]
        if not len(motion) or not np.isfinite(motion).all():
            nothing = self._search.space.hidden(np.zeros(self._search.space.size))
            return PlausibleTake(float("nan"), float("nan"), nothing)
        found = self._search.nearest(motion)
        relative = found.distance_m / self.movement_m if self.movement_m > 0 else float("nan")
        return PlausibleTake(found.distance_m, relative, found.hidden)


def true_distance(
    vertices: ArrayLike,
    phones: Sequence[tuple[str, float, float]],
    speaker: Speaker,
    region: Indices | None = None,
    fps: float = 30.0,
    scale: float = 1.0,
) -> Tensor:
    """Distance to the nearest motion that the built-in corpus could have made for this audio and speaker.

    Ours. The root mean square distance, over the region's vertices and all frames, between the motion and
    ``generate(phones, .., speaker, hidden)``, minimised over the hidden variation: effort and its slow change, lags,
    undershoot of every phone, blinks, brows, and drift. The hidden values stay where `Hidden.sample` draws them:
    uniform ones within their range, normal ones within 2.5 standard deviations; and so do three things that many
    values make together, the share of its movement that each articulator reaches, and the lengths of the undershoot
    and of the drift. Minimised by Levenberg-Marquardt from three starts; blinks and brows by dynamic programming. The
    result is the distance to a take that exists, so an upper bound, and deterministic.

    Args:
        vertices: [.., T, V*3] or [.., T, V, 3], metres; cut to the audio's length.
        phones, speaker, region, fps, scale: see :class:`TakeMeter`, which also gives the distance relative to the size
            of the movement, and the take itself.

    Returns:
        float64 [..] in metres, >= 0; 0 for a motion of the generator; nan without frames or with values not finite.

    Raises:
        UserError: as :class:`TakeMeter`, or vertices of another mesh.
    """
    frames = as_frames(vertices, "vertices")
    meter = TakeMeter(phones, speaker, region, fps, scale)
    batch = frames.shape[:-3]
    motions = frames.reshape(-1, *frames.shape[-3:])
    values = [meter.nearest(motion).distance_m for motion in motions]
    return torch.tensor(values, dtype=torch.float64).reshape(batch)
