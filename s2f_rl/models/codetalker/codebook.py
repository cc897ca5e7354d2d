"""Stage 1 of CodeTalker: displacements to Q codes a frame and back (Xing et al., CVPR 2023, section 3.1).

B sequences, T frames, V vertices, K code vectors of C numbers each, Q codes a frame.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2f_rl.models.codetalker.frame_mixer import LEAK, FrameMixer

COMMITMENT = 0.25
"""beta of the loss of the quantiser."""
_TINY = 1e-10  # inside the logarithm of the perplexity


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of choices that fell on each of K codes so often: counts [K] -> scalar from 1 to K."""
    share = counts / counts.sum()
    return torch.exp(-(share * torch.log(share + _TINY)).sum())


class Autoencoded(NamedTuple):
    """A pass through the autoencoder.

    Attributes:
        hidden: what the encoder gives, before it is quantised [B, T, Q, C].
        indices: of the nearest codes [B, T, Q], int64.
        quantised: their vectors [B, T, Q, C], with the gradient of the identity to ``hidden`` (straight through).
        displacement: decoded [B, T, V*3].
    """

    hidden: Tensor
    indices: Tensor
    quantised: Tensor
    displacement: Tensor


class MotionEncoder(nn.Module):
    """Displacements [B, T, V*3] to what is quantised, [B, T, Q*C]; arguments as in :class:`Codebook`."""

    def __init__(self, n_outputs: int, width: int, mixed: tuple[int, int, int], code_size: int, mapped: bool) -> None:
        super().__init__()
        self.input, self.mixer = nn.Linear(n_outputs, width), FrameMixer(width, *mixed)
        self.output = nn.Linear(width, code_size) if mapped else nn.Identity()

    def forward(self, displacement: Tensor, shared_row: bool) -> Tensor:
        return self.output(self.mixer(F.leaky_relu(self.input(displacement), LEAK), shared_row))


class CodesDecoder(nn.Module):
    """Code vectors [B, T, Q*C] to displacements [B, T, V*3]; arguments as in :class:`Codebook`."""

    def __init__(self, n_outputs: int, width: int, mixed: tuple[int, int, int], code_size: int, mapped: bool) -> None:
        super().__init__()
        self.input = nn.Linear(code_size, width) if mapped else nn.Identity()
        self.mixer = FrameMixer(width, *mixed)
        self.output = nn.Linear(width, n_outputs, bias=not mapped)

    def forward(self, vectors: Tensor, shared_row: bool) -> Tensor:
        return self.output(self.mixer(self.input(vectors), shared_row))


class Codebook(nn.Module):
    """The vector-quantised autoencoder: z = E(displacement), z_q = nearest codes, displacement = D(z_q) (eq. 1, 2).

    Encoder and decoder see the whole sequence. In the public code the position that is added to a sequence is that of
    its row in the batch; the methods here do the same unless ``shared_row`` is given, which treats each sequence as if
    it were alone, as prediction does.

    Args:
        n_outputs: V*3.
        width: W, of encoder and decoder.
        hidden: width of their MLPs.
        n_layers: transformer blocks of each.
        n_head: their attention heads.
        n_codes: K.
        code_width: C.
        codes_per_frame: Q.
        mapped: as published for BIWI: linear maps between the width and Q*C, and an output map without bias. Else as
            published for VOCASET: the width must be Q*C.

    Attributes:
        settings: the arguments, by name.
    """

    def __init__(
        self,
        n_outputs: int,
        width: int,
        hidden: int,
        n_layers: int,
        n_head: int,
        n_codes: int,
        code_width: int,
        codes_per_frame: int,
        mapped: bool = False,
    ) -> None:
        super().__init__()
        code_size = codes_per_frame * code_width
        if not mapped and code_size != width:
            raise ValueError(f"{codes_per_frame} codes of {code_width} numbers do not make the width {width}")
        self.n_codes, self.code_width, self.codes_per_frame, self.mapped = n_codes, code_width, codes_per_frame, mapped
        self.settings = {
            "n_outputs": n_outputs, "width": width, "hidden": hidden, "n_layers": n_layers, "n_head": n_head,
            "n_codes": n_codes, "code_width": code_width, "codes_per_frame": codes_per_frame, "mapped": mapped,
        }  # fmt: skip
        mixed = (hidden, n_layers, n_head)
        self.encoder = MotionEncoder(n_outputs, width, mixed, code_size, mapped)
        self.decoder = CodesDecoder(n_outputs, width, mixed, code_size, mapped)
        self.codes = nn.Parameter(torch.empty(n_codes, code_width).uniform_(-1 / n_codes, 1 / n_codes))

    # -- codes -----------------------------------------------------------------------------------------------------

    def distances(self, hidden: Tensor) -> Tensor:
        """Squared Euclidean distances to every code: [.., C] -> [.., K]."""
        products = hidden @ self.codes.t()
        return hidden.square().sum(-1, keepdim=True) + self.codes.square().sum(-1) - 2 * products

    def nearest(self, hidden: Tensor) -> Tensor:
        """Indices of the nearest codes: [.., C] -> [..], int64."""
        return self.distances(hidden).argmin(-1)

    def vectors(self, indices: Tensor) -> Tensor:
        """Code vectors [B, T, Q*C] of indices [B, T, Q]."""
        return self.codes[indices].flatten(-2)

    def straight_through(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest codes of [.., C]: indices [..], and z + (e - z), whose gradient is the identity's to z."""
        indices = self.nearest(hidden)
        return indices, hidden + (self.codes[indices] - hidden).detach()

    # -- motion ----------------------------------------------------------------------------------------------------

    def hidden(self, displacement: Tensor, *, shared_row: bool = False) -> Tensor:
        """Displacements [B, T, V*3] to what is quantised [B, T, Q, C]: the encoder's output cut into Q runs."""
        return self.encoder(displacement, shared_row).unflatten(-1, (self.codes_per_frame, self.code_width))

    def encode(self, displacement: Tensor, *, shared_row: bool = False) -> Tensor:
        """Code indices [B, T, Q], int64, of displacements [B, T, V*3] of whole sequences, none padded."""
        return self.nearest(self.hidden(displacement, shared_row=shared_row))

    def decode(self, indices: Tensor, *, shared_row: bool = False) -> Tensor:
        """Displacements [B, T, V*3] of the codes [B, T, Q] of whole sequences, none padded."""
        return self.decoder(self.vectors(indices), shared_row)

    def forward(self, displacement: Tensor, *, shared_row: bool = False) -> Autoencoded:
        """Displacements [B, T, V*3] through the autoencoder."""
        hidden = self.hidden(displacement, shared_row=shared_row)
        indices, quantised = self.straight_through(hidden)
        return Autoencoded(hidden, indices, quantised, self.decoder(quantised.flatten(-2), shared_row))

    def errors(self, passed: Autoencoded, displacement: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``rec`` and ``quant`` of :meth:`losses` for a pass of these displacements.

        ``weight``: what each coordinate [V*3] counts in ``rec``, of mean 1; None: all the same, as published.
        """
        codes = self.codes[passed.indices]
        quant = F.mse_loss(codes, passed.hidden.detach()) + COMMITMENT * F.mse_loss(passed.hidden, codes.detach())
        apart = (passed.displacement - displacement).abs()
        return (apart if weight is None else apart * weight).mean(), quant

    def losses(self, displacement: Tensor, *, shared_row: bool = False) -> dict[str, Tensor]:
        """Terms of stage 1 for displacements [B, T, V*3] (eq. 3), and how evenly the codes are used.

        Returns:
            ``rec``: mean absolute error, metres; its gradient reaches the encoder straight through the codes, and
            never these. ``quant``: mean((sg[z] - e)^2) + 0.25 mean((z - sg[e])^2). ``perplexity``: exp of the entropy
            of the choices, from 1 to K. The published loss is ``rec + quant``.
        """
        passed = self.forward(displacement, shared_row=shared_row)
        rec, quant = self.errors(passed, displacement)
        counts = torch.bincount(passed.indices.flatten(), minlength=self.n_codes)
        return {"rec": rec, "quant": quant, "perplexity": perplexity(counts.to(rec))}

    @torch.no_grad()
    def to_metres(self, metres_per_unit: float) -> Codebook:
        """Turn a codebook of motion in another unit into one of metres, in place: the same codes, other numbers."""
        self.encoder.input.weight.div_(metres_per_unit)
        for parameter in self.decoder.output.parameters():
            parameter.mul_(metres_per_unit)
        return self
