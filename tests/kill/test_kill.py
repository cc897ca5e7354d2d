"""Killed in the middle of whatever it writes and resumed, a run is the unbroken one, bit by bit.

Five kills at chosen moments; with ``S2F_RL_KILLS=50`` (``make soak``) so many at random ones, of runs that are killed
up to three times. ``S2F_RL_SEED`` repeats what a failure names.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from kill.scenes import SCENES, assert_same_folders, fresh

SEED = int(os.environ.get("S2F_RL_SEED", time.time_ns() % 10**6))
RANDOM = [f"{SEED}-{number}" for number in range(int(os.environ.get("S2F_RL_KILLS", "0")))]
# a save in its middle, rows and logs, what is chosen by validation, a cache, predictions on the way
CHOSEN = {
    "supervised": ["cut:1:.last."],
    "ppo": ["cut:2:cache/", "row:3:metrics.jsonl"],
    "reward": ["before:1:policy_samples", "after:1:v4_best.pt"],
}


def killed(server, folder: Path, scene: str, kill: str) -> None:
    status = server.run(folder, scene, kill)
    assert status == -9, f"{scene} was not killed at {kill}: {(folder / 'output.txt').read_text()}"


def assert_goes_on(server, folder: Path, scene: str, unbroken: Path) -> None:
    assert server.run(folder, scene) == 0, (folder / "output.txt").read_text()
    assert not [path for path in folder.rglob(".*") if ".tmp" in path.name]
    assert_same_folders(unbroken, folder)


@pytest.mark.parametrize("scene", CHOSEN)
def test_chosen_moments(server, template: Path, unbroken, tmp_path: Path, scene: str) -> None:
    folder = fresh(template, tmp_path / "broken")
    for kill in CHOSEN[scene]:
        killed(server, folder, scene, kill)
    assert_goes_on(server, folder, scene, unbroken(scene))


@pytest.mark.parametrize("name", RANDOM or [f"{SEED}-0"])
def test_random_moments(server, template: Path, unbroken, tmp_path: Path, name: str) -> None:
    draw = random.Random(name)
    scene = draw.choice([*SCENES] if RANDOM else ["ppo"])
    moments = [line.split(" ", 1) for line in (unbroken(scene) / "moments.txt").read_text().splitlines()]
    folder = fresh(template, tmp_path / "broken")
    told = f"S2F_RL_SEED={SEED} S2F_RL_KILLS={len(RANDOM)}, {scene}: "
    for _ in range(draw.randint(1, 3) if RANDOM else 1):
        kind = draw.choice(sorted({kind for kind, _ in moments}))
        kill = f"{kind}:{draw.randrange(sum(k == kind for k, _ in moments))}:"
        told += f"{kill} "
        status = server.run(folder, scene, kill)
        # a later kill may lie beyond what is left to do
        assert status in (-9, 0), told + (folder / "output.txt").read_text()
    try:
        assert_goes_on(server, folder, scene, unbroken(scene))
    except AssertionError as error:
        raise AssertionError(told) from error
