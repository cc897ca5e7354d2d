"""The auxiliary supervised loss: keep the motion near the ground truth where there is one."""

from __future__ import annotations

import math

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor

from s2f_rl import keys, ranks
from s2f_rl.data.contract import Corpus, recorded
from s2f_rl.device_rows import places, take, upload
from s2f_rl.errors import UserError
from s2f_rl.losses.batch_keys import BatchLoss, UtteranceKeys
from s2f_rl.losses.projected_truth import ProjectedTruth, TruthProjector
from s2f_rl.models.contract import LinearMotion, PolicyCore, core_of
from s2f_rl.models.latent_motion import frozen_decode

_MM_PER_M = 1000.0


def lip_vertex_weight(corpus: Corpus, lip_weight: float) -> Tensor | None:
    """Weights [V*3] of mean 1 in which a lip coordinate counts 1 + ``lip_weight`` times another; None for 0."""
    if not lip_weight:
        return None
    weight = torch.ones(corpus.n_vertices)
    weight[corpus.regions["lips"]] += lip_weight
    return (weight / weight.mean()).repeat_interleave(3)


def motion_errors(
    displacement: Tensor, truth: Tensor, frame_mask: Tensor, vertex_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Position and velocity error of displacements, in square millimetres.

    Args:
        displacement, truth: [B, T, V*3], metres.
        frame_mask: [B, T, 1] bool, True where both are valid.
        vertex_weight: [V*3] weights of mean 1; None: all 1.

    Returns:
        position: mean over valid frames and coordinates of (p - q)^2 (FaceFormer's loss, in mm^2 instead of m^2);
        velocity: the same of frame-to-frame differences, over pairs of valid frames. Scalars, 0 without valid frames.
    """
    error = torch.where(frame_mask, displacement - truth, torch.zeros_like(truth)) * _MM_PER_M
    pair_mask = frame_mask[:, 1:] & frame_mask[:, :-1]
    change = torch.where(pair_mask, error[:, 1:] - error[:, :-1], torch.zeros_like(error[:, 1:]))

    def mean(x: Tensor, mask: Tensor) -> Tensor:
        squared = x.square() if vertex_weight is None else x.square() * vertex_weight
        return squared.sum() / (ranks.mean_count(mask.sum()) * x.shape[-1]).clamp_min(1)

    return mean(error, frame_mask), mean(change, pair_mask)


def projected_errors(
    latents: Tensor, triangle: Tensor, truth: ProjectedTruth, frame_mask: Tensor, n_coordinates: int
) -> tuple[Tensor, Tensor]:
    """:func:`motion_errors` of W z + b by the latents z alone; see :mod:`~s2f_rl.losses.projected_truth`.

    Args:
        latents: [B, T, H]. triangle: R, [K, H].
        truth: its entries as rows of a batch, [B, T, K] and [B, T]. frame_mask: [B, T, 1].
        n_coordinates: V*3.
    """
    error = latents @ triangle.t() - truth.target
    error = torch.where(frame_mask, error, torch.zeros_like(error))
    pair_mask = frame_mask[:, 1:] & frame_mask[:, :-1]
    change = torch.where(pair_mask, error[:, 1:] - error[:, :-1], torch.zeros_like(error[:, 1:]))

    def mean(x: Tensor, beyond: Tensor, mask: Tensor) -> Tensor:
        total = x.square().sum() + torch.where(mask.squeeze(-1), beyond, torch.zeros_like(beyond)).sum()
        return total / (ranks.mean_count(mask.sum()) * n_coordinates).clamp_min(1)

    return mean(error, truth.beyond, frame_mask), mean(change, truth.change_beyond[:, 1:], pair_mask)


class SupervisedLoss(BatchLoss):
    """Squared error of the policy's mean motion against the ground truth of the utterances in a batch.

    Args:
        actor_module: ``policy.actor_module``.
        corpus: a :class:`~s2f_rl.data.FaceCorpus`; ground truth is looked up by the batch's ``utterance`` ids and
            never stored per step. Skipped are utterances without vertices, and lanes in a style that is not the
            utterance's own: its recording says nothing about how another speaker would have said it.
        mode: ``"on_policy"``: the mean of each frame given the *sampled* history (so errors of the rollout are seen);
            ``"teacher_forced"``: given the true history, as the reference trains.
        position_weight, velocity_weight: of ``loss_position`` and ``loss_velocity`` (:func:`motion_errors`, mm^2).
        lip_weight: extra weight of the lip vertices: a lip coordinate counts 1 + lip_weight times another; normalised.
        feature_weight: of ``loss_features``, where the policy has that error (:meth:`PolicyCore.regressed`): of codes
            the mean over frames of the features' squared distance to the true motion's code vectors.

    Returns (``forward``): ``loss_position``, ``loss_velocity`` (already weighted; their sum is the loss), where there
    are any ``loss_features``, and ``supervised_frames``, the number of frames that had a ground truth.

    Trains W and b of the output map, which the policy gradient never touches. Where these are frozen
    (``requires_grad`` off), the same numbers and gradients come from the latents alone, without any tensor of V*3: a
    recording is then read once and kept as its projection.
    """

    _AcceptedKeys = UtteranceKeys
    default_keys = UtteranceKeys

    def __init__(
        self,
        actor_module: ProbabilisticTensorDictSequential,
        corpus: Corpus,
        mode: str = "on_policy",
        position_weight: float = 1.0,
        velocity_weight: float = 1.0,
        lip_weight: float = 0.0,
        feature_weight: float = 1.0,
    ) -> None:
        if mode not in ("on_policy", "teacher_forced"):
            raise UserError(f"supervised.mode={mode!r} is unknown: use on_policy or teacher_forced")
        if mode not in core_of(actor_module).supervised_modes:
            known = ", ".join(core_of(actor_module).supervised_modes)
            raise UserError(f"supervised.mode={mode}: this policy has {f'only {known}' if known else 'no such term'}")
        super().__init__(actor_module)
        self.corpus = corpus
        self.mode = mode
        self.position_weight, self.velocity_weight = position_weight, velocity_weight
        self.feature_weight = feature_weight if core_of(actor_module).regresses else 0.0
        self._targets: dict[int, Tensor] = {}  # by utterance
        self.out_keys = ["loss_position", "loss_velocity"] + (["loss_features"] if self.feature_weight else [])
        self.register_buffer("vertex_weight", lip_vertex_weight(corpus, lip_weight))
        self._projector = TruthProjector(self.vertex_weight, _MM_PER_M)
        self._styles: dict[int, Tensor] = {}  # by utterance that of its recording; nan, which equals none, without one

    def recorded(self, tensordict: TensorDictBase) -> list[int | None]:
        """By lane of a batch [B, T], the utterance whose recording the lane is compared with; None: with nothing."""
        tensordict = self.named_as_ours(tensordict)
        # ids and styles together: on a device each would be waited for
        both = torch.cat([tensordict.get(key)[:, 0].double() for key in (keys.UTTERANCE, keys.STYLE)], 1).cpu()
        ids, styles = both[:, 0].long().tolist(), both[:, 1:]
        for i in {*ids} - {*self._styles}:
            own = self.corpus[i].style if self.corpus.has_vertices(i) else None
            self._styles[i] = torch.full_like(styles[0], math.nan) if own is None else own.cpu().double()
        same = (torch.stack([self._styles[i] for i in ids]) == styles).all(1).tolist()
        return [i if equal else None for i, equal in zip(ids, same, strict=True)]

    def recording(self, utterance: int) -> Tensor:
        """Displacements [T, V*3] of a recorded utterance, metres, as read from the corpus."""
        spoken = self.corpus[utterance]
        return recorded(spoken) - spoken.template

    def truth(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Ground-truth displacements [B, T, V*3] (metres) of a batch and their mask [B, T, 1], False where unknown."""
        ours = self.named_as_ours(tensordict)
        mask = ours.get(keys.FRAME_MASK)
        truth = ours.get(keys.AUDIO).new_zeros(*mask.shape[:2], 3 * self.corpus.n_vertices)
        lanes, known = self.recorded(tensordict), torch.zeros_like(mask)
        recordings = {i: self.recording(i) for i in dict.fromkeys(lanes) if i is not None}  # lanes of a group share one
        for lane, i in enumerate(lanes):
            if i is not None:
                truth[lane, : len(recordings[i])] = recordings[i][: mask.shape[1]]
                known[lane, : len(recordings[i])] = True
        return truth, known & mask

    def _projected(self, tensordict: TensorDictBase, linear: LinearMotion) -> tuple[ProjectedTruth, Tensor]:
        """:meth:`truth` as the latents see it."""
        mask = tensordict.get(keys.FRAME_MASK)
        lanes = self.recorded(tensordict)
        which = {i: k for k, i in enumerate(dict.fromkeys(i for i in lanes if i is not None))}
        each = [self._projector.project(i, lambda i=i: self.recording(i), linear) for i in which]  # type: ignore[misc]
        place = places(
            [len(one.target) for one in each], [None if i is None else which[i] for i in lanes], mask.shape[1]
        )
        place = upload(place, mask.device)
        triangle = self._projector.triangle(linear)
        likes = (triangle[:, 0], triangle[0, 0], triangle[0, 0])
        rows = (take([one[k] for one in each], place, like) for k, like in enumerate(likes))
        return ProjectedTruth(*rows), (place > 0).unsqueeze(-1) & mask

    def _regressed(self, tensordict: TensorDictBase, core: PolicyCore) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """The motion, the truth and its mask, and the mean error of the features over frames that have a truth."""
        truth, known = self.truth(tensordict)
        targets = torch.zeros_like(tensordict.get(keys.LATENT))
        for lane, i in enumerate(self.recorded(tensordict)):
            if i is None:
                continue
            if i not in self._targets:
                self._targets[i] = core.targets(self.recording(i).to(truth))
            own = self._targets[i][: targets.shape[1]]
            targets[lane, : len(own)] = own
        given = truth if self.mode == "teacher_forced" else None
        motion, error = core.regressed(tensordict, targets, given)
        mask = known.squeeze(-1)
        mean = torch.where(mask, error, torch.zeros_like(error)).sum() / ranks.mean_count(mask.sum()).clamp_min(1)
        return motion, (truth, known), mean

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict = self.named_as_ours(tensordict)
        features = None
        with self.actor_network_params.to_module(self.actor_network):
            core = core_of(self.actor_network)
            linear = frozen_decode(core)
            truth: tuple[Tensor, Tensor] | None
            if self.feature_weight:
                motion, truth, features = self._regressed(tensordict, core)
            elif self.mode == "on_policy":
                motion, truth = core.mean_motion(tensordict, decoded=linear is None), None
            else:
                truth = self.truth(tensordict)
                motion = core.teacher_forced(tensordict, truth[0], decoded=linear is None)
            if linear is None:
                truth = self.truth(tensordict) if truth is None else truth
                known = truth[1]
                position, velocity = motion_errors(motion, *truth, self.vertex_weight)
            else:
                projected, known = self._projected(tensordict, linear)
                triangle = self._projector.triangle(linear)
                position, velocity = projected_errors(motion, triangle, projected, known, len(linear.bias))
        out = {
            "loss_position": self.position_weight * position,
            "loss_velocity": self.velocity_weight * velocity,
            "supervised_frames": ranks.total(known.sum()),
        }
        return TensorDict(out if features is None else out | {"loss_features": self.feature_weight * features})
