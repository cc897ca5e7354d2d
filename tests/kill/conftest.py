"""The server, what the scenes read, and each scene unbroken, with the moments in which it writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from kill.scenes import Server, fresh
from kill.test_suite import suite
from tiny import make_tiny_corpus

from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.models.checkpoint import actor_payload
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from tests.benchmarks.test_suite_inputs import make_place


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``corpus``, ``start`` and ``reward``."""
    root = tmp_path_factory.mktemp("kill") / "template"
    make_tiny_corpus(root / "corpus", n_subjects=4, n_sentences=2, seconds=(1.0, 1.3), audio_only=("S0_sentence02",))
    (root / "corpus" / "phones").mkdir()
    for wav in (root / "corpus" / "wav").glob("*.wav"):
        phones = [["sil", 0.0, 0.1], ["aa", 0.1, 0.25], ["p", 0.25, 0.4], ["aa", 0.4, 0.55]]
        (root / "corpus" / "phones" / f"{wav.stem}.json").write_text(json.dumps(phones))
    torch.manual_seed(0)
    # so large that an RL run keeps its encoder in a file of its own
    actor = FaceFormer(MelAudioEncoder(width=400), 40, n_subjects=2, feature_dim=16)
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    (root / "start").mkdir()
    torch.save({"actor": actor_payload(actor, ["S0", "S1"])}, root / "start" / "best.pt")
    RewardModel(SpeechMeshTransformer(120, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8)).save(root / "reward")
    return root


@pytest.fixture(scope="session")
def unbroken(server: Server, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``unbroken(scene)``: its folder after a run that nothing disturbed; ``moments.txt`` lists what could have."""
    done: dict[str, Path] = {}

    def unbroken(scene: str) -> Path:
        if scene not in done:
            folder = fresh(template, tmp_path_factory.mktemp("unbroken") / scene)
            assert server.run(folder, scene, log=folder / "moments.txt") == 0, (folder / "output.txt").read_text()
            done[scene] = folder
        return done[scene]

    return unbroken


@pytest.fixture(scope="session")
def unbroken_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for a suite with pretended recipes."""
    place = make_place(tmp_path_factory.mktemp("suite") / "place")
    assert suite(place, S2F_RL_MOMENTS=str(place / "moments.txt")) == 0
    return place
