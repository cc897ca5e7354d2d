"""Frozen rewards as a TorchRL transform: in the environment step by step, or once per batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Composite, TensorSpec, Unbounded
from torchrl.envs import Transform

from s2f_rl import keys
from s2f_rl.data.contract import Corpus
from s2f_rl.device_rows import upload
from s2f_rl.errors import UserError
from s2f_rl.models.contract import PolicyCore
from s2f_rl.models.latent_motion import LatentMotion
from s2f_rl.rewards.contract import Scored
from s2f_rl.rewards.model.perceptual import FEATURES, SCORE_NAMES
from s2f_rl.rewards.model.reward_model import RewardModel
from s2f_rl.rewards.parts import RewardParts, Rewards


class FrozenRewardTransform(Transform):
    """Writes every score of a reward, ``score_mask`` and ``reward``, each [.., 1], under ``"next"``.

    A :class:`~s2f_rl.rewards.RewardModel` has ``lip_score`` and ``real_score``. Its score of frame t belongs to the
    clip of frames t-4..t and to mel clip t-4. Any other reward, or several, may be given as well
    (:class:`~s2f_rl.rewards.Reward`); their scores have masks of their own, written as ``NAME_mask``, and

        reward_t = scale * sum_k weights[k] * min(score_k[t], cap_k)     over the scores k that frame t has, else 0.

    ``score_mask`` is True on frames that have a score. Frames without (for the reward model 0..3, and the tail when
    there are fewer than T-4 mel clips), frames that the stride leaves out, idle frames and frames whose displacement is
    not finite have all scores 0, ``score_mask`` False and reward 0.

    It works in two ways with equal results:

    * deferred, the default, because far cheaper: ``transform(batch)`` on whole utterances [.., T], for instance as a
      collector's postproc (:func:`s2f_rl.collectors.utterance_collector`);
    * inside an environment: ``TransformedEnv(env, transform)``, with the last frames of every lane in a buffer, as many
      as the scores look back (5 for a reward model); refused where one depends on frames to come.

    Both read ``action``, ``utterance``, ``frame_mask``, ``frame_index`` and, for a reward that depends on it, ``style``
    of the current frame. Neither passes
    gradients; :meth:`score_displacements` does, for objectives that back-propagate through the reward.

    Args:
        reward_model: a :class:`s2f_rl.rewards.RewardModel`, a :class:`~s2f_rl.rewards.Reward`, or several of them, by
            name or in a row. Frozen; moves with ``to``.
        corpus: templates and what rewards prepare, by utterance; ground truth as well if ``cap="truth"``.
        weights: what each score counts, None: 1 each. Scores that are not named are written, but count nothing.
        scale: factor of the weighted sum.
        stride: score every ``stride``-th frame only, from the first that has a score (clips 0, stride, 2 stride, ..).
            A reward with a ``look_back`` of 0 scores every frame: the stride saves the cost of clips, and it has none.
        cap: ``"truth"`` counts a score at most as much as the mean score of the utterance's own ground truth (above
            it a policy is fooling the reward, not improving); utterances without vertices have no cap. None: no cap.
        cache_folder: where audio features are kept on disk; None keeps them in memory only.
        max_frames: how many frames (lanes x T) are scored at once in deferred mode; bounds the memory. None: 1024 on
            the CPU, 16384 elsewhere.
        write_features: also write ``mesh_feature`` and ``audio_feature`` [.., E] of every scored clip, 0 elsewhere,
            for a critic that reads them (:class:`s2f_rl.models.BackboneCritic`).

    Attributes:
        parts: the rewards on the corpus, :class:`~s2f_rl.rewards.parts.RewardParts`.
        scores: names of the scores, in order.

    Raises:
        UserError: a weight names a score that no part has, another mesh or rate, bad options.
    """

    def __init__(
        self,
        reward_model: Rewards,
        corpus: Corpus,
        weights: Mapping[str, float] | None = None,
        scale: float = 1.0,
        stride: int = 1,
        cap: str | None = None,
        cache_folder: str | Path | None = None,
        max_frames: int | None = None,
        write_features: bool = False,
    ) -> None:
        super().__init__(in_keys=[keys.ACTION], out_keys=[keys.REWARD])
        alone = isinstance(reward_model, RewardModel)
        self.parts = RewardParts(
            reward_model, corpus, cache_folder, "the reward model" if alone else "reward part {!r}"
        )
        self.scores = tuple(self.parts.columns)
        self.own_masks = not alone  # a reward model's scores all have score_mask
        weights = dict.fromkeys(SCORE_NAMES if alone else self.scores, 1.0) if weights is None else dict(weights)
        for name, weight in weights.items():
            if name not in self.scores:
                without_head = alone and name == keys.REAL_SCORE
                raise UserError(
                    f"reward.weights.{name}: "
                    + ("this reward model has no head; give it one or weigh lip_score only" if without_head else
                       f"unknown score, use {' or '.join(self.scores)}")
                )  # fmt: skip
            if not math.isfinite(weight):
                raise UserError(f"reward.weights.{name}={weight}: must be a finite number")
        if stride < 1:
            raise UserError(f"reward.stride={stride}: at least 1")
        if cap not in (None, "truth"):
            raise UserError(f'reward.cap={cap!r}: use "truth" or null')
        if write_features and self.parts.perceptual is None:
            raise UserError(
                "no part of the reward has features of clips, which critic=backbone reads; use critic=decoder"
            )
        self.corpus = corpus
        self.__dict__["_core"] = None
        self.weights = {name: float(weight) for name, weight in weights.items()}
        self.scale, self.stride, self.cap, self.max_frames = float(scale), int(stride), cap, max_frames
        self.write_features = bool(write_features)
        self._caps: dict[int, Tensor] = {}
        self._stale = True  # in-step state belongs to other utterances
        for name in ("window", "run", "lane_utterance", "lane_templates", "lane_caps"):
            self.register_buffer(f"_{name}", None, persistent=False)

    _core: PolicyCore | None
    _window: Tensor | None
    _run: Tensor
    _lane_utterance: Tensor | None
    _lane_templates: Tensor
    _lane_caps: Tensor

    # -- scores ------------------------------------------------------------------------------------------------

    def score_displacements(
        self, displacement: Tensor | LatentMotion, utterance: Tensor, n_frames: Tensor, style: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Scores and reward of whole utterances, differentiable in ``displacement``.

        Args:
            displacement: [B, T, V*3] metres, or the latents that it is a linear map of, then never decoded for a reward
                that does not need it; frames from ``n_frames`` on may hold anything.
            utterance: [B] indices into the corpus.
            n_frames: [B] valid frames.
            style: [B, S] that the lanes were asked for in; None: each speaker's own, where there is one.

        Returns:
            the scores (``lip_score``, ...) and ``reward``: [B, T] float; ``score_mask``: [B, T] bool; beside scores
            with masks of their own these, ``NAME_mask``; the features [B, T, E] if they are written.

        Raises:
            UserError: a gradient is wanted, and a part has none.
        """
        if displacement.requires_grad:
            self.parts.refuse_without("gradient")
        n_lanes, n_time = displacement.shape[:2]
        at_once = self.max_frames or (1024 if displacement.device.type == "cpu" else 16384)
        lanes = max(1, at_once // max(n_time, 1))
        utterances = utterance.tolist()
        parts = [
            self._score_chunk(
                displacement[i : i + lanes],
                utterances[i : i + lanes],
                n_frames[i : i + lanes],
                None if style is None else style[i : i + lanes],
            )
            for i in range(0, n_lanes, lanes)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _score_chunk(
        self, displacement: Tensor | LatentMotion, utterances: list[int], n_frames: Tensor, style: Tensor | None
    ) -> dict[str, Tensor]:
        device, n_time = displacement.device, displacement.shape[1]
        valid = torch.arange(n_time, device=device) < n_frames.to(device).unsqueeze(-1)
        motion: Tensor | LatentMotion
        # Padding, and frames that are not finite, are the face at rest to every reward.
        if isinstance(displacement, LatentMotion):
            bad = valid & ~_finite(displacement.latents.detach())
            motion = replace(displacement, templates=self._templates(utterances)).resting(~valid | bad)
        else:
            templates = torch.stack(self._templates(utterances)).to(device)
            motion = templates.unsqueeze(1) + displacement
            bad = valid & ~_finite(motion.detach())
            kept = valid & ~bad
            if not bool(kept.all()):
                motion = torch.where(kept.unsqueeze(-1), motion, templates.unsqueeze(1))
        scored, features = self.parts.score(
            utterances, motion, valid, self.stride, bad, self.write_features, style, single_frames=True
        )
        return self._finish(scored, features, upload(self.caps(utterances), device))

    def _finish(self, scored: Mapping[str, Scored], features: dict[str, Tensor], caps: Tensor) -> dict[str, Tensor]:
        """Reward and masks beside masked scores [B, T]; caps [B, K]."""
        first, mask = next(iter(scored.values()))
        out = dict(features)
        reward = torch.zeros_like(first)
        for k, (name, (score, own)) in enumerate(scored.items()):
            out[name], mask = score, mask | own
            if self.own_masks:
                out[keys.own_mask(name)] = own
            weight = self.weights.get(name, 0.0)
            if weight:
                term = weight * torch.minimum(score, caps[:, k].unsqueeze(-1))
                reward = reward + torch.where(own, term, torch.zeros_like(term))
        out[keys.SCORE_MASK] = mask
        out[keys.REWARD] = torch.where(mask, self.scale * reward, torch.zeros_like(reward))
        return out

    @property
    def reward_model(self) -> RewardModel | None:
        """The model of the perceptual part; None without one."""
        model = None if self.parts.perceptual is None else self.parts.perceptual.model
        return model if isinstance(model, RewardModel) else None

    def _templates(self, utterances: list[int]) -> list[Tensor]:
        known = {u: self.corpus[u].template for u in set(utterances)}
        return [known[u] for u in utterances]

    def caps(self, utterances: Tensor | Sequence[int]) -> Tensor:
        """Mean scores of the ground truth of utterances [B], each over its own mask: [B, K]; infinity: no cap."""
        return torch.stack([self._cap(int(u)) for u in utterances])

    def _cap(self, utterance: int) -> Tensor:
        if utterance not in self._caps:
            cap = torch.full((len(self.scores),), math.inf)
            truth = None if self.cap is None else self.corpus[utterance].vertices
            if truth is not None and len(truth):
                with torch.no_grad():
                    there = torch.ones(1, len(truth), dtype=torch.bool)
                    scored, _ = self.parts.score([utterance], truth.unsqueeze(0), there)
                for k, (score, mask) in enumerate(scored.values()):
                    if bool(mask.any()):
                        cap[k] = score[mask].mean()
            self._caps[utterance] = cap
        return self._caps[utterance]

    def read_latents(self, core: PolicyCore) -> None:
        """Let batches in deferred mode go without ``action``: their ``latent``, decoded by ``policy.core``, says it."""
        self.__dict__["_core"] = core  # no part of this module

    # -- deferred ----------------------------------------------------------------------------------------------

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write scores and reward into whole utterances [.., T], in place."""
        shape = tensordict.batch_size
        if len(shape) < 2:
            raise ValueError(f"the deferred reward needs a batch of whole utterances [.., T], not {tuple(shape)}")
        index = tensordict.get(keys.FRAME_INDEX, None)
        if index is not None and bool((index[..., 0, :] != 0).any()):
            raise ValueError("the deferred reward needs rows that begin at frame 0: collect whole utterances")
        displacement = self._displacement(tensordict)
        utterance = tensordict.get(keys.UTTERANCE)[..., 0, 0].flatten()
        n_frames = tensordict.get(keys.FRAME_MASK).flatten(0, -3).sum((1, 2))
        style = tensordict.get(keys.STYLE, None)
        with torch.no_grad():
            out = self.score_displacements(
                displacement, utterance, n_frames, None if style is None else style[..., 0, :].flatten(0, -2)
            )
        for name, value in out.items():
            tensordict.set(("next", name), value.view(*shape, -1))
        return tensordict

    def _displacement(self, tensordict: TensorDictBase) -> Tensor | LatentMotion:
        """Of the rows [B, T] of a batch: its ``action`` or, where it has none, what its ``latent`` stands for."""
        action = tensordict.get(keys.ACTION, None)
        if action is not None:
            return action.flatten(0, -3)
        linear = None if self._core is None else self._core.linear_decode
        if linear is None:
            raise KeyError("the batch has no 'action', and the transform was not told of what policy its latents are")
        return LatentMotion(tensordict.get(keys.LATENT).flatten(0, -3), linear)

    # -- in the environment ------------------------------------------------------------------------------------

    def transform_reward_spec(self, reward_spec: TensorSpec) -> TensorSpec:
        # Scores are kept like rewards, so that they are found under "next" only, and compact_obs leaves them alone.
        self.parts.refuse_without("step")
        if not isinstance(reward_spec, Composite):
            raise TypeError("expected a composite reward spec")
        shape, device = reward_spec[keys.REWARD].shape, reward_spec.device
        for name in self.scores:
            reward_spec[name] = Unbounded(shape, dtype=torch.float32, device=device)
        for name in (keys.SCORE_MASK, *(map(keys.own_mask, self.scores) if self.own_masks else ())):
            reward_spec[name] = Binary(1, shape, dtype=torch.bool, device=device)
        for name in FEATURES if self.write_features else ():
            reward_spec[name] = Unbounded((*shape[:-1], self._width()), dtype=torch.float32, device=device)
        return reward_spec

    def _width(self) -> int:
        assert self.parts.perceptual is not None  # write_features asked for it
        return self.parts.perceptual.feature_width

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        self._stale = True
        return tensordict_reset

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        action = tensordict.get(keys.ACTION)
        lead, style = action.shape[:-1], tensordict.get(keys.STYLE, None)
        with torch.no_grad():
            out = self._score_step(
                action.flatten(0, -2) if len(lead) else action.unsqueeze(0),
                tensordict.get(keys.UTTERANCE).flatten(),
                tensordict.get(keys.FRAME_INDEX).flatten(),
                tensordict.get(keys.FRAME_MASK).flatten(),
                None if style is None else style.view(-1, style.shape[-1]),
            )
        for name, value in out.items():
            next_tensordict.set(name, value.view(*lead, -1))
        return next_tensordict

    def _score_step(
        self, action: Tensor, utterance: Tensor, index: Tensor, valid: Tensor, style: Tensor | None
    ) -> dict[str, Tensor]:
        """Scores [B, 1] of this frame: action [B, V*3], style [B, S], the others [B]."""
        window = self._window
        if window is None or window.shape[::2] != action.shape or window.device != action.device:
            window = action.new_zeros(len(action), (self.parts.look_back or 0) + 1, action.shape[-1])
            self._run = torch.zeros(len(action), dtype=torch.int64, device=action.device)
            self._stale = True
        if self._stale:
            if self._lane_utterance is None or not torch.equal(self._lane_utterance, utterance):
                self._lanes = utterance.tolist()
                self._lane_templates = torch.stack(self._templates(self._lanes)).to(action.device)
                self._lane_caps = self.caps(self._lanes).to(action.device)
                self._lane_utterance = utterance.clone()
            self._stale = False
        window = self._window = torch.cat([window[:, 1:], action.unsqueeze(1)], dim=1)
        # Frames since the last that was idle or not finite; that all are of this utterance, their index tells.
        self._run = torch.where(valid & _finite(action), self._run + 1, torch.zeros_like(self._run))
        scored, features = self.parts.score_last(
            self._lanes, window, self._lane_templates, self._run, index, self.stride, self.write_features, style
        )
        return self._finish(scored, features, self._lane_caps)


def _finite(meshes: Tensor) -> Tensor:
    """Meshes [.., V*3] without nan or inf, [..]: by their sum, which is one pass without a copy."""
    return torch.isfinite(meshes.sum(-1))
