"""Lips moved to where a density has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import ceiling
from s2f_rl.data import FaceCorpus
from s2f_rl.rewards.articulation.density import LipDensity
from s2f_rl.rewards.articulation.density_files import TrainedDensity
from tests.rewards.articulation.speaking import small_density, speaking_corpus


def density(seed: int = 0) -> LipDensity:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(9, 4, generator=generator)).Q.T  # four directions of three lip vertices
    return LipDensity(torch.tensor([4, 0, 6]), basis, 1e-3 * torch.randn(9, generator=generator), n_styles=2, width=8)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_only_the_densitys_coefficients_move(share: float) -> None:
    d = density()
    generator = torch.Generator().manual_seed(1)
    actor, mean = 1e-3 * torch.randn(10, 24, generator=generator), 1e-3 * torch.randn(7, 4, generator=generator)
    moved = ceiling.towards(actor, mean, d, share)
    columns = [3 * v + axis for v in (4, 0, 6) for axis in range(3)]
    before, after = actor[:, columns].double().numpy(), moved[:, columns].double().numpy()
    basis, centre = d.basis.double().numpy(), d.mean.double().numpy()

    def coefficients(lips: np.ndarray) -> np.ndarray:
        return np.stack([[row @ (frame - centre) / 3**0.5 for row in basis] for frame in lips])

    expected = (1 - share) * coefficients(before)[:7] + share * mean.double().numpy()
    np.testing.assert_allclose(coefficients(after)[:7], expected, atol=1e-9)
    aside = np.eye(9) - basis.T @ basis  # what the coefficients do not see
    np.testing.assert_allclose(after @ aside, before @ aside, atol=1e-9)
    others = [k for k in range(24) if k not in columns]
    assert torch.equal(moved[:, others], actor[:, others]) and torch.equal(moved[7:], actor[7:])


def test_table() -> None:
    nan = float("nan")
    rows = [{"motion": "a", "lve": 4e-6, "closure_rate": 1.0}, {"motion": "a", "lve": 2e-6, "closure_rate": nan}]
    rows += [{"motion": "b", "lve": 1e-6, "closure_rate": nan}]
    lines = ceiling.table(rows).splitlines()
    assert lines[0] == "| lips | lve mm² | closure_rate |"
    assert lines[2:] == ["| a | 3.000 | 1.000 |", "| b | 1.000 | – |"]


def test_the_script(actor_place: Path, tmp_path: Path) -> None:
    """A row for the actor and for each of four motions that the density asks for."""
    corpus = FaceCorpus(speaking_corpus(tmp_path / "corpus", n_sentences=2), split="train")
    folder = tmp_path / "density"
    TrainedDensity(small_density(corpus), tuple(corpus.subjects), corpus.fps, corpus.mesh_identity).save(folder)
    options = [str(corpus.root), str(tmp_path / "out"), f"--checkpoint={actor_place / 'actor.pt'}"]
    rows = ceiling.main([*options, f"--articulation={folder}"])
    assert len(rows) == 5 * 2 and len({row["motion"] for row in rows}) == 5
    assert len({row["lve"] for row in rows}) == 10
    assert (tmp_path / "out" / "ceiling.md").read_text().count("\n") == 7
