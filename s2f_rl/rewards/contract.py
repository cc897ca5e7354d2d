"""What a reward is: implement this, and the transform, every recipe, validation and evaluation take it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol, TypeGuard, runtime_checkable

from torch import Tensor

from s2f_rl.data.contract import SpokenUtterance
from s2f_rl.data.mesh_identity import MeshIdentity
from s2f_rl.errors import UserError
from s2f_rl.models.latent_motion import LatentMotion

Scored = tuple[Tensor, Tensor]
"""A score [B, T] and its mask [B, T], True on the frames that it says something of."""


@runtime_checkable
class Reward(Protocol):
    """A frozen judgement of a face's motion, frame by frame, in one or several named scores; larger is better.

    A class that derives from this needs ``score_names`` and :meth:`score_motion`, and whatever else differs from what
    is here. One that is a ``torch.nn.Module`` is moved with the transform that holds it. :class:`ReadsLatents` and
    :class:`ReadsStyle` are what it may have besides.

    A kind is built from the keys of a config by ``from_options(corpus, device, **options)`` if it has that, else by
    calling it with the same arguments (:func:`~s2f_rl.rewards.registry.build_part`).

    Attributes:
        score_names: of the scores, in small letters, ending in ``_score``: they become columns of every table.
            ``lip_score``, say. Where two parts have the same, both columns get the part's name before it.
        mesh_identity: the mesh that it can score; None: any.
        fps: the frame rate that it can score; None: any.
        differentiable: whether its scores pass gradients to the vertices.
        look_back: a score at frame t depends on the frames t - look_back .. t of the motion (and on anything of the
            utterance). Frames 0 .. look_back - 1 have no score. None: also on frames to come, so that it can only
            score whole utterances: no in-environment mode.
    """

    score_names: tuple[str, ...]
    mesh_identity: MeshIdentity | None = None
    fps: float | None = None
    differentiable: bool = True
    look_back: int | None = None

    def prepare(self, utterance: SpokenUtterance) -> Any:
        """What no action changes (features of the sound, phones, the face at rest).

        The caller keeps it, on the device where it is; tensors in tuples, lists and mappings count in the bound on
        memory.
        """
        return None

    def score_motion(
        self,
        vertices: Tensor,
        prepared: Sequence[Any],
        frame_mask: Tensor,
        stride: int = 1,
        first_frame: Tensor | None = None,
    ) -> dict[str, Scored]:
        """Score a batch of motions.

        Args:
            vertices: [B, T, V*3], metres, finite; after a lane's last frame, the face at rest.
            prepared: what :meth:`prepare` gave, lane by lane.
            frame_mask: bool [B, T], True on the frames of the lane: the first n of them.
            stride: only the frames t with (t - look_back) % stride == 0 are wanted; others may be left out.
            first_frame: int [B], which frame of its utterance the first of each lane is; None: 0, whole utterances.

        Returns:
            for each of ``score_names`` the scores, float [B, T], and their mask, bool [B, T]. The caller takes off
            the mask what is padding, not wanted or before frame ``look_back``, and scores outside the mask are never
            read.
        """
        ...

    def content_hash(self) -> str:
        """sha256 as hex of all that the scores depend on: a resumed run must find the same.

        This one is of the class's name and of those of its attributes that are numbers, texts, or tuples of them.
        """
        plain = {key: value for key, value in sorted(vars(self).items()) if _is_plain(value)}
        if other := sorted(vars(self).keys() - plain.keys()):
            raise UserError(f"reward {type(self).__name__}: give it a content_hash of its own, {other[0]} is no number")
        return hashlib.sha256(f"{type(self).__qualname__}{plain}".encode()).hexdigest()


@runtime_checkable
class ReadsLatents(Protocol):
    """A reward that need not see the vertices: what it looks at first is linear in them, or few of them.

    Where motions are given by their latents, any other reward gets their vertices.
    """

    def score_latents(
        self,
        motion: LatentMotion,
        prepared: Sequence[object],
        frame_mask: Tensor,
        stride: int = 1,
        first_frame: Tensor | None = None,
    ) -> dict[str, Scored]:
        """:meth:`Reward.score_motion` of ``motion.vertices()``, differentiable in the latents."""
        ...


@runtime_checkable
class ReadsStyle(Protocol):
    """A reward that depends on the way of speaking that is asked for: :meth:`Reward.score_motion`, and where it has it
    :meth:`ReadsLatents.score_latents`, take one more keyword, ``style``.

    It is a float tensor [B, S], one row for each lane: what the actor was given, in the columns of ``corpus.subjects``;
    of recorded motion, the speaker's own. A row of zeros is a style that is not known: a speaker who is none of the
    training subjects, or a mean over styles.

    Attributes:
        reads_style: True. False: it depends on none, and its methods take no such keyword.
    """

    reads_style: bool

    def score_motion(
        self,
        vertices: Tensor,
        prepared: Sequence[object],
        frame_mask: Tensor,
        stride: int = 1,
        first_frame: Tensor | None = None,
        style: Tensor | None = None,
    ) -> dict[str, Scored]:
        """See :meth:`Reward.score_motion`; ``style`` as above."""
        ...


def asks_for_style(reward: Reward) -> TypeGuard[ReadsStyle]:
    """Whether a reward is to be told the lanes' styles."""
    return isinstance(reward, ReadsStyle) and reward.reads_style


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, (bool, int, float, str, MeshIdentity))
