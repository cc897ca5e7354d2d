"""A policy of codes: in every frame Q independent categoricals over the codebook, given the codes before.

    f_t = stage 2(audio_1..t, style, motion of codes_<t)      logits_tqk = (2 f_tq . e_k - |e_k|^2) / temperature

They are tied to the codebook: the likeliest code is the nearest, at temperature 0 the published prediction. What is fed
back was decoded of codes that are drawn already, by weights that RL leaves alone. So it is data: a rollout stores it
before the output map of stage 1, and the log-probabilities of all frames come from one pass. The map from there into
stage 2 trains through it, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.nn import functional as F

from s2f_rl import keys
from s2f_rl.errors import UserError
from s2f_rl.models.base_actor import decode_rows
from s2f_rl.models.base_core import BaseCore, lanes_that_begin
from s2f_rl.models.codetalker.code_decoder import CodeDecoder, CodeSteps, feedback_map
from s2f_rl.models.codetalker.codebook import Codebook, perplexity
from s2f_rl.models.distributions import MaskedCodes
from s2f_rl.models.policy import MotionPolicy
from s2f_rl.threads import one_thread

CHANGED_CODES = 0.07
"""Share of drawn codes that are not the nearest one, unless another is asked for."""


def temperature_of(scores: Tensor, changed: float) -> float:
    """The temperature at which a share ``changed`` of the codes that are drawn is not the likeliest.

    Expected over the draws: 1 - mean of the largest probability, which grows with the temperature; found by bisection.

    Args:
        scores: [.., K], logits at temperature 1.
        changed: above 0 and below 1 - 1/K, what it is where all codes are equally likely.

    Raises:
        UserError: no temperature gives that share.
    """
    scores = scores.double().flatten(0, -2)
    gaps = scores.amax(-1, keepdim=True) - scores
    most = float(gaps.max())
    if not 0 < changed < 1 - 1 / scores.shape[-1] or not 0 < most < math.inf:
        raise UserError(
            f"exploration.changed_codes={changed:g}: no temperature gives that with {scores.shape[-1]} codes; use 0.07 "
            "and an actor whose codebook is trained"
        )
    low, high = math.log(most) - 50.0, math.log(most) + 50.0
    for _ in range(60):
        middle = (low + high) / 2
        share = 1 - float((1 / torch.exp(-gaps / math.exp(middle)).sum(-1)).mean())
        low, high = (middle, high) if share < changed else (low, middle)
    return math.exp((low + high) / 2)


def _as_constant(linear: nn.Linear, x: Tensor) -> Tensor:
    """The map of x, with a gradient to x alone."""
    return F.linear(x, linear.weight.detach(), None if linear.bias is None else linear.bias.detach())


class CodeCore(BaseCore):
    """Writes ``logits`` and ``fed_back``; see :class:`~s2f_rl.models.contract.PolicyCore`.

    All lanes begin together. Stage 1 is frozen; there is no dropout. Until :meth:`calibrate` has heard speech, the
    temperature is that for features which lie on the code vectors, too high for those of an actor.

    Where a gradient is wanted of motion (:meth:`mean_motion`, :meth:`unrolled`), it passes straight through the codes:
    that of a code vector is that of the feature. What is fed back is data there too, so it does not pass from a frame
    to a later one through it.

    Args:
        decoder, codebook: of the actor, shared and not copied.
        window: see :class:`~s2f_rl.models.codetalker.prefix.Prefix`.
        changed_codes: share of drawn codes that are not the nearest.

    Raises:
        UserError: a share that no temperature gives.
    """

    distribution_class = MaskedCodes
    distribution_keys = {"logits": keys.LOGITS, "frame_mask": keys.FRAME_MASK}
    frame_wise = False
    supervised_modes = ("on_policy", "teacher_forced")
    reparameterised = True
    regresses = True
    log_temperature: Tensor

    def __init__(
        self, decoder: CodeDecoder, codebook: Codebook, window: int | None = None, changed_codes: float = CHANGED_CODES
    ) -> None:
        super().__init__()
        self.decoder, self.codebook, self.window = decoder, codebook, window
        self.in_keys = [*self.in_keys, keys.FED_BACK]  # read in sequence mode only, as the latent
        self.out_keys = [keys.LOGITS, keys.FED_BACK]
        self.state = (keys.FED_BACK, codebook.decoder.output.in_features)
        self.register_buffer("log_temperature", codebook.codes.new_zeros(()))
        self._steps: CodeSteps | None = None
        with torch.no_grad():
            self._set_temperature(self._scores(codebook.codes.unsqueeze(-2)), changed_codes)

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_steps": None}  # the past belongs to a rollout

    # -- the distribution ----------------------------------------------------------------------------------------------

    def _scores(self, features: Tensor) -> Tensor:
        """[.., Q, C] -> [.., Q, K]: minus the squared distances, up to what is the same for all codes."""
        codes = self.codebook.codes
        return 2 * features @ codes.t() - codes.square().sum(-1)

    def _logits(self, features: Tensor) -> Tensor:
        return self._scores(features) / self.log_temperature.exp()

    def _set_temperature(self, scores: Tensor, changed_codes: float) -> None:
        self.log_temperature.fill_(math.log(temperature_of(scores, changed_codes)))

    @torch.no_grad()
    def calibrate(self, changed_codes: float, speech: Iterable[tuple[Tensor, Tensor]]) -> None:
        """See the contract: by the deterministic motion of that speech."""
        heard = list(speech)
        if not heard:
            return
        audio = nn.utils.rnn.pad_sequence([features for features, _ in heard], batch_first=True)
        _, logits, _ = self.roll_out(audio, torch.stack([style for _, style in heard]), sampled=False)
        valid = torch.cat([row[: len(features)] for row, (features, _) in zip(logits, heard, strict=True)])
        self._set_temperature(valid * self.log_temperature.exp(), changed_codes)

    # -- all frames at once --------------------------------------------------------------------------------------------

    def _features(self, audio: Tensor, style: Tensor, fed_back: Tensor) -> Tensor:
        """[B, T, Q, C] of speech [B, T, A, D], style [B, S], and what each frame is fed [B, T, W]."""
        maps = feedback_map(self.decoder, self.codebook)
        own = F.pad(F.linear(fed_back[:, 1:], *maps), (0, 0, 1, 0))  # the first frame has the style alone
        return self._cut(self.decoder.run(own + self.decoder.embed_style(style).unsqueeze(1), audio))

    def _cut(self, features: Tensor) -> Tensor:
        return features.unflatten(-1, (self.codebook.codes_per_frame, self.codebook.code_width))

    def _features_of(self, td: TensorDictBase) -> tuple[Tensor, Tensor]:
        """The features of what was drawn in rows [B, T], and what they were fed, 0 on padding."""
        fed_back, mask = td.get(keys.FED_BACK), td.get(keys.FRAME_MASK, None)
        if mask is not None:
            fed_back = torch.where(mask, fed_back, torch.zeros_like(fed_back))
        return self._features(td.get(keys.AUDIO), td.get(keys.STYLE)[:, 0], fed_back), fed_back

    def sequence(self, td: TensorDictBase, latent: Tensor) -> tuple[Tensor, ...]:
        """See :class:`BaseCore`; the codes themselves are not needed, since what they feed back is stored."""
        features, fed_back = self._features_of(td)
        return self._logits(features), fed_back

    # -- frame by frame ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, td: TensorDictBase) -> tuple[Tensor, ...]:
        """See the contract. Raises ValueError where some lanes begin while others go on."""
        audio, first, mask = td.get(keys.AUDIO), lanes_that_begin(td), td.get(keys.FRAME_MASK, None)
        begun = first if mask is None else first & mask  # a lane of one frame stays at frame 0 when it has ended
        if self._steps is None or self._steps.n_lanes != len(audio) or bool(begun.any()):
            if not bool(first.all()):
                raise ValueError("lanes of codes begin together: reset all of them")
            self._steps = self._begin(td.get(keys.STYLE), 64)
        with one_thread():
            return self._advance(self._steps, self.decoder.hear(audio))

    def remember(self, latent: Tensor) -> None:
        """See the contract."""
        if self._steps is not None:
            with torch.no_grad(), one_thread():
                self._steps.remember(latent)

    @property
    def rolls_out(self) -> bool:
        return True

    @torch.no_grad()
    def roll_out(self, audio: Tensor, style: Tensor, sampled: bool = True) -> tuple[Tensor, ...]:
        """What stepping through whole utterances would draw, with the same random numbers.

        Args:
            audio: [B, T, A, D]. style: [B, S]. sampled: False takes the nearest codes.

        Returns:
            codes [B, T, Q], logits [B, T, Q, K], fed back [B, T, W].
        """
        steps, frames = self._begin(style, audio.shape[1]), list[tuple[Tensor, Tensor, Tensor]]()
        heard = zip(*(layer.unbind(1) for layer in self.decoder.hear(audio)), strict=True)
        with one_thread():
            for own in heard:
                if frames:
                    steps.remember(frames[-1][0])
                logits, fed_back = self._advance(steps, list(own))
                frame = MaskedCodes(logits)
                frames.append((frame.sample() if sampled else frame.mode, logits, fed_back))
        return tuple(torch.stack(each, 1) for each in zip(*frames, strict=True))

    def _begin(self, style: Tensor, capacity: int) -> CodeSteps:
        maps = feedback_map(self.decoder, self.codebook)
        return CodeSteps(self.decoder, self.codebook, style, capacity, maps, self.window)

    def _advance(self, steps: CodeSteps, heard: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [B, Q, K] of the next frame, and what it was fed [B, W]."""
        features = steps.advance(heard)
        nothing = features.new_zeros(len(features), self.codebook.decoder.output.in_features)
        return self._logits(features), nothing if steps.latent is None else steps.latent

    # -- motion --------------------------------------------------------------------------------------------------------

    def decode(self, latents: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Displacements [B, T, V*3] of the codes [B, T, Q] of whole rows, each as long as its mask [B, T, 1] says."""
        return self._motion(self.codebook.vectors(latents), frame_mask)

    def _motion(self, vectors: Tensor, frame_mask: Tensor | None, train_output_map: bool = True) -> Tensor:
        """Displacements [B, T, V*3] of code vectors [B, T, Q*C]."""
        whole = [vectors.shape[1]] * len(vectors)
        lengths = whole if frame_mask is None else frame_mask.sum((1, 2)).tolist()
        decoder = self.codebook.decoder
        mixed = decode_rows(lambda rows: decoder.mixer(decoder.input(rows), True), vectors, lengths)
        moved = decoder.output(mixed) if train_output_map else _as_constant(decoder.output, mixed)
        return moved if frame_mask is None else torch.where(frame_mask, moved, torch.zeros_like(moved))

    def mean_motion(self, td: TensorDictBase, collected: bool = False, *, decoded: bool = True) -> Tensor:
        """The motion of the nearest codes given the drawn ones before: what is likeliest, as codes have no mean."""
        if collected:
            return self.decode(td.get(keys.LOGITS).argmax(-1), td.get(keys.FRAME_MASK))
        return self._nearest_motion(td, None)[0]

    def teacher_forced(self, td: TensorDictBase, truth: Tensor, *, decoded: bool = True) -> Tensor:
        """See the contract."""
        return self._nearest_motion(td, truth)[0]

    def _nearest_motion(self, td: TensorDictBase, truth: Tensor | None) -> tuple[Tensor, Tensor]:
        """Displacements [B, T, V*3] of the nearest codes of the features [B, T, Q, C], and these."""
        if truth is None:
            features, _ = self._features_of(td)
        else:
            features = self._cut(self.decoder.sequence(truth, td.get(keys.AUDIO), td.get(keys.STYLE)[:, 0]))
        vectors = self.codebook.straight_through(features)[1].flatten(-2)
        return self._motion(vectors, td.get(keys.FRAME_MASK)), features

    @torch.no_grad()
    def targets(self, displacement: Tensor) -> Tensor:
        """The codes [T, Q] of a recorded motion [T, V*3]."""
        return self.codebook.encode(displacement[None], shared_row=True)[0]

    def regressed(self, td: TensorDictBase, targets: Tensor, truth: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See the contract. The error is the squared distance of the features to the true motion's code vectors.

        It is the published ``loss_reg``, in units of the mean squared distance of the codebook's vectors from their
        mean: without it the features may grow, which sharpens the policy.
        """
        motion, features = self._nearest_motion(td, truth)
        codes = self.codebook.codes.detach()
        error = (features - codes[targets]).square().mean((-1, -2))
        return motion, error / codes.var(0, correction=0).mean()

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
        """See the contract; ``noise`` are the codes that were drawn, the gradient passes straight through them."""
        codes, _, fed_back = self.roll_out(features, style, sampled=False) if noise is None else self._fed(noise)
        own = self._features(features, style, fed_back)
        vectors = own + (self.codebook.codes[codes] - own).detach()
        return self._motion(vectors.flatten(-2), frame_mask, train_output_map)

    @torch.no_grad()
    def _fed(self, codes: Tensor) -> tuple[Tensor, None, Tensor]:
        """Codes [B, T, Q] and what they feed back [B, T, W]."""
        style = self.codebook.codes.new_zeros(len(codes), self.decoder.style_embedding.num_embeddings)
        steps, fed = self._begin(style, codes.shape[1]), []
        for own in codes[:, :-1].unbind(1):
            steps.remember(own)
            assert steps.latent is not None
            fed.append(steps.latent)
        first = style.new_zeros(len(codes), 1, self.codebook.decoder.output.in_features)
        return codes, None, torch.cat([first, torch.stack(fed, 1)], 1) if fed else first

    def unit_noise(self, td: TensorDictBase) -> Tensor:
        """The codes that were drawn: these are the randomness of a rollout. 0 on padding."""
        latent = td.get(keys.LATENT)
        return torch.where(td.get(keys.FRAME_MASK), latent, torch.zeros_like(latent))

    # -- what a run asks -----------------------------------------------------------------------------------------------

    def exploration(self) -> dict[str, Tensor]:
        """``temperature``."""
        return {"temperature": self.log_temperature.exp()}

    @torch.no_grad()
    def batch_figures(self, td: TensorDictBase, vertices: Tensor) -> dict[str, float]:
        """Of the codes in ``td`` [B, T], over valid frames.

        ``changed_codes``: share that is not the nearest. ``code_entropy``: of one code given the past, nats.
        ``code_perplexity``: exp of the entropy of how often each was drawn, 1 to K.
        """
        mask, logits, codes = td.get(keys.FRAME_MASK).squeeze(-1), td.get(keys.LOGITS), td.get(keys.LATENT)
        entropy = MaskedCodes(logits, mask.unsqueeze(-1)).entropy().sum() / (mask.sum() * codes.shape[-1]).clamp_min(1)
        used = torch.bincount(codes[mask].flatten(), minlength=self.codebook.n_codes).double()
        return {
            "changed_codes": float((codes != logits.argmax(-1))[mask].float().mean()),
            "code_entropy": float(entropy),
            "code_perplexity": float(perplexity(used)),
        }

    def frozen_in_rl(self) -> Iterable[nn.Parameter]:
        """Stage 1."""
        return self.codebook.parameters()


class CodePolicy(MotionPolicy):
    """Draws codes; see :class:`~s2f_rl.models.policy.MotionPolicy`.

    Args:
        decoder, codebook, window: see :class:`CodeCore`.
        changed_codes: share of codes that are not the nearest, see :meth:`CodeCore.calibrate`.
        exploration, correlation, learn_noise: of actors that draw vectors; here ``"latent"``, 0 and False.
        noise_mm, noise_vertices: the same, without meaning here.

    Raises:
        UserError: an option that an actor of codes does not have.

    Example:
        >>> policy = CodePolicy(actor.decoder, actor.codebook)               # doctest: +SKIP
        >>> policy.core.calibrate(0.07, [(features, style)])                 # doctest: +SKIP
    """

    def __init__(
        self,
        decoder: CodeDecoder,
        codebook: Codebook,
        window: int | None = None,
        changed_codes: float = CHANGED_CODES,
        exploration: str = "latent",
        correlation: float = 0.0,
        learn_noise: bool = False,
        noise_mm: float | None = None,
        noise_vertices: Tensor | Sequence[int] | None = None,
    ) -> None:
        for key, value, only in (
            ("exploration", exploration, "latent"),
            ("correlation", correlation, 0.0),
            ("learn_noise", learn_noise, False),
        ):
            if value != only:
                raise UserError(
                    f"exploration.{key}={value}: an actor of kind codetalker draws codes, no noise is added; "
                    "use exploration=latent and set exploration.changed_codes"
                )
        super().__init__(CodeCore(decoder, codebook, window, changed_codes))
