"""The stochastic policy: a Gaussian in the decoder's own motion space, decoded to a displacement.

    h_t = decoder(audio_1..t, style, z_<t)        z_t ~ N(h_t, diag(sigma^2))        action_t = W z_t + b

The density is exact in z with H terms; a Gaussian over V*3 vertex coordinates would multiply 15069 ratios. W, b
(``vertice_map_r``) count as constants in the feedback, so the policy gradient never trains them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import InteractionType, TensorDictModuleBase, TensorDictSequential
from tensordict.nn.probabilistic import interaction_type
from torch import Tensor, nn
from torch.nn import functional as F
from torchrl.modules import ProbabilisticActor
from torchrl.modules.tensordict_module.rnn import recurrent_mode

from s2f_rl import keys
from s2f_rl.errors import UserError
from s2f_rl.models.decoder import MotionDecoder, StepCache
from s2f_rl.models.distributions import MaskedNormal
from s2f_rl.models.faceformer import FaceFormer
from s2f_rl.threads import one_thread

EXPLORATIONS = ("latent", "vertex")


def noise_scale(
    decoder: MotionDecoder, noise_mm: float, exploration: str = "latent", vertices: Tensor | None = None
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
    weight = decoder.vertice_map_r.weight.detach().unflatten(0, (-1, 3))
    if vertices is not None:
        weight = weight[vertices.to(weight.device)]
    rms = float(weight.square().sum((1, 2)).mean().sqrt())
    if rms == 0.0:
        raise UserError(
            "the actor's output map is zero (an untrained FaceFormer): RL starts from a supervised actor, run "
            "recipes/supervised.py first and pass its checkpoint"
        )
    return noise / rms


class MotionCore(TensorDictModuleBase):
    """Writes ``loc`` and ``scale`` of the latent: frame by frame with a key/value cache, or a whole row at once.

    Step mode (the default) takes [B] entries and keeps its cache between calls; a lane starts anew where
    ``frame_index`` is 0 (or, without that key, where ``is_init`` is True). Sequence mode, chosen by
    :class:`torchrl.modules.set_recurrent_mode` as every TorchRL loss does, takes [B, T] rows of whole utterances with
    the latents that were sampled, and never touches the cache. Both give equal log-probabilities.

    Dropout is never used, whatever ``train()`` says: a re-evaluation with dropout would leave no ratio near 1.
    """

    def __init__(
        self, decoder: MotionDecoder, exploration: str, scale: float, correlation: float, learn_noise: bool
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.exploration, self.correlation = exploration, correlation
        # TorchRL's A2C selects the in_keys; the latent is read in sequence mode only, where it is what was sampled.
        self.in_keys = [keys.AUDIO, keys.STYLE, keys.FRAME_INDEX, keys.FRAME_MASK, keys.LATENT]
        self.out_keys = [keys.LOC, keys.SCALE]
        n_scales = decoder.feature_dim if exploration == "latent" else 1
        self.log_scale = nn.Parameter(torch.full((n_scales,), math.log(scale)), requires_grad=learn_noise)
        self.register_buffer("log_scale_floor", torch.tensor(math.log(scale / 10.0)))
        self._cache: StepCache | None = None
        self._previous: tuple[Tensor, Tensor] | None = None  # latent and its mean h, of the frame before
        self._style = self._sigma = torch.empty(0)  # style embedding and sigma of every lane: the same in all frames

    log_scale_floor: Tensor

    def __getstate__(self) -> dict[str, Any]:
        # The cache belongs to a rollout, not to the policy: it is neither copied nor sent to workers.
        empty = torch.empty(0)
        return {**super().__getstate__(), "_cache": None, "_previous": None, "_style": empty, "_sigma": empty}

    # -- sequence mode -------------------------------------------------------------------------------------------

    def means(self, audio: Tensor, style: Tensor, latent: Tensor) -> Tensor:
        """h of all frames: audio [B, T, A, D], style [B, S], latent as sampled -> [B, T, H]."""
        if self.exploration == "latent":
            return self.decoder.sequence(latent, audio, style)
        return self.decoder.sequence_from_displacements(latent, audio, style, "style")

    def _noise(self, like: Tensor) -> Tensor:
        scale = torch.maximum(self.log_scale, self.log_scale_floor).exp()
        return scale.expand_as(like)

    def _distribution(
        self, mean: Tensor, scale: Tensor, previous: tuple[Tensor, Tensor] | None, first: Tensor
    ) -> tuple[Tensor, Tensor]:
        """loc and scale of z_t given h_t, sigma and (z_{t-1}, h_{t-1}); ``first`` [.., 1] marks frames without a past.

        With correlation rho: z_t ~ N(h_t + rho (z_{t-1} - h_{t-1}), sigma^2 (1 - rho^2)), sigma^2 at the first
        frame, with h_{t-1} under the *current* parameters: stored noise would bias the gradient.
        """
        rho = self.correlation
        if rho == 0.0 or previous is None:
            return mean, scale
        carried = torch.where(first, torch.zeros_like(mean), rho * (previous[0] - previous[1]))
        return mean + carried, torch.where(first, scale, scale * math.sqrt(1 - rho * rho))

    def _sequence(self, td: TensorDictBase) -> tuple[Tensor, Tensor]:
        index = td.get(keys.FRAME_INDEX, None)
        if index is not None and bool((index[:, 0] != 0).any()):
            raise ValueError("sequence mode needs rows that begin at frame 0: collect whole utterances")
        latent = td.get(keys.LATENT, None)
        if latent is None:
            raise KeyError(
                "sequence mode evaluates what was sampled: the batch has no 'latent', collect it in step mode"
            )
        mask = td.get(keys.FRAME_MASK, None)
        if mask is not None:  # padding may hold anything, and must not reach the graph
            latent = torch.where(mask, latent, torch.zeros_like(latent))
        audio, style = td.get(keys.AUDIO), td.get(keys.STYLE)[:, 0]
        hidden = self.means(audio, style, latent)
        mean = hidden if self.exploration == "latent" else self.decoder.decode(hidden)
        first = torch.zeros(mean.shape[1], 1, dtype=torch.bool, device=mean.device)
        first[:1] = True
        previous = (F.pad(latent[:, :-1], (0, 0, 1, 0)), F.pad(mean[:, :-1], (0, 0, 1, 0)))
        return self._distribution(mean, self._noise(mean), previous, first)

    # -- step mode -----------------------------------------------------------------------------------------------

    def remember(self, latent: Tensor) -> None:
        """Tell the cache what was sampled; the next step feeds it back."""
        if self._previous is not None:
            self._previous = (latent.detach(), self._previous[1])

    @torch.no_grad()
    def step(self, td: TensorDictBase) -> tuple[Tensor, Tensor]:
        """loc and scale [B, H] of the next frame, of the entries [B, ..] that :meth:`forward` reads in step mode."""
        audio, style = td.get(keys.AUDIO), td.get(keys.STYLE)
        index = td.get(keys.FRAME_INDEX, None)
        if index is not None:
            first = index == 0
        else:
            first = td.get("is_init", None)
            if first is None:
                raise KeyError("the policy needs frame_index (or is_init from InitTracker) to know where lanes start")
        decoder, cache = self.decoder, self._cache
        known = cache is not None and len(cache.start) == len(audio)
        begun = not known or bool(first.any())
        if cache is None or not known or (begun and bool(first.all())):
            cache = self._cache = decoder.new_cache(len(audio))
            self._previous = None
        elif begun:
            cache.restart(first.squeeze(-1))
        if begun:
            self._style = decoder.obj_vector(style)
        with one_thread():  # not what a start folds, which is a product over all vertices
            embedding = self._style
            if self._previous is not None:
                latent = self._previous[0]
                fed_back = cache.feedback(latent) if self.exploration == "latent" else decoder.vertice_map(latent)
                if begun:
                    fed_back = torch.where(first, torch.zeros_like(fed_back), fed_back)
                embedding = embedding + fed_back
            hidden = decoder.run_step(embedding, decoder.hear(audio), cache)
            mean = hidden if self.exploration == "latent" else decoder.decode(hidden)
            if begun:
                self._sigma = self._noise(mean)
            loc, scale = self._distribution(mean, self._sigma, self._previous, first)
        self._previous = (loc, mean)  # the mean counts as the latent until remember() says what was sampled
        return loc, scale

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        loc, scale = self._sequence(tensordict) if recurrent_mode() else self.step(tensordict)
        return tensordict.set(keys.LOC, loc).set(keys.SCALE, scale)


class DecodeLatent(TensorDictModuleBase):
    """``latent`` to ``action``: W z + b, or z itself with vertex exploration; tells the core what was drawn."""

    def __init__(self, core: MotionCore) -> None:
        super().__init__()
        self.core = core
        self.in_keys = [keys.LATENT]
        self.out_keys = [keys.ACTION]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        latent = tensordict.get(keys.LATENT)
        if not recurrent_mode():
            self.core.remember(latent)
        action = self.core.decoder.decode(latent) if self.core.exploration == "latent" else latent
        return tensordict.set(keys.ACTION, action)


class FaceFormerPolicy(TensorDictSequential):
    """TensorDict module that writes ``latent``, ``latent_log_prob`` and ``action`` (see :mod:`s2f_rl.keys`).

    Obeys :class:`torchrl.envs.utils.set_exploration_type` (samples by default; ``DETERMINISTIC`` gives the mean) and
    :class:`torchrl.modules.set_recurrent_mode`. ``policy.actor_module`` is the part that losses take: it ends at the
    latent, so call ``loss.set_keys(action="latent")``.

    Args:
        actor: a supervised :class:`FaceFormer`; its decoder is shared, not copied, its audio encoder is not used.
        exploration: ``"latent"``, or ``"vertex"``: Normal(mu, sigma) on vertices with averaged log-probability, the
            original project's choice, kept for comparison (``latent`` then holds the displacement).
        noise_mm: RMS noise of ``noise_vertices`` in millimetres (:func:`noise_scale`).
        correlation: rho in [0, 1) of consecutive frames' noise.
        noise_vertices: indices that ``noise_mm`` refers to, normally ``corpus.regions["lips"]``; None: all vertices.
        learn_noise: train log sigma, per latent dimension, with a floor of a tenth of its start.

    Example:
        >>> policy = FaceFormerPolicy(actor, noise_mm=0.3, noise_vertices=corpus.regions["lips"])
        >>> batch = env.rollout(env.horizon, policy, break_when_any_done=False)
        >>> loss = ClipPPOLoss(policy.actor_module, None, entropy_bonus=False)
        >>> loss.set_keys(action="latent")
    """

    def __init__(
        self,
        actor: FaceFormer,
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
        vertices = None if noise_vertices is None else torch.as_tensor(noise_vertices, dtype=torch.int64)
        scale = noise_scale(actor.decoder, noise_mm, exploration, vertices)
        core = MotionCore(actor.decoder, exploration, scale, correlation, learn_noise).to(actor.device)
        actor_module = ProbabilisticActor(
            core,
            in_keys={"loc": keys.LOC, "scale": keys.SCALE, "frame_mask": keys.FRAME_MASK},
            out_keys=[keys.LATENT],
            distribution_class=MaskedNormal,
            distribution_kwargs={"average": exploration == "vertex"},
            return_log_prob=True,
            default_interaction_type=InteractionType.RANDOM,
        )
        super().__init__(actor_module, DecodeLatent(core))
        self.noise_mm = noise_mm
        self._latents_only = False

    def forward(self, tensordict: TensorDictBase | None = None, *args: Any, **kwargs: Any) -> TensorDictBase:
        """The modules one after the other; a frame in step mode without what TensorDict modules do around each.

        A frame's products are so small that a second thread is not worth waking, let alone waiting for.
        """
        how = interaction_type() or InteractionType.RANDOM
        plain = how in (InteractionType.RANDOM, InteractionType.DETERMINISTIC)
        if tensordict is None:  # entries by name
            return super().forward(*args, **kwargs)
        if recurrent_mode() or args or kwargs or not plain:
            return super().forward(tensordict, *args, **kwargs)
        core = self.core
        loc, scale = core.step(tensordict)
        with one_thread():
            tensordict.set(keys.LOC, loc).set(keys.SCALE, scale)
            distribution = self._distribution(tensordict)
            latent = distribution.rsample() if how is InteractionType.RANDOM else distribution.deterministic_sample
            core.remember(latent)
            tensordict.set(keys.LATENT, latent)
            if not self._latents_only:
                tensordict.set(keys.LATENT_LOG_PROB, distribution.log_prob(latent))
                tensordict.set(keys.ACTION, core.decoder.decode(latent) if core.exploration == "latent" else latent)
        return tensordict

    def _distribution(self, td: TensorDictBase) -> MaskedNormal:
        mask = td.get(keys.FRAME_MASK, None)
        return MaskedNormal(td.get(keys.LOC), td.get(keys.SCALE), mask, average=self.core.exploration == "vertex")

    @contextmanager
    def latents_only(self) -> Iterator[None]:
        """Within, step mode leaves out what no later frame depends on, and :meth:`complete` adds it afterwards.

        With latent exploration; with vertex exploration the latents are the actions.
        """
        self._latents_only = True
        try:
            yield
        finally:
            self._latents_only = False

    @torch.no_grad()
    def complete(self, batch: TensorDictBase, room: Tensor) -> None:
        """Write log-probability and action of all frames into ``batch`` [B, T], the actions being kept in ``room``.

        One product for all frames instead of one for each, on all threads; the numbers are the same. ``room``: at least
        [B * T, V*3], contiguous.
        """
        batch.set(keys.LATENT_LOG_PROB, self._distribution(batch).log_prob(batch.get(keys.LATENT)))
        latent, output = batch.get(keys.LATENT).flatten(0, 1), self.core.decoder.vertice_map_r
        action = torch.addmm(output.bias, latent, output.weight.t(), out=room[: len(latent)])
        batch.set(keys.ACTION, action.unflatten(0, batch.shape))

    @property
    def actor_module(self) -> ProbabilisticActor:
        return self.module[0]

    @property
    def core(self) -> MotionCore:
        return self.module[1].core
