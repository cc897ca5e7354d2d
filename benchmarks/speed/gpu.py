"""One RL iteration on a GPU at full size: frames per second by part and end to end, against the arithmetic limit.

    python benchmarks/speed/gpu.py [--out FOLDER] [--device cpu --tiny]

V=5023, features shaped as those of wav2vec2-base, the speech-mesh transformer of width 512 and depth 10, H=64; weights,
motions and sounds are random, for what is measured does not depend on them. An iteration is what `recipes/ppo.py` does
with its defaults: whole utterances of 100 to 150 frames, groups of 4, leave-one-out advantages, two epochs of two
minibatches, balanced supervised term. Every part is tried by itself: one that fails prints its traceback, and the rest
goes on. Writes `gpu.json`, `gpu.md`, `profile.txt` and `tests.txt` into FOLDER ($OUT, else outputs/gpu); prints the
Markdown. Below four minutes on an H200. `gpu_page.py` puts the JSON into docs/gpu.md.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # as a script

from benchmarks.speed import full_size  # noqa: E402
from benchmarks.speed import reference as composition  # noqa: E402
from benchmarks.speed.full_size import PRECISIONS, Iteration  # noqa: E402
from benchmarks.speed.gpu_report import CountFlops, Report, precision, seconds, wait  # noqa: E402
from benchmarks.speed.gpu_runs import recipe, tests, validation  # noqa: E402
from s2f_rl.rewards.model.speech_mesh import short_attention  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or ROOT / "outputs/gpu"))
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU does in seconds: tries the script")
    parser.add_argument("--lanes", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--only", nargs="+", help="names of parts")
    parser.add_argument("--seconds", type=float, default=230.0, help="parts that would begin later are left out")
    options = parser.parse_args()
    if options.tiny:
        options.lanes = [4, 8]
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    report = Report(options)
    for name, part in PARTS.items():
        if options.only is None or name in options.only:
            report.attempt(name, part)
    report.finish()


# -- parts -------------------------------------------------------------------------------------------------------------


def ceilings(report: Report) -> None:
    """What a large matrix product and a large copy reach here."""
    n = 256 if report.options.tiny else 8192
    rows, peaks = [], {}
    for name in PRECISIONS:
        dtype = torch.bfloat16 if name == "bf16" else torch.float32
        a, b = torch.randn(2, n, n, dtype=dtype, device=report.device)
        with precision(name):
            peaks[name] = 2 * n**3 / seconds(lambda a=a, b=b: a @ b, report.device) / 1e12
        rows.append({"product": name, "TFLOP/s": peaks[name]})
    x = torch.randn(n * n * 4, device=report.device)
    y = torch.empty_like(x)
    rows.append({"product": "copy, GB/s", "TFLOP/s": 2 * x.nbytes / seconds(lambda: y.copy_(x), report.device) / 1e9})
    report.values["peaks"] = peaks
    report.table("Ceilings", rows)


def agreement(report: Report) -> None:
    """The same numbers on the CPU: motion, scores, loss, gradient; and what lower precision changes in the scores."""
    found = {}
    for device in (torch.device("cpu"), report.device):
        torch.manual_seed(1)
        task = full_size.Task(report.size, device)
        with precision("float32"):
            found[device.type] = task.numbers(lanes=4)
            if device is report.device:
                given = task.numbers(4, found["cpu"]["reward"])["gradient"]
    exact, ours = found["cpu"], found[report.device.type]
    exact["gradient, advantages from the CPU's rewards"], ours[list(exact)[-1]] = exact["gradient"], given
    rows = []
    for key, value in exact.items():
        scale = float(value.abs().max())
        apart = float((ours[key] - value).abs().max()) / scale
        rows.append({"value": key, "largest": scale, "relative difference": apart})
    report.table("CUDA against the CPU, float32", rows)

    rows, scores = [], {}
    for name in PRECISIONS:
        with precision(name):
            scores[name] = report.task.scores(lanes=64 if report.cuda else 4, bf16=name == "bf16")
    for name in PRECISIONS[1:]:
        for key, value in scores["float32"].items():
            error = (scores[name][key] - value).abs()
            row: dict[str, object] = {"precision": name, "score": key, "spread": float(value.std())}
            row |= {"largest error": float(error.max()), "mean error": float(error.mean())}
            row["correlation"] = float(torch.corrcoef(torch.stack([scores[name][key], value]))[0, 1])
            rows.append(row)
    report.table("Scores in lower precision", rows)


def frame_loop(report: Report) -> None:
    """Whole rollouts as graphs, the same recursion kernel by kernel, and TorchRL's loop around single steps."""
    rows = []
    for lanes in (report.options.lanes[0], report.options.lanes[-1]):
        iteration = Iteration(report.task, lanes)
        collector = iteration.collector
        row: dict[str, object] = {"lanes": lanes}
        for _ in range(8):
            collector.next()
        frames = iteration.mean_frames()
        row["whole, frames/s"] = frames / seconds(collector.next, report.device)
        decoder = type(report.task.policy.core.decoder)
        decoder.capturable = False
        try:
            row["without graph"] = frames / seconds(collector.next, report.device)
        finally:
            decoder.capturable = True
        if lanes == report.options.lanes[0]:
            collector._whole = False
            row["TorchRL's loop"] = frames / seconds(collector.next, report.device)
        rows.append(row)
    report.table("Collecting", rows)


def waits(report: Report) -> None:
    """Where the host waits for the device in one iteration."""
    if not report.cuda:
        report.say("", "(where the host waits can be told on CUDA only)")
        return
    rows = []
    iteration = Iteration(report.task, report.options.lanes[0])
    iteration.warm()
    for phase in iteration.PHASES:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                getattr(iteration, phase)()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        places = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchron" in str(w.message))
        most = ", ".join(f"{place} {n}x" for place, n in places.most_common(8))
        rows.append({"phase": phase, "waits": sum(places.values()), "where": most})
    report.table("Where the host waits", rows)


def iterations(report: Report) -> None:
    """Frames per second by part and end to end."""
    peaks = report.values.get("peaks", {})
    rows = []
    for name in reversed(PRECISIONS):
        for stride in (5, 1):
            for lanes in report.options.lanes if name == "bf16" else report.options.lanes[::2]:
                if time.perf_counter() - report.began > report.options.seconds:
                    break
                with precision(name):
                    rows.append(measured(report, name, stride, lanes, peaks.get(name)))
                report.say(json.dumps(rows[-1]))
    report.table("Iterations", rows)


def measured(report: Report, name: str, stride: int, lanes: int, peak: float | None) -> dict[str, object]:
    iteration = Iteration(report.task, lanes, stride, bf16=name == "bf16")
    iteration.warm()
    with CountFlops() as counter:
        iteration.run()
    flops, counted = counter.flops, iteration.frames  # those of a replayed graph are not seen: the rollout's, few
    if report.cuda:
        torch.cuda.reset_peak_memory_stats()
    phases: dict[str, list[float]] = {phase: [] for phase in iteration.PHASES}
    frames = 0
    for _ in range(3):
        for phase, times in phases.items():
            wait(report.device)
            began = time.perf_counter()
            getattr(iteration, phase)()
            wait(report.device)
            times.append(time.perf_counter() - began)
        frames += iteration.frames
    began, whole = time.perf_counter(), 0
    for _ in range(3):
        iteration.run()
        whole += iteration.frames
    wait(report.device)
    took = time.perf_counter() - began
    row: dict[str, object] = {"precision": name, "stride": stride, "lanes": lanes, "frames/s": whole / took}
    row |= {f"{phase}, frames/s": frames / sum(times) for phase, times in phases.items()}
    row |= {f"{phase}, share": sum(times) / sum(map(sum, phases.values())) for phase, times in phases.items()}
    row["MFLOP a frame"] = flops / counted / 1e6
    if peak is not None:
        row["share of the peak"] = flops / counted * whole / took / 1e12 / peak
    if report.cuda:
        row["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
    return row


def repeated(report: Report) -> None:
    """Scores of batches of a new shape, and of the same batch again: what is set up anew for a number of clips."""
    rows = []
    for name in ("tf32", "bf16"):
        for stride in (5, 1):
            iteration = Iteration(report.task, report.options.lanes[-1], stride, bf16=name == "bf16")
            with precision(name):
                iteration.warm()
                row: dict[str, object] = {"precision": name, "stride": stride, "lanes": iteration.lanes}
                for what in ("new, ms", "again, ms"):
                    times = []
                    for _ in range(3):
                        if what == "new, ms":
                            iteration.collect()
                        wait(report.device)
                        began = time.perf_counter()
                        iteration.score()
                        wait(report.device)
                        times.append(1e3 * (time.perf_counter() - began))
                    row[what] = statistics.median(times)
            rows.append(row)
    report.table("Scores of a new batch, and of the same again", rows)


def attention(report: Report) -> None:
    """Attention of the reward's clips: five tokens, 8 heads of 64."""
    m = 64 if report.options.tiny else 16384
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        qkv = torch.randn(m, 5, 3, 8, 64, dtype=dtype, device=report.device)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)

        def products(q=query, k=key, v=value) -> torch.Tensor:
            return ((q * 64**-0.5) @ k.transpose(-1, -2)).softmax(-1) @ v

        ways: dict[str, Callable[[], torch.Tensor]] = {
            "scaled_dot_product_attention": lambda q=query, k=key, v=value: F.scaled_dot_product_attention(q, k, v),
            "products and softmax": products,
            "the same of one copy": lambda qkv=qkv: short_attention(qkv),
        }
        row: dict[str, object] = {"type": str(dtype).removeprefix("torch.")}
        for way, function in ways.items():
            row[f"{way}, ms"] = 1e3 * seconds(function, report.device, 10)
        rows.append(row)
    report.table(f"Attention over 5 tokens, {m} clips", rows)


def chunks(report: Report) -> None:
    """How many clips go through the reward's blocks at once."""
    n = 64 if report.options.tiny else 32768
    model, rows = report.task.model, []
    clips = torch.randn(n, 5, model.backbone.width, device=report.device)
    for size in (32, 64) if report.options.tiny else (1024, 4096, 16384):
        row: dict[str, object] = {"clips at once": size}
        for name in PRECISIONS:
            with precision(name), torch.no_grad(), full_size.lowered(report.task.model, name == "bf16"):
                took = seconds(lambda size=size: model.backbone.encode_embedded(clips, size), report.device, 3, 2.0)
            row[f"{name}, clips/s"] = n / took
        rows.append(row)
    report.table("Mesh half of the reward", rows)


def audio_half(report: Report) -> None:
    """What is computed once per utterance."""
    n = 8 if report.options.tiny else 1024
    clips, rows = torch.randn(n, 20, 128, device=report.device), []
    for name in PRECISIONS:
        with precision(name), torch.no_grad(), full_size.lowered(report.task.model, name == "bf16"):
            took = seconds(lambda: report.task.model.backbone.encode_audio(clips, 256), report.device, 3, 2.0)
        rows.append({"precision": name, "clips/s": n / took})
    report.table("Audio half of the reward", rows)


def encoder(report: Report) -> None:
    """wav2vec2-base, whose features are kept: seconds of speech a second, and what bfloat16 changes in them."""
    from s2f_rl.models import Wav2Vec2AudioEncoder

    if report.options.tiny:
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        sizes |= {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
        encoder = Wav2Vec2AudioEncoder(config=sizes)
    else:
        encoder = Wav2Vec2AudioEncoder()
    encoder = encoder.to(report.device).eval()
    rows, speech = [], torch.randn(1 if report.options.tiny else 16, 16000 * 5, device=report.device)
    exact: torch.Tensor | None = None
    for name in PRECISIONS:
        bf16 = torch.autocast(report.device.type, torch.bfloat16) if name == "bf16" else contextlib.nullcontext()
        with precision(name), torch.no_grad(), bf16:
            took = seconds(lambda: encoder(speech), report.device, 3, 2.0)
            features = encoder(speech).float()
        exact = features if exact is None else exact
        apart = float((features - exact).norm() / exact.norm())
        rows.append({"precision": name, "times real time": speech.numel() / 16000 / took, "relative error": apart})
    report.table("wav2vec2-base", rows)


def reference(report: Report) -> None:
    """A straightforward composition, equal in output, on the same device."""
    composition.compare(report.task)  # the second counts
    row = composition.compare(report.task)
    shown = {"frames": int(row["frames"]), "frames/s": row["frames/s"]}
    shown |= {f"{part}, frames/s": row["frames"] / row[part] for part in composition.PARTS}
    shown |= {name: value for name, value in row.items() if name.endswith("differs")}
    report.table("Reference composition: prefix re-run, clip by clip, autoregressive update", [shown])
    whole = report.values.get("Iterations")
    if isinstance(whole, list):
        best = max(row["frames/s"] for row in whole)
        report.say("", f"best iteration: {best / row['frames/s']:.0f} times the reference")


def profile(report: Report) -> None:
    """Which operations and kernels the score and the update consist of, into profile.txt."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if report.cuda else []
    lanes, text = report.options.lanes[-1], ""
    iteration = Iteration(report.task, lanes, 1, bf16=True)
    with precision("bf16"):
        iteration.warm()
        iteration.collect()
        for phase in iteration.PHASES[1:]:
            wait(report.device)
            with torch.profiler.profile(activities=activities) as prof:
                getattr(iteration, phase)()
                wait(report.device)
            for by in ("self_cuda_time_total", "self_cpu_time_total") if report.cuda else ("self_cpu_time_total",):
                found = prof.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=70)
                text += f"\n{phase}, {lanes} lanes, dense, bf16, by {by}\n{found}"
    (report.options.out / "profile.txt").write_text(text)


def compiled(report: Report) -> None:
    """The mesh half's blocks through torch.compile: would it be worth it?"""
    if not report.cuda:
        return
    model, n = report.task.model, 16384
    clips = torch.randn(n, 5, model.backbone.width, device=report.device)
    pool = torch.compile(model.backbone.pool_mesh)
    with precision("bf16"), torch.no_grad(), full_size.lowered(model, True):
        row: dict[str, object] = {"clips": n}
        row["eager, clips/s"] = n / seconds(lambda: model.backbone.pool_mesh(clips), report.device, 5)
        began = time.perf_counter()
        pool(clips)
        row["compiling, s"] = time.perf_counter() - began
        row["compiled, clips/s"] = n / seconds(lambda: pool(clips), report.device, 5)
    report.table("torch.compile", [row])


PARTS: dict[str, Callable[[Report], None]] = {
    part.__name__: part
    for part in (
        ceilings, agreement, frame_loop, waits, iterations, repeated, reference, chunks, attention, audio_half, encoder,
        tests, recipe, validation, profile, compiled,
    )
}  # fmt: skip


if __name__ == "__main__":
    main()
