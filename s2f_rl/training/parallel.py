"""Where a run collects: in this process, in worker processes, on Ray, or in every rank of several that train as one."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from tensordict import TensorDictBase

from s2f_rl import ranks
from s2f_rl.collectors import (
    ListeningCollector,
    UtteranceCollector,
    multi_utterance_collector,
    ray_utterance_collector,
    utterance_collector,
)
from s2f_rl.data import FaceCorpus
from s2f_rl.envs import SpeechToFaceEnv
from s2f_rl.envs.speech_to_face import DEVICE_CACHE_MB
from s2f_rl.errors import UserError
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.audio_encoders import AudioEncoder
from s2f_rl.models.encoder_kinds import packed_encoder
from s2f_rl.models.hearing import Hearing
from s2f_rl.models.policy import MotionPolicy
from s2f_rl.runs.tether import die_with
from s2f_rl.training.parts import RLParts, times_drawn
from s2f_rl.training.setup import plain

_POLL_S = 0.5
_LOST = (
    "parallel: a worker ended while it collected (killed, or out of memory); "
    "resume=true goes on from the last checkpoint"
)

Start = Callable[[int], UtteranceCollector]
"""Starts workers after so many batches of the run."""


class WorkerLost(UserError):
    """A worker process ended while it collected."""


class WorkerCollector:
    """Batches from workers, with the interface of :class:`~s2f_rl.collectors.UtteranceCollector`.

    The workers start with the first batch, where the run is then, and get the policy's weights before every other.

    Args:
        start: called with the number of batches collected before.
        policy: whose weights the workers follow.

    Raises (``next``):
        WorkerLost: a worker ended. The run goes on from its last checkpoint, with the same numbers.
    """

    def __init__(self, start: Start, policy: MotionPolicy) -> None:
        self._start, self._policy = start, policy
        self._workers: UtteranceCollector | None = None
        self.n_collected = 0

    def next(self) -> TensorDictBase:
        """Collect one batch [B, T] with the policy as it is now."""
        try:
            if self._workers is None:
                self._workers = self._start(self.n_collected)
            else:
                self._send_weights(self._workers)
            batch = self._workers.next()
        except UserError:
            raise
        except Exception as error:  # TorchRL's RuntimeError, a closed pipe, an error of Ray's
            if not _of_a_worker(error):
                raise
            raise WorkerLost(f"{_LOST} ({type(error).__name__} {str(error)[:120]})") from error
        self.n_collected += 1
        return batch

    def _send_weights(self, workers: UtteranceCollector) -> None:
        """TorchRL waits for ever for the answer of a worker that is dead: this looks after them meanwhile."""
        processes = getattr(workers.collector, "procs", ())
        if not processes:  # Ray's tell of themselves
            workers.update_policy_weights_(self._policy)
            return
        sending = threading.Thread(target=workers.update_policy_weights_, args=(self._policy,), daemon=True)
        sending.start()
        while sending.is_alive():
            sending.join(_POLL_S)
            if not all(process.is_alive() for process in processes):
                logging.getLogger("torchrl").setLevel(logging.CRITICAL)  # the thread meets a closed queue
                raise WorkerLost(_LOST)

    def __iter__(self) -> Iterator[TensorDictBase]:
        while True:
            yield self.next()

    def state_dict(self) -> dict[str, object]:
        """Batches so far: draws and noise of the workers follow from it."""
        return {"n_collected": self.n_collected, "draws": None}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue where ``state`` was taken, before the first batch."""
        self.n_collected = int(state["n_collected"])

    def __enter__(self) -> WorkerCollector:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._workers is not None:
            self._workers.shutdown()
            self._workers = None


def make_collector(config: Mapping[str, object], parts: RLParts) -> UtteranceCollector | WorkerCollector:
    """The collector of a run, as the config group ``parallel`` says.

    Args:
        config: with the keys ``parallel``, ``corpus``, ``lanes``, ``group_size``, ``style``, ``max_frames``, ``seed``
            and ``unrecorded_share`` of ``recipes/conf/shared/rl.yaml``. ``lanes`` are those of all workers together.
        parts: of the run; the environment's draws become those of this rank.
    """
    options, env, policy = plain(config), parts.env, parts.policy
    parallel = options["parallel"]
    if parallel["kind"] in ("none", "ddp"):
        if ranks.count() > 1:
            env.draws.take_part(ranks.rank(), ranks.count())
        return utterance_collector(env, policy)
    n_workers = parallel["workers"]
    remote = parallel["kind"] == "ray"
    make_env = partial(
        _worker_env,
        parent=None if remote else os.getpid(),
        corpus=(options["corpus"]["root"], options["corpus"]["topology"], options["corpus"]["cache"]),
        encoder=packed_encoder(parts.start.actor.audio_encoder),
        options=(options["lanes"] // n_workers, options["group_size"], options["style"], options["max_frames"]),
        unrecorded_share=options["unrecorded_share"],
        device="cpu" if remote and not parallel["gpus_per_worker"] else str(env.device),
        listens=parts.hearing is not None,
    )
    common = {"n_workers": n_workers, "seed": options["seed"]}
    if parts.hearing is not None:
        common["collector_class"] = ListeningCollector
    if not remote:
        return WorkerCollector(lambda n: multi_utterance_collector(make_env, policy, n_done=n, **common), policy)
    more = {name: parallel[name] for name in ("cpus_per_worker", "gpus_per_worker", "address")}
    return WorkerCollector(lambda n: ray_utterance_collector(make_env, policy, n_done=n, **common, **more), policy)


def _worker_env(
    parent: int | None,
    corpus: tuple[str, str | None, str | None],
    encoder: Callable[[], AudioEncoder],
    options: tuple[int, int, str | int, int | None],
    unrecorded_share: float | None,
    device: str,
    listens: bool,
    seed: int,
) -> SpeechToFaceEnv:
    """A worker's environment, in the worker, which ends with the process ``parent``.

    ``listens``: the audio encoder trains, so the worker's collector brings the environment its weights.
    """
    if parent is not None and os.getpid() != parent:
        die_with(parent)
    root, topology, cache = corpus
    train = FaceCorpus(root, split="train", topology=topology)
    source = (Hearing if listens else CachedAudio)(encoder().to(device), train, cache)
    lanes, group_size, style, max_frames = options
    times = times_drawn(train, unrecorded_share)
    room = 0.0 if listens else DEVICE_CACHE_MB
    return SpeechToFaceEnv(
        train, source, lanes, group_size, style, max_frames, seed=seed, device=device, device_cache_mb=room, times=times
    )


def _of_a_worker(error: Exception) -> bool:
    """Whether an error says that a worker is gone, and not that something in it is wrong."""
    if isinstance(error, (EOFError, BrokenPipeError, ConnectionError)):
        return True
    name = type(error).__name__
    if type(error).__module__.startswith("ray."):
        return any(word in name for word in ("Died", "Crashed", "ActorError"))
    return isinstance(error, RuntimeError) and "process" in str(error).lower()
