"""Mixtures of two motions against what they are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from benchmarks import diagnosis
from s2f_rl.errors import UserError


def test_bands_are_exchanged_and_sum_up() -> None:
    generator = torch.Generator().manual_seed(0)
    actor, truth = torch.randn(2, 40, 12, generator=generator)
    lips = torch.tensor([1, 3])
    found = dict(diagnosis.mixtures(actor, truth, lips))
    assert torch.equal(found["actor"], actor) and torch.equal(found["ground truth"], truth)
    one, other = found["actor's slow, truth's fast movement"], found["truth's slow, actor's fast movement"]
    torch.testing.assert_close(one + other, actor + truth)
    slow = gaussian_filter1d(actor.numpy(), diagnosis.CUT_FRAMES, axis=0, mode="nearest")
    fast = truth.numpy() - gaussian_filter1d(truth.numpy(), diagnosis.CUT_FRAMES, axis=0, mode="nearest")
    np.testing.assert_allclose(one.numpy(), slow + fast, atol=1e-5)

    mixed = found["truth, the actor's lips"].unflatten(1, (-1, 3))
    assert torch.equal(mixed[:, [1, 3]], actor.unflatten(1, (-1, 3))[:, [1, 3]])
    assert torch.equal(mixed[:, [0, 2]], truth.unflatten(1, (-1, 3))[:, [0, 2]])


def _run(place: Path, actor: str) -> dict[str, dict[str, float]]:
    options = [f"--checkpoint={place / actor}", f"--reward={place / 'reward'}", f"--judge={place / 'judge'}"]
    return diagnosis.main([str(place / "corpus"), str(place / "out"), *options])


def test_the_table_is_the_mean_of_the_rows(actor_place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = _run(actor_place, "actor.pt")
    assert list(table)[:2] == ["ground truth", "actor"] and len(table) == 6 + len(diagnosis.NOISE_MM)
    lines = (actor_place / "out" / "diagnosis.csv").read_text(encoding="utf-8").splitlines()
    column = lines[0].split(",").index("judge_lip_score")
    scores = [float(line.split(",")[column]) for line in lines[1:] if ",actor," in line]
    assert len(scores) == 2  # both utterances of the validation speaker
    assert table["actor"]["judge_lip_score"] == pytest.approx(np.mean(scores), rel=1e-6)
    assert "| actor |" in capsys.readouterr().out


def test_an_actor_of_another_corpus(actor_place: Path) -> None:
    with pytest.raises(UserError, match=r"other\.pt has 3 styles"):
        _run(actor_place, "other.pt")
