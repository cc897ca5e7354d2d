"""Commands of a suite as tasks of Ray: on this machine, or on a cluster that sees the same files."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.pool import Launch
from s2f_rl.errors import UserError
from s2f_rl.runs.tether import tied

LOST = -1
"""Exit code of a command whose worker or machine was lost."""


@contextlib.contextmanager
def on_ray() -> Iterator[Launch]:
    """Within, commands are started by Ray, each on one CPU: ``RAY_ADDRESS`` names a cluster, else a local one starts.

    Raises:
        UserError: ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError("jobs=ray needs the ray extra: pip install 's2f_rl[ray]'") from error
    try:
        ray.init(log_to_driver=False, **({} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False}))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: no Ray there ({str(error)[:200]})") from error
    remote = ray.remote(num_cpus=1, max_retries=0)(_execute)

    def launch(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> _Task:
        # threads as many as Ray reserves; the command shall end with the worker, not with this process
        own = {**environment, "OMP_NUM_THREADS": "1"}
        return _Task(remote.remote(list(command), str(log.resolve()), own, str(Path.cwd())))

    try:
        yield launch
    finally:
        ray.shutdown()


class _Task:
    """What the pool asks of a process."""

    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def poll(self) -> int | None:
        import ray

        ready, _ = ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            return int(ray.get(ready[0]))
        except ray.exceptions.RayError:
            return LOST

    def end(self) -> None:
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            ray.cancel(self.reference, force=True)


def _execute(command: list[str], log: str, environment: dict[str, str], folder: str) -> int:
    """In a worker: run the command to its end; its exit code."""
    with open(log, "a", encoding="utf-8") as file:
        done = subprocess.run(
            tied(command), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
    return done.returncode
