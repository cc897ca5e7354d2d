"""What the GPU benchmark prints and writes, how it measures time, and how it counts arithmetic."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.speed.full_size import FULL, TINY, Task


class Report:
    """Results by part, written after each, so that a run that is cut off leaves what it has."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.began = options, time.perf_counter()
        self.device = torch.device(options.device)
        self.size = TINY if options.tiny else FULL
        self.values: dict[str, object] = {"torch": torch.__version__, "device": device_name(self.device)}
        self.values |= {"python": platform.python_version(), "driver": driver()} if self.cuda else {}
        self.text = [f"# {self.values['device']}, torch {torch.__version__}"]
        self._task: Task | None = None

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def task(self) -> Task:
        """Corpus, policy, reward, losses: made once."""
        if self._task is None:
            self._task = Task(self.size, self.device)
        return self._task

    def attempt(self, name: str, part: Callable[[Report], None]) -> None:
        elapsed = time.perf_counter() - self.began
        if elapsed > self.options.seconds:
            print(f"-- {name}: left out after {elapsed:.0f} s", flush=True)
            return
        print(f"-- {name} at {elapsed:.0f} s", flush=True)
        try:
            part(self)
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            self.say(f"**{name} failed**: {traceback.format_exc().splitlines()[-1]}")
        if self.cuda:
            with contextlib.suppress(Exception):
                torch.cuda.empty_cache()
        (self.options.out / "gpu.json").write_text(json.dumps(self.values, indent=1))

    def say(self, *lines: str) -> None:
        print(*lines, sep="\n", flush=True)
        self.text += lines

    def table(self, title: str, rows: list[dict[str, object]]) -> None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines = ["", f"## {title}", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        lines += ["| " + " | ".join(shown(row.get(key, "")) for key in columns) + " |" for row in rows]
        self.values[title] = rows
        self.say(*lines)

    def finish(self) -> None:
        self.say("", f"{time.perf_counter() - self.began:.0f} s in all")
        (self.options.out / "gpu.md").write_text("\n".join(self.text) + "\n")


def shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"


def driver() -> str:
    """Version of NVIDIA's driver."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=10).stdout.strip() or "unknown"
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], object], device: torch.device, repeats: int = 5, limit: float = 4.0) -> float:
    """Median of up to ``repeats`` calls, one more before them; not many more seconds than ``limit``."""
    function()
    times: list[float] = []
    while len(times) < repeats and (not times or sum(times) < limit):
        times.append(seconds_once(function, device))
    return statistics.median(times)


def seconds_once(function: Callable[[], object], device: torch.device) -> float:
    """Of one call, from an idle device to an idle device."""
    wait(device)
    began = time.perf_counter()
    function()
    wait(device)
    return time.perf_counter() - began


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """float32: products in float32; tf32: in tf32; bf16: in tf32, those of the reward in bfloat16."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if name == "float32" else "high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class CountFlops(TorchDispatchMode):
    """Adds up the arithmetic of matrix products (2 per multiplication) and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function.overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        return result
