"""A corpus whose lips do what their phones say, more or less widely by speaker; and a density that was not trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.rewards.articulation.density import LipDensity
from tests.tiny import make_tiny_corpus

PHONES = [("sil", 0.0, 0.1), ("aa", 0.1, 0.3), ("p", 0.3, 0.4), ("m", 0.4, 0.45), ("s", 0.45, 0.6), ("sil", 0.6, 0.7)]
OPENING_MM = {"sil": 1.0, "aa": 9.0, "p": 0.0, "m": 0.0, "s": 3.0, "uw": 4.0}
SOUNDS = tuple(OPENING_MM)[1:]


def speaking_corpus(root: Path, n_subjects: int = 4, n_sentences: int = 3, n_vertices: int = 40) -> Path:
    """A tiny corpus with phones, whose lower lip is as low as they say, times a gain of the speaker's own."""
    make_tiny_corpus(root, n_subjects, n_sentences, n_vertices, seconds=(0.9, 1.3))
    rng = np.random.default_rng(0)
    (root / "phones").mkdir()
    corpus = FaceCorpus(root, split="all")
    lower = corpus.regions["lips"].numpy()
    lower = lower[corpus[0].template.view(-1, 3)[lower, 1].numpy() < -0.045]
    for i, utterance in enumerate(corpus):
        stored = np.load(root / "vertices_npy" / f"{utterance.name}.npy")
        seconds = len(stored) / 60
        ends = np.cumsum(rng.uniform(0.06, 0.16, 40))
        ends = [*ends[ends < seconds - 0.05].tolist(), seconds]
        names = ["sil", *rng.choice(SOUNDS, len(ends) - 2).tolist(), "sil"]
        phones = [[n, a, b] for n, a, b in zip(names, [0.0, *ends[:-1]], ends, strict=True)]
        (root / "phones" / f"{utterance.name}.json").write_text(json.dumps(phones))
        gain = 0.6 + 0.4 * int(utterance.subject[1:])
        at = np.searchsorted(ends, np.arange(len(stored)) / 60 + 1e-9)
        down = gain * np.array([OPENING_MM[names[min(k, len(names) - 1)]] for k in at]) / 1e3
        faces = np.tile(corpus.template(corpus[i].subject).numpy(), (len(stored), 1)).reshape(len(stored), -1, 3)
        faces[:, lower, 1] -= down[:, None]
        faces += rng.normal(0, 1e-4, faces.shape)
        np.save(root / "vertices_npy" / f"{utterance.name}.npy", faces.reshape(len(stored), -1).astype(np.float32))
    return root


def small_density(corpus: FaceCorpus, seed: int = 0) -> LipDensity:
    """Random weights on random directions."""
    torch.manual_seed(seed)
    lips = corpus.regions["lips"]
    return LipDensity.of(lips, torch.randn(60, 3 * len(lips)) * 1e-3, len(corpus.subjects), 3, 8, 3)
