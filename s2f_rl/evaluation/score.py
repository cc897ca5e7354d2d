"""Reward scores of a folder of meshes: what `s2f-rl score` does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from s2f_rl.data import FaceCorpus
from s2f_rl.data.files import load_npy, npy_header
from s2f_rl.errors import UserError
from s2f_rl.evaluation.evaluate import write_rows
from s2f_rl.rewards import RewardModel
from s2f_rl.rewards.cache import AudioFeatureCache
from s2f_rl.rewards.speech_mesh import CLIP_FRAMES

_CONDITION = "_condition_"


def utterance_name(path: Path) -> str:
    """``NAME_condition_SUBJECT.npy`` and ``NAME.npy`` belong to utterance NAME."""
    return path.stem.split(_CONDITION)[0]


def score_folder(
    meshes: str | Path | Iterable[str | Path],
    corpus_root: str | Path,
    reward: str | Path,
    out: str | Path,
    topology: str | None = None,
    batch: int = 8,
    device: str = "cpu",
    cache_folder: str | Path | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Score mesh sequences against the speech of their utterances.

    Args:
        meshes: a folder of ``.npy`` files [T, V*3] or [T, V, 3] (metres), or such files. All are checked before the
            first is scored.
        corpus_root: corpus with the audio.
        reward: folder (or file) of the reward model.
        out: csv to write: ``file, utterance, lip_score, real_score, value, clips``; a motion with a value that is not
            finite is scored on its finite clips only.
        batch: sequences scored together.
        cache_folder: where audio features are kept on disk.

    Returns:
        the rows.
    """
    files = _files(meshes)
    corpus = FaceCorpus(corpus_root, split="all", topology=topology)
    model = RewardModel.load(reward, device=device)
    if model.n_vertices != corpus.n_vertices:
        raise UserError(f"{reward}: scores {model.n_vertices} vertices, {corpus_root} has {corpus.n_vertices}")
    jobs = [(path, _checked_utterance(path, corpus)) for path in files]
    audio = AudioFeatureCache(model, corpus, cache_folder)
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(jobs), disable=None if progress else True, desc="score") as bar:
        for start in range(0, len(jobs), batch):
            rows += _score(jobs[start : start + batch], model, audio)
            bar.update(len(jobs[start : start + batch]))
    write_rows(Path(out), rows)
    return rows


def _files(meshes: str | Path | Iterable[str | Path]) -> list[Path]:
    if isinstance(meshes, (str, Path)):
        path = Path(meshes)
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; give a folder of .npy mesh sequences")
        found = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    else:
        found = [Path(m) for m in meshes]
    if not found:
        raise UserError(f"{meshes}: holds no .npy file; give a folder of mesh sequences [T, V*3]")
    return found


def _checked_utterance(path: Path, corpus: Any) -> int:
    name = utterance_name(path)
    if name not in corpus.names:
        raise UserError(
            f"{path}: the corpus has no utterance {name!r} to score it against; name files NAME.npy or "
            "NAME_condition_SUBJECT.npy"
        )
    shape, _ = npy_header(path)
    if shape[1:] not in ((3 * corpus.n_vertices,), (corpus.n_vertices, 3)):
        raise UserError(f"{path}: has shape {shape}, expected [T, {3 * corpus.n_vertices}] like the corpus")
    return corpus.index(name)


@torch.no_grad()
def _score(jobs: list[tuple[Path, int]], model: RewardModel, audio: AudioFeatureCache) -> list[dict[str, Any]]:
    motions = [torch.from_numpy(np.array(load_npy(path), dtype=np.float32)).flatten(1) for path, _ in jobs]
    finite = [torch.isfinite(m).all(-1) for m in motions]
    safe = [torch.where(ok[:, None], m, torch.zeros_like(m)) for ok, m in zip(finite, motions, strict=True)]
    mesh = model.encode_mesh(torch.nn.utils.rnn.pad_sequence(safe, batch_first=True))
    rows = []
    for k, (path, utterance) in enumerate(jobs):
        features = audio.get(utterance).to(mesh.device)
        n_clips = max(0, min(len(features), len(motions[k]) - CLIP_FRAMES + 1))
        whole = finite[k].unfold(0, CLIP_FRAMES, 1).all(-1)[:n_clips] if n_clips else finite[k][:0]
        clips = whole.nonzero().flatten().to(mesh.device)
        scores = model.heads(mesh[k, clips], features[clips])
        if model.head is not None:
            scores["value"] = model.value(mesh[k, clips], features[clips])
        means = {name: float(v.mean()) if len(clips) else float("nan") for name, v in scores.items()}
        rows.append({"file": path.name, "utterance": utterance_name(path), **means, "clips": len(clips)})
    return rows
