"""What opening and reading a corpus costs."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.data.lru import ByteCache
from tests.tiny import make_tiny_corpus


class TestCost:
    def test_opening_and_reading_do_not_hold_the_corpus(self, tmp_path: Path) -> None:
        """60 utterances of 5023 vertices, 0.4 GB: measured in a fresh process, above the imports."""
        root = make_tiny_corpus(tmp_path, n_subjects=2, n_sentences=1, audio_only="all")
        template = np.zeros((5023, 3), np.float32)
        (root / "templates.pkl").write_bytes(pickle.dumps({"S0": template, "S1": template}))
        shape = (120, 5023 * 3)
        wav = (root / "wav" / "S0_sentence01.wav").read_bytes()
        for k in range(1, 61):
            (root / "wav" / f"S0_sentence{k}.wav").write_bytes(wav)
            with open(root / "vertices_npy" / f"S0_sentence{k}.npy", "wb") as file:  # sparse: takes no room on disk
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                file.truncate(file.tell() + shape[0] * shape[1] * 4)
        code = f"""
import resource, time, torch, soundfile, soxr
from s2f_rl.data import FaceCorpus
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
FaceCorpus  # its imports are not what is measured
before = peak()
corpus = FaceCorpus({str(root)!r}, "all", cache_mb=4)
opened = peak() - before
for u in corpus:
    u.vertices, u.waveform
print(len(corpus), opened, peak() - before, corpus._cache.n_bytes)
"""
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        n, opened, read, cached = int(out[0]), float(out[1]), float(out[2]), int(out[3])
        assert n == 62 and opened < 20 and read < 120 and cached <= 4 * 2**20

    def test_importing_the_package_loads_nothing_heavy(self) -> None:
        code = "import sys, s2f_rl.data; print(sorted({'torch', 'numpy', 'librosa', 'soundfile'} & set(sys.modules)))"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert out.strip() == "[]"


class TestByteCache:
    def test_it_is_bounded_and_drops_the_oldest(self) -> None:
        cache: ByteCache[torch.Tensor] = ByteCache(100)
        made: list[int] = []

        def make(key: int) -> torch.Tensor:
            made.append(key)
            return torch.full((10,), key, dtype=torch.float32)

        for key in (1, 2, 1, 3, 1, 2):
            assert cache.get(key, lambda key=key: make(key)).tolist() == [key] * 10
            assert cache.n_bytes <= 100
        assert made == [1, 2, 3, 2]

    def test_the_newest_stays_however_large(self) -> None:
        cache: ByteCache[torch.Tensor] = ByteCache(8)
        cache.get("b", lambda: torch.zeros(1))
        kept = cache.get("a", lambda: torch.zeros(10))
        assert cache.get("a", lambda: torch.ones(10)) is kept and cache.n_bytes == 40 and "b" not in cache

    def test_a_copy_in_another_process_starts_empty(self) -> None:
        cache: ByteCache[torch.Tensor] = ByteCache(100)
        cache.get("a", lambda: torch.zeros(10))
        copy = pickle.loads(pickle.dumps(cache))
        assert copy.max_bytes == 100 and copy.n_bytes == 0 and "a" not in copy
        cache.clear()
        assert cache.n_bytes == 0 and "a" not in cache

    def test_what_a_corpus_hands_out_is_nobodys_memory(self, tmp_path: Path) -> None:
        corpus = FaceCorpus(make_tiny_corpus(tmp_path), split="all")
        for read in (lambda: corpus[0].waveform, lambda: corpus[0].mel_clips):
            before = read().clone()
            read().zero_()
            assert torch.equal(read(), before) and before.any()
