"""What `benchmarks/speed/run.py` measures, each a function that returns plain rows."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.speed import reference, scaling
from benchmarks.speed.clock import now
from benchmarks.speed.full_size import Iteration, RandomCorpus, Task, lowered
from s2f_rl import keys, products
from s2f_rl.data import FaceCorpus
from s2f_rl.losses import SupervisedLoss, total_loss
from s2f_rl.rewards import RewardModel
from s2f_rl.rewards.model.speech_mesh import MESH_CLIPS

Row = dict[str, object]
ROUNDS = 3
TOLERANCE = 1e-4
DECIDES = ("s2f_rl.training.build_policy", "s2f_rl.losses.supervised")
"""Where it is asked whether a policy's latents will do."""


def seconds(**functions: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each, by name, taken in turns after one call that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(ROUNDS + 1):
        for name, function in functions.items():
            began = now()
            function()
            if turn:
                taken[name].append(now() - began)
    return {name: statistics.median(each) for name, each in taken.items()}


@contextmanager
def by_vertices() -> Iterator[None]:
    """Within, losses and batches take all vertices, as where the output map trains."""
    with ExitStack() as stack:
        for module in DECIDES:
            stack.enter_context(patch(f"{module}.frozen_decode", lambda core: None))
        yield


# -- the machine -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def machine(task: Task) -> Row:
    """Best GFLOP/s of products of the shape that the reward has most of, by library and type."""
    width = task.size.width
    x, weight = torch.randn(5 * MESH_CLIPS, width), torch.randn(4 * width, width)
    rounded = x.bfloat16(), weight.bfloat16()
    best: dict[str, float] = {}
    for _ in range(20):
        for name, function in (
            ("onednn", lambda: products.linear(x, weight)),
            ("mkl", lambda: F.linear(x, weight)),
            ("bfloat16", lambda: products.linear(*rounded)),
        ):
            began = now()
            function()
            speed = 2 * x.numel() * len(weight) / (now() - began) / 1e9
            best[name] = max(best.get(name, 0.0), speed)
    return {"threads": torch.get_num_threads(), "torch": torch.__version__, **best}


# -- whole iterations --------------------------------------------------------------------------------------------------


def composed(task: Task) -> Row:
    """The reference, on one utterance; raises AssertionError where it is not equal to ours."""
    row = reference.compare(task)
    differences = {key: value for key, value in row.items() if key.endswith("differs")}
    assert max(differences.values()) < TOLERANCE, differences
    return dict(row)


def audio_half(task: Task, strides: tuple[int, ...]) -> list[Row]:
    """Seconds until the sound of one utterance is encoded, by stride, and its clips."""
    rows: list[Row] = []
    for stride in strides:
        n = len(task.corpus[0].mel_clips[::stride])
        parts = task.reward(stride).parts
        began = now()
        parts.prepared(0, stride)
        rows.append({"stride": stride, "clips": n, "seconds": now() - began})
    return rows


def hear_everything(task: Task, strides: tuple[int, ...]) -> None:
    """What an earlier iteration would have left in the cache."""
    for stride in strides:
        for utterance in range(len(task.corpus)):
            task.reward(stride).parts.prepared(utterance, stride)


def iteration(task: Task, lanes: int, stride: int, bf16: bool = False) -> Row:
    """Median seconds of the phases of a warm iteration."""
    loop = Iteration(task, lanes, stride, bf16)
    taken: dict[str, list[float]] = {phase: [] for phase in loop.PHASES}
    frames = []
    for turn in range(ROUNDS + 1):
        for phase in loop.PHASES:
            began = now()
            getattr(loop, phase)()
            if turn:
                taken[phase].append(now() - began)
        if turn:
            frames.append(loop.frames)
    loop.collector.shutdown()
    row: Row = {"lanes": lanes, "stride": stride, "precision": "bfloat16" if bf16 else "float32"}
    mean = {phase: sum(each) / sum(frames) for phase, each in taken.items()}
    row |= {phase: statistics.median(each) for phase, each in taken.items()}
    return row | {"frames": statistics.mean(frames), "frames/s": 1 / sum(mean.values())}


class Operations(TorchDispatchMode):
    """Counts floating-point operations of matrix products and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function._overloadpacket is torch.ops.mkldnn._linear_pointwise:
            self.count += 2 * args[0].numel() * len(args[1])
        elif function._overloadpacket in flop_registry:
            self.count += flop_registry[function._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def operations(task: Task, lanes: int, stride: int) -> Row:
    """Floating-point operations of one iteration by phase."""
    loop = Iteration(task, lanes, stride)
    row: Row = {"lanes": lanes, "stride": stride}
    for phase in loop.PHASES:
        with Operations() as counter:
            getattr(loop, phase)()
        row[phase] = counter.count
    loop.collector.shutdown()
    return row | {"frames": loop.frames}


# -- parts -------------------------------------------------------------------------------------------------------------


def update(task: Task, lanes: int) -> Row:
    """One gradient step by the latents and by all vertices, and the terms of the former by themselves."""
    batch = collected(task, lanes)
    whole = SupervisedLoss(task.policy.actor_module, task.corpus)

    def step() -> None:
        task.optimizer.zero_grad()
        total_loss(task.loss(batch)).backward()
        task.optimizer.step()

    def vertices() -> None:
        with by_vertices(), patch.dict(task.loss.parts._modules, {"supervised": whole}):
            step()

    def term(name: str) -> Callable[[], None]:
        def function() -> None:
            task.optimizer.zero_grad()
            total_loss(task.loss.parts[name](batch)).backward()

        return function

    taken = seconds(latents=step, vertices=vertices, policy=term("policy"), supervised=term("supervised"))
    return {"lanes": lanes, "frames": int(batch[keys.FRAME_MASK].sum()), **taken}


def collected(task: Task, lanes: int):
    """A batch with rewards and advantages."""
    loop = Iteration(task, lanes)
    for phase in ("collect", "score", "advantage"):
        getattr(loop, phase)()
    batch = loop.batch.clone()
    loop.collector.shutdown()
    return batch


@torch.no_grad()
def reward(task: Task, lanes: int, stride: int) -> list[Row]:
    """The scores of a batch, and the matrix products that they consist of, in turns; float32 and bfloat16."""
    rows: list[Row] = []
    batch, transform, backbone = collected(task, lanes), task.reward(stride), task.model.backbone
    n_clips = int(transform(batch.clone())["next", keys.SCORE_MASK].sum())
    blocks = backbone.encoder.blocks
    for bf16 in (False, True):
        dtype = torch.bfloat16 if bf16 else torch.float32
        x = torch.randn(5 * n_clips, task.size.width, dtype=dtype)
        hidden = torch.randn(5 * n_clips, 4 * task.size.width, dtype=dtype)
        weights = [
            [layer.weight.to(dtype) for layer in (b.attn.qkv, b.attn.proj, b.mlp.fc1, b.mlp.fc2)] for b in blocks
        ]

        def alone(x: Tensor = x, hidden: Tensor = hidden, weights: list[list[Tensor]] = weights) -> None:
            for part, wide in zip(x.split(5 * MESH_CLIPS), hidden.split(5 * MESH_CLIPS), strict=True):
                for qkv, proj, fc1, fc2 in weights:
                    products.linear(part, qkv)
                    products.linear(part, proj)
                    products.linear(part, fc1)
                    products.linear(wide, fc2)

        with lowered(task.model, bf16):
            taken = seconds(scores=lambda: transform(batch.clone()), products=alone)
        rows.append({"precision": "bfloat16" if bf16 else "float32", "clips": n_clips, "stride": stride, **taken})
    return rows


@torch.no_grad()
def rounding(model: RewardModel, corpus: FaceCorpus | RandomCorpus, most: int) -> list[Row]:
    """Differences of the scores of recordings by bfloat16 from those by float32."""
    scores: dict[bool, list[dict[str, Tensor]]] = {False: [], True: []}
    for i in range(min(len(corpus), most)):
        spoken = corpus[i]
        for bf16, found in scores.items():
            with lowered(model, bf16):
                scored = model.score(spoken.vertices, spoken.mel_clips)
            mask = scored.pop(keys.SCORE_MASK)
            found.append({name: score[mask] for name, score in scored.items()})
    rows: list[Row] = []
    for name in model.score_names:
        exact, rounded = (torch.cat([each[name] for each in found]) for found in scores.values())
        off = (rounded - exact).abs()
        sizes = {"largest": float(off.max()), "mean": float(off.mean()), "spread": float(exact.std())}
        rows.append({"score": name, "frames": len(exact), **sizes})
    return rows


@torch.no_grad()
def decode(task: Task, lengths: tuple[int, ...]) -> list[Row]:
    """Milliseconds per frame of ``generate`` on one utterance, by its length, in turns."""
    style = torch.eye(8)[:1]
    heard = {n: torch.randn(1, n, 1, task.size.audio_width) for n in lengths}
    taken = seconds(**{str(n): lambda audio=audio: task.actor.generate(audio, style) for n, audio in heard.items()})
    return [{"frames": int(n), "ms per frame": 1e3 * took / int(n)} for n, took in taken.items()]


def scale(axis: str, values: tuple[int, ...]) -> list[Row]:
    """Seconds of an iteration and peak memory, each value in a process of its own."""
    rows = []
    for value in values:
        command = [sys.executable, scaling.__file__, axis, str(value)]
        root = Path(__file__).resolve().parents[2]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root).stdout
        rows.append(json.loads(out.splitlines()[-1]))
    return rows
