"""True distances of predictions for the built-in corpus, as columns of a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from s2f_rl.data import FaceCorpus
from s2f_rl.data.contract import SpokenUtterance
from s2f_rl.errors import UserError
from s2f_rl.metrics import TakeMeter

CHOICES = ("true", "false", "auto")


class TrueDistances:
    """Measures motions of a built-in corpus by :func:`s2f_rl.metrics.true_distance`.

    Args:
        corpus: a :class:`~s2f_rl.data.FaceCorpus` of the built-in corpus, with ``speakers.json`` and ``phones/``.

    Raises:
        UserError: another corpus.
    """

    def __init__(self, corpus: FaceCorpus) -> None:
        from s2f_rl.data.synthetic import load_speakers

        self.speakers = load_speakers(corpus.root)
        self.regions, self.fps = corpus.regions, corpus.fps
        self.scale = float(corpus.metadata.get("synthesis", {}).get("hidden_scale", 1.0))

    def columns(
        self, utterance: SpokenUtterance, vertices: Tensor, speaker: str | None = None, face: bool = True
    ) -> list[dict[str, float]]:
        """Columns for each of the motions [K, T, V*3] (metres): ``true_distance`` (lips, metres),
        ``true_distance_relative`` (to the size of the usual lip movement) and ``true_distance_face`` (all vertices).

        speaker: whose motions count as plausible, from the neutral face of the utterance; default: the speaker of the
        audio. face: False leaves out the last column, which takes most of the time.
        """
        name, phones = self._who_and_what(utterance, speaker)
        meters = [
            TakeMeter(phones, self.speakers[name], region, self.fps, self.scale)
            for region in ((self.regions["lips"], None) if face else (self.regions["lips"],))
        ]
        if name != utterance.subject:  # the movement is what is compared, not the face
            vertices = vertices - utterance.template + vertices.new_tensor(self.speakers[name].template).flatten()
        rows = []
        for motion in vertices:
            lips, *whole = (meter.nearest(motion) for meter in meters)
            row = {"true_distance": lips.distance_m, "true_distance_relative": lips.relative}
            rows.append(row | ({"true_distance_face": whole[0].distance_m} if face else {}))
        return rows

    def takes(self, utterance: SpokenUtterance, number: int, seed: int, speaker: str | None = None) -> Tensor:
        """Motions that the corpus could have made for an utterance: displacements [number, T, V*3], float32, metres.

        seed: of their hidden variation. speaker: who moves like this; default: the speaker of the audio.
        """
        from s2f_rl.data.synthetic import generate
        from s2f_rl.data.synthetic.write import STORED_FPS, sample_hidden, stored_frames

        name, phones = self._who_and_what(utterance, speaker)
        who, end = self.speakers[name], phones[-1][2]
        rng, step = np.random.default_rng(seed), round(STORED_FPS / self.fps)
        motions = []
        for _ in range(number):
            hidden = sample_hidden(rng, len(phones), end, who, self.scale)
            motions.append(generate(phones, stored_frames(end), who, hidden, STORED_FPS)[::step])
        return torch.from_numpy(np.stack(motions)).float()

    def _who_and_what(
        self, utterance: SpokenUtterance, speaker: str | None
    ) -> tuple[str, list[tuple[str, float, float]]]:
        """The name of whoever's motions count, and the utterance's phones."""
        name = utterance.subject if speaker is None else speaker
        if name not in self.speakers:
            raise UserError(f"speaker={name}: unknown; the corpus has {', '.join(self.speakers)}")
        if utterance.phones is None:
            raise UserError(f"{utterance.name}: has no phone timings; write the corpus again")
        return name, list(utterance.phones)


def true_distances(corpus: FaceCorpus, choice: str | bool) -> TrueDistances | None:
    """A meter for ``choice`` true, false or auto (a meter if the corpus is the built-in one, else None)."""
    wanted = str(choice).lower()
    if wanted not in CHOICES:
        raise UserError(f"true_distance={choice!r}: use {', '.join(CHOICES)}")
    if wanted == "false":
        return None
    if not (Path(corpus.root) / "speakers.json").exists():
        if wanted == "true":
            raise UserError(f"true_distance=true: {corpus.root} is not a built-in corpus (it has no speakers.json)")
        return None
    return TrueDistances(corpus)
