"""A well-conditioned view of a mesh for training, folded into the first layer when the reward is saved.

Vertices are absolute metres: a face is 0.2 in size, speech moves it by 0.001 to 0.01, and two people's faces differ by
as much. A plain Linear on such inputs learns slowly, and its weights in directions that the few training faces
never showed stay random, so a new face is a large random input. Here the first layer sees

    y = S (x - mean),      S [R, V*3] fixed,

K estimates of the motion coefficients that are as blind as possible to who the face is (generalised least squares
with the variation of faces at rest as noise), and some directions of high spatial frequency, where jitter shows and
motion has little. The layer's weights are A S, so the published layout and raw vertices hold.

S brings every row to order one, but not what nobody sees: a movement of 0.25 mm, a pixel where a face is 1000 high,
counts as one unit at most. Without that floor the finest directions of recorded motion, some hundredths of a millimetre
at the lips, weigh as much as the jaw, and a score tells networks from recordings by a fingerprint instead of by sight.

What a new face still adds to y is measured by leaving each training subject out in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from s2f_rl.data.units import MILLIMETRE
from s2f_rl.rewards.model.speech_mesh import SpeechMeshTransformer
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.motion.unseen_faces import polynomial_fields, unseen_differences

_NOISE_MM = 0.8
_ROUGH_SCALE_MM = 0.5
_SEEN_MM = 0.25


@dataclass
class MeshProjection:
    """A fixed linear view of a mesh.

    Attributes:
        matrix: [R, V*3], S, per metre. mean: [V*3], metres.
        offset_std: [R] standard deviation of what a new face at rest adds to a projection.
    """

    matrix: Tensor
    mean: Tensor
    offset_std: Tensor

    @classmethod
    def fit(cls, motion: MotionSubspace, n_rough: int, generator: torch.Generator | None = None) -> MeshProjection:
        """Derive it from a corpus's statistics.

        Args:
            motion: of the training subjects.
            n_rough: number of directions for jitter.
            generator: draws those directions.
        """
        estimates, offsets = _identity_blind(motion)
        rough = _rough(motion, n_rough, generator)
        rows = torch.cat([estimates, rough])
        resting_rough = (motion.templates - motion.template_mean).double() @ rough.T
        moving = (rows @ motion.basis.double().T).square() @ motion.std.double().square()
        moving[len(estimates) :] += (_ROUGH_SCALE_MM * MILLIMETRE) ** 2
        basis = motion.basis.double()
        along = (estimates * basis).sum(1)  # what a unit of its own direction adds to an estimate
        moving[: len(estimates)] += (along * _SEEN_MM * MILLIMETRE).square() / motion.seen_square(basis)
        resting = torch.cat([offsets.square().mean(0), resting_rough.square().mean(0)])
        spread = (moving + resting).sqrt()
        return cls(
            matrix=(rows / spread[:, None]).float().contiguous(),
            mean=motion.template_mean + motion.mean,
            offset_std=(resting.sqrt() / spread).float(),
        )

    @property
    def width(self) -> int:
        """R."""
        return self.matrix.shape[0]

    def __call__(self, vertices: Tensor) -> Tensor:
        """Vertices [..., V*3] -> [..., R], of order one."""
        return (vertices - self.mean) @ self.matrix.T

    def random_offset(self, generator: torch.Generator, spread: float = 1.0) -> Tensor:
        """[R] what another face at rest might add to all frames of a sequence, ``spread`` times as much as measured."""
        return spread * self.offset_std * torch.randn(self.width, generator=generator)

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors: to resume with, since a refit on another machine may turn signs around."""
        return {"matrix": self.matrix, "mean": self.mean, "offset_std": self.offset_std}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over :meth:`state_dict`. Raises ValueError for another shape."""
        if state["matrix"].shape != self.matrix.shape:
            raise ValueError(f"projection of shape {list(state['matrix'].shape)}, not {list(self.matrix.shape)}")
        self.matrix, self.mean, self.offset_std = (state[name].clone() for name in ("matrix", "mean", "offset_std"))

    def fold(self, backbone: SpeechMeshTransformer) -> SpeechMeshTransformer:
        """A backbone that was trained on projections -> the same on raw vertices [V*3], in the published layout.

        Computed in float64: weight = A S, bias = b - A S mean.
        """
        first = backbone.encoder.patch_embed
        weight = first.weight.detach().cpu().double() @ self.matrix.double()
        bias = first.bias.detach().cpu().double() - weight @ self.mean.double()
        folded = SpeechMeshTransformer(
            self.matrix.shape[1], backbone.width, backbone.depth, backbone.n_heads, backbone.mlp_width
        )
        state = {name: tensor.detach().clone() for name, tensor in backbone.state_dict().items()}
        state["encoder.patch_embed.weight"], state["encoder.patch_embed.bias"] = weight.float(), bias.float()
        folded.load_state_dict(state)
        return folded.to(first.weight.device)


def _identity_blind(motion: MotionSubspace) -> tuple[Tensor, Tensor]:
    """Rows that estimate the K motion coefficients of a face x = mean + motion + identity + noise, blind to identity.

    With motion directions B [K, V*3] as rows, the estimate is (B C^-1 B^T + diag(std^-2))^-1 B C^-1 (x - mean), where
    C is the covariance of everything else: smooth fields, the training templates' differences D, and noise. The prior
    diag(std^-2) keeps coefficients small that cannot be told from identity. C is inverted by the Woodbury identity,
    first for fields and noise, then for D, so that leaving a subject out costs next to nothing.

    Returns:
        rows [K, V*3], and offsets [S, K]: the estimates for each training template by rows that never saw it.
    """
    basis, templates = motion.basis.double(), motion.templates.double()
    fields = unseen_differences(motion.templates).double()
    known = torch.cat([basis, templates - templates.mean(0)])
    variance = (_NOISE_MM * MILLIMETRE) ** 2
    inner = variance * torch.eye(len(fields), dtype=torch.float64) + fields @ fields.T
    solved = (known - torch.linalg.solve(inner, fields @ known.T).T @ fields) / variance  # known C0^-1
    gram = solved @ known.T
    n_motion, n_subjects = len(basis), len(templates)
    prior = torch.diag(motion.std.double() ** -2)

    def weights(subjects: list[int]) -> Tensor:
        """[K, K + S]: the estimate's rows as combinations of ``solved``, from these subjects' differences."""
        centring = torch.zeros(len(subjects), n_motion + n_subjects, dtype=torch.float64)
        centring[torch.arange(len(subjects)), n_motion + torch.tensor(subjects)] = 1.0
        centring = (centring - centring.mean(0)) / max(1, len(subjects) - 1) ** 0.5
        small = torch.eye(len(subjects), dtype=torch.float64) + centring @ gram @ centring.T
        combined = torch.eye(n_motion, n_motion + n_subjects, dtype=torch.float64)
        combined = combined - (combined @ gram @ centring.T) @ torch.linalg.solve(small, centring)
        return torch.linalg.solve(combined @ gram[:, :n_motion] + prior, combined)

    everyone = list(range(n_subjects))
    rows = weights(everyone) @ solved
    if n_subjects < 3:  # too few to leave one out: what the fields alone would add
        n_draws = 200
        draws = torch.randn(n_draws, len(fields), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return rows, draws @ fields @ rows.T
    offsets = []
    for left_out in everyone:
        others = [subject for subject in everyone if subject != left_out]
        difference = gram[:, n_motion + left_out] - gram[:, [n_motion + other for other in others]].mean(1)
        offsets.append(weights(others) @ difference)
    return rows, torch.stack(offsets)


def _rough(motion: MotionSubspace, n_rows: int, generator: torch.Generator | None) -> Tensor:
    """Random unit directions [n_rows, V*3], orthogonal to motion and to the smoothest fields."""
    known = torch.cat([motion.basis, polynomial_fields(motion.template_mean)]).double()
    directions, _ = torch.linalg.qr(known.T)
    n_rows = min(n_rows, max(0, known.shape[1] - directions.shape[1]))
    rows = torch.randn(n_rows, known.shape[1], generator=generator, dtype=torch.float64)
    rows = rows - (rows @ directions) @ directions.T
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
