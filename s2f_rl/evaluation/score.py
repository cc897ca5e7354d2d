"""Reward scores of a folder of meshes: what `s2f-rl score` does."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s2f_rl.data import FaceCorpus
from s2f_rl.data.contract import Corpus
from s2f_rl.data.files import require_target
from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.data.mesh_identity import MeshIdentity, difference
from s2f_rl.data.motion_files import SUFFIXES, load_motion, motion_shape
from s2f_rl.data.sequences import metres_per_unit_of
from s2f_rl.errors import UserError
from s2f_rl.evaluation.evaluate import write_rows
from s2f_rl.evaluation.partial_rows import PartialRows
from s2f_rl.evaluation.scorer import styles_of
from s2f_rl.evaluation.speech import WavFolder
from s2f_rl.rewards import REWARDS, PerceptualReward, Reward, RewardModel
from s2f_rl.rewards.articulation.density_files import is_articulation
from s2f_rl.rewards.contract import asks_for_style
from s2f_rl.rewards.judge.judge import AnyReward, Judge, load_scorer
from s2f_rl.rewards.model.audio_cache import AudioFeatureCache
from s2f_rl.rewards.model.meeting import refuse_other_corpus, refuse_other_rate
from s2f_rl.rewards.parts import check_scores, own_style
from s2f_rl.rewards.registry import build_part, reward_in
from s2f_rl.signs import Watch

logger = logging.getLogger(__name__)

_CONDITION = "_condition_"
_READ_FRAMES = 256
"""Frames read at once: a sequence of any length takes 15 MB of memory at V=5023."""
_TOLERATED_FRAMES = 3
Row = dict[str, Any]


def utterance_name(path: Path) -> str:
    """``NAME_condition_SUBJECT.npy`` and ``NAME.npy`` belong to utterance NAME."""
    return path.stem.split(_CONDITION)[0]


def score_folder(
    meshes: str | Path | Iterable[str | Path],
    corpus_root: str | Path | None,
    reward: str | Path | AnyReward | Reward,
    out: str | Path,
    topology: str | None = None,
    batch: int = 8,
    device: str = "cpu",
    cache_folder: str | Path | None = None,
    progress: bool = True,
    wavs: str | Path | None = None,
    fps: float | None = None,
) -> list[Row]:
    """Score mesh sequences against the speech of their utterances.

    Every file is checked before the first is scored. Rows of a run that was killed are kept in ``OUT.part``, and the
    same call goes on from there.

    Args:
        meshes: a folder of ``.npy`` files [T, V*3] or [T, V, 3] (metres, or the corpus's own unit) or ``.npz`` of
            :mod:`s2f_rl.data.motion_files`, with its subfolders, or such files.
        corpus_root: corpus with the speech; None with ``wavs``.
        reward: folder (or file) of the reward model or judge, or the model itself; or another reward, as an object, a
            kind of reward by name, or ``package.module:Name``. Those need a corpus.
        out: csv to write: ``file, utterance``, the mean of each score (``lip_score, real_score``), ``value``,
            ``clips``; a motion with a value that is not finite is scored where it is finite. Only a reward model has
            a ``value``; the clips of others are the frames that have a score (of a judge: windows of 21 frames).
            ``file`` is relative to the folder.
        batch: sequences scored together.
        cache_folder: where audio features are kept on disk.
        wavs: folder of ``NAME.wav`` in place of a corpus. fps: frame rate of the motion then, by default that of the
            model, else of the topology.

    Returns:
        the rows, in the order of the files.

    Raises:
        UserError: a file that is damaged, has another number of vertices or no speech; names it and the remedy.
    """
    if (corpus_root is None) == (wavs is None):
        raise UserError("the speech comes from a corpus or from a folder of .wav files: give one of --corpus, --wavs")
    if fps is not None and wavs is None:
        raise UserError(f"fps={fps}: a corpus knows its frame rate; leave fps out or give --wavs")
    require_target(out)
    named = _files(meshes)
    kind = isinstance(reward, str) and not Path(reward).exists() and (":" in reward or reward in REWARDS.names())
    corpus = None if corpus_root is None else FaceCorpus(corpus_root, split="all", topology=topology)
    model: Any
    density = isinstance(reward, (str, Path)) and is_articulation(reward)  # its phones are a corpus's
    if isinstance(reward, (str, Path)) and not kind and not (density and corpus is None):
        model = load_scorer(reward, device) if corpus is None else reward_in(reward, corpus, device)
    elif isinstance(reward, (RewardModel, Judge)):
        model = reward
    elif corpus is None:
        raise UserError(f"{reward}: such a reward is scored against a corpus; give --corpus in place of --wavs")
    else:
        model = build_part(str(reward), {}, corpus, device, cache_folder, "reward") if kind else reward
    where = "the reward model" if reward is model else str(reward)
    speech: Any
    if corpus is not None:
        speech = corpus
        refuse_other_corpus(model, speech, where)
    else:
        own_rate = model.fps if fps is None and topology is None else fps
        speech = WavFolder(wavs, topology, own_rate)  # type: ignore[arg-type]
        refuse_other_rate(model, speech.fps, where, str(wavs))
    jobs = _checked(named, speech, model)
    about = {"reward": model.content_hash(), "speech": str(speech.root.resolve()), "fps": speech.fps}
    with PartialRows(out, about) as partial:
        rows = {job.key: partial.found[job.key] for job in jobs if job.key in partial.found}
        # one utterance's sequences after another: its audio features are computed once and can then be forgotten
        waiting = sorted((job for job in jobs if job.key not in rows), key=lambda job: job.utterance)
        audio = AudioFeatureCache(model, speech, cache_folder) if isinstance(model, RewardModel) else None
        framed = PerceptualReward(model, cache_folder) if isinstance(model, Judge) else model
        prepared: tuple[int, Any] = -1, None
        with Watch("score", len(jobs), done=len(rows), enabled=progress) as bar:
            for start in range(0, len(waiting), batch):
                group = waiting[start : start + batch]
                found = [] if audio is None else _score(group, model, audio)
                for job in group if audio is None else ():
                    if prepared[0] != job.utterance:
                        prepared = job.utterance, framed.prepare(speech[job.utterance])
                    style = _style(job, framed, speech)
                    found.append(_framed(job, framed, prepared[1], device, style))
                for job, row in zip(group, found, strict=True):
                    rows[job.key] = row
                    partial.add(job.key, row)
                bar.update(len(group))
        ordered = [rows[job.key] for job in jobs]
        partial.finish(write_rows, ordered)
    return ordered


@dataclass(frozen=True)
class _Job:
    path: Path
    name: str  # in the table
    utterance: int
    n_frames: int
    key: str  # changes when the mesh or the speech does
    metres_per_unit: float


def _files(meshes: str | Path | Iterable[str | Path]) -> dict[str, Path]:
    """{name in the table: file}, sorted where a folder is listed."""
    if isinstance(meshes, (str, Path)):
        path = Path(meshes)
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; give a folder of .npy mesh sequences")
        if path.is_dir():
            inside = ((p.relative_to(path), p) for suffix in SUFFIXES for p in path.rglob(f"*{suffix}"))
            visible = {r.as_posix(): p for r, p in inside if not any(part.startswith(".") for part in r.parts)}
            found = dict(sorted(visible.items()))
        else:
            found = {path.name: path}
    else:
        paths = [Path(m) for m in meshes]
        folders = [path for path in paths if path.is_dir()]
        if folders:
            raise UserError(f"{folders[0]}: is a folder among several arguments; give one folder, or files only")
        unique = len({path.name for path in paths}) == len(paths)
        found = {path.name if unique else path.as_posix(): path for path in paths}
    if not found:
        raise UserError(f"{meshes}: holds no .npy or .npz file; give a folder of mesh sequences [T, V*3]")
    return found


def _checked(named: dict[str, Path], speech: Any, model: Any) -> list[_Job]:
    n_vertices = model.n_vertices if hasattr(model, "n_vertices") else speech.n_vertices
    # file systems spell accents in two ways, so names are compared in one
    known = {unicodedata.normalize("NFC", name): i for i, name in enumerate(speech.names)}
    jobs, unlike = [], []
    for name, path in named.items():
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{ascii(str(path))}: its name is not UTF-8 and cannot stand in a table; rename it"
            ) from error
        utterance = known.get(unicodedata.normalize("NFC", utterance_name(path)))
        if utterance is None:
            raise UserError(
                f"{path}: {speech.root} has no utterance {utterance_name(path)!r} to score it against; name files "
                "NAME.npy or NAME_condition_SUBJECT.npy"
            )
        shape = motion_shape(path)
        if shape[1:] not in ((3 * n_vertices,), (n_vertices, 3)):
            raise UserError(f"{path}: has shape {shape}, expected [T, {3 * n_vertices}] like the corpus and the reward")
        if shape[0] == 0:
            raise UserError(f"{path}: holds no frame; write it again or remove it")
        spoken = speech.n_frames(utterance)  # also finds sound files that cannot be read
        if abs(shape[0] - spoken) > _TOLERATED_FRAMES:
            unlike.append(f"{path} has {shape[0]} frames, its speech {spoken}")
        stat = path.stat()
        key = f"{name} {stat.st_size} {stat.st_mtime_ns} {speech.wav(utterance).stat().st_mtime_ns}"
        jobs.append(_Job(path, name, utterance, shape[0], key, _unit(path, speech, model)))
    if unlike:
        logger.warning(
            "%d of %d sequences are longer or shorter than their speech at %g fps (%s): only what both have is scored; "
            "check the frame rate",
            len(unlike),
            len(jobs),
            speech.fps,
            unlike[0],
        )
    return jobs


def _unit(path: Path, speech: Any, model: Any) -> float:
    """Metres per unit of a file. Raises UserError where its first face is of another mesh or in no known unit."""
    first = np.array(load_motion(path)[0], dtype=np.float64)
    if not np.ptp(first.reshape(-1, 3), axis=0).any():
        raise UserError(f"{path}: its first face is a single point; score vertices, not offsets from the template")
    if isinstance(speech, FaceCorpus):
        return metres_per_unit_of(first, speech, str(path))
    if np.isfinite(first).all():
        other = difference(MeshIdentity.of(first), model.mesh_identity, str(path), "the reward model")
        if other is not None:
            raise UserError(f"{other}, or score meshes that it was trained on")
    return 1.0


@torch.no_grad()
def _score(jobs: list[_Job], model: RewardModel, audio: AudioFeatureCache) -> list[Row]:
    """Rows of some sequences; only clips go through the transformer, no padding does."""
    clips, features, counts = [], [], []
    for job in jobs:
        heard = audio.get(job.utterance)
        n_clips = max(0, min(len(heard), job.n_frames - CLIP_FRAMES + 1))
        if n_clips == 0:
            counts.append(0)
            continue
        pieces = [_embed(frames, model) for frames in _read(job, n_clips + CLIP_FRAMES - 1)]
        embedded, finite = (torch.cat(part) for part in zip(*pieces, strict=True))
        whole = finite.unfold(0, CLIP_FRAMES, 1).all(-1).nonzero().flatten()
        if len(whole) < n_clips:
            logger.warning("%s: %d of its %d clips hold NaN or infinity", job.path, n_clips - len(whole), n_clips)
        counts.append(len(whole))
        clips.append(embedded.unfold(0, CLIP_FRAMES, 1).transpose(1, 2)[whole])
        features.append(heard[whole])
    scores: dict[str, Tensor] = {}
    if sum(counts):
        heard, mesh = torch.cat(features), model.backbone.encode_embedded(torch.cat(clips))
        scores = model.heads(mesh, heard)
        if model.head is not None:
            scores["value"] = model.value(mesh, heard)
    names = (*model.score_names, "value") if model.head is not None else model.score_names
    parts = {name: scores[name].split(counts) if name in scores else [torch.empty(0)] * len(jobs) for name in names}
    return [
        {
            "file": job.name,
            "utterance": utterance_name(job.path),
            **{name: float(parts[name][k].mean()) if counts[k] else float("nan") for name in names},
            "clips": counts[k],
        }
        for k, job in enumerate(jobs)
    ]


def _style(job: _Job, reward: Reward, speech: Corpus) -> Tensor | None:
    """What a reward that depends on the style is told: that of the file's name, else the speaker's own."""
    if not asks_for_style(reward):
        return None
    named = job.path.stem.partition(_CONDITION)[2]
    return styles_of(speech, [named])[0] if named else own_style(speech, job.utterance)


@torch.no_grad()
def _framed(job: _Job, reward: Reward, prepared: Any, device: str, style: Tensor | None) -> Row:
    """Row of one sequence by frames; its pieces overlap, so that all that a score looks back to lies in one of them."""
    back, at_once = reward.look_back or 0, job.n_frames if reward.look_back is None else _READ_FRAMES
    values: dict[str, list[Tensor]] = {name: [torch.empty(0)] for name in reward.score_names}
    stored, n_scored, n_lost = load_motion(job.path), 0, 0
    for start in range(0, job.n_frames - back, at_once):
        frames = _metres(stored[start : start + at_once + back], job)
        finite = torch.isfinite(frames).all(-1)
        whole = finite.all().expand(len(frames)) if reward.look_back is None else finite.unfold(0, back + 1, 1).all(-1)
        motion = frames.nan_to_num(0.0, 0.0, 0.0)[None].to(device)
        first = None if reward.look_back is None else torch.tensor([start], device=motion.device)
        there = torch.ones(motion.shape[:2], dtype=torch.bool, device=motion.device)
        if style is not None and asks_for_style(reward):
            found = reward.score_motion(motion, [prepared], there, first_frame=first, style=style[None].to(device))
        else:
            found = reward.score_motion(motion, [prepared], there, first_frame=first)
        check_scores(type(reward).__name__, reward.score_names, found, there.shape)
        scored = torch.zeros(len(whole), dtype=torch.bool)
        for name in reward.score_names:
            score, mask = found[name]
            own = mask[0, back:].cpu()
            values[name].append(score[0, back:].cpu()[own & whole])
            scored |= own
        n_scored += int((scored & whole).sum())
        n_lost += int((scored & ~whole).sum())
    if n_lost:
        logger.warning("%s: %d of its %d windows hold NaN or infinity", job.path, n_lost, n_lost + n_scored)
    means = {name: float(torch.cat(each).mean()) for name, each in values.items()}  # of nothing: nan
    return {"file": job.name, "utterance": utterance_name(job.path), **means, "clips": n_scored}


def _embed(frames: Tensor, model: RewardModel) -> tuple[Tensor, Tensor]:
    """Frames [n, V*3] -> their embeddings [n, E], and which of them are finite [n]."""
    frames = frames.to(model.device)
    finite = torch.isfinite(frames).all(-1)
    if not bool(finite.all()):
        frames = torch.where(finite[:, None], frames, torch.zeros_like(frames))
    return model.backbone.embed_frames(frames), finite


def _read(job: _Job, n_frames: int) -> Iterator[Tensor]:
    """The first ``n_frames`` frames of a file, some at a time, each float32 [n, V*3], metres."""
    stored = load_motion(job.path)
    for start in range(0, n_frames, _READ_FRAMES):
        yield _metres(stored[start : min(start + _READ_FRAMES, n_frames)], job)


def _metres(stored: np.ndarray, job: _Job) -> Tensor:
    frames = torch.from_numpy(np.array(stored, dtype=np.float32).reshape(len(stored), -1))
    return frames if job.metres_per_unit == 1.0 else frames.mul_(job.metres_per_unit)
