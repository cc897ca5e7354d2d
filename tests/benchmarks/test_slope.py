"""The slope of scores whose slope is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import slope
from s2f_rl.errors import UserError
from s2f_rl.rewards.calibration.attack import MotionSpace

MM = 1e-3
LIPS = torch.tensor([0, 2])


@pytest.fixture
def motions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    actor, truth = MM * torch.randn(2, 30, 12, generator=generator)
    return actor, truth


def test_a_score_that_falls_with_the_distance(motions: tuple[Tensor, Tensor]) -> None:
    actor, truth = motions

    def nearness(moved: Tensor) -> Tensor:
        return -(moved - truth).square().sum((1, 2)) / MM**2

    found = slope.slope(nearness, actor, truth, LIPS, MotionSpace("free"))
    assert found["cosine"] == pytest.approx(1.0, abs=1e-5) and found["cosine_slow"] == pytest.approx(1.0, abs=1e-5)
    whole = float((actor - truth).square().sum()) / MM**2
    for share in slope.SHARES:
        assert found[f"at_{share:g}"] == pytest.approx(-whole * (1 - share) ** 2, rel=1e-4, abs=1e-6)
    assert found["climb_gain"] > 0 and found["climb_error_mm2"] < 0


def test_a_score_that_looks_elsewhere(motions: tuple[Tensor, Tensor]) -> None:
    """Its gradient has no part along the way to the truth, though it can be climbed."""
    actor, truth = motions
    way = truth - actor
    aside = torch.randn(actor.shape, generator=torch.Generator().manual_seed(1))
    aside -= way * (aside * way).sum() / way.square().sum()
    found = slope.slope(lambda m: (m * aside).sum((1, 2)), actor, truth, LIPS, MotionSpace("free"))
    assert found["cosine"] == pytest.approx(0.0, abs=1e-5)
    assert found["at_0"] == pytest.approx(found["at_1"], abs=1e-6) and found["climb_gain"] > 0
    # in the span of the first coordinate alone, the cosine is that of these columns
    first = MotionSpace("first", torch.eye(12)[:1])
    found = slope.slope(lambda m: (m * aside).sum((1, 2)), actor, truth, LIPS, first)
    a, b = aside[:, 0].numpy(), way[:, 0].numpy()
    expected = np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    assert found["cosine"] == pytest.approx(float(expected), rel=1e-4) and abs(expected) > 0.01


def test_the_script(actor_place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [str(actor_place / "corpus"), str(tmp_path / "out"), f"--reward={actor_place / 'reward'}"]
    options += [f"--judge={actor_place / 'judge'}", "--directions=5"]
    rows = slope.main([*options, f"--checkpoint={actor_place / 'actor.pt'}"])
    assert [row["model"] for row in rows] == ["reward", "judge"] * 2
    mean = np.mean([row["cosine"] for row in rows if row["model"] == "judge"])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| judge |"))
    assert line.split("|")[2].split("±")[0].strip() == f"{mean:.3f}"
    assert (tmp_path / "out" / "slope.md").read_text().count("\n") == 4
    with pytest.raises(UserError, match=r"other\.pt has 3 styles"):
        slope.main([*options, f"--checkpoint={actor_place / 'other.pt'}"])
