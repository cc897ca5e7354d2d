"""Rewards and judges under names, and what they say of a motion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from s2f_rl import keys
from s2f_rl.data.contract import Corpus
from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.errors import UserError
from s2f_rl.rewards.calibration.auc import require_finite_scores
from s2f_rl.rewards.model.reward_model import RewardModel
from s2f_rl.rewards.parts import RewardParts, Rewards


class Scorer:
    """Rewards under names (``"train"``, ``"judge"``), each with what it prepares of an utterance.

    Args:
        models: name -> reward model, judge, other reward, or several of them. Two names must not hold the same one: a
            judge that the policy was trained against is no judge (checked by content hash).
        corpus: whose utterances are scored.
        cache_folder: where the audio halves are kept on disk; None: in memory only.

    Raises:
        UserError: the same model twice, or a model for another mesh or frame rate.
    """

    def __init__(self, models: Mapping[str, Rewards], corpus: Corpus, cache_folder: str | Path | None = None) -> None:
        self.models = {
            name: RewardParts(rewards, corpus, cache_folder, f"reward model {name!r}")
            for name, rewards in models.items()
        }
        owners: dict[str, str] = {}
        for name, parts in self.models.items():
            for digest in parts.hashes().values():
                if owners.setdefault(digest, name) != name:
                    raise UserError(
                        f"reward models {owners[digest]!r} and {name!r} are the same ({digest[:12]}): a judge must not "
                        "be the model that was trained against; train one with recipes/judge.py"
                    )
        self.hashes = {name: parts.content_hash() for name, parts in self.models.items()}

    def columns(self, name: str) -> list[str]:
        """Columns of the scores of a model: as they are for ``train``, else with its name before them."""
        return [_prefix(name) + column for column in self.models[name].columns] if name in self.models else []

    def scores(
        self,
        utterance: int,
        vertices: Tensor,
        readability: bool = False,
        stride: int = 1,
        style: Tensor | None = None,
    ) -> list[dict[str, float]]:
        """Mean of every score over the frames that have it, for each motion in ``vertices`` [K, T, V*3] (metres).

        Columns are ``lip_score``, ``real_score`` for the model named ``train`` and ``<name>_lip_score``, .. for others;
        nan where no frame could be scored. With ``readability`` also ``plrs``
        (:func:`s2f_rl.metrics.perceptual_lip_readability`, from the cached audio). ``stride``: over every stride-th of
        those frames only. ``style``: [K, S] that the motions were asked for in, for rewards that depend on it; None:
        the speaker's own (see :class:`~s2f_rl.rewards.contract.ReadsStyle`).

        Raises:
            NotFinite: a frame of finite motion has a score that is not.
        """
        return self.scores_together([(utterance, vertices)], readability, stride, None if style is None else [style])[0]

    @torch.no_grad()
    def scores_together(
        self,
        motions: Sequence[tuple[int, Tensor]],
        readability: bool = False,
        stride: int = 1,
        styles: Sequence[Tensor] | None = None,
    ) -> list[list[dict[str, float]]]:
        """:meth:`scores` of several utterances in one batch, each with motions [K, T, V*3] of its own length."""
        rows: list[list[dict[str, float]]] = [[{} for _ in vertices] for _, vertices in motions]
        lanes = [row for own in rows for row in own]
        utterances = [utterance for utterance, vertices in motions for _ in vertices]
        padded = pad_sequence([motion for _, vertices in motions for motion in vertices], batch_first=True)
        lengths = torch.tensor([vertices.shape[1] for _, vertices in motions for _ in vertices], device=padded.device)
        there = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
        manner = None if styles is None else torch.cat(list(styles))
        for name, parts in self.models.items():
            found, _ = parts.score(utterances, padded, there, stride, style=manner)
            for column, (score, mask) in found.items():
                require_finite_scores({column: score, keys.SCORE_MASK: mask}, f"reward model {name!r}")
                for row, one, valid in zip(lanes, score, mask, strict=True):
                    row[_prefix(name) + column] = float(one[valid].mean()) if bool(valid.any()) else float("nan")
            model = parts.perceptual  # a judge has no features of single clips
            if readability and model is not None and isinstance(model.model, RewardModel):
                part = next(name for name, reward in parts.rewards.items() if reward is model)
                for own, (utterance, vertices) in zip(rows, motions, strict=True):
                    features = parts.prepared(utterance)[part]
                    for row, value in zip(own, _readability(model.model, features, vertices), strict=True):
                        row[_prefix(name) + "plrs"] = value
        return rows


def styles_of(corpus: Corpus, conditions: Sequence[str]) -> Tensor:
    """[K, S] one-hot of conditions by name; zeros for what is no training subject, such as the mean over them."""
    return torch.tensor([[float(subject == name) for subject in corpus.subjects] for name in conditions])


def _prefix(name: str) -> str:
    return "" if name == "train" else f"{name}_"


def _readability(model: RewardModel, features: Tensor, vertices: Tensor) -> list[float]:
    """PLRS of motions [K, T, V*3] from the features of all audio clips [n, E]: every fifth belongs to whole clips."""
    clips = min(vertices.shape[1] // CLIP_FRAMES, -(-len(features) // CLIP_FRAMES))
    if not clips:
        return [float("nan")] * len(vertices)
    parts = vertices[:, : clips * CLIP_FRAMES].reshape(-1, CLIP_FRAMES, vertices.shape[-1])
    mesh = model.encode_mesh(parts)[:, 0].unflatten(0, (len(vertices), clips)).double()
    speech = features[::CLIP_FRAMES][:clips].to(mesh.device).double()
    return torch.cosine_similarity(mesh, speech, dim=-1).mean(-1).tolist()
