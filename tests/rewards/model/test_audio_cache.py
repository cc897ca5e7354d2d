"""AudioFeatureCache: cold, warm, damaged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from s2f_rl.rewards import AudioFeatureCache, RewardModel, SpeechMeshTransformer


def make_model(seed: int = 0) -> RewardModel:
    torch.manual_seed(seed)
    return RewardModel(SpeechMeshTransformer(30, 16, depth=1, n_heads=2))


@pytest.fixture
def corpus() -> list[SimpleNamespace]:
    generator = torch.Generator().manual_seed(1)
    return [SimpleNamespace(mel_clips=torch.randn(n, 20, 128, generator=generator)) for n in (3, 5, 0, 4)]


def counts(cache: AudioFeatureCache) -> tuple[int, int, int]:
    return cache.computed, cache.from_disk, cache.from_memory


class TestCache:
    def test_memory(self, corpus) -> None:
        model = make_model()
        cache = AudioFeatureCache(model, corpus)
        for _ in range(2):
            for index, u in enumerate(corpus):
                assert torch.equal(cache.get(index), model.encode_audio(u.mel_clips))
        assert counts(cache) == (4, 0, 4)

    def test_cold_and_warm_disk(self, corpus, tmp_path: Path) -> None:
        model = make_model()
        cold = AudioFeatureCache(model, corpus, tmp_path)
        first = [cold.get(i) for i in range(4)]
        assert counts(cold) == (4, 0, 0) and len(list(tmp_path.rglob("*.npy"))) == 4
        warm = AudioFeatureCache(make_model(), corpus, tmp_path)
        for index in range(4):
            assert torch.equal(warm.get(index), first[index])
        assert counts(warm) == (0, 4, 0)

    def test_what_a_killed_process_left_goes(self, corpus, tmp_path: Path) -> None:
        (tmp_path / "ab").mkdir()
        (tmp_path / "ab" / ".abcdef.000000000000.tmp.npy").touch()
        AudioFeatureCache(make_model(), corpus, tmp_path)
        assert list((tmp_path / "ab").iterdir()) == []

    def test_other_weights_or_other_speech_are_not_answered(self, corpus, tmp_path: Path) -> None:
        AudioFeatureCache(make_model(), corpus, tmp_path).get(0)
        other = AudioFeatureCache(make_model(seed=1), corpus, tmp_path)
        assert torch.equal(other.get(0), make_model(seed=1).encode_audio(corpus[0].mel_clips))
        corpus[0].mel_clips[1, 2, 3] += 1e-3
        again = AudioFeatureCache(make_model(), corpus, tmp_path)
        again.get(0)
        assert counts(other) == counts(again) == (1, 0, 0)

    @pytest.mark.parametrize("damage", [
        lambda path: path.write_bytes(b"rubbish"),
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: np.save(path, np.zeros((2, 16), np.float32)),
        lambda path: np.save(path, np.full((3, 16), np.nan, np.float32)),
        lambda path: np.save(path, np.zeros((3, 16), np.float64)),
    ])  # fmt: skip
    def test_damaged_file_is_computed_again(self, corpus, tmp_path: Path, damage, caplog) -> None:
        model = make_model()
        cache = AudioFeatureCache(model, corpus, tmp_path)
        expected = cache.get(0)
        path = cache.path(corpus[0].mel_clips)
        assert path is not None and path.exists()
        damage(path)
        again = AudioFeatureCache(model, corpus, tmp_path)
        assert torch.equal(again.get(0), expected)
        assert counts(again) == (1, 0, 0) and "again" in caplog.text
        repaired = AudioFeatureCache(model, corpus, tmp_path)
        repaired.get(0)
        assert counts(repaired) == (0, 1, 0)

    def test_memory_is_bounded(self, corpus) -> None:
        cache = AudioFeatureCache(make_model(), corpus, memory_limit_mb=6 * 16 * 4 / 2**20)
        for index in (0, 1, 0, 3, 3):
            cache.get(index)
        assert counts(cache) == (4, 0, 1)
        cache.get(1)
        assert cache.computed == 5, "it had left the memory"
