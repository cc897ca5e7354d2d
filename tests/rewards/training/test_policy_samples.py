"""Predictions of a policy: which file, which frames, and one line for what is wrong with a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.rewards.training.policy_samples import PolicySamples

TEMPLATE = torch.linspace(0, 1, 12)


def vertices(n_frames: int, level: float) -> np.ndarray:
    """Frame t is the template + level + t, 4 vertices."""
    frames = TEMPLATE.numpy() + level + np.arange(n_frames)[:, None]
    return frames.astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "S1_sentence01_condition_S1.npy", vertices(6, 100))
    np.save(tmp_path / "S1_sentence01_condition_S2.npy", vertices(6, 200))
    np.save(tmp_path / "S1_sentence01_condition_mean.npy", vertices(6, 300))
    np.save(tmp_path / "S1_sentence02.npy", vertices(6, 400).reshape(6, 4, 3))
    np.save(tmp_path / ".half.tmp.npy", vertices(6, 500)[:, :5])
    return tmp_path


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestPolicySamples:
    def test_draws_a_condition_and_never_the_mean(self, folder: Path) -> None:
        samples = PolicySamples(folder, 4)
        assert len(samples) == 2 and "S1_sentence01" in samples and "S1_sentence03" not in samples
        found = []
        for seed in range(20):
            sample = samples("S1_sentence01", TEMPLATE, 6, generator(seed))
            assert sample is not None and sample.dtype == torch.float32 and sample.shape == (6, 12)
            found.append(float(sample[0, 0]))
        assert set(found) == {100.0, 200.0}

    @pytest.mark.parametrize(("n_frames", "expected"), [(4, [0, 1, 2, 3]), (8, [0, 1, 2, 3, 4, 5, 5, 5])])
    def test_cut_or_held(self, n_frames: int, expected: list[int], folder: Path) -> None:
        samples = PolicySamples(folder, 4)
        sample = samples("S1_sentence02", TEMPLATE, n_frames, generator())
        assert sample is not None
        assert torch.allclose(sample, 400.0 + torch.tensor(expected)[:, None].expand(-1, 12).float(), atol=1e-4)
        part = samples("S1_sentence02", TEMPLATE, n_frames, generator(), slice(2, 4))
        assert part is not None and torch.equal(part, sample[2:4])

    def test_one_draw_whatever_is_there(self, folder: Path) -> None:
        samples, states = PolicySamples(folder, 4), []
        for name in ("S1_sentence01", "S1_sentence02", "nobody"):
            draws = generator()
            assert (samples(name, TEMPLATE, 6, draws) is None) == (name == "nobody")
            states.append(draws.get_state())
        assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])

    def test_of_several_policies(self, folder: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        np.save(other / "S1_sentence02_condition_S1.npy", vertices(6, 600))
        samples = PolicySamples([folder, other], 4)
        drawn = (samples("S1_sentence02", TEMPLATE, 6, generator(seed)) for seed in range(20))
        assert {float(sample[0, 0]) for sample in drawn if sample is not None} == {400.0, 600.0}
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match="empty: holds no predictions"):
            PolicySamples([folder, tmp_path / "empty"], 4)

    def test_mistakes(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such folder"):
            PolicySamples(tmp_path / "absent", 4)
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match="holds no predictions"):
            PolicySamples(tmp_path / "empty", 4)
        with pytest.raises(UserError, match=r"sentence01_condition_S1.npy: shape \(6, 12\), expected \[T, 15\]"):
            PolicySamples(folder, 5)
        np.save(folder / "S1_sentence02.npy", np.full((6, 12), np.nan, np.float32))
        with pytest.raises(UserError, match="not finite"):
            PolicySamples(folder, 4)("S1_sentence02", TEMPLATE, 6, generator())
