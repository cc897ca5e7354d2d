"""The auxiliary supervised loss: keep the motion near the ground truth where there is one."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor

from s2f_rl import keys
from s2f_rl.data.contract import Corpus
from s2f_rl.errors import UserError
from s2f_rl.losses.batch_keys import BatchLoss, UtteranceKeys
from s2f_rl.models.contract import core_of

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
        return squared.sum() / (mask.sum() * x.shape[-1]).clamp_min(1)

    return mean(error, frame_mask), mean(change, pair_mask)


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

    Returns (``forward``): ``loss_position``, ``loss_velocity`` (already weighted; their sum is the loss) and
    ``supervised_frames``, the number of frames that had a ground truth.

    Trains W and b of the output map, which the policy gradient never touches.
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
        self.out_keys = ["loss_position", "loss_velocity"]
        self.register_buffer("vertex_weight", lip_vertex_weight(corpus, lip_weight))

    def truth(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Ground-truth displacements [B, T, V*3] (metres) of a batch and their mask [B, T, 1], False where unknown."""
        tensordict = self.named_as_ours(tensordict)
        mask = tensordict.get(keys.FRAME_MASK)
        ids = tensordict.get(keys.UTTERANCE)[:, 0, 0].tolist()
        truth = torch.zeros(*mask.shape[:2], 3 * self.corpus.n_vertices, device=mask.device)
        known = torch.zeros_like(mask)
        styles = tensordict.get(keys.STYLE)[:, 0].cpu()
        cache: dict[int, tuple[Tensor, Tensor] | None] = {}  # lanes of a group share an utterance
        for lane, i in enumerate(ids):
            if i not in cache:
                utterance = self.corpus[i]
                vertices, style = utterance.vertices, utterance.style
                cache[i] = None
                if vertices is not None and style is not None:
                    cache[i] = (vertices - utterance.template)[: mask.shape[1]], style.cpu()
            known_motion = cache[i]
            if known_motion is not None and torch.equal(styles[lane], known_motion[1]):
                displacement = known_motion[0]
                truth[lane, : len(displacement)] = displacement.to(truth.device)
                known[lane, : len(displacement)] = True
        return truth, known & mask

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        truth, mask = self.truth(tensordict)
        tensordict = self.named_as_ours(tensordict)
        with self.actor_network_params.to_module(self.actor_network):
            core, on_policy = core_of(self.actor_network), self.mode == "on_policy"
            displacement = core.mean_motion(tensordict) if on_policy else core.teacher_forced(tensordict, truth)
        position, velocity = motion_errors(displacement, truth, mask, self.vertex_weight)
        return TensorDict(
            {
                "loss_position": self.position_weight * position,
                "loss_velocity": self.velocity_weight * velocity,
                "supervised_frames": mask.sum(),
            }
        )
