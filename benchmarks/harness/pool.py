"""Running commands side by side: resumable, with every failure kept as a record."""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (in the environment of what is started)

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from s2f_rl.data.files import atomic_write_json, load_json
from s2f_rl.errors import UserError
from s2f_rl.runs.inputs import changed_inputs
from s2f_rl.runs.tether import PARENT, tied
from s2f_rl.threads import available_cores

POLL_S = 0.05


@dataclass(frozen=True)
class Step:
    """A command and the record of its last end, a json file.

    ``key`` is what makes two steps the same (their overrides): a record with another key is of another step, and
    ``fixed`` says that this is a mistake (a run folder must not mix two configs) rather than a reason to run again.
    ``inputs`` is what the command reads, by content (:mod:`s2f_rl.runs.inputs`), and makes two steps differ likewise.
    """

    command: tuple[str, ...]
    record: Path
    key: tuple[str, ...]
    fixed: bool = True
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """Everything that the command printed, of all attempts."""
        return self.record.with_suffix(".log")


class Process(Protocol):
    """A command that goes on somewhere."""

    def poll(self) -> int | None:
        """Its exit code; None while it goes on."""

    def end(self) -> None:
        """End it, and wait until it has."""


Launch = Callable[[Sequence[str], Path, Mapping[str, str]], Process]
"""Starts a command, what it prints in a file, with these environment variables."""


@dataclass(frozen=True)
class Job:
    """Steps that follow each other; the first that fails ends the job."""

    name: str
    steps: tuple[Step, ...]


def read_record(path: Path) -> dict[str, Any] | None:
    """The record of a step: ``status``, ``key``, ``returncode``, ``wall_s``, ``attempts``, ``error``; or None."""
    return load_json(path) if path.exists() else None


def is_current(record: Mapping[str, Any], step: Step) -> bool:
    """Whether a record is of this very step: its key and its inputs; records of older versions have no inputs."""
    return tuple(record["key"]) == step.key and not changed_inputs(record.get("inputs", {}), step.inputs)


def is_done(step: Step) -> bool:
    """Whether the step has been done already, with the same key.

    Raises:
        UserError: it is ``fixed`` and was done with another key or other inputs.
    """
    record = read_record(step.record)
    if record is None or record["status"] != "done":
        return False
    if is_current(record, step):
        return True
    if not step.fixed:
        return False
    if tuple(record["key"]) != step.key:
        ours, theirs = set(step.key) - set(record["key"]), set(record["key"]) - set(step.key)
        raise UserError(
            f"{step.record}: this was done with {', '.join(sorted(theirs)) or 'fewer overrides'}, now it would be "
            f"{', '.join(sorted(ours)) or 'fewer overrides'}; set them back or give another root=..."
        )
    changed = changed_inputs(record["inputs"], step.inputs)
    names = ", ".join(f"{key} ({', '.join(parts)})" if parts else key for key, parts in changed.items())
    raise UserError(
        f"{step.record}: this was done before the content of {names} changed; put the old content back or give another "
        "root=..."
    )


def run_jobs(
    jobs: Iterable[Job],
    n_parallel: int = 1,
    environment: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = lambda line: None,
    launch: Launch | None = None,
) -> int:
    """Run what is not done yet, at most ``n_parallel`` commands at a time; returns how many jobs failed.

    Every command gets ``OMP_NUM_THREADS`` = cores / ``n_parallel`` unless ``environment`` has it. A record is written
    when a command starts (``status`` running: a kill leaves that) and when it ends. A failed job stops only itself.
    However this call ends, by SIGKILL too, no command that it started goes on.

    ``launch``: how commands are started; None: as processes of this machine.
    """
    threads = str(max(1, available_cores() // n_parallel))
    surroundings = {**os.environ, "OMP_NUM_THREADS": threads, **(environment or {})}
    waiting: list[tuple[Job, Sequence[Step]]] = []
    jobs = list(jobs)
    for job in jobs:
        done = [is_done(step) for step in job.steps]
        first = done.index(False) if False in done else len(done)  # a step done anew makes the later ones stale
        if first < len(job.steps):
            waiting.append((job, job.steps[first:]))
    tell(f"{len(jobs)} jobs, {len(jobs) - len(waiting)} done already")
    running: list[_Running] = []
    failed = 0
    try:
        while waiting or running:
            while waiting and len(running) < n_parallel:
                job, steps = waiting.pop(0)
                running.append(_Running(job, list(steps), surroundings, launch or _LocalProcess))
            time.sleep(POLL_S)
            for item in list(running):
                state = item.poll()
                if state is None:
                    continue
                running.remove(item)
                failed += state == "failed"
                tell(f"{state} {item.job.name} ({len(waiting) + len(running)} to go)")
    finally:
        for item in running:
            item.process.end()
    return failed


class _LocalProcess:
    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        with open(log, "a", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                tied(command), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                env={**environment, PARENT: str(os.getpid())},
            )  # fmt: skip

    def poll(self) -> int | None:
        return self.process.poll()

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _Running:
    def __init__(self, job: Job, steps: list[Step], environment: Mapping[str, str], launch: Launch) -> None:
        self.job, self.steps, self.environment, self.launch = job, steps, environment, launch
        self._start()

    def _start(self) -> None:
        step = self.steps[0]
        before = read_record(step.record)
        self.attempts = 1 if before is None or not step.fixed else int(before["attempts"]) + 1
        self._write("running", None, 0.0, "")
        self.started = time.perf_counter()
        self.process = self.launch(step.command, step.log, self.environment)

    def poll(self) -> str | None:
        """``done`` or ``failed`` when the job has ended, None while it goes on."""
        code = self.process.poll()
        if code is None:
            return None
        step = self.steps[0]
        wall_s = time.perf_counter() - self.started
        if code != 0:
            self._write("failed", code, wall_s, _last_lines(step.log))
            return "failed"
        self._write("done", 0, wall_s, "")
        self.steps.pop(0)
        if self.steps:
            self._start()
            return None
        return "done"

    def _write(self, status: str, code: int | None, wall_s: float, error: str) -> None:
        step = self.steps[0]
        step.record.parent.mkdir(parents=True, exist_ok=True)
        record = {"status": status, "key": list(step.key), "returncode": code, "wall_s": wall_s}
        record["inputs"] = dict(step.inputs)
        atomic_write_json(step.record, record | {"attempts": self.attempts, "error": error})


def _last_lines(log: Path, n: int = 5) -> str:
    lines = [line.rstrip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-n:])
