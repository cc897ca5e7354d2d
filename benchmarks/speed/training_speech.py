"""A supervised update at full size: what it saves that wav2vec2's convolutions run once per utterance.

    python benchmarks/speed/training_speech.py [--corpus FOLDER] [--batch 4] [--updates 5] [--teacher-forced]

Without a corpus a small synthetic one with V=5023 is made; wav2vec2-base has random weights. The ways are run in turn,
update by update, and one JSON line gives the median wall and CPU seconds of each and the ratios of the latter:

- ``whole``: the encoder runs on the waveform, and the gradient goes back through its frozen convolutions.
- ``no_gradient``: the same without that gradient.
- ``once``: the convolutions' features are kept (``TrainingAudio``), as in ``recipes/supervised.py``.
- ``frozen``: nothing of the encoder trains, and all it makes is kept (``train_encoder=false``).
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import json
import statistics
import tempfile
import time

import torch
from torch.nn.utils.rnn import pad_sequence

from s2f_rl.data import FaceCorpus
from s2f_rl.data.contract import recorded
from s2f_rl.data.synthetic import synthesize
from s2f_rl.models import FaceFormer, SpeechAudioEncoder
from s2f_rl.models.audio_cache import CachedAudio, TrainingAudio
from s2f_rl.runs import seed_everything


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--teacher-forced", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = FaceCorpus(options.corpus or synthesize(folder, 6, 4, vertices=5023, progress=False), split="train")
        print(json.dumps(measure(corpus, options.batch, options.updates, options.teacher_forced)))


def measure(corpus: FaceCorpus, batch: int, updates: int, teacher_forced: bool) -> dict[str, object]:
    torch.manual_seed(0)
    encoder = SpeechAudioEncoder(fps=corpus.fps, features_per_frame=corpus.audio_features_per_frame)
    actor = FaceFormer(encoder, corpus.n_vertices, n_subjects=len(corpus.subjects)).train()
    optimizer = torch.optim.Adam([p for p in actor.parameters() if p.requires_grad], lr=1e-6)
    picks = list(range(batch))
    motions = [recorded(corpus[i]) - corpus[i].template for i in picks]
    truth = pad_sequence(motions, True)
    style = torch.stack([corpus[i].style for i in picks])
    kept, finished = TrainingAudio(encoder, corpus), CachedAudio(encoder, corpus)

    def update(way: str) -> tuple[float, float]:
        encoder.set_trainable(way != "frozen")
        encoder.model.feature_extractor._requires_grad = way == "whole"
        began = time.perf_counter(), time.process_time()
        source = {"once": kept.get, "frozen": finished.get}
        encode = source.get(way, lambda i: actor.encode(corpus[i].waveform[None])[0])
        audio = pad_sequence([encode(i)[: len(motion)] for i, motion in zip(picks, motions, strict=True)], True)
        loss = (1e3 * (actor.imitate(audio, style, truth, teacher_forced) - truth)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.perf_counter() - began[0], time.process_time() - began[1]

    ways = ("whole", "no_gradient", "once", "frozen")
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for k in range(updates + 1):
        for way in ways:
            seed_everything(k)  # the same layers dropped, the same spans masked
            took = update(way)
            if k:  # the first fills what is kept
                seconds[way].append(took)
    wall, cpu = ({way: statistics.median(pair[k] for pair in seconds[way]) for way in ways} for k in (0, 1))
    return {
        "batch": batch, "frames": [len(motion) for motion in motions], "threads": torch.get_num_threads(),
        "teacher_forced": teacher_forced, "wall_s": {way: round(wall[way], 3) for way in ways},
        "cpu_s": {way: round(cpu[way], 3) for way in ways},
        "whole_over": {way: round(cpu["whole"] / cpu[way], 2) for way in ways},
    }  # fmt: skip


if __name__ == "__main__":
    main()
