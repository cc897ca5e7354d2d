"""Killed in the middle of whatever it writes and resumed, a run is the unbroken one, bit by bit.

A few kills at chosen moments; ``soak.py`` has those at random ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from kill.scenes import assert_same_folders, fresh

# a save in its middle, the encoder of all checkpoints, rows and logs, what is chosen by validation, a cache, samples
CHOSEN = {
    "supervised": ["after:2:wav_npy", "cut:1:.last."],
    "ppo": ["cut:0:.encoder-", "after:0:encoder-", "cut:2:cache/", "row:3:metrics.jsonl"],
    "gdpo": ["before:1:last.pt"],  # the statistics of each score of its parts
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
