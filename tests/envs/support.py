"""Small models for the tests of environment and collection; the corpus is tests.tiny's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from s2f_rl.data import FaceCorpus
from s2f_rl.envs import SpeechToFaceEnv
from s2f_rl.models import FaceFormer, FaceFormerPolicy, MelAudioEncoder
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from tests.tiny import make_tiny_corpus

WIDTH = 8


def corpus_in(folder: Path, split: str = "all", **options: Any) -> FaceCorpus:
    topology = options.get("topology", "vocaset")
    return FaceCorpus(make_tiny_corpus(folder, **options), split=split, topology=topology)


def audio_encoder(topology: str = "vocaset") -> MelAudioEncoder:
    torch.manual_seed(1)
    return MelAudioEncoder(width=WIDTH, topology=topology)


def policy_for(corpus: FaceCorpus, seed: int = 2, **options: Any) -> FaceFormerPolicy:
    """An actor whose output map is not zero, so that it moves and can be explored."""
    torch.manual_seed(seed)
    actor = FaceFormer(
        MelAudioEncoder(width=WIDTH, topology=corpus.topology),
        corpus.n_vertices,
        feature_dim=16,
        n_subjects=len(corpus.subjects),
    )
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    torch.nn.init.normal_(actor.decoder.vertice_map.weight, std=10.0)
    return FaceFormerPolicy(actor, **{"noise_mm": 3.0, **options})


def reward_model_for(corpus: FaceCorpus, head: bool = True) -> RewardModel:
    torch.manual_seed(3)
    backbone = SpeechMeshTransformer(3 * corpus.n_vertices, width=32, depth=2, n_heads=4)
    # Random weights see little of a face that moves by millimetres: make the scores vary.
    torch.nn.init.normal_(backbone.encoder.patch_embed.weight, std=10.0)
    return RewardModel(backbone, ScoreHead(32, 32, hidden=16) if head else None)


def env_for(corpus: FaceCorpus, batch_size: int, **options: Any) -> SpeechToFaceEnv:
    return SpeechToFaceEnv(corpus, audio_encoder(corpus.topology), batch_size=batch_size, **options)


def replayed(env: Any, actions: Tensor, utterances: TensorDict) -> TensorDict:
    """What an environment says step by step of given actions [B, T, V*3], from a reset to ``utterances``."""
    each = iter(actions.unbind(1))
    return env.rollout(
        env.horizon,
        lambda td: td.set("action", next(each)),
        auto_reset=False,
        tensordict=env.reset(utterances),
        break_when_any_done=False,
    )
