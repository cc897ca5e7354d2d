"""One or several rewards on a corpus: prepared once per utterance, scored together, each score under its own mask."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2f_rl.data.contract import Corpus, SpokenUtterance
from s2f_rl.data.lru import ByteCache
from s2f_rl.errors import UserError
from s2f_rl.models.latent_motion import LatentMotion
from s2f_rl.rewards.contract import ReadsLatents, Reward, Scored, asks_for_style
from s2f_rl.rewards.judge.judge import AnyReward, Judge
from s2f_rl.rewards.model.meeting import refuse_other_corpus
from s2f_rl.rewards.model.perceptual import FEATURES, PerceptualReward
from s2f_rl.rewards.model.reward_model import RewardModel

Rewards: TypeAlias = "AnyReward | Reward | Mapping[str, AnyReward | Reward] | Sequence[AnyReward | Reward]"
"""What is taken wherever motion is scored: a model, a reward, or several of them by name or in a row."""


_NAME = re.compile(r"(?!judge_)([a-z0-9]+_)+score\Z")


class _Prepared(NamedTuple):
    by_part: dict[str, object]
    nbytes: int


class RewardParts(nn.Module):
    """Rewards under names, on one corpus.

    A score keeps its name; one that two parts have is called ``PART_SCORE`` in both.

    Args:
        rewards: a model, a reward, or several: by name, or in a row, then named by their class in small letters.
        corpus: whose utterances are scored.
        cache_folder: where audio features are kept on disk, for models that are given bare.
        what: what a reward is called in messages, ``{}`` standing for its name.
        memory_limit_mb: what is prepared of the least recently used utterances leaves the memory beyond this.

    Attributes:
        rewards: name -> reward.
        columns: name of a score -> (name of its part, the part's own name for it).

    Raises:
        UserError: a part for another mesh or frame rate, one that is no reward, or two of one name.
    """

    def __init__(
        self,
        rewards: Rewards,
        corpus: Corpus,
        cache_folder: str | os.PathLike[str] | None = None,
        what: str = "reward part {!r}",
        memory_limit_mb: float = 512.0,
    ) -> None:
        super().__init__()
        self.rewards = {name: _as_reward(name, each, cache_folder) for name, each in named_parts(rewards).items()}
        for name, reward in self.rewards.items():
            refuse_other_corpus(reward, corpus, what.format(name))
        self._modules_of_parts = nn.ModuleList([r for r in self.rewards.values() if isinstance(r, nn.Module)])
        self.corpus = corpus
        self.columns = score_columns(self.rewards)
        self._prepared: ByteCache[_Prepared] = ByteCache(int(memory_limit_mb * 2**20))

    @property
    def look_back(self) -> int | None:
        """Frames before its own that any score depends on; None where one also depends on frames to come."""
        each = [reward.look_back for reward in self.rewards.values()]
        return None if None in each else max(look_back or 0 for look_back in each)

    def hashes(self) -> dict[str, str]:
        """Content hash of each part."""
        return {name: reward.content_hash() for name, reward in self.rewards.items()}

    def content_hash(self) -> str:
        """That of the part if there is one, else of all parts and their names."""
        hashes = self.hashes()
        if len(hashes) == 1:
            return next(iter(hashes.values()))
        return hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()

    def refuse_without(self, ability: str) -> None:
        """Raise UserError naming the first part that cannot do this.

        Args:
            ability: ``"gradient"``, for back-propagation through the reward; ``"step"``, for scores frame by frame.
        """
        for name, reward in self.rewards.items():
            if ability == "gradient" and not reward.differentiable:
                raise UserError(
                    f"reward part {name!r}: it cannot be differentiated, so nothing can be propagated back through it; "
                    "leave it out, or use an algorithm that needs rewards only (rloo, ppo)"
                )
            if ability == "step" and reward.look_back is None:
                raise UserError(
                    f"reward part {name!r}: its scores need frames to come, so it cannot reward step by step in an "
                    "environment; give the transform whole utterances (a collector's postproc)"
                )

    @property
    def perceptual(self) -> PerceptualReward | None:
        """The first part with features of clips, which a critic may read."""
        found = (r for r in self.rewards.values() if isinstance(r, PerceptualReward))
        return next((reward for reward in found if isinstance(reward.model, RewardModel)), None)

    def prepared(self, utterance: int, stride: int = 1) -> dict[str, Any]:
        """What each part prepared of an utterance of the corpus to score it with ``stride``, from memory if there."""
        return self._prepared.get((utterance, stride), lambda: self._prepare(self.corpus[utterance], stride)).by_part

    def _prepare(self, spoken: SpokenUtterance, stride: int) -> _Prepared:
        made = {
            name: reward.prepare(spoken, stride) if isinstance(reward, PerceptualReward) else reward.prepare(spoken)
            for name, reward in self.rewards.items()
        }
        return _Prepared(made, _n_bytes(made.values()))

    def score(
        self,
        utterances: Sequence[int],
        motion: Tensor | LatentMotion,
        frame_mask: Tensor,
        stride: int = 1,
        spoilt: Tensor | None = None,
        features: bool = False,
        style: Tensor | None = None,
        single_frames: bool = False,
    ) -> tuple[dict[str, Scored], dict[str, Tensor]]:
        """Every score of a batch of motions, 0 outside its mask, and the features of clips that are asked for.

        Args:
            utterances: B positions in the corpus.
            motion: vertices as :meth:`Reward.score_motion` takes them; or their latents, of which vertices are made for
                rewards that cannot do without (all but :class:`~s2f_rl.rewards.contract.ReadsLatents`).
            frame_mask, stride: as :meth:`Reward.score_motion` takes them.
            spoilt: bool [B, T], frames that hold no motion that could be scored (they were not finite): whatever
                depends on one of them is not scored. None: there are none.
            features: also return ``mesh_feature`` and ``audio_feature`` [B, T, E] of the perceptual part, 0 where it
                has no score.
            style: [B, S] that the motions were asked for in; None: each speaker's own, zeros for those without one.
            single_frames: score every frame in parts that look at one frame only, whatever the stride: it saves the
                cost of clips, and they have none.

        Returns:
            name -> (scores [B, T], mask [B, T]), and the features.
        """
        known = {u: self.prepared(u, stride) for u in dict.fromkeys(utterances)}
        frame = torch.arange(motion.shape[1], device=motion.device)
        scores: dict[str, dict[str, Scored]] = {}
        written: dict[str, Tensor] = {}
        decoded: Tensor | None = None
        for name, reward in self.rewards.items():
            prepared = [known[u][name] for u in utterances]
            shown = motion
            if isinstance(motion, LatentMotion) and not isinstance(reward, ReadsLatents):
                shown = decoded = motion.vertices() if decoded is None else decoded
            manner = self._style(reward, utterances, style)
            step = _step_of(reward, stride) if single_frames else stride
            found, seen = self._found(reward, shown, prepared, frame_mask, step, None, features, manner)
            allowed = _allowed(reward.look_back, frame_mask, frame, step, spoilt)
            scores[name] = {key: _masked(score, mask & allowed) for key, (score, mask) in found.items()}
            written |= _features(seen, scores[name])
        return {column: scores[name][own] for column, (name, own) in self.columns.items()}, written

    def score_last(
        self,
        utterances: Sequence[int],
        window: Tensor,
        templates: Tensor,
        run: Tensor,
        frame: Tensor,
        stride: int = 1,
        features: bool = False,
        style: Tensor | None = None,
    ) -> tuple[dict[str, Scored], dict[str, Tensor]]:
        """The same of one frame by itself, each [B, 1], from it and the frames before it; no part may look ahead.

        Parts that look at one frame only score every frame (``single_frames``).

        Args:
            utterances: B positions in the corpus.
            window: [B, L, V*3] the last displacements, this frame's last; L at least ``look_back`` + 1.
            templates: [B, V*3]. run: [B] how many of the last frames hold motion that can be scored.
            frame: [B] index of the frame in its utterance.
            stride, features, style: as above.
        """
        scores: dict[str, dict[str, Scored]] = {}
        written: dict[str, Tensor] = {}
        for name, reward in self.rewards.items():
            back = reward.look_back or 0
            due = (run > back) & (frame >= back) & ((frame - back) % _step_of(reward, stride) == 0)
            lanes = due.nonzero().flatten()
            found: dict[str, Scored] = {}
            seen: dict[str, Tensor] = {}
            if len(lanes):
                vertices = templates[lanes].unsqueeze(1) + window[lanes, window.shape[1] - back - 1 :]
                prepared = [self.prepared(utterances[lane], stride)[name] for lane in lanes.tolist()]
                there = torch.ones(vertices.shape[:2], dtype=torch.bool, device=window.device)
                manner = self._style(reward, utterances, style)
                manner = None if manner is None else manner[lanes.to(manner.device)]
                found, seen = self._found(reward, vertices, prepared, there, 1, frame[lanes] - back, features, manner)
            scores[name] = {}
            for key in reward.score_names:
                score, mask = window.new_zeros(len(window), 1), torch.zeros_like(due).unsqueeze(-1)
                if found:
                    score[lanes], mask[lanes] = (
                        each[:, -1:].to(old.dtype) for each, old in zip(found[key], (score, mask), strict=True)
                    )
                scores[name][key] = _masked(score, mask)
            if features and reward is self.perceptual:
                for key in FEATURES:
                    written[key] = window.new_zeros(len(window), 1, reward.feature_width)
                    if seen:
                        written[key][lanes] = seen[key][:, -1:]
                written = _features(written, scores[name])
        return {column: scores[name][own] for column, (name, own) in self.columns.items()}, written

    def _style(self, reward: Reward, utterances: Sequence[int], style: Tensor | None) -> Tensor | None:
        """What a reward is told of the lanes' styles [B, S]; None where it does not ask."""
        if not asks_for_style(reward):
            return None
        if style is not None:
            return style
        return torch.stack([own_style(self.corpus, u) for u in utterances])

    def _found(
        self,
        reward: Reward,
        motion: Tensor | LatentMotion,
        prepared: Sequence[Any],
        frame_mask: Tensor,
        stride: int,
        first_frame: Tensor | None,
        features: bool,
        style: Tensor | None,
    ) -> tuple[dict[str, Scored], dict[str, Tensor]]:
        seen: dict[str, Tensor] = {}
        if features and isinstance(reward, PerceptualReward) and reward is self.perceptual:
            found, seen = reward.score_with_features(motion, prepared, frame_mask, stride, first_frame)
        else:
            score = getattr(reward, "score_latents" if isinstance(motion, LatentMotion) else "score_motion")
            manner = {} if style is None else {"style": style}
            found = score(motion, prepared, frame_mask, stride, first_frame, **manner)
        check_scores(type(reward).__name__, reward.score_names, found, motion.shape[:2])
        device = motion.device  # a model may live on another
        scores = {key: (score.to(device), mask.to(device)) for key, (score, mask) in found.items()}
        return scores, {key: value.to(device) for key, value in seen.items()}


def own_style(corpus: Corpus, utterance: int) -> Tensor:
    """[S] the speaker's own style; zeros for a speaker who is no training subject."""
    style = corpus[utterance].style
    return torch.zeros(len(corpus.subjects)) if style is None else style


def named_parts(rewards: Rewards) -> dict[str, AnyReward | Reward]:
    """The rewards by name; one alone is named by its class, and so are those in a row. Raises UserError."""
    if isinstance(rewards, Mapping):
        found = dict(rewards)
    else:
        each = list(rewards) if isinstance(rewards, Sequence) else [rewards]
        found = {type(reward).__name__.lower(): reward for reward in each}
        if len(found) < len(each):
            raise UserError("rewards in a row are named by their class, and two are of the same: give {name: reward}")
    if not found:
        raise UserError("the reward has no parts: give at least one")
    return found


def check_scores(
    what: str, names: Sequence[str], found: Mapping[str, Scored], shape: torch.Size | tuple[int, ...]
) -> None:
    """Raise UserError where a reward of class ``what`` does not give each of its scores and masks [B, T]."""
    for name in names:
        pair = found.get(name, ())
        if len(pair) != 2:
            raise UserError(f"{what}: score_motion gives no pair of score and mask for {name!r}, which score_names has")
        for part, value in zip(("score", "mask"), pair, strict=True):
            if value.shape != shape:
                raise UserError(f"{what}: {part} of {name} is {list(value.shape)}; give [B, T], here {list(shape)}")
        if pair[1].dtype != torch.bool:
            raise UserError(f"{what}: mask of {name} is {pair[1].dtype}; give torch.bool")


def _check_names(part: str, names: object) -> None:
    """Refuse what is no tuple of columns that nothing else can have (``lve``, ``reward``, ``judge_lip_score``)."""
    texts = isinstance(names, (tuple, list)) and names and all(isinstance(name, str) for name in names)
    if not texts or not all(_NAME.match(name) for name in names):  # type: ignore[attr-defined]
        raise UserError(
            f"reward part {part!r}: score_names={names!r}; give a tuple of names in small letters, each ending in "
            "_score and not beginning with judge_"
        )


def score_columns(rewards: Mapping[str, AnyReward | Reward]) -> dict[str, tuple[str, str]]:
    """Name of each score -> (its part, the part's own name for it). Raises UserError for names that cannot be."""
    for name, reward in rewards.items():
        _check_names(name, reward.score_names)
    every = [(name, score) for name, reward in rewards.items() for score in reward.score_names]
    owners = Counter(score for _, score in every)
    found = {score if owners[score] == 1 else f"{name}_{score}": (name, score) for name, score in every}
    if len(found) < len(every):
        raise UserError("two scores of the reward have the same name; name its parts otherwise")
    return found


def _as_reward(name: str, given: AnyReward | Reward, cache_folder: str | os.PathLike[str] | None) -> Reward:
    if isinstance(given, (RewardModel, Judge)):
        return PerceptualReward(given, cache_folder)
    if not isinstance(given, Reward):
        raise UserError(f"reward part {name!r}: {type(given).__name__} is no reward; see s2f_rl.rewards.Reward")
    return given


def _step_of(reward: Reward, stride: int) -> int:
    """Which frames of a part are scored where a stride is to save work: a single frame costs none."""
    return 1 if reward.look_back == 0 else stride


def _allowed(look_back: int | None, frame_mask: Tensor, frame: Tensor, stride: int, spoilt: Tensor | None) -> Tensor:
    """Where a part may have scores: on wanted frames that are there, with all that a score depends on; [B, T]."""
    back = look_back or 0
    allowed = frame_mask & (frame >= back) & ((frame - back) % stride == 0)
    if spoilt is not None and look_back is None:
        allowed = allowed & ~spoilt.any(-1, keepdim=True)
    elif spoilt is not None:
        allowed = allowed & ~F.pad(spoilt.float(), (back, 0)).unfold(1, back + 1, 1).bool().any(-1)
    return allowed


def _features(seen: Mapping[str, Tensor], scores: Mapping[str, Scored]) -> dict[str, Tensor]:
    """Features [B, T, E], 0 where the scores of their part are masked."""
    mask = next(iter(scores.values()))[1].unsqueeze(-1)
    return {key: torch.where(mask, value, torch.zeros_like(value)) for key, value in seen.items()}


def _masked(score: Tensor, mask: Tensor) -> Scored:
    return torch.where(mask, score, torch.zeros_like(score)), mask


def _n_bytes(values: Iterable[object]) -> int:
    total = 0
    for value in values:
        if isinstance(value, Tensor):
            total += value.nbytes
        elif isinstance(value, Mapping):
            total += _n_bytes(value.values())
        elif isinstance(value, (tuple, list)):
            total += _n_bytes(value)
    return total
