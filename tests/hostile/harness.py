"""Runs hostile cases, each in a forked child with bounds on time and memory, and judges how it ended.

    python tests/hostile/harness.py --cases 1000 --seed 0 [--kinds corpus,actor]

A child is forked from a process that has loaded everything, so that a case takes hundredths of a second. That process
has one thread: forking others is not safe.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

CPU_SECONDS, WALL_SECONDS = 5, 60
MEMORY_BYTES = 2**30
HERE = Path(__file__).resolve()


class Server:
    """A process that runs cases one by one. A context manager."""

    def __enter__(self) -> Server:
        paths = [str(HERE.parents[1]), str(HERE.parents[2])]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "0",  # a case that asks a hub shall be seen
            "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, str(HERE), "--serve"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def run(self, kind: str, seed: int) -> dict[str, Any]:
        """``ok``, ``outcome`` ("right", "refused" or what went wrong), ``done`` (to the input), ``message``."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([kind, seed]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server of hostile cases ended at {kind} {seed}")
        result: dict[str, Any] = json.loads(answer)
        return result

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def serve() -> None:
    """Answer [kind, seed] lines of standard input with results on standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a case prints is an answer
    import torch
    from hostile.cases import KINDS
    from hostile.faults import FAULTS
    from hostile.material import make_material
    from tqdm import tqdm

    torch.set_num_threads(1)
    tqdm.get_lock()  # else each child would start a process to watch over its own
    with tempfile.TemporaryDirectory() as place:
        material = make_material(Path(place) / "material")
        for line in sys.stdin:
            kind, seed = json.loads(line)
            folder = Path(place) / "case"
            folder.mkdir()
            result = _forked({**KINDS, **FAULTS}[kind], f"{kind}-{seed}", material, folder)
            left = [str(path.relative_to(folder)) for path in folder.rglob("*") if ".tmp" in path.name]
            if result["ok"] and left:
                result.update(ok=False, outcome="left a temporary file", message=ascii(left))
            shutil.rmtree(folder)
            answers.write(json.dumps(result) + "\n")
            answers.flush()


def _forked(case: Any, seed: str, material: Path, folder: Path) -> dict[str, Any]:
    reader, writer = os.pipe()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # warnings of libraries
        with os.fdopen(writer, "w") as answer:
            json.dump(_judged(case, random.Random(seed), material, folder), answer)
        os._exit(0)
    os.close(writer)
    deadline = time.monotonic() + WALL_SECONDS
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.002)
    with os.fdopen(reader) as answer:
        text = answer.read()
    if status != 0 or not text:
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit status {status >> 8}"
        done = (folder / ".done").read_text() if (folder / ".done").is_file() else ""
        return {"ok": False, "outcome": f"did not end by itself ({how})", "done": done, "message": ""}
    result: dict[str, Any] = json.loads(text)
    grown = (usage.ru_maxrss - before) * 1024
    if result["ok"] and grown > MEMORY_BYTES:
        result.update(ok=False, outcome=f"took {grown >> 20} MB")
    return result


def _judged(case: Any, rng: random.Random, material: Path, folder: Path) -> dict[str, Any]:
    """In the child: run a case within bounds and say how it ended."""
    import numpy as np
    import torch

    from s2f_rl.errors import UserError

    class Told(list):  # what was done is known even when the child is killed
        def append(self, text: str) -> None:
            super().append(text)
            (folder / ".done").write_text("; ".join(self), errors="backslashreplace")

    done = Told()
    torch.manual_seed(0)
    np.random.seed(0)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if os.path.exists("/proc/self/statm") else 0
    if pages:
        limit = pages * os.sysconf("SC_PAGE_SIZE") + 2 * MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    asked = _refuse_network()
    outcome, message, ok = "right", "", True
    try:
        case(rng, material, folder, done)
    except UserError as error:
        outcome, message = "refused", str(error)
        ok = message.isprintable() and 0 < len(message) <= 5000
    except BaseException as error:
        ok, outcome = False, type(error).__name__
        message = "".join(traceback.format_exception(error)[-8:])
    if asked:
        ok, outcome = False, "asked the network"
    return {"ok": ok, "outcome": outcome, "done": "; ".join(done), "message": message[-3000:]}


def _refuse_network() -> list[Any]:
    """Whoever asks the network is refused, and noted, for libraries catch such errors."""
    asked: list[Any] = []

    def refused(*arguments: Any, **_: Any) -> Any:
        asked.append(arguments)
        raise OSError("no network here")

    socket.socket.connect = refused  # type: ignore[method-assign]
    socket.getaddrinfo = refused
    return asked


def main() -> int:
    """The command of ``make fuzz``: 0 if every case ended well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--cases", type=int, default=1000, help="number of cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case (default: %(default)s)")
    parser.add_argument("--kinds", help="comma-separated; default: all in turn")
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]
    from hostile.cases import KINDS

    kinds = options.kinds.split(",") if options.kinds else sorted(KINDS)
    outcomes: Counter[str] = Counter()
    started, slowest = time.monotonic(), (0.0, "")
    with Server() as server:
        for number in range(options.cases):
            kind, seed = kinds[number % len(kinds)], options.seed + number // len(kinds)
            at = time.monotonic()
            result = server.run(kind, seed)
            slowest = max(slowest, (time.monotonic() - at, f"{kind} {seed} ({result['done']})"))
            outcomes[result["outcome"] if result["ok"] else "FAULT"] += 1
            if not result["ok"]:
                print(f"FAULT --kinds {kind} --seed {seed} --cases 1: {result['outcome']}")
                print(f"  input: {result['done']}\n  {result['message']}", flush=True)
    seconds = time.monotonic() - started
    print(f"{options.cases} cases in {seconds:.0f} s: {dict(outcomes)}; slowest {slowest[0]:.1f} s: {slowest[1]}")
    return int(outcomes["FAULT"] > 0)


if __name__ == "__main__":
    sys.exit(main())
