"""A density of what the lips do, given the phones in context and the way of speaking."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from s2f_rl.data.units import MILLIMETRE
from s2f_rl.rewards.articulation.phones import N_FEATURES
from s2f_rl.rewards.motion.subspace import principal_directions

KERNEL = 5
_EMBEDDED = 16
FLOOR_M = 0.15 * MILLIMETRE
_FAR = 6.0


class LipDensity(nn.Module):
    """Independent normal densities of K lip coefficients in every frame, from phone features and a style.

    The coefficients are linear in the displacement d of the L lip vertices, metres root mean square over them:

        c_k = basis_k . (d - mean) / sqrt(L)

    with orthonormal rows, the principal directions of the training faces' lips. Convolutions over the phone features
    (:func:`~s2f_rl.rewards.articulation.phones.phone_features`), each followed by a scale and a shift that come from
    the style, give mean and variance; the variance has that of the capture noise, 0.15 mm, as its floor. A style of
    zeros stands for one that is not known: training leaves the style out at times.

    Args:
        lips: int64 [L], vertices of the lips. basis: [K, 3 L]. mean: [3 L], metres.
        n_styles: S. width: of the layers. depth: how many; each sees 2 frames more to both sides.
    """

    lips: Tensor
    basis: Tensor
    mean: Tensor
    typical_m: Tensor

    def __init__(
        self, lips: Tensor, basis: Tensor, mean: Tensor, n_styles: int, width: int = 96, depth: int = 5
    ) -> None:
        super().__init__()
        self.register_buffer("lips", lips.clone().long())
        self.register_buffer("basis", basis.clone().float())
        self.register_buffer("mean", mean.clone().float())
        self.register_buffer("typical_m", torch.tensor(1.0 * MILLIMETRE))
        self.style = nn.Linear(n_styles, _EMBEDDED, bias=False)
        self.layers = nn.ModuleList(
            nn.Conv1d(N_FEATURES if k == 0 else width, width, KERNEL, padding=KERNEL // 2) for k in range(depth)
        )
        self.manners = nn.ModuleList(nn.Linear(_EMBEDDED, 2 * width, bias=False) for _ in range(depth))
        self.head = nn.Linear(width, 2 * len(basis))
        if not self.style.weight.is_meta:  # which has nothing to draw, and takes seconds of imports for it
            nn.init.normal_(self.style.weight)

    @classmethod
    def of(cls, lips: Tensor, frames: Tensor, n_styles: int, n_coefficients: int, width: int, depth: int) -> LipDensity:
        """A fresh one on the principal directions of lip displacements ``frames`` [N, 3 L], metres.

        Raises:
            UserError: the lips do not move.
        """
        mean = frames.mean(0)
        basis, _ = principal_directions(frames - mean, n_coefficients)
        return cls(lips, basis, mean, n_styles, width, depth)

    @property
    def n_styles(self) -> int:
        """S."""
        return self.style.in_features

    def coefficients(self, lip_displacement: Tensor) -> Tensor:
        """Displacements of the lips [..., 3 L], metres -> [..., K], metres; linear, in the input's precision."""
        centred = lip_displacement - self.mean.to(lip_displacement)
        return centred @ self.basis.to(lip_displacement).T / math.sqrt(len(self.lips))

    def forward(self, features: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """Phone features [B, T, F] and styles [B, S] -> mean and standard deviation [B, T, K], metres."""
        embedded = self.style(style)
        hidden = features.transpose(1, 2)
        # padding is to every layer what lies beyond the end
        said = (hidden[:, :-2].sum(1, keepdim=True) > 0).to(hidden)
        for k, (layer, manner) in enumerate(zip(self.layers, self.manners, strict=True)):
            scale, shift = manner(embedded).unsqueeze(-1).chunk(2, 1)
            new = nn.functional.gelu(layer(hidden) * (1 + scale) + shift)
            hidden = said * (new if k == 0 else hidden + new)
        mean, log_sd = self.head(hidden.transpose(1, 2)).chunk(2, -1)
        return mean * MILLIMETRE, (FLOOR_M**2 + (MILLIMETRE * log_sd.clamp(-8, 4).exp()).square()).sqrt()


def log_density(coefficients: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """Mean over the K coefficients of the log-density in units of the floor f, [...]; at most 0.

        1/K sum_k  -h((c_k - m_k) / s_k) - log(s_k / f)          h(z) = z^2 / 2, beyond |z| = 6 its tangent

    Up to log(f sqrt(2 pi)) this is the normal log-density; far out the tangent bounds what one frame can ask for, and
    leaves it a slope.
    """
    away = ((coefficients - mean) / sd).abs()
    cost = torch.where(away <= _FAR, 0.5 * away.square(), _FAR * away - 0.5 * _FAR**2)
    return -(cost + (sd / FLOOR_M).log()).mean(-1)


def squared_error(coefficients: Tensor, mean: Tensor, typical_m: Tensor) -> Tensor:
    """Minus the mean square of the coefficients' distances to the mean, in ``typical_m``, [...]; at most 0."""
    return -((coefficients - mean) / typical_m.to(coefficients)).square().mean(-1)


def widened(mean: Tensor, sd: Tensor) -> Tensor:
    """Means of an utterance [T, K], further from 0 where the density is unsure, until they move as much as it expects.

        m_t (1 + a v_t),    v_t = sum_k s_tk^2,    a >= 0 such that    sum_t |m_t|^2 (1 + a v_t)^2 = sum_t |m_t|^2 + v_t

    A mean moves less than what it is the mean of. The right side is the density's expected sum of |c_t|^2. Where the
    density is sure, as at closures, the mean stays. The aim is that of the global variance of Toda and Tokuda
    (2007, "A speech parameter generation algorithm considering global variance"), without a model of its own.
    """
    size, spread = (each.double().square().sum(-1, keepdim=True) for each in (mean, sd))
    unsure = spread / spread.mean()
    a, b = (size * unsure.square()).sum(), 2 * (size * unsure).sum()
    root = 2 * spread.sum() / (b + (b.square() + 4 * a * spread.sum()).sqrt()).clamp_min(1e-30)
    return mean * (1 + root * unsure).to(mean)
