"""The frozen perceptual reward as a TorchRL transform: in the environment step by step, or once per batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Composite, TensorSpec, Unbounded
from torchrl.envs import Transform

from s2f_rl import keys
from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.errors import UserError
from s2f_rl.rewards.model.audio_cache import AudioFeatureCache
from s2f_rl.rewards.model.meeting import refuse_other_corpus

SCORES = (keys.LIP_SCORE, keys.REAL_SCORE)
FEATURES = (keys.MESH_FEATURE, keys.AUDIO_FEATURE)


class FrozenRewardTransform(Transform):
    """Writes ``lip_score``, ``real_score``, ``score_mask`` and ``reward``, each [.., 1], under ``"next"``.

    The score of frame t belongs to the clip of frames t-4..t and to mel clip t-4. Frames without a clip (0..3, and the
    tail when there are fewer than T-4 mel clips), frames that the stride leaves out, idle frames and frames whose
    displacement is not finite have all scores 0, ``score_mask`` False and

        reward_t = scale * sum_k weights[k] * min(score_k[t], cap_k)     where score_mask, else 0.

    It works in two ways with equal results:

    * deferred, the default, because far cheaper: ``transform(batch)`` on whole utterances [.., T], for instance as a
      collector's postproc (:func:`s2f_rl.collectors.utterance_collector`);
    * inside an environment: ``TransformedEnv(env, transform)``, with the last 5 frames of every lane in a buffer.

    Both read ``action``, ``utterance``, ``frame_mask`` and ``frame_index`` of the current frame. Neither passes
    gradients; :meth:`score_displacements` does, for objectives that back-propagate through the reward.

    Args:
        reward_model: a :class:`s2f_rl.rewards.RewardModel`. Frozen; moves with ``to``.
        corpus: templates and mel clips by utterance; ground truth as well if ``cap="truth"``.
        weights: what each score counts. Scores that are not named are written, but count nothing.
        scale: factor of the weighted sum.
        stride: score every ``stride``-th clip only (clips 0, stride, 2 stride, ..).
        cap: ``"truth"`` counts a score at most as much as the mean score of the utterance's own ground truth (above
            it a policy is fooling the judge, not improving); utterances without vertices have no cap. None: no cap.
        cache_folder: where audio features are kept on disk; None keeps them in memory only.
        max_frames: how many frames (lanes x T) are scored at once in deferred mode; bounds the memory.
        write_features: also write ``mesh_feature`` and ``audio_feature`` [.., E] of every scored clip, 0 elsewhere,
            for a critic that reads them (:class:`s2f_rl.models.BackboneCritic`).

    Raises:
        UserError: a weight names a score that the model does not have, another number of vertices, bad options.
    """

    def __init__(
        self,
        reward_model: Any,
        corpus: Any,
        weights: Mapping[str, float] | None = None,
        scale: float = 1.0,
        stride: int = 1,
        cap: str | None = None,
        cache_folder: Any = None,
        max_frames: int = 1024,
        write_features: bool = False,
    ) -> None:
        super().__init__(in_keys=[keys.ACTION], out_keys=[keys.REWARD])
        weights = {name: 1.0 for name in SCORES} if weights is None else dict(weights)
        self.scores = SCORES if reward_model.head is not None else SCORES[:1]
        for name, weight in weights.items():
            if name not in SCORES:
                raise UserError(f"reward.weights.{name}: unknown score, use {' or '.join(SCORES)}")
            if name not in self.scores:
                raise UserError(
                    f"reward.weights.{name}: this reward model has no head; give it one or weigh lip_score only"
                )
            if not math.isfinite(weight):
                raise UserError(f"reward.weights.{name}={weight}: must be a finite number")
        if stride < 1:
            raise UserError(f"reward.stride={stride}: at least 1")
        if cap not in (None, "truth"):
            raise UserError(f'reward.cap={cap!r}: use "truth" or null')
        refuse_other_corpus(reward_model, corpus)
        self.reward_model = reward_model
        self.corpus = corpus
        self.weights = {name: float(weight) for name, weight in weights.items()}
        self.scale, self.stride, self.cap, self.max_frames = float(scale), int(stride), cap, int(max_frames)
        self.write_features = bool(write_features)
        self.audio_features = AudioFeatureCache(reward_model, corpus, folder=cache_folder)
        self._caps: dict[int, Tensor] = {}
        self._stale = True  # in-step state belongs to other utterances
        for name in ("window", "run", "lane_utterance", "lane_features", "lane_clips", "lane_templates", "lane_caps"):
            self.register_buffer(f"_{name}", None, persistent=False)

    _window: Tensor | None
    _run: Tensor
    _lane_utterance: Tensor | None
    _lane_features: Tensor
    _lane_clips: Tensor
    _lane_templates: Tensor
    _lane_caps: Tensor

    # -- scores ------------------------------------------------------------------------------------------------

    def score_displacements(self, displacement: Tensor, utterance: Tensor, n_frames: Tensor) -> dict[str, Tensor]:
        """Scores and reward of whole utterances, differentiable in ``displacement``.

        Args:
            displacement: [B, T, V*3] metres; frames from ``n_frames`` on may hold anything.
            utterance: [B] indices into the corpus.
            n_frames: [B] valid frames.

        Returns:
            ``lip_score``, ``real_score`` (with a head), ``reward``: [B, T] float; ``score_mask``: [B, T] bool; the
            features [B, T, E] if they are written.
        """
        n_lanes, n_time = displacement.shape[:2]
        lanes = max(1, self.max_frames // max(n_time, 1))
        parts = [
            self._score_chunk(displacement[i : i + lanes], utterance[i : i + lanes].tolist(), n_frames[i : i + lanes])
            for i in range(0, n_lanes, lanes)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _score_chunk(self, displacement: Tensor, utterances: list[int], n_frames: Tensor) -> dict[str, Tensor]:
        n_time = displacement.shape[1]
        features, n_clips, templates, caps = self._gather(utterances, displacement.device)
        n_clips = torch.minimum(n_clips, (n_frames.to(n_clips.device) - CLIP_FRAMES + 1).clamp(min=0))
        vertices = templates.unsqueeze(1) + displacement
        valid = torch.arange(n_time, device=vertices.device) < n_frames.to(vertices.device).unsqueeze(-1)
        bad = valid & ~_finite(vertices.detach())
        spoilt = None
        if bool(bad.any()):  # a frame that is not finite spoils the clips that contain it, and no others
            vertices = torch.where(bad.unsqueeze(-1), templates.unsqueeze(1), vertices)
            spoilt = torch.nn.functional.pad(bad.float(), (CLIP_FRAMES - 1, 0)).unfold(1, CLIP_FRAMES, 1).any(-1)
        if self.write_features:
            vertices = torch.where(valid.unsqueeze(-1), vertices, templates.unsqueeze(1))
        scored = self._score(vertices, features, n_clips, self.stride)
        mask = scored[keys.SCORE_MASK]
        return self._finish(scored, mask if spoilt is None else mask & ~spoilt, caps)

    def _score(self, vertices: Tensor, features: Tensor, n_clips: Tensor, stride: int = 1) -> dict[str, Tensor]:
        """``RewardModel.score_batch``; if features are to be written, also these, [B, T, E]."""
        if not self.write_features:
            return self.reward_model.score_batch(vertices, features, n_clips, stride=stride)
        mesh = self.reward_model.encode_mesh(vertices)
        n = min(mesh.shape[1], features.shape[1])
        mesh, audio = mesh[:, :n], features[:, :n]
        clip = torch.arange(n, device=mesh.device)
        mask = (clip < n_clips.unsqueeze(-1)) & (clip % stride == 0)
        found = {**self.reward_model.heads(mesh, audio), keys.SCORE_MASK: mask}
        found.update({keys.MESH_FEATURE: mesh, keys.AUDIO_FEATURE: audio})
        n_time = vertices.shape[1]
        scored = {}
        for name, value in found.items():  # clip i belongs to frame i+4
            scored[name] = value.new_zeros(len(value), n_time, *value.shape[2:])
            scored[name][:, CLIP_FRAMES - 1 : CLIP_FRAMES - 1 + n] = value
        return scored

    def _finish(self, scored: Mapping[str, Tensor], mask: Tensor, caps: Tensor) -> dict[str, Tensor]:
        """Masked scores and the reward from raw scores [B, T], their mask [B, T] and caps [B, K]."""
        out: dict[str, Tensor] = {keys.SCORE_MASK: mask}
        for name in FEATURES if self.write_features else ():
            out[name] = torch.where(mask.unsqueeze(-1), scored[name], torch.zeros_like(scored[name]))
        reward = torch.zeros_like(scored[keys.LIP_SCORE])
        for k, name in enumerate(self.scores):
            out[name] = torch.where(mask, scored[name], torch.zeros_like(scored[name]))
            weight = self.weights.get(name, 0.0)
            if weight:
                reward = reward + weight * torch.minimum(out[name], caps[:, k].unsqueeze(-1))
        out[keys.REWARD] = torch.where(mask, self.scale * reward, torch.zeros_like(reward))
        return out

    def _gather(self, utterances: list[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Audio features [B, n, E], mel clips [B], templates [B, V*3] and caps [B, K] of the utterances."""
        features = {u: self.audio_features.get(u) for u in set(utterances)}
        counts = [len(features[u]) for u in utterances]
        dtype = features[utterances[0]].dtype
        padded = torch.zeros(len(utterances), max(counts), self.reward_model.feature_width, dtype=dtype, device=device)
        for lane, u in enumerate(utterances):
            padded[lane, : counts[lane]] = features[u]
        templates = {u: self.corpus[u].template for u in features}
        caps = {u: self._cap(u) for u in features}
        return (
            padded,
            torch.tensor(counts, device=device),
            torch.stack([templates[u] for u in utterances]).to(device),
            torch.stack([caps[u] for u in utterances]).to(device),
        )

    def _cap(self, utterance: int) -> Tensor:
        """Mean scores of the utterance's ground truth, [K]; infinity where there is no cap."""
        if utterance not in self._caps:
            cap = torch.full((len(self.scores),), math.inf)
            truth = None if self.cap is None else self.corpus[utterance].vertices
            if truth is not None:
                features = self.audio_features.get(utterance)
                n_clips = torch.tensor([min(len(features), max(len(truth) - CLIP_FRAMES + 1, 0))])
                if n_clips > 0:
                    device = features.device
                    with torch.no_grad():
                        scored = self.reward_model.score_batch(
                            truth.unsqueeze(0).to(device), features.unsqueeze(0), n_clips.to(device)
                        )
                    mask = scored[keys.SCORE_MASK]
                    cap = torch.stack([scored[name][mask].mean() for name in self.scores]).cpu()
            self._caps[utterance] = cap
        return self._caps[utterance]

    # -- deferred ----------------------------------------------------------------------------------------------

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write scores and reward into whole utterances [.., T], in place."""
        shape = tensordict.batch_size
        if len(shape) < 2:
            raise ValueError(f"the deferred reward needs a batch of whole utterances [.., T], not {tuple(shape)}")
        index = tensordict.get(keys.FRAME_INDEX, None)
        if index is not None and bool((index[..., 0, :] != 0).any()):
            raise ValueError("the deferred reward needs rows that begin at frame 0: collect whole utterances")
        displacement = tensordict.get(keys.ACTION).flatten(0, -3)
        utterance = tensordict.get(keys.UTTERANCE)[..., 0, 0].flatten()
        n_frames = tensordict.get(keys.FRAME_MASK).flatten(0, -3).sum((1, 2))
        with torch.no_grad():
            out = self.score_displacements(displacement, utterance, n_frames)
        for name, value in out.items():
            tensordict.set(("next", name), value.view(*shape, -1))
        return tensordict

    # -- in the environment ------------------------------------------------------------------------------------

    def transform_reward_spec(self, reward_spec: TensorSpec) -> TensorSpec:
        # Scores are kept like rewards, so that they are found under "next" only, and compact_obs leaves them alone.
        if not isinstance(reward_spec, Composite):
            raise TypeError("expected a composite reward spec")
        shape, device = reward_spec[keys.REWARD].shape, reward_spec.device
        for name in self.scores:
            reward_spec[name] = Unbounded(shape, dtype=torch.float32, device=device)
        reward_spec[keys.SCORE_MASK] = Binary(1, shape, dtype=torch.bool, device=device)
        for name in FEATURES if self.write_features else ():
            width = (*shape[:-1], self.reward_model.feature_width)
            reward_spec[name] = Unbounded(width, dtype=torch.float32, device=device)
        return reward_spec

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        self._stale = True
        return tensordict_reset

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        action = tensordict.get(keys.ACTION)
        lead = action.shape[:-1]
        with torch.no_grad():
            out = self._score_step(
                action.flatten(0, -2) if len(lead) else action.unsqueeze(0),
                tensordict.get(keys.UTTERANCE).flatten(),
                tensordict.get(keys.FRAME_INDEX).flatten(),
                tensordict.get(keys.FRAME_MASK).flatten(),
            )
        for name, value in out.items():
            next_tensordict.set(name, value.view(*lead, -1))
        return next_tensordict

    def _score_step(self, action: Tensor, utterance: Tensor, index: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Scores [B, 1] of the clips that end with this frame: action [B, V*3], the others [B]."""
        window = self._window
        if window is None or window.shape[::2] != action.shape or window.device != action.device:
            window = action.new_zeros(len(action), CLIP_FRAMES, action.shape[-1])
            self._run = torch.zeros(len(action), dtype=torch.int64, device=action.device)
            self._stale = True
        if self._stale:
            if self._lane_utterance is None or not torch.equal(self._lane_utterance, utterance):
                gathered = self._gather(utterance.tolist(), action.device)
                self._lane_features, self._lane_clips, self._lane_templates, self._lane_caps = gathered
                self._lane_utterance = utterance.clone()
            self._stale = False
        window = self._window = torch.cat([window[:, 1:], action.unsqueeze(1)], dim=1)
        # Frames since the last that was idle or not finite; that all are of this utterance, clip >= 0 tells.
        self._run = torch.where(valid & _finite(action), self._run + 1, torch.zeros_like(self._run))
        clip = index - CLIP_FRAMES + 1
        mask = (self._run >= CLIP_FRAMES) & (clip >= 0) & (clip < self._lane_clips) & (clip % self.stride == 0)
        scored = {name: action.new_zeros(len(action), 1) for name in self.scores}
        for name in FEATURES if self.write_features else ():
            scored[name] = action.new_zeros(len(action), 1, self.reward_model.feature_width)
        lanes = mask.nonzero().flatten()
        if len(lanes):
            vertices = self._lane_templates[lanes].unsqueeze(1) + window[lanes]
            features = self._lane_features[lanes, clip[lanes]].unsqueeze(1)
            one = torch.ones(len(lanes), dtype=torch.int64, device=action.device)
            now = self._score(vertices, features, one)
            for name in scored:
                scored[name][lanes] = now[name][:, -1:]
        return self._finish(scored, mask.unsqueeze(-1), self._lane_caps)


def _finite(meshes: Tensor) -> Tensor:
    """Meshes [.., V*3] without nan or inf, [..]: by their sum, which is one pass without a copy."""
    return torch.isfinite(meshes.sum(-1))
