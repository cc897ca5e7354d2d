"""Whole utterances from Ray workers; needs the ``ray`` extra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tensordict import TensorDictBase
from torchrl.collectors import Collector
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType

from s2f_rl.collectors.utterance import LEAN, UtteranceCollector, base_env, make_seeded, whole_decoder, worker_seed
from s2f_rl.errors import UserError


def ray_utterance_collector(
    make_env: Callable[..., EnvBase],
    policy: Callable[[TensorDictBase], TensorDictBase],
    *,
    n_workers: int = 2,
    seed: int = 0,
    n_batches: int | None = None,
    reward_transform: Callable[[TensorDictBase], TensorDictBase] | Sequence[Callable] | None = None,
    exploration_type: ExplorationType = ExplorationType.RANDOM,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    **collector_options: Any,
) -> UtteranceCollector:
    """Collect in Ray actors, on one machine or a cluster: batches [n_workers * B, T], all of the current policy.

    Uses the Ray instance that is running, else starts a local one without dashboard. Call
    :meth:`UtteranceCollector.update_policy_weights_` after every update. ``shutdown`` also ends a local Ray.

    Args:
        make_env: called as ``make_env(seed=...)`` in every worker.
        policy, n_batches, reward_transform, exploration_type, seed: see :func:`multi_utterance_collector`.
        n_workers: actors.
        cpus_per_worker, gpus_per_worker: what each reserves.
        **collector_options: further arguments of :class:`torchrl.collectors.distributed.RayCollector`.

    Raises:
        UserError: ray is not installed.
    """
    try:
        import ray
        from torchrl.collectors.distributed import RayCollector
    except ImportError as error:
        raise UserError("collector=ray needs the ray extra: pip install 's2f_rl[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        # One thread each: workers would otherwise compete for the same cores.
        ray.init(include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
    env = base_env(make_env(seed=seed))
    frames = env.numel() * env.horizon * n_workers
    env.close()
    worker_options = {k: v for k, v in LEAN.items() if k != "reset_at_each_iter"}
    options = {
        "collector_class": Collector,
        "num_collectors": n_workers,
        "sync": True,
        "frames_per_batch": frames,
        "total_frames": 2**62,  # -1 would end before the first batch here, unlike in the other collectors
        "exploration_type": exploration_type,
        "reset_at_each_iter": LEAN["reset_at_each_iter"],
        "collector_kwargs": {**worker_options, "track_traj_ids": False},
        # The default would reserve 2 GiB for every worker.
        "remote_configs": {"num_cpus": cpus_per_worker, "num_gpus": gpus_per_worker},
        **collector_options,
    }
    factories = [partial(make_seeded, make_env, worker_seed(seed, w)) for w in range(n_workers)]
    collector = RayCollector(factories, policy, **options)
    collector.update_policy_weights_(policy)  # before the first batch, or workers act with weights of their own
    return UtteranceCollector(
        collector,
        n_batches,
        reward_transform,
        shutdown=partial(collector.shutdown, shutdown_ray=ours),
        deferred=whole_decoder(policy),
    )
