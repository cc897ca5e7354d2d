"""What is loaded when: packages load nothing heavy, and commands that do no reinforcement learning no TorchRL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.models.checkpoint import actor_payload
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.runs import save_checkpoint
from tests.tiny import make_tiny_corpus

HEAVY = ("torch", "torchrl", "tensordict", "librosa", "transformers", "numba", "scipy", "av", "hydra", "wandb", "numpy")
RL = ("torchrl", "tensordict")

LOADED = "import atexit, sys; atexit.register(lambda: print('\\n', *[m for m in {} if m in sys.modules]))\n"
WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
from s2f_rl import cli
for arguments in {!r}:
    code = cli.main(arguments)
    if code:
        sys.exit(f"{{arguments}}: {{code}}")
"""


def loaded(code: str, of: tuple[str, ...]) -> set[str]:
    """Which modules ``of`` a fresh process has when it has run ``code``."""
    done = subprocess.run([sys.executable, "-c", LOADED.format(of) + code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


class TestImports:
    @pytest.mark.parametrize(
        "code",
        [
            "import s2f_rl, s2f_rl.data.synthetic, s2f_rl.evaluation, s2f_rl.models, s2f_rl.render, s2f_rl.runs",
            "import s2f_rl.view",
            "from s2f_rl import cli; cli.main(['check', '--help'])",
            "from s2f_rl import cli; cli.main(['animate', '--help'])",
            "from s2f_rl import cli; cli.main(['evaluate', '--help'])",
            "from s2f_rl import cli; cli.main(['view', '--help'])",
            "from s2f_rl import cli; cli.main(['adapt', '--help'])",
            "import s2f_rl.exchange; from s2f_rl import cli; cli.main(['blendshapes', '--help'])",
            "from s2f_rl import cli; cli.main(['recipe', '--list'])",
            "from s2f_rl import cli; cli.main(['info'])",
            "from s2f_rl import cli; cli.main(['completion', 'zsh'])",
            "from s2f_rl import cli; cli.main(['corpus', 'new', '--help'])",
        ],
    )
    def test_nothing_heavy(self, code: str) -> None:
        assert loaded(code, HEAVY) == set()

    def test_actors_and_evaluation_without_torchrl(self) -> None:
        code = "import s2f_rl.models, s2f_rl.evaluation; s2f_rl.models.FaceFormer; s2f_rl.evaluation.evaluate_actor"
        assert loaded(code, ("torch", "transformers", *RL)) == {"torch"}

    def test_a_policy_brings_torchrl(self) -> None:
        assert loaded("import s2f_rl.models; s2f_rl.models.FaceFormerPolicy", RL) == set(RL)


def test_commands_without_torchrl(tmp_path: Path) -> None:
    """From a checkpoint to films, rows and scores, in a process that has no TorchRL, TensorDict or transformers."""
    corpus = FaceCorpus(make_tiny_corpus(tmp_path / "corpus"), split="train")
    torch.manual_seed(0)
    actor = FaceFormer(MelAudioEncoder(width=8), corpus.n_vertices, feature_dim=16, n_subjects=len(corpus.subjects))
    save_checkpoint(tmp_path / "best.pt", {"actor": actor_payload(actor, list(corpus.subjects))})
    backbone = SpeechMeshTransformer(3 * corpus.n_vertices, width=16, depth=1, n_heads=2)
    RewardModel(backbone, ScoreHead(16, 16, hidden=8)).save(tmp_path / "reward")

    sound = "corpus/wav/S1_sentence01.wav"
    where = ["--corpus", "corpus"]
    commands = [
        ["check", "corpus"],
        ["animate", sound, "--checkpoint", "best.pt", *where, "--out", "face.npy"],
        ["animate", sound, "--checkpoint", "best.pt", *where, "--out", "face.mp4", "--size", "64"],
        ["evaluate", "--checkpoint", "best.pt", *where, "--out", "rows", "--reward", "reward", "--conditions", "own"],
        ["score", "rows/predictions", *where, "--reward", "reward", "--out", "scores.csv"],
        ["render", "face.npy", *where, "--audio", sound, "--out", "film.mp4", "--size", "64"],
        ["view", "face.npy", *where, "--audio", sound, "--out", "page.html", "--reward", "reward"],
    ]
    code = WITHOUT.format((*RL, "transformers"), commands)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("face.npy", "face.mp4", "rows/summary.json", "scores.csv", "film.mp4", "page.html"):
        assert (tmp_path / name).stat().st_size > 100, name
