"""Functions run in forked processes that train as one, as torchrun would start them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from s2f_rl import ranks

PATIENCE_S = 120.0


def start_ranks(function: Callable[[], object], out: Path, n: int = 2, join: bool = True) -> list[BaseProcess]:
    """Start ``n`` ranks; each writes what ``function`` returns to ``out/RANK.pt``.

    ``join``: they are ranks already; False: the function becomes one by itself, as a recipe does.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_rank, args=(function, out, k, n, port, join)) for k in range(n)]
    for process in processes:
        process.start()
    return processes


def wait_for(processes: list[BaseProcess]) -> list[int]:
    """Exit codes; what takes too long is killed."""
    until = time.monotonic() + PATIENCE_S
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()
    return [int(process.exitcode or 0) for process in processes]


def on_ranks(function: Callable[[], object], out: Path, n: int = 2, join: bool = True) -> list[Any]:
    """What ``function`` returns on each of ``n`` ranks: tensors, numbers, text and containers of them."""
    assert wait_for(start_ranks(function, out, n, join)) == [0] * n, f"see {out}"
    return [torch.load(out / f"{k}.pt", weights_only=True) for k in range(n)]


def _rank(function: Callable[[], object], out: Path, k: int, n: int, port: int, join: bool) -> None:
    os.environ |= {"RANK": str(k), "WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with open(out / f"{k}.txt", "w") as told:
        os.dup2(told.fileno(), 1)
        os.dup2(told.fileno(), 2)
    if join:
        with ranks.joined(PATIENCE_S):
            found = function()
    else:
        found = function()
    torch.save(found, out / f"{k}.pt")
