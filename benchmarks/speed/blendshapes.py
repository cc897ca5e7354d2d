"""Vertices to blendshape weights, and the files of other tools: frames per second, errors and sizes.

    OMP_NUM_THREADS=1 python benchmarks/speed/blendshapes.py [--vertices 5023] [--shapes 52] [--seconds 10]

The face is the built-in one, the shapes are smooth bumps of some millimetres that overlap. Fitted is a motion of known
weights, written as float32, without and with .1 mm of noise on every coordinate. Beside the fit stands scipy's bounded
least squares, frame by frame: on all coordinates, and on the problem reduced to K x K. The files hold speech of the
built-in corpus, sentences of one speaker joined. Prints a line of JSON for each; about a minute on one core.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import lsq_linear

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.speed import clock  # noqa: E402
from s2f_rl.data import FaceCorpus  # noqa: E402
from s2f_rl.data.coefficients.basis import LinearBasis  # noqa: E402
from s2f_rl.data.coefficients.fit import CoefficientFit, fit_coefficients  # noqa: E402
from s2f_rl.data.synthetic import synthesize  # noqa: E402
from s2f_rl.exchange import Face, principal_shapes, write_glb, write_usd_points, write_usd_shapes  # noqa: E402
from s2f_rl.render import corpus_look, find_colours, find_faces, render_film  # noqa: E402
from s2f_rl.render.curves import CurveStrip, lip_openings  # noqa: E402

FPS = 30.0
REFERENCE_FRAMES = 10
ROUNDS = 3
TERMS = ((0, 0), (1e-4, 0), (1e-3, 0), (1e-2, 0), (0.1, 0), (0, 1e-4), (0, 1e-3), (0, 1e-2), (1e-3, 1e-3))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vertices", type=int, default=5023)
    parser.add_argument("--shapes", type=int, default=52)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    n_frames = round(options.seconds * FPS)
    with tempfile.TemporaryDirectory() as folder:
        root = synthesize(Path(folder) / "corpus", 3, 6, vertices=options.vertices, progress=False)
        corpus = FaceCorpus(root, "all")
        rig, weights = make_rig(corpus, options.shapes), make_weights(n_frames, options.shapes)
        for noise_mm in (0.0, 0.1):
            say("fit", noise_mm=noise_mm, **measure_fit(rig, weights, noise_mm))
        for smooth, sparse in TERMS:
            say("terms", smooth=smooth, sparse=sparse, **measure_terms(rig, weights, smooth, sparse))
        measure_files(Path(folder), corpus, rig, weights, n_frames)


def say(what: str, **numbers: float) -> None:
    print(json.dumps({"what": what} | {key: float(f"{value:.4g}") for key, value in numbers.items()}), flush=True)


def make_rig(corpus: FaceCorpus, n_shapes: int) -> LinearBasis:
    """Bumps 3 cm wide around random vertices of the front of the first speaker's face."""
    rng = np.random.default_rng(0)
    neutral = corpus.template(corpus.subjects[0]).numpy().reshape(-1, 3).astype(np.float64)
    front = rng.permutation(np.flatnonzero(neutral[:, 2] > np.median(neutral[:, 2])))[:n_shapes]
    fall = np.exp(-((neutral - neutral[front, None]) ** 2).sum(-1) / (2 * 0.015**2))
    fall[fall < 0.01] = 0  # as shapes that an artist makes, each leaves most of the face alone
    shapes = fall[..., None] * rng.normal(size=(n_shapes, 1, 3)) * 0.005
    return LinearBasis(
        torch.from_numpy(neutral).float(),
        torch.from_numpy(shapes).float(),
        tuple(f"shape{k}" for k in range(n_shapes)),
        torch.tensor([0.0, 1.0]).repeat(n_shapes, 1),
    )


def make_weights(n_frames: int, n_shapes: int) -> np.ndarray:
    """Curves of .3 to 4 Hz in 0..1 [T, K], at rest for a part of the time."""
    rng = np.random.default_rng(1)
    time = np.arange(n_frames)[:, None] / FPS
    rate, phase, level = rng.uniform(0.3, 4, n_shapes), rng.uniform(0, 6.3, n_shapes), rng.uniform(-0.4, 0.4, n_shapes)
    return (level + 0.8 * np.sin(2 * np.pi * rate * time + phase)).clip(0, 1)


def captured(rig: LinearBasis, weights: np.ndarray, noise_mm: float) -> np.ndarray:
    """Vertices float32 [T, V*3] with noise on every coordinate."""
    exact = rig.vertices(torch.from_numpy(weights).float()).numpy()
    return exact + np.float32(noise_mm / 1e3) * np.random.default_rng(2).normal(size=exact.shape).astype(np.float32)


def measure_terms(rig: LinearBasis, weights: np.ndarray, smooth: float, sparse: float) -> dict[str, float]:
    """At .1 and .3 mm of noise."""
    found = {}
    for noise_mm in (0.1, 0.3):
        fit = fit_coefficients(captured(rig, weights, noise_mm), rig, smooth=smooth, sparse=sparse)
        found[f"off_truth_rms_{noise_mm}"] = float(np.sqrt(((fit.coefficients - weights) ** 2).mean()))
        found[f"residual_mm_{noise_mm}"] = float(fit.mean_mm.mean())
    return found


def measure_fit(rig: LinearBasis, weights: np.ndarray, noise_mm: float) -> dict[str, float]:
    vertices = captured(rig, weights, noise_mm)
    fit, seconds = timed(lambda: fit_coefficients(vertices, rig))
    assert isinstance(fit, CoefficientFit)
    shapes, still = rig.matrix.double().numpy(), rig.neutral.double().numpy().reshape(-1)
    chosen = np.linspace(0, len(vertices) - 1, REFERENCE_FRAMES).astype(int)
    offsets = vertices[chosen] - still
    upper = np.linalg.cholesky(shapes @ shapes.T).T

    def full() -> np.ndarray:
        return np.stack([lsq_linear(shapes.T, d, (0, 1)).x for d in offsets])

    def reduced() -> np.ndarray:
        return np.stack([lsq_linear(upper, np.linalg.solve(upper.T, shapes @ d), (0, 1)).x for d in offsets])

    found, seconds_full = timed(full, 1)
    _, seconds_reduced = timed(reduced, 1)
    return {
        "frames_per_second": len(vertices) / seconds,
        "scipy_frames_per_second": REFERENCE_FRAMES / seconds_full,
        "scipy_reduced_frames_per_second": REFERENCE_FRAMES / seconds_reduced,
        "off_scipy": float(np.abs(fit.coefficients[chosen] - found).max()),
        "off_truth": float(np.abs(fit.coefficients - weights).max()),
        "off_truth_rms": float(np.sqrt(((fit.coefficients - weights) ** 2).mean())),
        "residual_mean_mm": float(fit.mean_mm.mean()),
        "residual_max_mm": float(fit.max_mm.max()),
    }


def measure_files(folder: Path, corpus: FaceCorpus, rig: LinearBasis, weights: np.ndarray, n_frames: int) -> None:
    speaker = corpus.subjects[0]
    spoken = [corpus[name].vertices for name in corpus.names if name.startswith(speaker)]
    motion = torch.cat([each for each in spoken if each is not None])[:n_frames].unflatten(1, (-1, 3)).numpy()
    faces = find_faces(corpus.root, corpus.n_vertices)
    assert faces is not None and len(motion) == n_frames
    face = Face(faces, find_colours(corpus.root, corpus.n_vertices, corpus.regions, speaker))
    (basis, scores, worst), seconds = timed(lambda: principal_shapes(motion), 1)
    say("principal shapes", frames_per_second=n_frames / seconds, shapes=len(basis.names), off_mm=worst)
    strip = CurveStrip(lip_openings([motion], corpus.regions), [speaker], FPS)
    film = {**corpus_look(corpus, [motion], speaker), "size": 512}
    render_film([motion[:2]], None, faces, None, FPS, folder / "first.mp4", **film)  # compiles
    writers: dict[str, Callable[[Path], None]] = {
        "points.usdc": lambda path: write_usd_points(path, motion, FPS, face),
        "shapes.usdc": lambda path: write_usd_shapes(path, rig, weights, FPS, face),
        "principal.glb": lambda path: write_glb(path, basis, scores, FPS, face),
        "shapes.glb": lambda path: write_glb(path, rig, weights, FPS, face),
        "film.mp4": lambda path: render_film([motion], [speaker], faces, None, FPS, path, **film),
        "curves.mp4": lambda path: render_film([motion], [speaker], faces, None, FPS, path, strip=strip, **film),
    }
    for name, write in writers.items():
        _, seconds = timed(lambda write=write, name=name: write(folder / name), 1)  # type: ignore[misc]
        say(name, frames_per_second=n_frames / seconds, MB=(folder / name).stat().st_size / 1e6)


def timed(function: Callable[[], object], rounds: int = ROUNDS):  # type: ignore[no-untyped-def]
    """What it returns and the seconds of its fastest call."""
    best, result = float("inf"), None
    for _ in range(rounds):
        began = clock.now()
        result = function()
        best = min(best, clock.now() - began)
    return result, best


if __name__ == "__main__":
    main()
