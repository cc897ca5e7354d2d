"""One recipe twice from the same seed, by the latents and by all vertices: how far apart do the numbers get?

    python benchmarks/both_paths.py ppo start=checkpoints/demo/supervised reward.folder=checkpoints/demo/reward \
        corpus.root=data/demo iterations=20

The first argument is any RL recipe, the others are its overrides. Prints the largest difference of latents, scores,
losses and gradients (before they are clipped), relative to the largest value of the batch or the update. Both runs are
left alone, so what rounding does to one update goes on into the next; the first update has the same weights. The last
column is a third run, by the latents with rewards that are off by one part in 10,000, against the second: what a
difference of the size that rounding has by vertices grows to by itself.

Then, for the scores of one batch, how far each path is from double precision: the model's first map is a sum over V*3
coordinates, in which the face at rest is large and its motion small.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import sys
import tempfile
from contextlib import ExitStack
from unittest.mock import patch

import torch
from tensordict import TensorDictBase
from torch import Tensor

from s2f_rl import keys
from s2f_rl.collectors import utterance_collector
from s2f_rl.envs import FrozenRewardTransform
from s2f_rl.runs import load_recipe, seed_everything
from s2f_rl.training import divergence, prepare_rl

DECIDES = ("s2f_rl.training.build_policy", "s2f_rl.losses.supervised", "s2f_rl.losses.reward_gradient")
"""Where it is asked whether a policy's latents will do."""
NOISE = 1e-4


class Recorder:
    """Listens to a run: (updates so far, kind, values) in the order in which they are computed."""

    def __init__(self, noise: float) -> None:
        self.found: list[tuple[int, str, Tensor]] = []
        self.updates = 0
        self.noise, self.generator = noise, torch.Generator().manual_seed(0)

    def take(self, kind: str, values: Tensor) -> None:
        self.found.append((self.updates, kind, values.detach().double().cpu().clone()))

    def listen(self, stack: ExitStack) -> None:
        """Put itself between the run and what it calls, as long as ``stack`` lasts."""
        reward, step, clip = FrozenRewardTransform.forward, divergence.StepGuard.step, divergence.clip_gradients

        def rewarded(transform, batch):
            batch = reward(transform, batch)
            self.take("latents", batch[keys.LATENT] * batch[keys.FRAME_MASK])
            for name in (keys.REWARD, *transform.scores):
                self.take("scores", batch["next", name])
            exact = batch["next", keys.REWARD]
            factor = 1 + self.noise * torch.randn(exact.shape, generator=self.generator).to(exact)
            return batch.set(("next", keys.REWARD), exact * factor)

        def stepped(guard, loss, *more):
            self.take("losses", loss)
            return step(guard, loss, *more)

        def clipped(optimizer, max_norm):
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            self.take("gradients", torch.cat([each.flatten() for each in gradients]))
            self.updates += 1
            return clip(optimizer, max_norm)

        stack.enter_context(patch.object(FrozenRewardTransform, "forward", rewarded))
        stack.enter_context(patch.object(divergence.StepGuard, "step", stepped))
        stack.enter_context(patch.object(divergence, "clip_gradients", clipped))


def recorded(recipe: str, overrides: list[str], vertices: bool, noise: float = 0.0) -> list[tuple[int, str, Tensor]]:
    """All that a run computes, by the latents or by all vertices; ``noise``: relative, on the rewards."""
    recorder = Recorder(noise)
    with ExitStack() as stack:
        if vertices:
            for module in DECIDES:
                stack.enter_context(patch(f"{module}.frozen_decode", lambda core: None))
        recorder.listen(stack)
        root = stack.enter_context(tempfile.TemporaryDirectory())
        load_recipe(recipe).run([*overrides, f"root={root}", "name=run", "logger=none", "page=none", "progress=false"])
    return recorder.found


def accuracy(recipe: str, overrides: list[str]) -> dict[str, float]:
    """Largest error of any score of one batch, by each path in single precision."""
    config = load_recipe(recipe).compose(overrides)
    seed_everything(config.seed)
    parts = prepare_rl(config, torch.device("cpu"))
    core = parts.policy.core
    batch = next(iter(utterance_collector(parts.env, parts.policy, n_batches=1))).exclude(keys.ACTION)
    decoded = batch.clone().set(keys.ACTION, core.decode(batch[keys.LATENT]).detach())

    def scores(batch: TensorDictBase) -> Tensor:
        rewarded = parts.reward(batch.clone())
        return torch.stack([rewarded["next", name].double() for name in parts.reward.scores])

    single = {"vertices": scores(decoded), "latents": scores(batch)}
    core.double()
    parts.reward.double()
    exact = batch.apply(lambda x: x.double() if x.is_floating_point() else x)
    truth = scores(exact.set(keys.ACTION, core.decode(exact[keys.LATENT]).detach()))
    return {path: float((found - truth).abs().max()) for path, found in single.items()}


def largest(one: list[tuple[int, str, Tensor]], other: list[tuple[int, str, Tensor]]) -> dict[str, tuple[float, float]]:
    """Kind -> largest difference in the first update and in all, relative to the largest value of each tensor."""
    worst: dict[str, tuple[float, float]] = {}
    for (update, kind, a), (_, same, b) in zip(one, other, strict=True):
        assert kind == same and a.shape == b.shape
        scale = float(a.abs().max())
        apart = float((a - b).abs().max()) / scale if scale else 0.0
        first, every = worst.get(kind, (0.0, 0.0))
        worst[kind] = (max(first, apart) if not update else first, max(every, apart))
    return worst


def main() -> None:
    recipe, *overrides = sys.argv[1:]
    full, latent = (recorded(recipe, overrides, vertices) for vertices in (True, False))
    apart, by_itself = largest(full, latent), largest(recorded(recipe, overrides, False, NOISE), latent)
    print(f"| {recipe} | first update | all {full[-1][0] + 1} | rewards off by {NOISE:.0e}, all |\n|---|---|---|---|")
    for kind, (first, every) in apart.items():
        print(f"| {kind} | {first:.1e} | {every:.1e} | {by_itself[kind][1]:.1e} |")
    print("\n| float32 scores by | off from float64 |\n|---|---|")
    for path, error in accuracy(recipe, overrides).items():
        print(f"| {path} | {error:.1e} |")


if __name__ == "__main__":
    main()
