"""Validation against one PPO iteration at full size, in alternation: all clips in all styles, and the default share.

    python benchmarks/speed/validation.py [--rounds 3] [--sentences 4]

V=5023, the small mel encoder, reward of width 512 and depth 10 with random weights, 16 lanes, eight styles, two unseen
speakers. The audio's features are random too: they are cached after the first time in all cases. Prints seconds per
round and their ratios as JSON lines; two minutes.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import inspect
import json
import tempfile
import time
from pathlib import Path

import torch

from s2f_rl.collectors import utterance_collector
from s2f_rl.data import FaceCorpus
from s2f_rl.data.synthetic import synthesize
from s2f_rl.losses import BaselineAdvantage, ClipPPOLoss, WeightedLoss
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.runs import load_recipe
from s2f_rl.training import Validation, actor_entry, gradient_step, lane_minibatches, prepare_rl


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=4, help="of each speaker; half of them are validated on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.rounds, options.sentences)


def measure(root: Path, rounds: int, sentences: int) -> None:
    torch.manual_seed(0)
    RewardModel.encode_audio = lambda self, clips: torch.randn(len(clips), 512) / 512**0.5  # type: ignore[method-assign]
    corpus = FaceCorpus(synthesize(root / "corpus", 12, sentences, vertices=5023, progress=False), split="train")
    actor = FaceFormer(MelAudioEncoder(), corpus.n_vertices, n_subjects=len(corpus.subjects)).eval()
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=2e-4)
    torch.save({"actor": actor_entry(actor, corpus)}, root / "start.pt")
    backbone = SpeechMeshTransformer(3 * corpus.n_vertices, width=512, depth=10, n_heads=8)
    RewardModel(backbone, ScoreHead(512, 512, 256)).save(root / "reward")
    overrides = [f"corpus.root={corpus.root}", f"start={root / 'start.pt'}", f"reward.folder={root / 'reward'}"]
    parts = prepare_rl(load_recipe("ppo").compose([*overrides, "optimizer.keep_moments=false"]), torch.device("cpu"))
    loss = WeightedLoss({"policy": (ClipPPOLoss(parts.policy.actor_module, None), 1.0), **parts.auxiliary}, "grad_norm")
    optimizer, estimate = parts.make_optimizer(loss), BaselineAdvantage(None, 4, "discounted", 0.7, 1.0, True)
    default = parts.validation
    shares = {"default": default}
    if "stride" in inspect.signature(Validation).parameters:
        shares["everything"] = Validation(default.actor, default.corpus, default.scorer, counts=default.counts)
    with utterance_collector(parts.env, parts.policy) as collector:

        def iteration() -> int:
            batch = parts.reward(collector.next())
            batch = estimate(batch, parts.signal(batch))
            for _ in range(2):
                for rows in lane_minibatches(batch, 8):
                    gradient_step(loss, rows, optimizer, 1.0)
            return int(batch["frame_mask"].sum())

        for k in range(rounds + 1):  # the first fills the caches
            seconds = {name: _timed(validation) for name, validation in shares.items()}
            frames: list[int] = []
            seconds["iteration"] = _timed(lambda found=frames: found.append(iteration()))
            if k:
                each = {f"{name}_s_per_utterance": round(seconds[name] / len(default.corpus), 3) for name in shares}
                ratios = {f"{name}_to_iteration": round(seconds[name] / seconds["iteration"], 3) for name in shares}
                about = {"iteration_s": round(seconds["iteration"], 2), "iteration_frames": frames[0]}
                print(json.dumps({**about, "utterances": len(default.corpus), **each, **ratios}), flush=True)


def _timed(call: object) -> float:
    started = time.perf_counter()
    assert callable(call)
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
