"""Long recordings: memory and time of ``animate``, windows against one pass in mm, the frame loop, live streams.

    python benchmarks/speed/long.py [--parts memory loop stream difference] [--encoders [mel] [wav2vec2]]
        [--frames 100 1000] [--seconds 20] [--checkpoint FOLDER --corpus FOLDER] [--results FILE.json] [--plot FILE.png]

By itself a short look. The tables of the documents come from ``--frames 100 1800 10000 108000`` (an hour of speech) and
``--parts difference --seconds 75``. V=5023; wav2vec2-base has random weights. ``--checkpoint`` and ``--corpus`` (such
as checkpoints/demo/supervised and data/demo) add a trained actor to ``difference``. Parts:

- memory: ``animate`` to a .npy, a process for each length, sound at 48 kHz: seconds, peak of resident memory
- evaluate: the same of ``s2f-rl evaluate``, one recording with faces in eight styles and their mean, no reward
- difference: vertices in windows against one pass, mean and largest over vertices and frames, mm
- loop: microseconds of the frame loop at frame t, exact and with a memory of 60 s, one thread
- stream: ``SpeechStream`` on one thread, blocks of 20 ms: how many times real time, and how late a frame is

Prints Markdown tables. ``--results`` also keeps the rows of ``memory``, in place of those of the same encoder and
length; ``--plot`` draws what is kept there. An hour (108,000 frames) needs 7 GB of disk in the temporary folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.data.audio import SPEECH_RATE_HZ, normalise, read_wav, resample, write_wav
from s2f_rl.data.files import atomic_path, atomic_write_json
from s2f_rl.data.synthetic import synthesize
from s2f_rl.models import FaceFormer, MelAudioEncoder, Wav2Vec2AudioEncoder
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.models.latent_stream import LatentStream, stream_latents
from s2f_rl.models.windowed_audio import Windows, measure_sound
from s2f_rl.streaming import SpeechStream
from s2f_rl.training import actor_entry

FPS = 30
ENCODERS: dict[str, Callable[[], torch.nn.Module]] = {"mel": MelAudioEncoder, "wav2vec2": Wav2Vec2AudioEncoder}
MOTION_MM = 10.0
OFFLINE = [
    Windows(55.0, 2.5, 2.5),
    Windows(50.0, 5.0, 5.0),
    Windows(40.0, 10.0, 10.0),
    Windows(20.0, 20.0, 20.0),
    Windows(20.0, 5.0, 5.0),
]
LIVE = [Windows(0.6, 1.0, 0.2), Windows(1.0, 1.0, 0.2), Windows(0.6, 2.0, 1.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", default=["memory", "loop", "stream"])
    parser.add_argument("--encoders", nargs="*", default=list(ENCODERS))
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--seconds", type=float, default=20.0, help="of speech for difference and stream")
    parser.add_argument("--checkpoint")
    parser.add_argument("--corpus")
    parser.add_argument("--results", type=Path, help="file that keeps what memory measures")
    parser.add_argument("--plot", type=Path, help="picture to draw of --results")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        called_here(*options.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        for part in options.parts:
            PARTS[part](options, Path(folder))
    if options.plot:
        plot(json.loads(options.results.read_text(encoding="utf-8")), options.plot)


def table(*columns: str) -> None:
    print("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)


def row(*cells: object) -> None:
    print("| " + " | ".join(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells) + " |", flush=True)


def speech(seconds: float, rate: int = SPEECH_RATE_HZ) -> np.ndarray:
    """Voiced and unvoiced syllables of random pitch and loudness with pauses, float32."""
    rng, parts, n = np.random.default_rng(0), [], 0
    while n < seconds * rate:
        t = np.arange(int(rng.uniform(0.08, 0.35) * rate)) / rate
        voice = sum(np.sin(2 * np.pi * rng.uniform(90, 220) * k * t) / k for k in range(1, 12))
        sound = rng.uniform(0, 1) * voice + rng.uniform(0, 0.5) * rng.normal(size=len(t))
        parts.append((rng.uniform(0, 0.2) * np.hanning(len(t)) * sound).astype(np.float32))
        n += len(t)
    return np.concatenate(parts)[: int(seconds * rate)]


def random_actor(encoder: str) -> FaceFormer:
    """Random weights, V=5023, whose largest displacement is about 10 mm."""
    torch.manual_seed(0)
    actor = FaceFormer(ENCODERS[encoder](), 5023).eval()  # type: ignore[arg-type]
    output = actor.decoder.vertice_map_r
    torch.nn.init.normal_(output.weight, std=1e-3)
    with torch.no_grad():
        sample = torch.from_numpy(normalise(speech(10.0)))[None]
        latents = actor.generate(actor.encode(sample), torch.eye(8)[:1])
        output.weight.mul_(MOTION_MM / largest_and_mean_mm(actor.decode(latents))[0])
    return actor


def largest_and_mean_mm(displacement: torch.Tensor) -> tuple[float, float]:
    length = 1e3 * displacement.unflatten(-1, (-1, 3)).norm(dim=-1)
    return float(length.max()), float(length.mean())


# -- parts -------------------------------------------------------------------------------------------------------------


def memory(options: argparse.Namespace, folder: Path) -> None:
    synthesize(folder / "corpus", 3, 1, vertices=5023)
    corpus = FaceCorpus(folder / "corpus", split="train")
    table("encoder", "frames", "seconds", "CPU seconds", "peak memory, MB", "file, MB")
    for encoder in options.encoders:
        save(random_actor(encoder), corpus, folder / encoder)
        for n_frames in options.frames:
            wav, out = folder / "speech.wav", folder / "out.npy"
            minute = speech(min(60.0, n_frames / FPS + 0.1), 48000)
            n_samples = round((n_frames / FPS + 0.1) * 48000)
            write_wav(wav, np.resize(minute, n_samples), 48000)
            found = called("animate", wav, folder / encoder, out)
            row(encoder, n_frames, found["seconds"], found["cpu"], found["peak_mb"], out.stat().st_size / 1e6)
            if options.results:
                keep(options.results, {"encoder": encoder, "frames": n_frames, **found})
            out.unlink()


def keep(path: Path, found: dict[str, object]) -> None:
    """Put a row into the file, in place of one of the same encoder and length."""
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    same = found["encoder"], found["frames"]
    rows = [each for each in rows if (each["encoder"], each["frames"]) != same]
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = sorted([*rows, found], key=lambda each: (each["encoder"], each["frames"]))
    atomic_write_json(path, rows)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """CPU seconds and peak of memory against the number of frames, a line for each encoder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, cells = pyplot.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    for encoder in sorted({each["encoder"] for each in rows}):
        own = [each for each in rows if each["encoder"] == encoder]
        for cell, key in zip(cells, ("cpu", "peak_mb"), strict=True):
            cell.plot([each["frames"] for each in own], [each[key] for each in own], "o-", label=encoder)
    ticks = sorted({each["frames"] for each in rows})
    for cell, label in zip(cells, ("CPU seconds", "peak of memory, MB"), strict=True):
        cell.set(xscale="log", xlabel="frames", ylabel=label)
        cell.minorticks_off()
        cell.set_xticks(ticks, [str(each) for each in ticks])
    cells[0].set_yscale("log")
    cells[1].set_ylim(bottom=0)
    cells[0].legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    pyplot.close(figure)


def save(actor: FaceFormer, corpus: FaceCorpus, folder: Path) -> None:
    """As a checkpoint with the styles of the corpus."""
    actor.decoder.obj_vector = torch.nn.Linear(len(corpus.subjects), actor.decoder.feature_dim, bias=False)
    actor.n_styles = actor.decoder.n_subjects = len(corpus.subjects)
    folder.mkdir()
    torch.save({"actor": actor_entry(actor, corpus)}, folder / "best.pt")


def evaluation(options: argparse.Namespace, folder: Path) -> None:
    root = folder / "faces"
    synthesize(root, 12, 1, vertices=5023)
    corpus, tested = FaceCorpus(root, split="train"), FaceCorpus(root, split="test").names
    save(random_actor("mel"), corpus, folder / "actor")
    motion = np.load(root / "vertices_npy" / f"{tested[0]}.npy")
    table("frames", "styles", "seconds", "CPU seconds", "peak memory, MB")
    for n_frames in options.frames:
        (root / "phones" / f"{tested[0]}.json").unlink(missing_ok=True)
        np.save(root / "vertices_npy" / f"{tested[0]}.npy", np.resize(motion, (2 * n_frames, *motion.shape[1:])))
        write_wav(root / "wav" / f"{tested[0]}.wav", speech(n_frames / FPS + 0.1), SPEECH_RATE_HZ)
        found = called("evaluate", folder / "actor", root, folder / f"out{n_frames}")
        row(n_frames, len(corpus.subjects), found["seconds"], found["cpu"], found["peak_mb"])


def called(*command: object) -> dict[str, float]:
    """Seconds and peak of memory of a command in a process of its own."""
    child = [sys.executable, __file__, "--child", *map(str, command)]
    found: dict[str, float] = json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE).stdout)
    return found


def called_here(name: str, *paths: str) -> None:
    from s2f_rl.evaluation.animate import animate
    from s2f_rl.evaluation.evaluate import evaluate_checkpoint

    began = time.perf_counter()
    if name == "animate":
        animate(*paths)
    else:
        evaluate_checkpoint(*paths, progress=False)
    seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "cpu": time.process_time(), "peak_mb": int(peak) / 1e3}))


@torch.no_grad()
def difference(options: argparse.Namespace, folder: Path) -> None:
    actors = {f"{name}, random": (random_actor(name), speech(options.seconds)) for name in options.encoders}
    if options.checkpoint:
        actor, _ = load_actor(options.checkpoint)
        sounds = [resample(*read_wav(w), SPEECH_RATE_HZ) for w in sorted(Path(options.corpus, "wav").glob("*.wav"))]
        joined = np.concatenate(sounds)[: round(options.seconds * SPEECH_RATE_HZ)]
        actors["trained"] = (actor.eval(), joined)  # type: ignore[assignment]
    table("actor", "s", "window, s", "before, s", "after, s", "statistics", "largest, mm", "mean, mm", "of motion, mm")
    for name, (actor, sound) in actors.items():
        signal, style = torch.from_numpy(normalise(sound)), torch.eye(actor.n_styles)[0]
        whole = actor.decode(actor.generate(actor.frames_first(actor.audio_encoder(signal[None])), style[None])[0])
        size = largest_and_mean_mm(whole)
        for windows in (*OFFLINE, *LIVE):
            found = torch.cat(list(stream_latents(actor, signal, style, windows)))
            report(name, len(signal), windows, "whole", actor.decode(found) - whole, size)
        windows = LIVE[0]
        for seen in ("whole, memory 60 s", "so far, memory 60 s"):
            known = measure_sound(actor.audio_encoder, signal) if seen.startswith("whole") else None
            live = LatentStream(actor, style, windows, len(signal), known, memory_s=60.0)
            error = actor.decode(torch.cat([*live.push(signal), *live.finish()])) - whole
            report(name, len(signal), windows, seen, error, size)
            report(name, len(signal), windows, f"{seen}, from 10 s on", error[10 * FPS :], size)


def report(name: str, n: int, w: Windows, seen: str, error: torch.Tensor, size: tuple[float, float]) -> None:
    largest, mean = largest_and_mean_mm(error)
    motion = f"{size[0]:.3g}, {size[1]:.3g}"
    row(name, n / SPEECH_RATE_HZ, w.step_s, w.before_s, w.after_s, seen, largest, mean, motion)


@torch.no_grad()
def loop(options: argparse.Namespace, folder: Path) -> None:
    torch.set_num_threads(1)
    actor, last, at_once = random_actor("mel"), max(options.frames), 200
    marks = [t for t in (100, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 107800) if t + at_once <= last]
    table("memory", *(f"frame {t}" for t in marks), "all, s")
    for memory_s in (None, 60.0):
        steps = actor.decoder.steps(torch.eye(8)[:1])
        if memory_s is not None:
            steps.cache.forget_after(round(memory_s * FPS))
        heard, latent, times = steps.hear(torch.randn(1, at_once, 1, 64)).unbind(1), None, {}
        began = time.perf_counter()
        for t in range(0, last, at_once):
            start = time.perf_counter()
            for frame in heard:
                latent = steps.advance(frame, latent, None)
            times[t] = 1e6 * (time.perf_counter() - start) / at_once
        total = time.perf_counter() - began
        row("exact" if memory_s is None else "60 s", *(f"{times[t // at_once * at_once]:.0f} µs" for t in marks), total)


def stream(options: argparse.Namespace, folder: Path) -> None:
    torch.set_num_threads(1)
    settings = ("look-ahead, ms", "step, ms", "context, ms")
    table("encoder", *settings, "x real time", "by CPU time", "window, ms", "late, ms: mean", "most")
    for encoder in options.encoders:
        actor, sound = random_actor(encoder), speech(options.seconds)
        tried = [(200.0, 600.0, 1000.0), (200.0, 1000.0, 1000.0), (200.0, 1000.0, 2000.0), (200.0, 300.0, 600.0)]
        if encoder == "mel":
            tried += [(200.0, 100.0, 300.0), (300.0, 200.0, 300.0)]
        for look_ahead, step, context in tried:
            live = SpeechStream(actor, torch.zeros(15069), 0, look_ahead, step, context)
            spent, busy, windows, late = 0.0, 0.0, [], []
            for n_heard, block in blocks(sound):
                began, cpu = time.perf_counter(), time.process_time()
                frames = live.push(block)
                took = time.perf_counter() - began
                spent, busy = spent + took, busy + time.process_time() - cpu
                if len(frames):
                    first = sum(n for n, _ in windows)
                    windows.append((len(frames), took))
                    due = (first + np.arange(len(frames))) / FPS
                    late += list(1e3 * (n_heard / SPEECH_RATE_HZ + took - due))
            window = 1e3 * float(np.median([took for _, took in windows]))
            times, by_cpu = (len(sound) / SPEECH_RATE_HZ / each for each in (spent, busy))
            row(
                encoder,
                look_ahead,
                step,
                context,
                times,
                by_cpu,
                window,
                float(np.mean(late)),
                float(np.max(late[30:])),
            )


def blocks(sound: np.ndarray, n: int = 320) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(sound), n):
        yield start + n, sound[start : start + n]


PARTS = {"memory": memory, "evaluate": evaluation, "difference": difference, "loop": loop, "stream": stream}

if __name__ == "__main__":
    main()
