"""An actor of one's own: a GRU that hears a frame and what was drawn before it, and a linear map to the face."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from s2f_rl.models import AudioEncoder, LatentActor, LinearMotion


class Net(nn.Module):
    """The means of all frames at once, given what was drawn; `steps` gives the same frame by frame."""

    embeds_displacements = False

    def __init__(self, n_inputs: int, width: int, n_outputs: int) -> None:
        super().__init__()
        self.latent_width, self.gru = width, nn.GRU(n_inputs + width, width, batch_first=True)
        self.decode = nn.Linear(width, n_outputs)
        nn.init.zeros_(self.decode.weight)  # an untrained actor predicts the template
        nn.init.zeros_(self.decode.bias)

    linear_decode = property(lambda self: LinearMotion(self.decode.weight, self.decode.bias))

    def sequence(self, latent: Tensor, audio: Tensor, style: Tensor) -> Tensor:
        style, before = style[:, None].expand(-1, latent.shape[1], -1), nn.functional.pad(latent[:, :-1], (0, 0, 1, 0))
        return self.gru(torch.cat([audio.flatten(-2), style, before], -1))[0]

    def steps(self, style: Tensor, *args: Any, **options: Any) -> Steps:
        return Steps(self, style)


class Steps:  # one frame of every lane after the other
    def __init__(self, net: Net, style: Tensor) -> None:
        self.net, self.style, self.n_lanes, self.hear = net, style, len(style), nn.Flatten(-2)
        self.state = style.new_zeros(1, len(style), net.latent_width)

    def restart(self, lanes: Tensor, style: Tensor) -> None:
        self.state, self.style = self.state * ~lanes[:, None], style

    def advance(self, heard: Tensor, previous: Tensor | None, first: Tensor | None) -> Tensor:
        before = torch.zeros_like(self.state[0]) if previous is None else previous
        before = before if first is None else before * ~first
        mean, self.state = self.net.gru(torch.cat([heard, self.style, before], -1)[:, None], self.state)
        return mean[:, 0]


class GRUActor(LatentActor):
    kind = "gru"

    def __init__(self, audio_encoder: AudioEncoder, n_vertices: int, n_subjects: int, feature_dim: int = 32) -> None:
        super().__init__(audio_encoder, n_vertices, n_subjects)
        n_heard = audio_encoder.width * audio_encoder.features_per_frame
        self.decoder = Net(n_heard + n_subjects, feature_dim, 3 * n_vertices)

    def config(self) -> dict[str, Any]:
        return super().config() | {"feature_dim": self.decoder.latent_width}
