"""A Gaussian in the motion space of a network whose motion is a linear map of it.

    h_t = network(audio_1..t, style, z_<t)        z_t ~ N(h_t, diag(sigma^2))        action_t = W z_t + b

The density is exact in z with H terms; a Gaussian over V*3 vertex coordinates would multiply 15069 ratios. W, b count
as constants in the feedback, so the policy gradient never trains them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.nn import functional as F

from s2f_rl import keys
from s2f_rl.errors import UserError
from s2f_rl.models.base_core import BaseCore, drawn, lanes_that_begin
from s2f_rl.models.contract import LinearMotion, MotionSource, Steps, output_parameters
from s2f_rl.models.distributions import MaskedNormal
from s2f_rl.models.latent_motion import coordinates
from s2f_rl.models.rollout_graph import RolloutGraphs
from s2f_rl.threads import one_thread

EXPLORATIONS = ("latent", "vertex")


def noise_scale(
    source: MotionSource, noise_mm: float, exploration: str = "latent", vertices: Tensor | None = None
) -> float:
    """Standard deviation of the policy's noise for a stated effect on the face.

    ``noise_mm`` is the RMS length, in millimetres, of the noise displacement of ``vertices`` (the lips; all vertices
    when None). Latent noise of standard deviation s moves vertex v by W_v eps with E|W_v eps|^2 = s^2 |W_v|^2, so
    s = noise / sqrt(mean_v |W_v|^2); vertex noise moves it by s in each of three coordinates.

    Raises:
        UserError: W is zero, that is, the actor was never trained.
    """
    if noise_mm <= 0:
        raise UserError(f"exploration.noise_mm={noise_mm}: the noise must be positive, 0.3 is a start")
    noise = noise_mm * 1e-3
    if exploration == "vertex":
        return noise / math.sqrt(3)
    weight = source.linear_decode.weight.detach().unflatten(0, (-1, 3))
    if vertices is not None:
        weight = weight[vertices.to(weight.device)]
    rms = float(weight.square().sum((1, 2)).mean().sqrt())
    if rms == 0.0:
        raise UserError(
            "the actor's output map is zero (an untrained FaceFormer): RL starts from a supervised actor, run "
            "recipes/supervised.py first and pass its checkpoint"
        )
    return noise / rms


class MotionCore(BaseCore):
    """Writes ``loc`` and ``scale`` of the latent: frame by frame, or a whole row at once; see :class:`PolicyCore`.

    Dropout is never used, whatever ``train()`` says: a re-evaluation with dropout would leave no ratio near 1.

    Args:
        decoder: the network, a :class:`~s2f_rl.models.contract.MotionSource`; shared, not copied.
        exploration: ``"latent"``, or ``"vertex"``: Normal(mu, sigma) on vertices with averaged log-probability, the
            original project's choice, kept for comparison (``latent`` then holds the displacement).
        noise_mm: RMS noise of ``noise_vertices`` in millimetres (:func:`noise_scale`).
        correlation: rho in [0, 1) of consecutive frames' noise.
        noise_vertices: indices that ``noise_mm`` refers to, normally ``corpus.regions["lips"]``; None: all vertices.
        learn_noise: train log sigma, per latent dimension, with a floor of a tenth of its start.

    Raises:
        UserError: an option out of its range, or an actor that was never trained.
    """

    distribution_class = MaskedNormal
    distribution_keys = {"loc": keys.LOC, "scale": keys.SCALE, "frame_mask": keys.FRAME_MASK}
    reparameterised = True
    log_scale_floor: Tensor

    def __init__(
        self,
        decoder: MotionSource,
        exploration: str = "latent",
        noise_mm: float = 0.3,
        correlation: float = 0.0,
        noise_vertices: Tensor | Sequence[int] | None = None,
        learn_noise: bool = False,
    ) -> None:
        if exploration not in EXPLORATIONS:
            raise UserError(f"exploration={exploration!r} is unknown: use one of {', '.join(EXPLORATIONS)}")
        if not 0.0 <= correlation < 1.0:
            raise UserError(f"exploration.correlation={correlation}: must be at least 0 and below 1")
        if exploration == "vertex" and correlation:
            raise UserError("exploration.correlation: correlated noise exists for latent exploration only, set it to 0")
        if exploration == "vertex" and not decoder.embeds_displacements:
            raise UserError("exploration=vertex: this actor cannot be fed displacements; use exploration=latent")
        vertices = None if noise_vertices is None else torch.as_tensor(noise_vertices, dtype=torch.int64)
        scale = noise_scale(decoder, noise_mm, exploration, vertices)
        super().__init__()
        self.decoder: Any = decoder
        self.latent_space, self.correlation = exploration == "latent", correlation
        self.supervised_modes = ("on_policy", "teacher_forced") if decoder.embeds_displacements else ("on_policy",)
        self.out_keys = [keys.LOC, keys.SCALE]
        self.distribution_kwargs = {"average": not self.latent_space}
        n_outputs = len(decoder.linear_decode.bias)
        self.state = (keys.LOC, decoder.latent_width if self.latent_space else n_outputs)
        n_scales = decoder.latent_width if self.latent_space else 1
        self.log_scale = nn.Parameter(torch.full((n_scales,), math.log(scale)), requires_grad=learn_noise)
        self.register_buffer("log_scale_floor", torch.tensor(math.log(scale / 10.0)))
        self._steps: Steps | None = None
        self._previous: tuple[Tensor, Tensor] | None = None  # latent and its mean h, of the frame before
        self._sigma = torch.empty(0)  # of every lane: the same in all frames
        self._together = False
        self._graphs = RolloutGraphs()
        self.to(decoder.linear_decode.weight.device)

    def __getstate__(self) -> dict[str, object]:
        # The past belongs to a rollout, not to the policy: it is neither copied nor sent to workers.
        past = {"_steps": None, "_previous": None, "_sigma": torch.empty(0), "_together": False}
        return {**super().__getstate__(), **past, "_graphs": RolloutGraphs()}

    @property
    def linear_decode(self) -> LinearMotion | None:
        """W and b; None with ``vertex`` exploration, whose latents are displacements."""
        return self.decoder.linear_decode if self.latent_space else None

    def decode(self, latents: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """W z + b, or z itself with ``vertex`` exploration."""
        return self.decoder.decode(latents) if self.latent_space else latents

    # -- sequence mode -------------------------------------------------------------------------------------------

    def means(self, audio: Tensor, style: Tensor, latent: Tensor) -> Tensor:
        """h of all frames: audio [B, T, A, D], style [B, S], latent as sampled -> [B, T, H]."""
        if self.latent_space:
            return self.decoder.sequence(latent, audio, style)
        return self.decoder.sequence_from_displacements(latent, audio, style, "style")

    def _noise(self, like: Tensor) -> Tensor:
        return self.exploration()["noise"].expand_as(like)

    def _distribution(
        self, mean: Tensor, scale: Tensor, previous: tuple[Tensor, Tensor] | None, first: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """loc and scale of z_t given h_t, sigma and (z_{t-1}, h_{t-1}).

        ``first`` [.., 1] marks frames without a past; None: there are none.

        With correlation rho: z_t ~ N(h_t + rho (z_{t-1} - h_{t-1}), sigma^2 (1 - rho^2)), sigma^2 at the first
        frame, with h_{t-1} under the *current* parameters: stored noise would bias the gradient.
        """
        rho = self.correlation
        if rho == 0.0 or previous is None:
            return mean, scale
        carried, less = rho * (previous[0] - previous[1]), scale * math.sqrt(1 - rho * rho)
        if first is None:
            return mean + carried, less
        return mean + torch.where(first, torch.zeros_like(mean), carried), torch.where(first, scale, less)

    def sequence(self, td: TensorDictBase, latent: Tensor) -> tuple[Tensor, ...]:
        """loc and scale of all frames, see :class:`BaseCore`."""
        hidden = self.means(td.get(keys.AUDIO), td.get(keys.STYLE)[:, 0], latent)
        mean = hidden if self.latent_space else self.decoder.decode(hidden)
        first = torch.zeros(mean.shape[1], 1, dtype=torch.bool, device=mean.device)
        first[:1] = True
        previous = (F.pad(latent[:, :-1], (0, 0, 1, 0)), F.pad(mean[:, :-1], (0, 0, 1, 0)))
        return self._distribution(mean, self._noise(mean), previous, first)

    # -- step mode -----------------------------------------------------------------------------------------------

    def remember(self, latent: Tensor) -> None:
        """Tell the core what was sampled; the next step feeds it back."""
        if self._previous is not None:
            self._previous = (latent.detach(), self._previous[1])

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within, all lanes begin at the first step and none later: steps do not ask the device which ones begin."""
        self._together, self._steps = True, None
        try:
            yield
        finally:
            self._together = False

    @torch.no_grad()
    def step(self, td: TensorDictBase) -> tuple[Tensor, ...]:
        """loc and scale [B, H] of the next frame, of the entries [B, ..] that :meth:`forward` reads in step mode."""
        audio, steps = td.get(keys.AUDIO), self._steps
        known = steps is not None and steps.n_lanes == len(audio)
        first = None if self._together and known else lanes_that_begin(td)
        begun = not known or (first is not None and bool(first.any()))
        if steps is None or not known or (first is not None and begun and bool(first.all())):
            steps = self.decoder.steps(td.get(keys.STYLE), displacements=not self.latent_space)
            self._steps, self._previous = steps, None
        elif begun and first is not None:
            steps.restart(first.squeeze(-1), td.get(keys.STYLE))
        with one_thread():  # not what a start folds, which is a product over all vertices
            latent = None if self._previous is None else self._previous[0]
            hidden = steps.advance(steps.hear(audio), latent, first if begun else None)
            mean = hidden if self.latent_space else self.decoder.decode(hidden)
            if begun:
                self._sigma = self._noise(mean)
            loc, scale = self._distribution(mean, self._sigma, self._previous, first)
        self._previous = (loc, mean)  # the mean counts as the latent until remember() says what was sampled
        return loc, scale

    # -- all steps at once -----------------------------------------------------------------------------------------

    @property
    def rolls_out(self) -> bool:
        """Its steps are those of this class, in latents, so that :meth:`roll_out` does the same."""
        return self.latent_space and type(self).step is MotionCore.step

    @torch.no_grad()
    def roll_out(self, audio: Tensor, style: Tensor, sampled: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """What stepping through whole utterances that begin together would draw; nothing asks the device.

        On the CPU the random numbers are those of the steps, in their order. On CUDA the recursion is a graph
        (:class:`~s2f_rl.models.rollout_graph.RolloutGraphs`) where the decoder's ``capturable`` says that it can be.

        Args:
            audio: [B, T, A, D]. style: [B, S]. sampled: False takes the mean at every frame.

        Returns:
            latent, loc, scale: [B, T, H].
        """
        n_lanes, n_frames = audio.shape[:2]
        steps, noise = self.decoder.steps(style, n_frames), None
        if sampled:
            noise = self.log_scale.new_empty(n_frames, n_lanes, self.decoder.latent_width)
            for part in noise.unbind(0) if noise.device.type == "cpu" else [noise]:
                part.normal_()
        heard = steps.hear(audio)
        if not (audio.is_cuda and getattr(self.decoder, "capturable", False)):
            return self._recursion(steps, heard, noise)

        def again(heard: Tensor, style: Tensor, noise: Tensor | None) -> tuple[Tensor, ...]:
            return self._recursion(self.decoder.steps(style, heard.shape[1]), heard, noise)

        latents, locs, scales = self._graphs.run(again, [*self.parameters(), *self.buffers()], heard, style, noise)
        return latents, locs, scales

    def _recursion(self, steps: Steps, heard: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """``heard`` [B, T, ..], standard ``noise`` [T, B, H] -> latent, loc, scale [B, T, H]."""
        previous, frames = None, []
        sigma = self._noise(heard.new_empty(len(heard), self.decoder.latent_width))
        with one_thread():
            for t, now in enumerate(heard.unbind(1)):
                mean = steps.advance(now, None if previous is None else previous[0], None)
                loc, scale = self._distribution(mean, sigma, previous, None)
                latent = loc if noise is None else loc + scale * noise[t]
                previous = (latent, mean)
                frames.append((latent, loc, scale))
        latents, locs, scales = (torch.stack(each, dim=1) for each in zip(*frames, strict=True))
        return latents, locs, scales

    # -- motion without noise, or with a given one ---------------------------------------------------------------

    def mean_motion(self, td: TensorDictBase, collected: bool = False, *, decoded: bool = True) -> Tensor:
        """The means h given the sampled history, decoded.

        Correlated noise counts as noise: ``loc`` holds what is carried over from the frame before, so that it is h only
        without correlation.
        """
        if collected and not self.correlation:
            loc = td.get(keys.LOC)
            return self.decode(loc) if decoded else loc
        means = self.means(td.get(keys.AUDIO), td.get(keys.STYLE)[:, 0], drawn(td))
        return self.decoder.decode(means) if decoded else means

    def teacher_forced(self, td: TensorDictBase, truth: Tensor, *, decoded: bool = True) -> Tensor:
        """See the contract."""
        hidden = self.decoder.sequence_from_displacements(
            truth, td.get(keys.AUDIO), td.get(keys.STYLE)[:, 0], "template"
        )
        return self.decoder.decode(hidden) if decoded else hidden

    def unrolled(
        self,
        features: Tensor,
        style: Tensor,
        noise: Tensor | None = None,
        train_output_map: bool = False,
        *,
        decoded: bool = True,
        frame_mask: Tensor | None = None,
    ) -> Tensor:
        """See the contract; ``noise`` is standard normal, shaped as the latent: the reparameterised sample."""
        weight, bias = self.decoder.linear_decode
        if not train_output_map:
            weight, bias = weight.detach(), bias.detach()
        steps = self.decoder.steps(style, features.shape[1], not self.latent_space, train_output_map)
        sigma, rho = self.exploration()["noise"], self.correlation
        previous, carried, frames = None, None, []
        for t, heard in enumerate(steps.hear(features).unbind(1)):
            mean = steps.advance(heard, previous, None)
            if not self.latent_space:
                mean = F.linear(mean, weight, bias)
            if noise is not None:
                # The same AR(1) noise as in the rollout: its recursion does not depend on the means.
                fresh = sigma * noise[:, t]
                carried = fresh if carried is None else rho * carried + (1 - rho * rho) ** 0.5 * fresh
                mean = mean + carried
            frames.append(mean)
            previous = mean
        motion = torch.stack(frames, dim=1)
        return F.linear(motion, weight, bias) if self.latent_space and decoded else motion

    def unit_noise(self, td: TensorDictBase) -> Tensor:
        """See the contract."""
        noise = (td.get(keys.LATENT) - td.get(keys.LOC)) / td.get(keys.SCALE)
        return torch.where(td.get(keys.FRAME_MASK), noise, torch.zeros_like(noise)).detach()

    # -- what a run asks -----------------------------------------------------------------------------------------

    def exploration(self) -> dict[str, Tensor]:
        """``noise``: sigma, [H] or [1]."""
        return {"noise": torch.maximum(self.log_scale, self.log_scale_floor).exp()}

    def batch_figures(self, td: TensorDictBase, vertices: Tensor) -> dict[str, float]:
        """``noise_mm``: RMS displacement of the lips by the sampled noise."""
        noise, weight = td.get(keys.LATENT) - td.get(keys.LOC), td.get(keys.FRAME_MASK).float()
        columns = coordinates(vertices).to(noise.device)
        noise = noise @ self.decoder.linear_decode.weight[columns].T if self.latent_space else noise[..., columns]
        mean = (noise.square() * weight).sum() / (weight.sum() * len(vertices)).clamp_min(1)
        return {"noise_mm": 1e3 * float(mean.sqrt())}

    def frozen_in_rl(self) -> Iterable[nn.Parameter]:
        """W and b."""
        return output_parameters(self.decoder)
