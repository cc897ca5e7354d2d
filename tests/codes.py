"""A tiny actor that draws codes: Q categoricals a frame, fed back by their embedding, decoded over whole utterances."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, kl_divergence, register_kl
from torch.nn import functional as F

from s2f_rl import keys
from s2f_rl.models.base_actor import BaseActor, decode_rows
from s2f_rl.models.base_core import BaseCore, lanes_that_begin
from s2f_rl.models.policy import MotionPolicy

Q, K, WIDTH = 2, 8, 12


class Codes(Distribution):
    """Q independent categoricals, log-probabilities summed over them and 0 on padding."""

    arg_constraints: dict[str, Any] = {}

    def __init__(self, logits: Tensor, frame_mask: Tensor | None = None) -> None:
        self.inner, self.frame_mask = Categorical(logits=logits), frame_mask
        super().__init__(logits.shape[:-2], logits.shape[-2:-1], validate_args=False)

    def summed(self, per_code: Tensor) -> Tensor:
        total = per_code.sum(-1)
        return total if self.frame_mask is None else torch.where(self.frame_mask.squeeze(-1), total, 0.0)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.inner.sample(sample_shape)

    @property
    def deterministic_sample(self) -> Tensor:
        return self.inner.probs.argmax(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.summed(self.inner.log_prob(value))


@register_kl(Codes, Codes)
def kl_codes(p: Codes, q: Codes) -> Tensor:
    return p.summed(kl_divergence(p.inner, q.inner))


class Net(nn.Module):
    """Logits [B, T, Q, K] by a GRU; displacements by a convolution over the frames of the codes' own ones."""

    def __init__(self, n_heard: int, n_outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(Q, K, WIDTH))
        self.gru, self.logits = nn.GRU(n_heard + WIDTH, WIDTH, batch_first=True), nn.Linear(WIDTH, Q * K)
        self.shapes = nn.Parameter(1e-3 * torch.randn(Q, K, n_outputs))
        self.register_buffer("kernel", torch.tensor([0.25, 0.5, 0.25]))

    kernel: Tensor

    def look_up(self, table: Tensor, codes: Tensor) -> Tensor:
        return sum((table[q][codes[..., q]] for q in range(Q)), torch.zeros(()))

    def run(self, audio: Tensor, style: Tensor, before: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        heard = torch.cat([audio.flatten(-2), style.unsqueeze(1).expand(-1, audio.shape[1], -1), before], -1)
        hidden, state = self.gru(heard, state)
        return self.logits(hidden).unflatten(-1, (Q, K)), state

    def sequence(self, codes: Tensor, audio: Tensor, style: Tensor) -> Tensor:
        before = F.pad(self.look_up(self.embedding, codes)[:, :-1], (0, 0, 1, 0))
        return self.run(audio, style, before, None)[0]

    def decode(self, codes: Tensor) -> Tensor:
        own = self.look_up(self.shapes, codes).transpose(1, 2)  # [1, V*3, n]
        kernel = self.kernel.expand(own.shape[1], 1, 3)
        return F.conv1d(F.pad(own, (1, 1), "replicate"), kernel, groups=own.shape[1]).transpose(1, 2)


class CodeCore(BaseCore):
    """A categorical over codes."""

    distribution_class = Codes
    distribution_keys = {"logits": "logits", "frame_mask": keys.FRAME_MASK}
    frame_wise = False

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net, self.out_keys = net, ["logits"]
        self.state_of_lanes: Tensor | None = None
        self.before = torch.empty(0)

    def sequence(self, td: TensorDictBase, latent: Tensor) -> tuple[Tensor, ...]:
        return (self.net.sequence(latent, td.get(keys.AUDIO), td.get(keys.STYLE)[:, 0]),)

    @torch.no_grad()
    def step(self, td: TensorDictBase) -> tuple[Tensor, ...]:
        first, audio = lanes_that_begin(td), td.get(keys.AUDIO)
        if self.state_of_lanes is None or self.state_of_lanes.shape[1] != len(audio) or bool(first.all()):
            self.state_of_lanes, self.before = torch.zeros(1, len(audio), WIDTH), torch.zeros(len(audio), WIDTH)
        self.state_of_lanes, self.before = self.state_of_lanes * ~first, self.before * ~first
        logits, self.state_of_lanes = self.net.run(
            audio[:, None], td.get(keys.STYLE), self.before[:, None], self.state_of_lanes
        )
        return (logits[:, 0],)

    def remember(self, latent: Tensor) -> None:
        self.before = self.net.look_up(self.net.embedding, latent).detach()

    def decode(self, latents: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        lengths = [latents.shape[1]] * len(latents) if frame_mask is None else frame_mask.sum((1, 2)).tolist()
        return decode_rows(self.net.decode, latents, lengths)

    def frozen_in_rl(self) -> list[nn.Parameter]:
        return [self.net.shapes]


class CodeActor(BaseActor):
    """Chooses the likeliest codes."""

    kind = "codes"

    def __init__(self, audio_encoder: Any, n_vertices: int, n_subjects: int) -> None:
        super().__init__(audio_encoder, n_vertices, n_subjects)
        self.net = Net(audio_encoder.width * audio_encoder.features_per_frame + n_subjects, 3 * n_vertices)

    def generate(
        self, features: Tensor, style: Tensor, lengths: list[int] | None = None, *, progress: bool = False
    ) -> Tensor:
        before, state, codes = torch.zeros(len(features), 1, WIDTH), None, []
        for frame in features.split(1, dim=1):
            logits, state = self.net.run(frame, style, before, state)
            codes.append(logits.argmax(-1))
            before = self.net.look_up(self.net.embedding, codes[-1])
        return torch.cat(codes, 1)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.cat([self.net.decode(row[None]) for row in latents])

    def make_policy(self, **options: Any) -> MotionPolicy:
        return MotionPolicy(CodeCore(self.net))
