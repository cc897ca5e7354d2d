"""One PPO iteration at full size: frames per second of collection, reward and update, and their shares.

    python benchmarks/speed/iteration.py [--corpus FOLDER] [--lanes 1 8 16] [--small] [--stride 5] [--full]

FOLDER is any corpus in the VOCASET layout; without it a small synthetic one with V=5023 is made. wav2vec2-base and the
speech-mesh transformer (width 512, depth 10) have random weights; what is measured does not depend on them. The output
map is frozen and everything goes by the latents, as in the recipes; ``--full`` trains it, by the displacements. Prints
one JSON line per batch size: all phases of one run are measured side by side, so compare them with each other.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import json
import sys
import tempfile
import time

import torch

from s2f_rl import keys
from s2f_rl.collectors import utterance_collector
from s2f_rl.data import FaceCorpus
from s2f_rl.data.synthetic import synthesize
from s2f_rl.envs import FrozenRewardTransform, SpeechToFaceEnv
from s2f_rl.losses import (
    ClipPPOLoss,
    SupervisedLoss,
    WeightedLoss,
    discounted_returns,
    masked_standardise,
    total_loss,
)
from s2f_rl.models import FaceFormer, MelAudioEncoder, Wav2Vec2AudioEncoder
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.training.build_policy import build_policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="mel encoder and a reward of width 64, depth 2")
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="train the output map")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options.corpus = options.corpus or synthesize(folder, 6, 4, vertices=5023, progress=False)
        run(options)


def run(options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    device = torch.device(options.device)
    corpus = FaceCorpus(options.corpus, split="train")
    encoder = MelAudioEncoder() if options.small else Wav2Vec2AudioEncoder()
    actor = FaceFormer(encoder, corpus.n_vertices, n_subjects=len(corpus.subjects)).to(device).eval()
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=2e-4)
    size = (64, 2, 4) if options.small else (512, 10, 8)
    backbone = SpeechMeshTransformer(3 * corpus.n_vertices, width=size[0], depth=size[1], n_heads=size[2])
    model = RewardModel(backbone, ScoreHead(size[0], size[0])).to(device)
    exploration = {"exploration": "latent", "noise_mm": 0.3}
    policy = build_policy(actor, exploration, corpus.regions["lips"], train_output_map=options.full)
    for lanes in options.lanes:
        print(json.dumps(measure(corpus, actor, model, policy, lanes, options, device)), flush=True)


def measure(corpus, actor, model, policy, lanes: int, options: argparse.Namespace, device) -> dict:
    audio = CachedAudio(actor.audio_encoder, corpus)
    env = SpeechToFaceEnv(corpus, audio, lanes, device=device)
    reward = FrozenRewardTransform(model, corpus, stride=options.stride)
    reward.read_latents(policy.core)
    loss = WeightedLoss(
        {
            "policy": (ClipPPOLoss(policy.actor_module), 0.5),
            "supervised": (SupervisedLoss(policy.actor_module, corpus), 1.0),
        },
        balance="grad_norm",
    )
    parameters = [p for p in loss.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-6)
    clock = Clock(device)
    with utterance_collector(env, policy) as collector:
        row: dict = {"lanes": lanes, "vertices": corpus.n_vertices}
        for temperature in ("cold", "warm"):
            draws = env.draw_state()
            clock.start()
            batch = collector.next()
            row[f"collect_{temperature}_s"] = clock.stop()
            frames = int(batch[keys.FRAME_MASK].sum())
            clock.start()
            batch = reward(batch)
            row[f"reward_{temperature}_s"] = clock.stop()
            if temperature == "cold":
                env.load_draw_state(draws)  # the warm pass animates the same utterances
        row["frames"] = frames
        mask = batch[keys.FRAME_MASK]
        batch[keys.ADVANTAGE] = masked_standardise(discounted_returns(batch["next", "reward"], mask, 0.7), mask)
        for temperature in ("cold", "warm"):  # cold, the recordings are read
            clock.start()
            for _ in range(options.epochs):
                optimizer.zero_grad()
                total_loss(loss(batch)).backward()
                optimizer.step()
            row[f"update_{temperature}_s"] = clock.stop()
    warm = row["collect_warm_s"] + row["reward_warm_s"] + row["update_warm_s"]
    for phase, key in (("collect", "collect_warm_s"), ("reward", "reward_warm_s"), ("update", "update_warm_s")):
        row[f"{phase}_frames_per_s"] = round(frames / row[key], 1)
        row[f"{phase}_share"] = round(row[key] / warm, 3)
    row["frames_per_s"] = round(frames / warm, 1)
    cold = row["collect_cold_s"] + row["reward_cold_s"] + row["update_cold_s"]
    row["frames_per_s_cold"] = round(frames / cold, 1)
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}


class Clock:
    def __init__(self, device: torch.device) -> None:
        self.device = device

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def start(self) -> None:
        self.began = self._now()

    def stop(self) -> float:
        return self._now() - self.began


if __name__ == "__main__":
    sys.exit(main())
