"""Reward models and judges under names, and what they say of a motion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from s2f_rl import keys
from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.errors import UserError
from s2f_rl.rewards import RewardModel
from s2f_rl.rewards.calibration.auc import require_finite_scores
from s2f_rl.rewards.judge.judge import AnyReward
from s2f_rl.rewards.model.audio_cache import AudioFeatureCache
from s2f_rl.rewards.model.meeting import refuse_other_corpus


class Scorer:
    """Reward models under names (``"train"``, ``"judge"``) with their cached audio halves.

    Args:
        models: name -> reward model. Two names must not hold the same model: a judge that the policy was trained
            against is no judge (checked by content hash).
        corpus: whose mel clips are scored against.
        cache_folder: where the audio halves are kept on disk; None: in memory only.

    Raises:
        UserError: the same model twice, or a model for another mesh or frame rate.
    """

    def __init__(self, models: Mapping[str, AnyReward], corpus: Any, cache_folder: Any = None) -> None:
        hashes: dict[str, str] = {}
        for name, model in models.items():
            refuse_other_corpus(model, corpus, f"reward model {name!r}")
            digest = model.content_hash()
            if digest in hashes:
                raise UserError(
                    f"reward models {hashes[digest]!r} and {name!r} are the same ({digest[:12]}): a judge must not be "
                    "the model that was trained against; train one with recipes/judge.py"
                )
            hashes[digest] = name
        self.models = dict(models)
        self.hashes = {name: digest for digest, name in hashes.items()}
        self.audio = {name: AudioFeatureCache(model, corpus, cache_folder) for name, model in models.items()}

    @torch.no_grad()
    def scores(self, utterance: int, vertices: Tensor, readability: bool = False) -> list[dict[str, float]]:
        """Mean lip and real score over the scored frames, for each motion in ``vertices`` [K, T, V*3] (metres).

        Columns are ``lip_score``, ``real_score`` for the model named ``train`` and ``<name>_lip_score``, .. for others;
        nan where no clip could be scored. With ``readability`` also ``plrs``
        (:func:`s2f_rl.metrics.perceptual_lip_readability`, from the cached audio).

        Raises:
            NotFinite: a clip of finite motion has a score that is not.
        """
        rows: list[dict[str, float]] = [{} for _ in vertices]
        for name, model in self.models.items():
            prefix = "" if name == "train" else f"{name}_"
            features = self.audio[name].get(utterance)
            n_clips = max(0, min(len(features), vertices.shape[1] - CLIP_FRAMES + 1))
            out = model.score_batch(
                vertices, features.expand(len(vertices), *features.shape), torch.full((len(vertices),), n_clips)
            )
            mask = out[keys.SCORE_MASK]
            require_finite_scores(out, f"reward model {name!r}")
            for key in (keys.LIP_SCORE, keys.REAL_SCORE):
                if key in out:
                    for row, score, valid in zip(rows, out[key], mask, strict=True):
                        row[prefix + key] = float(score[valid].mean()) if bool(valid.any()) else float("nan")
            if readability and isinstance(model, RewardModel):  # a judge has no features of single clips
                for row, value in zip(rows, _readability(model, features, vertices), strict=True):
                    row[prefix + "plrs"] = value
        return rows


def _readability(model: RewardModel, features: Tensor, vertices: Tensor) -> list[float]:
    """PLRS of motions [K, T, V*3] from the features of all audio clips [n, E]: every fifth belongs to whole clips."""
    clips = min(vertices.shape[1] // CLIP_FRAMES, -(-len(features) // CLIP_FRAMES))
    if not clips:
        return [float("nan")] * len(vertices)
    parts = vertices[:, : clips * CLIP_FRAMES].reshape(-1, CLIP_FRAMES, vertices.shape[-1])
    mesh = model.encode_mesh(parts)[:, 0].unflatten(0, (len(vertices), clips)).double()
    speech = features[::CLIP_FRAMES][:clips].to(mesh.device).double()
    return torch.cosine_similarity(mesh, speech, dim=-1).mean(-1).tolist()
