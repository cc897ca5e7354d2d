"""How faces at rest differ: smooth fields, from which unseen people are made."""

from __future__ import annotations

import torch
from torch import Tensor

from s2f_rl.data.units import MILLIMETRE

_POLYNOMIAL_SHARE = 0.5
_FIELD_SHARES = ((40.0, 0.35), (15.0, 0.35), (7.0, 0.25))
"""Scale (mm) and size (in the differences between training subjects) of what makes an unseen face differ."""
_N_FIELDS = 200


def unseen_differences(templates: Tensor) -> Tensor:
    """Modes of the ways in which a person nobody has measured may differ from the mean face.

    Eight templates span seven directions and the next person differs in others, so the modes are smooth fields of
    several scales, as large as the training subjects' differences (2 mm where there is one subject only).

    Args:
        templates: [S, V*3], metres.

    Returns:
        [M, V*3]: a random difference is ``normal(M) @ modes``.
    """
    mean = templates.mean(0)
    if len(templates) > 1:
        size = (3 * (templates - mean).square().sum() / (len(templates) - 1) / mean.numel()).sqrt()
    else:
        size = torch.tensor(2 * MILLIMETRE)
    smooth = polynomial_fields(mean)
    modes = [smooth * (_POLYNOMIAL_SHARE / len(smooth) ** 0.5)]
    generator = torch.Generator().manual_seed(0)  # part of the definition: the same for every seed of a training
    for length_mm, share in _FIELD_SHARES:
        modes.append(share * random_fields(mean, length_mm * MILLIMETRE, _N_FIELDS, generator))
    return size * torch.cat(modes)


def polynomial_fields(template: Tensor, degree: int = 3) -> Tensor:
    """Smooth fields on a face: monomials of the rest position up to ``degree``, for each of x, y, z.

    Args:
        template: [V*3] metres.

    Returns:
        [M, V*3], M = 60 for degree 3, each scaled to a root mean square length of one metre per vertex.
    """
    points = template.view(-1, 3).double()
    points = (points - points.mean(0)) / points.std(0).clamp_min(1e-9)
    x, y, z = points.unbind(1)
    powers = [(i, j, k) for i in range(degree + 1) for j in range(degree + 1 - i) for k in range(degree + 1 - i - j)]
    monomials = torch.stack([x**i * y**j * z**k for i, j, k in powers])
    monomials = monomials / monomials.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
    fields_ = torch.einsum("mv,ac->mavc", monomials, torch.eye(3, dtype=torch.float64))
    return fields_.reshape(-1, template.numel()).float()


def random_fields(template: Tensor, length: float, n_fields: int, generator: torch.Generator) -> Tensor:
    """Random smooth fields on a face: waves of the rest position in random directions (random Fourier features).

    Args:
        template: [V*3], metres. length: scale over which a field changes, metres.

    Returns:
        [n_fields, V*3]; their sum with normal weights is a Gaussian process with an RBF kernel of that length, with a
        root mean square length of one per vertex in expectation.
    """
    points = template.view(-1, 3)
    waves = torch.randn(n_fields, 3, generator=generator) / length
    phase = 2 * torch.pi * torch.rand(n_fields, 1, generator=generator)
    direction = torch.randn(n_fields, 3, generator=generator) / 3**0.5
    values = (2 / n_fields) ** 0.5 * torch.cos(waves @ points.T + phase)
    return (values[:, :, None] * direction[:, None]).flatten(1)
