"""Kills at random moments: ``make soak``. A failure names the seed and the kills that repeat it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from kill.scenes import SCENES, fresh
from kill.test_kill import assert_goes_on
from kill.test_suite import resumed

from tests.benchmarks.test_suite_inputs import make_place

SEED, KILLS = os.environ.get("S2F_RL_SEED", "0"), int(os.environ.get("S2F_RL_KILLS", "50"))
SUITES = KILLS // 10


def drawn(draw: random.Random, moments: Path) -> str:
    """A random moment of a random kind, of those in which the unbroken run wrote."""
    kinds = [line.split(" ", 1)[0] for line in moments.read_text().splitlines()]
    kind = draw.choice(sorted(set(kinds)))
    return f"{kind}:{draw.randrange(kinds.count(kind))}:"


@pytest.mark.parametrize("number", range(KILLS - SUITES))
def test_recipe(server, template: Path, unbroken, tmp_path: Path, number: int) -> None:
    """Killed once, twice or three times."""
    draw = random.Random(f"{SEED} {number}")
    scene = draw.choice([*SCENES])
    whole, folder = unbroken(scene), fresh(template, tmp_path / "broken")
    kills = [drawn(draw, whole / "moments.txt") for _ in range(draw.randint(1, 3))]
    told = f"SEED={SEED}: {scene}, {' '.join(kills)}"
    for kill in kills:  # a later one may lie beyond what is left to do
        assert server.run(folder, scene, kill) in (-9, 0), f"{told}\n{(folder / 'output.txt').read_text()}"
    try:
        assert_goes_on(server, folder, scene, whole)
    except AssertionError as error:
        raise AssertionError(told) from error


@pytest.mark.parametrize("number", range(SUITES))
def test_suite(unbroken_suite: Path, tmp_path: Path, number: int) -> None:
    draw = random.Random(f"{SEED} suite {number}")
    kills = [drawn(draw, unbroken_suite / "moments.txt") for _ in range(2)]
    try:
        resumed(make_place(tmp_path / "place"), unbroken_suite, *kills)
    except AssertionError as error:
        raise AssertionError(f"SEED={SEED}: suite, {' '.join(kills)}") from error
