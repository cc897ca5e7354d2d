"""How many threads torch uses: one in the frame loop, the cores that this process may use elsewhere.

This module loads nothing heavy; torch is imported by the functions that set its threads.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

_lock = threading.Lock()
_here = threading.local()  # .inside: this Python thread is in a frame loop
_loops = 0  # Python threads that are: torch's setting is the process's
_threads_outside = 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch's operations inside use one thread; the count of before comes back, whatever happens inside.

    For loops of operations so small that waking a second thread costs more than it does, and waiting for it a time
    slice where other processes run. A pair of settings takes 0.2 microseconds. It may be nested, and entered by several
    Python threads at once. Only a thread whose very first operation falls inside another one's loop keeps one thread:
    torch gives every new thread the count of the moment.
    """
    import torch

    global _loops, _threads_outside
    if getattr(_here, "inside", False):
        yield
        return
    with _lock:
        if _loops == 0:
            _threads_outside = torch.get_num_threads()
        _loops += 1
        torch.set_num_threads(1)
    _here.inside = True
    try:
        yield
    finally:
        _here.inside = False
        with _lock:
            _loops -= 1
            torch.set_num_threads(_threads_outside)


def available_cores() -> int:
    """Cores that this process may use: its affinity, and the CPU quota of its container rounded up. At least 1."""
    quota = cpu_quota()
    return _affinity() if quota is None else max(1, min(_affinity(), math.ceil(quota)))


def use_available_cores() -> None:
    """Lower torch's threads to :func:`available_cores`: torch sees the affinity, but no quota.

    Does nothing, and loads nothing, without a quota that binds, and where ``OMP_NUM_THREADS`` or ``MKL_NUM_THREADS``
    says how many: so does joblib in the jobs of a sweep.
    """
    if {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys() or available_cores() == _affinity():
        return
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), available_cores()))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(root: str | Path = "/") -> float | None:
    """CPUs that control groups grant this process (2.5: two and a half), None where there is no limit.

    The smallest of its own group and all above it that can be seen, version 1 (``cpu.cfs_quota_us``) and 2
    (``cpu.max``). What cannot be read or understood counts as no limit. ``root``: where ``proc`` and the mounts are.
    """
    root = Path(root)
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    own = {}  # controllers of a hierarchy, "" for version 2: the group's path
    for line in groups:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        own.update(dict.fromkeys(controllers.split(","), path) if path.startswith("/") else {})
    limits = []
    for line in mounts:
        fields, _, kind = line.partition(" - ")
        parts, kind_parts = fields.split(), kind.split()
        if len(parts) < 5 or not kind_parts or not kind_parts[0].startswith("cgroup"):
            continue
        second = kind_parts[0] == "cgroup2"
        if not second and "cpu" not in kind_parts[-1].split(","):
            continue
        group = own.get("" if second else "cpu")
        if group is not None:
            mount = root / _unescaped(parts[4]).lstrip("/")
            limits += [_limit(folder, second) for folder in _upwards(mount, _unescaped(parts[3]), group)]
    return min((limit for limit in limits if limit is not None), default=None)


def _upwards(mount: Path, mounted: str, path: str) -> Iterator[Path]:
    """The folder of group ``path`` below ``mount``, where ``mounted`` of the hierarchy is seen, and all above it."""
    try:
        inner = PurePosixPath(path).relative_to(mounted)
    except ValueError:  # the group's name is the host's, the mount is the container's own
        inner = PurePosixPath()
    if ".." in inner.parts:
        inner = PurePosixPath()
    yield mount / inner
    yield from (mount / above for above in inner.parents)


def _limit(folder: Path, second: bool) -> float | None:
    try:
        if second:
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
        cpus = int(quota) / int(period)  # "max" is no number, and no limit
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return cpus if cpus > 0 else None


def _unescaped(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
