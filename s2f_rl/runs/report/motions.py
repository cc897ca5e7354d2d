"""Three utterances that a run's actor says: the truth, the actor that it started from, and its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.contract import Actor
from s2f_rl.models.meeting import load_actor_for
from s2f_rl.render.curves import lip_openings

N_UTTERANCES = 3
LONGEST_S = 6.0
TRUTH, BEFORE, AFTER, ALONE = "truth", "before", "after", "actor"
"""What the motions are called; the last is the run's where it has not started from another."""


@dataclass(frozen=True)
class Shown:
    """An utterance.

    Attributes:
        name, subject: of the utterance. motions: [T, V*3] metres by what it is, the same T.
        sound: waveform and rate, as long as the motions. opening_mm: lip opening [T] by motion; empty where the
            corpus has no lips.
    """

    name: str
    subject: str
    motions: dict[str, np.ndarray]
    sound: tuple[np.ndarray, int]
    opening_mm: dict[str, np.ndarray]


def open_validation(config: Mapping[str, object]) -> FaceCorpus | None:
    """The validation split of the corpus that a run's config names; None where it names none."""
    about = config.get("corpus")
    root = about.get("root") if isinstance(about, Mapping) else None
    if not isinstance(about, Mapping) or not isinstance(root, str):
        return None
    topology = about.get("topology")
    return FaceCorpus(root, "validation", topology if isinstance(topology, str) else None)


@torch.no_grad()
def shown_utterances(run: Path, config: Mapping[str, object], corpus: FaceCorpus) -> tuple[list[Shown], list[str]]:
    """Up to three utterances, evenly over the split and recorded ones first, of 6 s at most.

    Each in its speaker's own style where the actor has it, else in the first. Nothing where the run has no actor.

    Returns:
        The utterances; and, as sentences, of which iteration the actor is, and why there is none before it.

    Raises:
        UserError: the file of the run's actor cannot be read, or is of another corpus.
    """
    if not (run / "best.pt").exists():  # rewards, judges and their like have none
        return [], []
    actors, notes = _actors(run, config.get("start"), corpus)
    recorded = [i for i in range(len(corpus)) if corpus.has_vertices(i)] or list(range(len(corpus)))
    picks = sorted({recorded[round(k)] for k in np.linspace(0, len(recorded) - 1, N_UTTERANCES)}) if recorded else []
    audio = {what: CachedAudio(actor.audio_encoder, corpus) for what, actor in actors.items()}
    found = []
    for i in picks:
        utterance = corpus[i]
        n_frames = min(utterance.n_frames, round(LONGEST_S * corpus.fps))
        motions = {} if utterance.vertices is None else {TRUTH: utterance.vertices[:n_frames].numpy()}
        for what, actor in actors.items():
            column = corpus.subjects.index(utterance.subject) if utterance.subject in corpus.subjects else 0
            style = torch.nn.functional.one_hot(torch.tensor([column]), actor.n_styles).float()
            features = audio[what].get(i)[:n_frames]  # a frame is made of what was before it
            latent = actor.generate(features[None], style, [len(features)])
            motions[what] = (utterance.template + actor.decode(latent)[0]).numpy()
        shortest = min(map(len, motions.values()))
        motions = {what: np.ascontiguousarray(motion[:shortest]) for what, motion in motions.items()}
        rate = int(utterance.sample_rate)
        sound = utterance.waveform_raw.numpy()[: round(shortest / corpus.fps * rate)]
        openings = {}
        if {"upper_lip", "lower_lip"} <= set(corpus.regions):
            meshes = [motion.reshape(shortest, -1, 3) for motion in motions.values()]
            openings = dict(zip(motions, lip_openings(meshes, corpus.regions), strict=True))
        found.append(Shown(utterance.name, utterance.subject, motions, (sound, rate), openings))
    return found, notes


def _actors(run: Path, start: object, corpus: FaceCorpus) -> tuple[dict[str, Actor], list[str]]:
    """The actors by what they are called, and notes on them."""
    actors: dict[str, Actor] = {}
    notes = []
    if isinstance(start, str):
        try:
            actors[BEFORE] = load_actor_for(start, corpus)[0]
        except UserError as error:  # moved, or named from another working directory: the run's own is there
            notes.append(f"The actor before is not shown: {error}.")
    own, about = load_actor_for(run / "best.pt", corpus)
    what = AFTER if actors else ALONE
    iteration = about.get("iteration")
    if isinstance(iteration, int):
        notes.append(f"{what} is best.pt, the actor of iteration {iteration}.")
    return {**actors, what: own}, notes
