"""What the rest of the package needs of an actor, and of a policy made of it: implement these, and all of it works.

:class:`Actor` turns speech into motion. Its *latents* are what it draws and feeds back frame by frame: vectors
[B, T, H] for FaceFormer, code indices [B, T, Q] (int64) for an actor that chooses from a codebook. :class:`PolicyCore`
is the distribution of those latents. :class:`~s2f_rl.models.base_actor.BaseActor` and
:class:`~s2f_rl.models.base_core.BaseCore` hold what most of them share; :class:`MotionSource` is what the Gaussian core
(:class:`~s2f_rl.models.gaussian_core.MotionCore`) needs to work on a network of one's own.

Everything is in metres, at the actor's rate. B lanes, T frames, V vertices, A audio features per frame of width D,
S style columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from s2f_rl.data.mesh_identity import MeshIdentity
from s2f_rl.models.audio_encoders import AudioEncoder

if TYPE_CHECKING:
    from tensordict import NestedKey, TensorDictBase
    from tensordict.nn import ProbabilisticTensorDictSequential
    from torch.distributions import Distribution


class LinearMotion(NamedTuple):
    """displacement_t = weight z_t + bias, frame by frame: ``weight`` [V*3, H], ``bias`` [V*3], metres."""

    weight: Tensor
    bias: Tensor


class Imitation(NamedTuple):
    """What supervised training compares and adds; see :class:`ImitatesByTerms`.

    Attributes:
        displacement: [B, T, V*3], compared with the truth as :meth:`Actor.imitate`'s is; 0 behind an utterance's end.
        terms: further losses by name, weighted scalars, which are added.
    """

    displacement: Tensor
    terms: dict[str, Tensor]


@runtime_checkable
class Actor(Protocol):
    """Speech to motion, deterministic; an ``nn.Module``.

    Attributes:
        kind: its name in a checkpoint and in :data:`~s2f_rl.models.actors.ACTORS`.
        audio_encoder: its clock is the actor's.
        n_vertices: V.
        styles: names of the style columns; None where they are not known.
        mesh_identity: which mesh it animates; None where only the number of vertices is known.
    """

    kind: ClassVar[str]
    audio_encoder: AudioEncoder
    n_vertices: int
    styles: tuple[str, ...] | None
    mesh_identity: MeshIdentity | None

    @property
    def n_styles(self) -> int:
        """S."""

    @property
    def fps(self) -> float:
        """Frames per second of its motion."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    @property
    def linear_decode(self) -> LinearMotion | None:
        """The weights of :meth:`decode` where it is linear frame by frame, else None."""

    def config(self) -> dict[str, Any]:
        """Plain values from which ``from_config`` builds an equal (untrained) model."""

    def to_metres(self, metres_per_unit: float) -> Actor:
        """Turn weights that animate meshes in another unit into weights of metres, in place."""

    def output_map(self) -> Iterable[nn.Parameter]:
        """Parameters whose unit is metres: their gradient is 100 times the rest's, so they have a rate of their own."""

    def encode(self, waveform: Tensor, n_frames: int | None = None) -> Tensor:
        """Waveforms [B, N] (16 kHz, zero mean, unit variance, none padded) to features [B, T, A, D]."""

    def generate(
        self, features: Tensor, style: Tensor, lengths: list[int] | None = None, *, progress: bool = False
    ) -> Tensor:
        """Latents [B, T, ..] of features [B, T, A, D] and style [B, S], without noise and dropout.

        ``lengths``: valid frames of each row; None: all. What it gives behind them is of no account.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Displacements [B, T, V*3] of the latents of whole utterances, none padded: it may mix their frames."""

    def predict(
        self,
        waveform: Tensor,
        template: Tensor,
        style: Tensor,
        lengths: Tensor | list[int] | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Vertices [B, T, V*3]: encode, generate and decode, see :meth:`BaseActor.predict`."""

    def imitate(self, features: Tensor, style: Tensor, truth: Tensor, teacher_forced: bool) -> Tensor:
        """Displacements [B, T, V*3] that supervised training compares with the truth, with dropout and a gradient.

        Args:
            truth: [B, T, V*3] displacements, padded with zeros.
            teacher_forced: every frame sees the true ones before it, not its own.
        """

    def make_policy(self, **options: Any) -> Any:
        """The stochastic policy (:class:`~s2f_rl.models.policy.MotionPolicy`) that RL tunes this actor with.

        ``options``: the keys of the config group ``exploration``, and ``noise_vertices``, the lips' indices.
        """

    # of nn.Module
    def eval(self) -> Any: ...  # nn.Module.eval()
    def to(self, *args: Any, **kwargs: Any) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...
    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...
    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, object], strict: bool = True, assign: bool = False) -> Any: ...
    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]: ...


@runtime_checkable
class ImitatesByTerms(Protocol):
    """What an actor has besides whose supervised training needs more than the error of its motion, or utterances whole.

    The recipe then calls :meth:`imitation` in place of :meth:`Actor.imitate`.
    """

    def imitation(
        self, features: Tensor, style: Tensor, truth: Tensor, lengths: list[int], teacher_forced: bool
    ) -> Imitation:
        """As :meth:`Actor.imitate`; ``lengths``: valid frames of each row."""


class PolicyCore(Protocol):
    """The distribution of the latents; a TensorDict module, the first part of ``policy.actor_module``.

    *Step mode* (the default) takes [B] entries, one frame of every lane, and keeps its own past between calls; a lane
    starts anew where ``frame_index`` is 0. *Sequence mode* (:class:`torchrl.modules.set_recurrent_mode`) takes [B, T]
    rows of whole utterances with the ``latent`` that was drawn. Both give equal log-probabilities, without dropout.

    Attributes:
        in_keys, out_keys: what it reads, and the parameters of the distribution that it writes, with whatever else of
            a rollout sequence mode needs.
        distribution_class, distribution_keys, distribution_kwargs: the distribution is
            ``distribution_class(**{name: td[key]}, **kwargs)`` over the pairs of ``distribution_keys``. It has
            ``deterministic_sample``, and sums its log-probability over all that a frame's latent holds: [..].
        frame_wise: the displacement of a frame follows from its own latent. Where it does not, a step writes no action,
            and :meth:`MotionPolicy.complete` decodes whole utterances afterwards.
        supervised_modes: of ``"on_policy"`` (:meth:`mean_motion` has a gradient) and ``"teacher_forced"``.
        reparameterised: :meth:`unrolled` takes noise and has a gradient, so a reward can be back-propagated, and
            ``constraint=lve`` can measure the start.
        regresses: there are :meth:`targets` and :meth:`regressed`, for a further part of the supervised term.
        state: key and width of what it writes that tells a critic where the motion is, e.g. ``("loc", H)``; or None.
        rolls_out: there is :meth:`roll_out`.
    """

    in_keys: list[NestedKey]
    out_keys: list[NestedKey]
    distribution_class: type[Distribution]
    distribution_keys: Mapping[str, str]
    distribution_kwargs: Mapping[str, object]
    frame_wise: bool
    supervised_modes: tuple[str, ...]
    reparameterised: bool
    regresses: bool
    state: tuple[str, int] | None

    @property
    def rolls_out(self) -> bool: ...

    @property
    def linear_decode(self) -> LinearMotion | None:
        """See :class:`Actor`."""

    def step(self, td: TensorDictBase) -> tuple[Tensor, ...]:
        """The parameters of the next frame's distribution, in the order of ``out_keys``; without gradient."""

    def distribution(self, td: TensorDictBase) -> Distribution:
        """The distribution of the parameters that ``td`` holds."""

    def remember(self, latent: Tensor) -> None:
        """Tell step mode what was drawn [B, ..]; the next step feeds it back."""

    def together(self) -> AbstractContextManager[None]:
        """Within, all lanes begin at the first step and none later, so that steps need not ask which ones do."""

    def roll_out(self, audio: Tensor, style: Tensor, sampled: bool = True) -> tuple[Tensor, ...]:
        """All steps of whole utterances at once: what was drawn [B, T, ..], then what ``out_keys`` names.

        Args:
            audio: [B, T, A, D]. style: [B, S]. sampled: False takes what is deterministic.
        """

    def decode(self, latents: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Latents to displacements [.., V*3].

        Where it is not ``frame_wise``, of whole rows [B, T, ..] whose valid frames ``frame_mask`` [B, T, 1] marks;
        displacements behind them are 0.
        """

    def calibrate(self, changed_codes: float, speech: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set what follows from how the actor moves, when a run begins; of policies that draw codes.

        Args:
            changed_codes: share of drawn codes that differ from those that are taken without exploration.
            speech: features [T, A, D] and style [S] of a few utterances, to be asked for only where they are needed.
        """

    # The next three give displacements, and the latents [B, T, H] that ``linear_decode`` makes them of where it is
    # there and ``decoded`` is False.

    def mean_motion(self, td: TensorDictBase, collected: bool = False, *, decoded: bool = True) -> Tensor:
        """Displacement [B, T, V*3] of every frame without its noise, given the latents that ``td`` [B, T] holds.

        ``collected``: ``td`` comes from the policy as it is now, so what it wrote there may be used.
        """

    def teacher_forced(self, td: TensorDictBase, truth: Tensor, *, decoded: bool = True) -> Tensor:
        """Displacement [B, T, V*3] of every frame given the true ones [B, T, V*3] before it."""

    def targets(self, displacement: Tensor) -> Tensor:
        """What the actor should have drawn [T, ..] for a recorded motion [T, V*3], whatever RL trains."""

    def regressed(self, td: TensorDictBase, targets: Tensor, truth: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """:meth:`mean_motion`, or with ``truth`` :meth:`teacher_forced`, and beside it an error of every frame [B, T].

        Args:
            targets: :meth:`targets` of every frame [B, T, ..]; where there are none, any value that can be drawn.
        """

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
        """Displacement [B, T, V*3] of whole utterances, each frame following from those before.

        Args:
            noise: :meth:`unit_noise` of a batch; None: the deterministic motion.
            train_output_map: let the gradient into what :meth:`frozen_in_rl` lists.
            frame_mask: [B, T, 1], which frames are valid, given to a core that is not ``frame_wise``; None: all.
        """

    def unit_noise(self, td: TensorDictBase) -> Tensor:
        """What was drawn in ``td`` [B, T] apart from the actor, shaped as the latent; 0 on padding.

        Standard noise; or the codes themselves, which have no other.
        """

    def exploration(self) -> dict[str, Tensor]:
        """What sets how far it explores (a deviation, a temperature), by name; a run looks that it stays finite."""

    def batch_figures(self, td: TensorDictBase, vertices: Tensor) -> dict[str, float]:
        """Columns to log of what was drawn in ``td`` [B, T], over valid frames; ``vertices``: indices of the lips."""

    def frozen_in_rl(self) -> Iterable[nn.Parameter]:
        """What the policy gradient takes for constants (an output map, a codebook); nothing trains it in RL.

        With ``optimizer.output_lr_factor`` the supervised term trains what is also in :meth:`Actor.output_map`.
        """


class Steps(Protocol):
    """A network that goes on frame by frame, for lanes that advance together; see :meth:`MotionSource.steps`."""

    n_lanes: int

    def restart(self, lanes: Tensor, style: Tensor) -> None:
        """Let ``lanes`` [B] (bool) begin a new utterance with the next frame, all with ``style`` [B, S]."""

    def hear(self, features: Tensor) -> Tensor:
        """What of the features [.., A, D] no motion changes: may be asked for all frames at once."""

    def advance(self, heard: Tensor, previous: Tensor | None, first: Tensor | None) -> Tensor:
        """The mean h [B, H] of the next frame.

        Args:
            heard: [B, ..] of this frame. previous: what was drawn for the frame before; None: all lanes begin here.
            first: [B, 1] bool where a lane begins, which has no previous frame; None: none does.
        """


class MotionSource(Protocol):
    """The network under the Gaussian core: an ``nn.Module`` from features, style and past latents to means h [B, T, H].

    Its frames see the past alone, so that step and sequence mode agree.
    """

    latent_width: int
    embeds_displacements: bool
    """It can be fed displacements (:meth:`sequence_from_displacements`): needed for ``vertex`` exploration.

    A source may have ``capturable = True``: its steps ask nothing of a CUDA device and work on tensors of fixed shapes,
    so a rollout can be captured as a graph. One whose ``linear_decode`` is made of its parameters, and is not these
    themselves, lists them in ``output_parameters``.
    """

    @property
    def linear_decode(self) -> LinearMotion:
        """See :class:`Actor`; the Gaussian core needs it to say what its noise does to the face."""

    def decode(self, latent: Tensor) -> Tensor:
        """Latents [.., H] to displacements [.., V*3]."""

    def sequence(self, latent: Tensor, audio: Tensor, style: Tensor) -> Tensor:
        """Means [B, T, H] given the latents of the same frames [B, T, H]; frame t sees those before t."""

    def sequence_from_displacements(
        self, displacement: Tensor, audio: Tensor, style: Tensor, first_input: str
    ) -> Tensor:
        """The same given displacements [B, T, V*3]; frame 0 sees ``"style"`` alone, or the ``"template"`` too."""

    def steps(
        self, style: Tensor, capacity: int = 64, displacements: bool = False, train_output_map: bool = False
    ) -> Steps:
        """Step mode from the first frame on.

        Args:
            style: [B, S]. capacity: frames for which to make room.
            displacements: what is fed back are displacements, not latents.
            train_output_map: let the gradient through the fed-back frame into W and b.
        """


def core_of(actor_module: ProbabilisticTensorDictSequential) -> PolicyCore:
    """The core of ``policy.actor_module``."""
    return actor_module[0]


def own_parameters(linear: LinearMotion | None) -> list[nn.Parameter]:
    """The parameters among the weights of a linear decode, if there are any."""
    return [p for p in linear or () if isinstance(p, nn.Parameter)]


def output_parameters(source: MotionSource) -> list[nn.Parameter]:
    """The parameters that a network's ``linear_decode`` is, or is made of."""
    made_of: list[nn.Parameter] = getattr(source, "output_parameters", [])
    return own_parameters(source.linear_decode) or made_of
