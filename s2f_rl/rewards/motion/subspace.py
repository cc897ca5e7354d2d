"""What a corpus's faces do: the subspace of their motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from s2f_rl.data.contract import Corpus, recorded
from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.errors import UserError

_COLUMNS = 2048


@dataclass
class MotionSubspace:
    """Statistics of the displacements and templates of a corpus's training subjects.

    Attributes:
        mean: [V*3] mean displacement, metres.
        basis: [K, V*3] orthonormal rows, the principal directions of the displacements.
        std: [K] standard deviation of their coefficients, metres.
        templates: [S, V*3] the faces at rest, metres.
        opening: [V*3] displacement that goes with one metre of lip opening (regression of motion on opening).
        upper_lip, lower_lip: vertex indices around the middle of the lips.
        lips: vertex indices of the lips. still: indices of vertices that a frozen mouth leaves alone (upper face).
    """

    mean: Tensor
    basis: Tensor
    std: Tensor
    templates: Tensor
    opening: Tensor
    upper_lip: Tensor
    lower_lip: Tensor
    lips: Tensor
    still: Tensor

    @classmethod
    def fit(
        cls, corpus: Corpus, utterances: Sequence[int] | None = None, n_components: int = 40, max_frames: int = 3000
    ) -> MotionSubspace:
        """Measure a corpus.

        Args:
            corpus: a ``FaceCorpus`` (a training split).
            utterances: which of its utterances, default all that have vertices.
            n_components: K, fewer when the motion has fewer directions.
            max_frames: frames to look at, evenly over the utterances.

        Raises:
            UserError: no utterance has vertices, or the faces do not move.
        """
        chosen = with_vertices(corpus, utterances)
        if not chosen:
            raise UserError("the corpus has no utterance with vertices: a reward is trained on recorded motion")
        per_utterance = max(8, max_frames // len(chosen))
        rows, subjects = [], []
        for index in chosen:
            u = corpus[index]
            displacement = recorded(u) - u.template
            subjects.append(u.subject)
            step = max(1, len(displacement) // per_utterance)
            rows.append(displacement[::step][:per_utterance].clone())  # a view would keep the whole recording
        frames = torch.cat(rows)
        del rows
        mean = frames.mean(0)
        templates = torch.stack([corpus.template(subject) for subject in dict.fromkeys(subjects)])
        regions = corpus.regions
        lips = _indices(regions["lips"])
        upper, lower = _indices(regions["upper_lip"]), _indices(regions["lower_lip"])
        still = _indices(regions.get("upper_face", ()))
        opening = (_lip_to_lip(frames, upper, lower) + _lip_to_lip(templates.mean(0), upper, lower)).norm(dim=-1)
        opening = opening - opening.mean()
        frames -= mean
        basis, std = principal_directions(frames, n_components)
        return cls(
            mean=mean,
            basis=basis,
            std=std,
            templates=templates,
            opening=opening @ frames / opening.square().sum().clamp_min(1e-12),
            upper_lip=upper,
            lower_lip=lower,
            lips=lips,
            still=still,
        )

    def lip_rms(self, displacement: Tensor) -> Tensor:
        """Root mean square length over the lip vertices of displacements [..., V*3] -> [...], metres."""
        points = displacement.unflatten(-1, (-1, 3))[..., self.lips, :]
        return points.square().sum(-1).mean(-1).sqrt()

    def lip_to_lip(self, vertices: Tensor) -> Tensor:
        """Vector between the middles of the lips in vertices [..., V*3] (or displacements) -> [..., 3], metres."""
        return _lip_to_lip(vertices, self.upper_lip, self.lower_lip)

    def seen_square(self, displacement: Tensor) -> Tensor:
        """How much of displacements [..., V*3] is to be seen -> [...]: mean square length over the lips or over the
        whole face, whichever is more, metres squared."""
        face = displacement.square().sum(-1) * (3 / displacement.shape[-1])
        return torch.maximum(self.lip_rms(displacement).square(), face)

    def coefficients(self, displacement: Tensor) -> Tensor:
        """Displacements [..., V*3] -> coefficients [..., K] in units of their standard deviation."""
        return (displacement - self.mean) @ self.basis.T / self.std

    def decode(self, coefficients: Tensor) -> Tensor:
        """Coefficients [..., K] in standard deviations -> displacements [..., V*3]."""
        return (coefficients * self.std) @ self.basis + self.mean

    @cached_property
    def lip_square(self) -> Tensor:
        """[K] mean square length over the lip vertices of each direction of the basis."""
        return self.lip_rms(self.basis).square()

    @property
    def template_mean(self) -> Tensor:
        """[V*3] mean face at rest, metres."""
        return self.templates.mean(0)


def with_vertices(corpus: Corpus, utterances: Sequence[int] | None = None) -> list[int]:
    """Indices of the utterances that have at least one clip of vertices."""
    chosen = range(len(corpus)) if utterances is None else utterances
    return [int(i) for i in chosen if corpus.has_vertices(int(i)) and corpus.n_frames(int(i)) >= CLIP_FRAMES]


def principal_directions(centred: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """Rows [N, V*3] with mean zero -> orthonormal directions [K, V*3] and standard deviations [K], largest first.

    Through the Gram matrix of the smaller side, exact and cheap for N of a few thousand; in float64, some columns at a
    time, so that no copy of the rows is made. Directions below one hundredth of the largest are left out.
    """
    wide = centred.shape[0] <= centred.shape[1]
    pieces = centred.split(_COLUMNS, dim=1) if wide else centred.T.split(_COLUMNS, dim=1)
    values, vectors = torch.linalg.eigh(sum(piece.double() @ piece.T.double() for piece in pieces))
    order = values.argsort(descending=True)[:n_components]
    std = (values[order].clamp_min(0) / len(centred)).sqrt()
    if not float(std[0]) > 0:
        raise UserError("the faces of this corpus do not move: s2f-rl check tells what is wrong with it")
    order, std = order[std > 0.01 * std[0]], std[std > 0.01 * std[0]]
    directions = vectors[:, order].T
    if wide:
        directions = torch.cat([directions @ piece.double() for piece in pieces], dim=1)
        directions = directions / values[order].sqrt()[:, None]
    return directions.float(), std.float()


def _lip_to_lip(vertices: Tensor, upper_lip: Tensor, lower_lip: Tensor) -> Tensor:
    points = vertices.unflatten(-1, (-1, 3))
    return points[..., upper_lip, :].mean(-2) - points[..., lower_lip, :].mean(-2)


def _indices(region: Tensor | Sequence[int]) -> Tensor:
    """A region as LongTensor [n]."""
    return torch.as_tensor(region, dtype=torch.long).flatten()
