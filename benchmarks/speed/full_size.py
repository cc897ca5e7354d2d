"""An RL iteration at full size on random weights, motions and sounds, phase by phase as `recipes/ppo.py` runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from s2f_rl import keys
from s2f_rl.collectors import utterance_collector
from s2f_rl.data.clock import PRESETS
from s2f_rl.device_rows import upload
from s2f_rl.envs import FrozenRewardTransform, SpeechToFaceEnv
from s2f_rl.losses import BaselineAdvantage, ClipPPOLoss, SupervisedLoss, WeightedLoss, total_loss
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.training.build_policy import build_policy

PRECISIONS = ("float32", "tf32", "bf16")
GROUP, EPOCHS, MINIBATCHES = 4, 2, 2


class Size(NamedTuple):
    """Of everything that costs."""

    vertices: int
    audio_width: int
    width: int
    depth: int
    utterances: int
    shortest: int
    longest: int


FULL = Size(5023, 768, 512, 10, 96, 100, 150)
TINY = Size(50, 16, 32, 2, 6, 12, 18)


class RandomCorpus:
    """Utterances of random length, smooth random motion and noise for sound, in memory."""

    fps, audio_features_per_frame, topology, clock = 30.0, 1, "vocaset", PRESETS["vocaset"]
    mesh_identity = None

    def __init__(self, size: Size) -> None:
        generator = torch.Generator().manual_seed(5)
        self.n_vertices, self.subjects = size.vertices, [f"S{k}" for k in range(8)]
        self.regions = {"lips": torch.arange(size.vertices // 20)}
        counts = torch.randint(size.shortest, size.longest + 1, (size.utterances,), generator=generator).tolist()
        self.names = [f"S{i % 8}_sentence{i // 8:02d}" for i in range(size.utterances)]
        shapes = torch.randn(16, 3 * size.vertices, generator=generator)
        self._utterances = []
        for i, n in enumerate(counts):
            weights = torch.randn(n, 16, generator=generator).cumsum(0) * 1e-4
            template = 0.05 * torch.randn(3 * size.vertices, generator=generator)
            spoken = {
                "name": self.names[i], "subject": self.subjects[i % 8], "template": template,
                "vertices": template + weights @ shapes, "style": torch.eye(8)[i % 8],
                "mel_clips": torch.randn(n - 4, 20, 128, generator=generator),
                "features": torch.randn(n, 1, size.audio_width, generator=generator),
            }  # fmt: skip
            self._utterances.append(SimpleNamespace(**spoken))

    def __len__(self) -> int:
        return len(self._utterances)

    def __getitem__(self, i: int) -> SimpleNamespace:
        return self._utterances[i]

    def n_frames(self, i: int) -> int:
        return len(self._utterances[i].vertices)

    def has_vertices(self, i: int) -> bool:
        return True


class Features:
    """Audio features as an encoder would have left them."""

    def __init__(self, corpus: RandomCorpus) -> None:
        self.corpus, self.width = corpus, corpus[0].features.shape[-1]

    def get(self, utterance: int) -> Tensor:
        return self.corpus[utterance].features


class Task:
    """Corpus, policy, reward and losses on one device."""

    def __init__(self, size: Size, device: torch.device) -> None:
        torch.manual_seed(0)
        self.size, self.device, self.corpus = size, device, RandomCorpus(size)
        encoder = MelAudioEncoder(width=size.audio_width)
        actor = FaceFormer(encoder, size.vertices, n_subjects=8).eval()
        torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=2e-4)
        backbone = SpeechMeshTransformer(3 * size.vertices, width=size.width, depth=size.depth, n_heads=8)
        model = RewardModel(backbone, ScoreHead(size.width, size.width))
        self.actor, self.model = actor.to(device), model.to(device)
        lips = self.corpus.regions["lips"].to(device)
        self.policy = build_policy(self.actor, {"exploration": "latent", "noise_mm": 0.3}, lips)
        self.features = Features(self.corpus)
        self.supervised = SupervisedLoss(self.policy.actor_module, self.corpus)
        ppo = ClipPPOLoss(self.policy.actor_module, None)
        self.loss = WeightedLoss({"policy": (ppo, 3.0), "supervised": (self.supervised, 1.0)}, balance="grad_norm")
        self.parameters = [p for p in self.loss.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-6)
        self._rewards: dict[int, FrozenRewardTransform] = {}

    def reward(self, stride: int) -> FrozenRewardTransform:
        if stride not in self._rewards:
            self._rewards[stride] = FrozenRewardTransform(self.model, self.corpus, stride=stride)
            self._rewards[stride].read_latents(self.policy.core)
        return self._rewards[stride]

    def env(self, lanes: int) -> SpeechToFaceEnv:
        return SpeechToFaceEnv(self.corpus, self.features, lanes, GROUP, device=self.device)

    @torch.no_grad()
    def batch(self, lanes: int) -> TensorDictBase:
        """Whole utterances of a policy whose noise is the same on every device."""
        batch, core = self.env(lanes).whole_utterances(), self.policy.core
        audio, style = batch[keys.AUDIO], batch[keys.STYLE][:, 0]
        latent, _, scale = core.roll_out(audio, style, sampled=False)
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(3)).to(latent)
        latent = latent + scale * noise
        for key, value in ((keys.LATENT, latent), (keys.LOC, core.means(audio, style, latent)), (keys.SCALE, scale)):
            batch.set(key, value)
        self.policy.complete(batch)
        return batch

    def scores(self, lanes: int, bf16: bool) -> dict[str, Tensor]:
        """Scores of the scored frames of :meth:`batch`, on the CPU."""
        with lowered(self.model, bf16):
            scored = self.reward(1)(self.batch(lanes)).get("next")
        mask = scored[keys.SCORE_MASK]
        return {name: scored[name][mask].float().cpu() for name in (keys.LIP_SCORE, keys.REAL_SCORE)}

    def numbers(self, lanes: int, reward: Tensor | None = None) -> dict[str, Tensor]:
        """Motion, scores, loss terms and gradient of :meth:`batch`, on the CPU.

        Advantages are of ``reward``, if given: a random reward differs within a group by 5e-6 only, so that rounding
        alone is a hundredth of an advantage.
        """
        batch = self.reward(1)(self.batch(lanes))
        found = {"rollout": batch[keys.LATENT], "means": batch[keys.LOC], "log-density": batch[keys.LATENT_LOG_PROB]}
        found |= {name: batch["next", name] for name in (keys.LIP_SCORE, keys.REAL_SCORE)}
        own = batch["next", keys.REWARD]
        found["reward"] = own
        BaselineAdvantage(None, GROUP)(batch, own if reward is None else reward.to(own))
        self.optimizer.zero_grad()
        out = self.loss(batch)
        total_loss(out).backward()
        found["supervised"] = out["value_supervised"]  # that of the policy is 0 before the first update
        found["gradient"] = torch.cat([p.grad.flatten() for p in self.parameters if p.grad is not None])
        return {key: value.detach().float().cpu() for key, value in found.items()}


@contextlib.contextmanager
def lowered(model: RewardModel, bf16: bool) -> Iterator[None]:
    """``reward.precision=bfloat16``, if so."""
    model.backbone.precision = "bfloat16" if bf16 else "float32"
    try:
        yield
    finally:
        model.backbone.precision = "float32"


class Iteration:
    """Collect, reward, advantage, update, again and again."""

    PHASES = ("collect", "score", "advantage", "update")

    def __init__(self, task: Task, lanes: int, stride: int = 1, bf16: bool = False) -> None:
        self.task, self.lanes, self.bf16 = task, lanes, bf16
        self.transform = task.reward(stride)
        self.collector = utterance_collector(task.env(lanes), task.policy)
        self.estimate = BaselineAdvantage(None, GROUP)
        self.batch: TensorDictBase

    def mean_frames(self) -> float:
        """Of a batch; every utterance is as likely."""
        corpus = self.task.corpus
        return self.lanes * sum(map(corpus.n_frames, range(len(corpus)))) / len(corpus)

    @property
    def frames(self) -> int:
        return int(self.batch[keys.FRAME_MASK].sum())

    def collect(self) -> None:
        self.batch = self.collector.next()

    def score(self) -> None:
        with lowered(self.task.model, self.bf16):
            self.batch = self.transform(self.batch)

    def advantage(self) -> None:
        self.batch = self.estimate(self.batch, self.batch["next", keys.REWARD])

    def update(self) -> None:
        task = self.task
        for _ in range(EPOCHS):
            for rows in upload(torch.randperm(self.lanes), task.device).split(self.lanes // MINIBATCHES):
                task.optimizer.zero_grad()
                total_loss(task.loss(self.batch[rows])).backward()
                torch.nn.utils.clip_grad_norm_(task.parameters, 1.0)
                task.optimizer.step()

    def warm(self) -> None:
        """See every utterance, so that what is computed once is there."""
        for _ in range(2 + GROUP * len(self.task.corpus) // self.lanes):
            self.run()

    def run(self) -> None:
        for phase in self.PHASES:
            getattr(self, phase)()
