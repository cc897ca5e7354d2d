"""Whole utterances from Ray workers; needs the ``ray`` extra."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.collectors import Collector
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType

from s2f_rl.collectors.utterance import LEAN, UtteranceCollector, base_env, deferred_in_workers, make_worker_env
from s2f_rl.errors import UserError


def ray_utterance_collector(
    make_env: Callable[..., EnvBase],
    policy: Callable[[TensorDictBase], TensorDictBase],
    *,
    n_workers: int = 2,
    seed: int = 0,
    n_done: int = 0,
    n_batches: int | None = None,
    reward_transform: Callable[[TensorDictBase], TensorDictBase] | Sequence[Callable] | None = None,
    exploration_type: ExplorationType = ExplorationType.RANDOM,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    address: str | None = None,
    **collector_options: Any,
) -> UtteranceCollector:
    """Collect in Ray actors, on one machine or a cluster: batches [n_workers * B, T], all of the current policy.

    Uses the Ray that this process has joined, else joins ``address`` or starts a local one without dashboard. Call
    :meth:`UtteranceCollector.update_policy_weights_` after every update. ``shutdown`` also leaves what was joined here.

    Args:
        make_env: called as ``make_env(seed=...)`` in every worker.
        policy, n_batches, reward_transform, exploration_type, seed, n_done: see
            :func:`multi_utterance_collector`.
        n_workers: actors.
        cpus_per_worker, gpus_per_worker: what each reserves.
        address: of a cluster (``"auto"``, ``"ray://host:10001"``); None: a local Ray.
        **collector_options: further arguments of :class:`torchrl.collectors.distributed.RayCollector`.

    Raises:
        UserError: ray is not installed, no cluster answers, or the workers do not.
    """
    try:
        import ray
        from torchrl.collectors.distributed import RayCollector
    except ImportError as error:
        raise UserError("parallel=ray needs the ray extra: pip install 's2f_rl[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        local = {"include_dashboard": False} if address is None else {"address": address}
        try:
            # One thread each: workers would otherwise compete for the same cores.
            ray.init(log_to_driver=False, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}}, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"parallel.address={address}: no Ray there ({str(error)[:200]})") from error
    env = make_env(seed=seed)
    frames = base_env(env).numel() * base_env(env).horizon * n_workers
    deferred = deferred_in_workers(policy, env)
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
    factories = [partial(make_worker_env, make_env, seed, w, n_workers, n_done) for w in range(n_workers)]
    with contextlib.nullcontext() if deferred is None else deferred.latents_only():  # their copies stay so
        collector = RayCollector(factories, policy, **options)
    try:
        collector.update_policy_weights_(policy)  # before the first batch, or workers act with weights of their own
    except torch.distributed.DistError as error:
        collector.shutdown(shutdown_ray=ours)
        raise UserError("parallel=ray: the workers did not answer within a minute; is the machine busy?") from error
    return UtteranceCollector(
        collector,
        n_batches,
        reward_transform,
        shutdown=partial(collector.shutdown, shutdown_ray=ours),
        deferred=deferred,
    )
