"""Train the GRU for a few steps, save it, read it back and tune it by PPO: python examples/actor/tune.py CORPUS"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from gru import GRUActor

from s2f_rl.collectors import utterance_collector
from s2f_rl.data import FaceCorpus
from s2f_rl.envs import SpeechToFaceEnv
from s2f_rl.losses import ClipPPOLoss, SupervisedLoss, WeightedLoss, discounted_returns, group_relative_advantage
from s2f_rl.models import MelAudioEncoder
from s2f_rl.models.actors import use_actor
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.training import actor_entry, gradient_step, make_optimizer


def supervised(corpus: FaceCorpus, steps: int) -> GRUActor:
    encoder = MelAudioEncoder(16, fps=corpus.fps, features_per_frame=corpus.audio_features_per_frame)
    actor = GRUActor(encoder, corpus.n_vertices, len(corpus.subjects))
    optimizer = make_optimizer([(actor.named_parameters(), 1.0)], 3e-3, 0.03, output_map=actor.output_map())
    for step in range(steps):
        u = corpus[step % len(corpus)]
        features = actor.encode(u.waveform[None])[:, : len(u.vertices)]
        truth = (u.vertices - u.template)[None, : features.shape[1]]
        loss = (1e3 * (actor.imitate(features, u.style[None], truth, teacher_forced=False) - truth)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"supervised {step}: {float(loss.detach()):.3f} mm^2")
    return actor


def tune(actor: GRUActor, corpus: FaceCorpus, iterations: int) -> None:
    policy = actor.make_policy(noise_mm=0.3, noise_vertices=corpus.regions["lips"])
    env = SpeechToFaceEnv(corpus, actor.audio_encoder, batch_size=4, group_size=4)
    error = SupervisedLoss(policy.actor_module, corpus)
    loss = WeightedLoss({"policy": (ClipPPOLoss(policy.actor_module), 1.0), "supervised": (error, 1.0)}, "grad_norm")
    optimizer = make_optimizer([(policy.named_parameters(), 1.0)], 1e-3, 0.03, output_map=actor.output_map())
    for batch in utterance_collector(env, policy, n_batches=iterations):
        truth, known = error.truth(batch)  # the reward: minus the distance to the recorded motion, in mm
        reward = -1e3 * ((batch["action"] - truth).square().mean(-1, keepdim=True).sqrt() * known)
        returns = discounted_returns(reward, batch["frame_mask"], gamma=0.7)
        batch["advantage"] = group_relative_advantage(returns, batch["frame_mask"], group_size=4)
        gradient_step(loss, batch, optimizer, max_grad_norm=1.0)
        print(f"reward {float(reward[known].mean()):.3f}")


if __name__ == "__main__":
    corpus, path = FaceCorpus(sys.argv[1], split="train"), Path(tempfile.mkdtemp()) / "best.pt"
    torch.save({"actor": actor_entry(supervised(corpus, 20), corpus)}, path)
    use_actor("gru:GRUActor")  # a file may name a kind, but never has code imported
    tune(load_actor(path)[0], corpus, 3)
