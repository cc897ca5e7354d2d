"""Batches of whole utterances, [B, T], on TorchRL's collectors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.collectors import BaseCollector, Collector, MultiSyncCollector
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from s2f_rl import keys
from s2f_rl.envs import SpeechToFaceEnv
from s2f_rl.errors import UserError
from s2f_rl.models.policy import MotionPolicy

# auto_register_policy_transforms: our policy keeps its own cache, nothing is to be appended to the environment.
LEAN = {"reset_at_each_iter": True, "compact_obs": True, "auto_register_policy_transforms": False}


def trim_to_longest(batch: TensorDictBase) -> TensorDictBase:
    """Cut the time axis of ``batch`` [.., T] after the last frame of its longest lane.

    Looks at each lane's first ``("next", "done")``, so that frames behind it may hold anything; a lane that never ends
    keeps all T. The result shares memory with ``batch``.
    """
    done = batch.get(("next", "done")).squeeze(-1)
    n_time = done.shape[-1]
    length = torch.where(done.any(-1), done.to(torch.uint8).argmax(-1) + 1, n_time).max()
    return batch[..., : int(length)]


class UtteranceCollector:
    """Iterates over batches of whole utterances: rows of one utterance each, trimmed to the longest of the batch.

    Made by :func:`utterance_collector` and its relatives. Iteration ends after ``n_batches``, counted over resumed
    runs; None never ends. **A batch is overwritten when the next one is collected**: clone what you keep.

    To go on after a kill with the data of an unbroken run, save :meth:`state_dict` and torch's random state between
    two batches and restore both before the next; start workers anew with ``n_done`` of
    :func:`multi_utterance_collector`.

    Attributes:
        collector: the TorchRL collector underneath.
        n_collected: batches so far.
    """

    def __init__(
        self,
        collector: BaseCollector,
        n_batches: int | None = None,
        postproc: Callable[[TensorDictBase], TensorDictBase] | Sequence[Callable] | None = None,
        env: Any = None,
        shutdown: Callable[[], None] | None = None,
        deferred: MotionPolicy | None = None,
        policy: MotionPolicy | None = None,
        whole: bool = False,
    ) -> None:
        self.collector = collector
        self.n_batches = n_batches
        self.n_collected = 0
        self._postproc = [] if postproc is None else list(postproc) if isinstance(postproc, Sequence) else [postproc]
        self._env = env
        self._shutdown = shutdown or collector.shutdown
        self._deferred = deferred  # the policy, where single frames need not hold their actions
        self._policy = policy  # that acts in this process, if it is ours
        self._whole = whole  # nobody sees single frames
        self._actions: Tensor | None = None  # where those of all batches are written
        self._iterator: Iterator[TensorDictBase] | None = None

    def __iter__(self) -> Iterator[TensorDictBase]:
        while self.n_batches is None or self.n_collected < self.n_batches:
            yield self.next()

    def next(self) -> TensorDictBase:
        """Collect one batch [B, T] (all workers' lanes in one B)."""
        policy = self._policy if self._whole else None
        hooked = policy is not None and (policy._forward_hooks or policy._forward_pre_hooks)
        batch = self._by_steps() if policy is None or hooked else self._at_once(policy)
        self.n_collected += 1
        if self._deferred is not None:
            batch = batch.exclude(keys.ACTION)  # nothing yet, whatever TorchRL kept it in
            self._deferred.complete(batch, self._room(batch))
        for transform in self._postproc:
            batch = transform(batch)
        return batch

    def _at_once(self, policy: MotionPolicy) -> TensorDictBase:
        """What :meth:`_by_steps` gives, without TorchRL's frame loop."""
        batch: TensorDictBase = self._env.whole_utterances()
        with set_exploration_type(self.collector.exploration_type):
            policy.roll_out(batch)
        return batch

    def _by_steps(self) -> TensorDictBase:
        if self._iterator is None:
            self._iterator = iter(self.collector)
        with contextlib.ExitStack() as stack:
            if self._policy is not None:
                stack.enter_context(self._policy.core.together())
            if self._deferred is not None:
                stack.enter_context(self._deferred.latents_only())
            batch = next(self._iterator)
        if batch.ndim > 2:  # Ray hands over [workers, B, T]
            batch = batch.flatten(0, -2)
        return trim_to_longest(batch)

    def _room(self, batch: TensorDictBase) -> Tensor | None:
        """Where a linear decode writes: always the same memory, which the longest batch fills."""
        policy = self._deferred
        linear = None if policy is None or not policy.writes_action else policy.core.linear_decode
        if linear is not None and (self._actions is None or len(self._actions) < batch.numel()):
            n_frames = batch.numel() if self._env is None else self._env.numel() * self._env.horizon
            self._actions = linear.bias.new_empty(n_frames, len(linear.bias))
        return self._actions

    def update_policy_weights_(self, policy: TensorDictModuleBase | None = None) -> None:
        """Send the policy's weights to the workers; needed after every update where there are any."""
        self.collector.update_policy_weights_(policy)

    def state_dict(self) -> dict[str, object]:
        """Batches so far and, in a single process, the state of the draws; plain numbers."""
        return {"n_collected": self.n_collected, "draws": None if self._env is None else self._env.draw_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken, between two batches."""
        if not {"n_collected", "draws"} <= set(state):
            raise UserError("collector state: expected n_collected and draws; was it saved by state_dict()?")
        self.n_collected = int(state["n_collected"])
        if self._env is not None and state["draws"] is not None:
            self._env.load_draw_state(state["draws"])
        elif self._env is not None:  # of workers, which keep none
            _draw_after(self._env, self.n_collected)

    def shutdown(self) -> None:
        """Close the environments and end the workers."""
        self._iterator = None
        self._shutdown()

    def __enter__(self) -> UtteranceCollector:
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()


class ListeningCollector(Collector):
    """A worker's collector whose environment encodes speech with the weights that come with the policy's.

    The environment's source is a :class:`~s2f_rl.models.hearing.Hearing`.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        base_env(self.env).audio_source.follow(self.policy)


class _StopWhenIdle:
    """Tells a Collector to stop stepping once every lane has ended, instead of padding up to the horizon."""

    def __init__(self, env: EnvBase) -> None:
        self.env = env

    def collection_stopped(self) -> bool:
        return self.env.all_idle


def utterance_collector(
    env: EnvBase | Callable[[], EnvBase],
    policy: Callable[[TensorDictBase], TensorDictBase],
    *,
    n_batches: int | None = None,
    reward_transform: Callable[[TensorDictBase], TensorDictBase] | Sequence[Callable] | None = None,
    exploration_type: ExplorationType = ExplorationType.RANDOM,
    **collector_options: Any,
) -> UtteranceCollector:
    """Collect in this process with TorchRL's Collector and its lean options.

    Where no one sees single frames (our environment without transforms, a Gaussian policy of latents, no hooks or
    further options), utterances are drawn whole: the same numbers up to rounding, without TorchRL's work around every
    frame, and on CUDA without waiting for the device.

    Building it uses up no draw of the environment and no random number: the Collector's own trial reset and policy
    call are undone.

    Args:
        env: a :class:`s2f_rl.envs.SpeechToFaceEnv`, bare or transformed, or a function that makes one.
        policy: on the environment's device. Batches hold its ``action`` unless its ``writes_action`` is False.
        n_batches: batches in all; None: endless.
        reward_transform: applied to every batch, in order: :class:`s2f_rl.envs.FrozenRewardTransform`, ...
        exploration_type: RANDOM samples, DETERMINISTIC takes the mean.
        **collector_options: further arguments of :class:`torchrl.collectors.Collector`.

    Example:
        >>> collector = utterance_collector(env, policy, n_batches=100, reward_transform=reward)
        >>> for batch in collector:           # [B, T], valid until the next batch
        ...     advantage = batch["next", "reward"] - baseline
    """
    env = env if isinstance(env, EnvBase) else env()
    base = base_env(env)
    draws = base.draw_state()
    # Whoever sees single frames (a transform, TorchRL's own hooks) needs their actions at once, our environment not
    deferred, ours, whole = whole_decoder(policy), policy if isinstance(policy, MotionPolicy) else None, False
    if env is base and not collector_options and ours is not None and ours.defers:
        deferred = ours
        whole = (
            ours.rolls_out
            and type(env)._step is SpeechToFaceEnv._step
            and type(env)._reset is SpeechToFaceEnv._reset
            and exploration_type in (ExplorationType.RANDOM, ExplorationType.DETERMINISTIC)
        )
    options = {
        "frames_per_batch": env.numel() * base.horizon,
        "total_frames": -1,
        "exploration_type": exploration_type,
        "track_traj_ids": False,
        "return_same_td": True,
        # Else the generator would leave its caller on a side stream between batches; copies to the host still wait.
        "no_cuda_sync": True,
        "interruptor": _StopWhenIdle(base),
        "device": base.device,  # named, else TorchRL copies every frame's TensorDict
        **LEAN,
        **collector_options,
    }
    with _random_state_kept():
        collector = Collector(env, policy, **options)
    if deferred is not None and (room := getattr(collector, "_final_rollout", None)) is not None:
        room.unlock_().pop(keys.ACTION, None)  # TorchRL makes room for every entry that the environment knows
    base.load_draw_state(draws)
    return UtteranceCollector(
        collector, n_batches, reward_transform, env=base, deferred=deferred, policy=ours, whole=whole
    )


def multi_utterance_collector(
    make_env: Callable[..., EnvBase],
    policy: Callable[[TensorDictBase], TensorDictBase],
    *,
    n_workers: int = 2,
    seed: int = 0,
    n_done: int = 0,
    n_batches: int | None = None,
    reward_transform: Callable[[TensorDictBase], TensorDictBase] | Sequence[Callable] | None = None,
    exploration_type: ExplorationType = ExplorationType.RANDOM,
    **collector_options: Any,
) -> UtteranceCollector:
    """Collect in ``n_workers`` processes with TorchRL's MultiSyncCollector: batches [n_workers * B, T].

    Call it under ``if __name__ == "__main__":``, and :meth:`UtteranceCollector.update_policy_weights_` after every
    update. The reward is computed in this process, and so are displacements where the policy can defer them.

    The workers share an epoch without overlap (:class:`~s2f_rl.envs.draws.UtteranceDraws`), and the noise of a batch
    follows from ``seed``, worker and batch: started again with ``n_done``, they go on as if they had never stopped.

    Args:
        make_env: called as ``make_env(seed=...)`` in every worker; must pickle (cloudpickle).
        policy, n_batches, reward_transform, exploration_type: see :func:`utterance_collector`.
        n_workers: processes.
        seed: of the draws and of the noise.
        n_done: batches collected before.
        **collector_options: further arguments of :class:`torchrl.collectors.MultiSyncCollector`.
    """
    env = make_env(seed=seed)
    frames = base_env(env).numel() * base_env(env).horizon * n_workers
    deferred = deferred_in_workers(policy, env)
    env.close()
    options = {
        "frames_per_batch": frames,
        "total_frames": -1,
        "exploration_type": exploration_type,
        "cat_results": 0,
        "use_buffers": True,  # what it finds out by itself, with a warning
        **LEAN,
        **collector_options,
    }
    factories = [partial(make_worker_env, make_env, seed, w, n_workers, n_done) for w in range(n_workers)]
    with contextlib.nullcontext() if deferred is None else deferred.latents_only():  # their copies stay so
        collector = MultiSyncCollector(factories, policy, **options)
    return UtteranceCollector(
        collector, n_batches, reward_transform, shutdown=partial(_end_workers, collector), deferred=deferred
    )


def deferred_in_workers(policy: object, env: EnvBase) -> MotionPolicy | None:
    """The policy if the workers send latents only, which this process completes: where nobody there sees actions."""
    if env is base_env(env) and isinstance(policy, MotionPolicy) and policy.defers:
        return policy
    return whole_decoder(policy)


def whole_decoder(policy: object) -> MotionPolicy | None:
    """The policy if its actions exist for whole utterances only, so that batches must be completed; else None."""
    return policy if isinstance(policy, MotionPolicy) and not policy.core.frame_wise else None


def _end_workers(collector: MultiSyncCollector) -> None:
    """Shut down the collector and the queues that carried weights.

    TorchRL 0.14 leaves the queues to ``__del__``, which waits for ever if it runs while the interpreter ends, as it
    does when an error's traceback still holds the collector.
    """
    collector.shutdown()
    for scheme in (getattr(collector, "_weight_sync_schemes", None) or {}).values():
        scheme.shutdown()


def _draw_after(env: SpeechToFaceEnv, n_done: int) -> None:
    """Let an environment, or part of several, draw what comes after ``n_done`` batches of all of them."""
    groups = env.numel() // env.group_size * env.draws.n_parts
    env.load_draw_state({**env.draw_state(), "n_drawn": n_done * groups})


def make_worker_env(
    make_env: Callable[..., EnvBase], seed: int, worker: int, n_workers: int, n_done: int = 0
) -> EnvBase:
    """A worker's environment, in the worker, which goes on after ``n_done`` batches of all."""
    env = make_env(seed=seed)
    base = base_env(env)
    base.draws.take_part(worker, n_workers)
    _draw_after(base, n_done)
    base.draws.keep_next()  # the Collector resets once for itself when it is built
    return env


def base_env(env: EnvBase) -> Any:
    """The environment inside its transforms. Raises UserError if it is none of whole utterances."""
    while hasattr(env, "base_env"):
        env = env.base_env
    for name in ("horizon", "draw_state", "load_draw_state", "all_idle"):
        if not hasattr(env, name):
            raise UserError(f"{type(env).__name__} has no {name}: utterance collection needs a SpeechToFaceEnv")
    return env


def _random_state_kept() -> contextlib.AbstractContextManager:
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    return torch.random.fork_rng(devices=devices)
