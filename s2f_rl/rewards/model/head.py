"""Scores of a clip: is the motion in sync with the speech (lip), does it look real (real), what is it worth (value)?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2f_rl.errors import UserError
from s2f_rl.rewards.model.checkpoint_files import pick, tensors

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "none": lambda score: score,
}


class HeadScores(NamedTuple):
    """Per clip [...]: ``lip`` and ``real`` after the output activation, ``value`` a plain real number."""

    lip: Tensor
    real: Tensor
    value: Tensor


class Trunk(nn.Module):
    """What the scores look at: mesh and audio feature, each alone and their product, mixed to ``hidden`` features.

    The product is where agreement shows: with equal projections its sum is the cosine that InfoNCE trained. The
    branch for realism starts from the mesh alone; a face may move in a real way to other words.
    """

    def __init__(self, d_audio: int, d_mesh: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.audio = nn.Linear(d_audio, hidden)
        self.mesh = nn.Linear(d_mesh, hidden)
        self.sync = nn.Sequential(nn.Linear(3 * hidden, hidden), nn.GELU(), nn.Dropout(dropout))
        self.motion = nn.Sequential(
            nn.Linear(d_mesh, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.GELU()
        )
        # unit features have elements of size 1/sqrt(E): bring them to order one for the layers above
        self.gain_audio, self.gain_mesh = d_audio**0.5, d_mesh**0.5

    def forward(self, audio_feature: Tensor, mesh_feature: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features [..., d_audio], [..., d_mesh] -> (sync features, motion features), each [..., hidden]."""
        scaled_mesh = self.gain_mesh * mesh_feature
        audio, mesh = self.audio(self.gain_audio * audio_feature), self.mesh(scaled_mesh)
        return self.sync(torch.cat([audio, mesh, audio * mesh], dim=-1)), self.motion(scaled_mesh)


class ScoreHead(nn.Module):
    """Lip, real and value scores of a clip.

    Lip reads both features and their product, real the mesh feature only. Value has a trunk of its own and reads
    detached features, so training it changes neither lip nor real by a bit; its output has no activation.

    Args:
        d_audio, d_mesh: widths of the features. hidden: width of the trunk. dropout: rate in training.
        out_activation: "sigmoid" (scores in [0, 1]), "tanh" or "none" (log-odds), for lip and real.
    """

    def __init__(
        self,
        d_audio: int = 512,
        d_mesh: int = 512,
        hidden: int = 256,
        dropout: float = 0.1,
        out_activation: str = "sigmoid",
    ) -> None:
        super().__init__()
        if out_activation not in _ACTIVATIONS:
            raise UserError(f"out_activation={out_activation!r} is unknown: use one of {sorted(_ACTIVATIONS)}")
        self.d_audio, self.d_mesh, self.hidden = d_audio, d_mesh, hidden
        self.out_activation = out_activation
        self.trunk = Trunk(d_audio, d_mesh, hidden, dropout)
        self.lip = nn.Linear(hidden, 1)
        self.real = nn.Linear(hidden, 1)
        self.value_trunk = Trunk(d_audio, d_mesh, hidden, dropout)
        self.value = nn.Linear(2 * hidden, 1)
        self.start_value()

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, object],
        dropout: float = 0.1,
        out_activation: str = "sigmoid",
        what: str = "ScoreHead state dict",
    ) -> ScoreHead:
        """Build the head a state dict belongs to; wrappers are taken off, sizes read off the tensors.

        Raises:
            UserError: an entry is missing, misshapen or not finite; ``what`` names the source in the message.
        """
        state = tensors(state_dict, "trunk.audio.weight", what)
        audio, mesh = state["trunk.audio.weight"], state.get("trunk.mesh.weight")
        if audio.ndim != 2 or mesh is None or mesh.ndim != 2:
            raise UserError(f"{what}: 'trunk.audio.weight' or 'trunk.mesh.weight' is misshapen")
        with torch.device("meta"):
            head = cls(audio.shape[1], mesh.shape[1], audio.shape[0], dropout, out_activation)
        head.load_state_dict(pick(state, head.state_dict(), what), assign=True)
        return head

    def start_value(self) -> None:
        """Make the value branch a copy of the trunk, with an output of zero."""
        self.value_trunk.load_state_dict(self.trunk.state_dict())
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def value_parameters(self) -> list[nn.Parameter]:
        """The parameters of the critic: all that may train while lip and real stay frozen."""
        return [*self.value_trunk.parameters(), *self.value.parameters()]

    def log_odds(self, audio_feature: Tensor, mesh_feature: Tensor) -> tuple[Tensor, Tensor]:
        """Lip and real before the output activation, each [...]."""
        sync, motion = self.trunk(audio_feature, mesh_feature)
        return self.lip(sync).squeeze(-1), self.real(motion).squeeze(-1)

    def estimate_value(self, audio_feature: Tensor, mesh_feature: Tensor) -> Tensor:
        """Critic's estimate [...] for unit features; no gradient reaches the features."""
        parts = self.value_trunk(audio_feature.detach(), mesh_feature.detach())
        return self.value(torch.cat(parts, dim=-1)).squeeze(-1)

    def scores(self, audio_feature: Tensor, mesh_feature: Tensor) -> tuple[Tensor, Tensor]:
        """Lip and real [...] after the output activation, without the cost of the value branch."""
        activation = _ACTIVATIONS[self.out_activation]
        lip, real = self.log_odds(audio_feature, mesh_feature)
        return activation(lip), activation(real)

    def forward(self, audio_feature: Tensor, mesh_feature: Tensor) -> HeadScores:
        """Unit features [..., d_audio] and [..., d_mesh] -> ``HeadScores`` of [...]."""
        lip, real = self.scores(audio_feature, mesh_feature)
        return HeadScores(lip, real, self.estimate_value(audio_feature, mesh_feature))
