"""A suite that goes on: what it read must be what it reads, and nothing of the killed one goes on beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import run as suite_command
from benchmarks.harness import inputs, matrix
from benchmarks.harness.pool import Step, is_done, read_record
from benchmarks.harness.sets import evaluated_sets
from s2f_rl.data.files import atomic_write_json
from s2f_rl.errors import UserError
from s2f_rl.rewards import RewardModel, SpeechMeshTransformer
from tests.benchmarks.test_matrix import small_suite
from tests.benchmarks.test_suite_runs import EVALUATION, RECIPE
from tests.runs.test_tether import gone
from tests.tiny import make_tiny_corpus

ROOT = Path(__file__).resolve().parents[2]


def reward(folder: Path, seed: int) -> None:
    import torch

    torch.manual_seed(seed)
    RewardModel(SpeechMeshTransformer(120, width=16, depth=1, n_heads=2)).save(folder)


def make_place(folder: Path) -> Path:
    """A folder with a pretended recipe and evaluation, a corpus, a reward and a judge."""
    (folder / "recipes").mkdir(parents=True)
    (folder / "recipes" / "fake.py").write_text(RECIPE)
    (folder / "evaluate.py").write_text(EVALUATION)
    make_tiny_corpus(folder / "corpus", n_subjects=4)
    for seed, name in enumerate(("one", "two")):
        reward(folder / "rewards" / name, seed)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_place(tmp_path / "place"))
    return tmp_path / "place"


def run(place: Path, **changes: Any) -> int:
    settings = {"jobs": 2, "seeds": [0], "gains": [], "open_test": False, "conditions": [0], "true_distances": 0}
    suite = small_suite(**{**settings, **changes})
    return suite_command.run_suite(suite, place / "recipes", place / "evaluate.py")[1]


class TestInputs:
    def test_another_corpus(self, place: Path) -> None:
        assert run(place) == 0 and run(place) == 0
        path = place / "corpus" / "wav" / "S0_sentence01.wav"
        path.write_bytes(path.read_bytes()[:-2] + b"\1\1")
        with pytest.raises(UserError, match=r"supervised.json: .* content of corpus \(wav\) changed.*another root"):
            run(place)

    def test_another_reward(self, place: Path) -> None:
        run(place)
        reward(place / "rewards" / "one", 5)
        with pytest.raises(UserError, match=r"seed0.json: .* content of reward changed"):
            run(place)

    def test_another_judge_is_a_reason_to_evaluate_again(self, place: Path) -> None:
        run(place)
        trained, scored = (
            Path("out/records/train/ours/first/seed0.json"),
            Path("out/records/validation/ours/first/seed0.json"),
        )
        before = read_record(trained), read_record(scored)
        assert run(place) == 0 and (read_record(trained), read_record(scored)) == before
        reward(place / "rewards" / "two", 5)
        assert run(place) == 0 and read_record(trained) == before[0]
        after = read_record(scored)
        assert after is not None and before[1] is not None
        assert {k for k in after["inputs"] if after["inputs"][k] != before[1]["inputs"][k]} == {"judge judge"}

    def test_what_a_run_reads(self, place: Path) -> None:
        suite = small_suite()
        assert set(inputs.training_inputs(suite)) == {"corpus"}
        assert set(inputs.training_inputs(suite, "rewards/one/model_loss.pth")) == {"corpus", "start", "reward"}
        (each,), rewards = evaluated_sets(suite), matrix.reward_settings(suite)
        assert set(inputs.evaluation_inputs(suite, each, rewards)) == {"corpus", "reward", "judge judge"}
        assert inputs.training_inputs(small_suite(corpus={"root": "absent"}, reward="absent"), "absent") == {}

    def test_what_parts_read(self, place: Path) -> None:
        """The folders of parts and the phones that they are given, of rewards and of judges."""
        (place / "phones").mkdir()
        (place / "phones/u.json").write_text("[]")
        part = {"kind": "articulation", "folder": "rewards/two", "phones": "phones"}
        suite = small_suite(judges={"ear": part, "judge": "rewards/two"})
        given = {"reward.folder": "rewards/one", **{f"reward.parts.lips.{key}": value for key, value in part.items()}}
        (each,), before = evaluated_sets(suite), []
        for text in ("[]", '[["ah", 0, 1]]'):
            (place / "phones/u.json").write_text(text)
            before.append(inputs.evaluation_inputs(suite, each, {None: given}))
        assert {key for key in before[0] if before[0][key] != before[1][key]} == {
            "reward lips phones", "judge ear phones"
        }  # fmt: skip
        assert set(before[0]) > {"reward", "reward lips", "judge ear", "judge judge"}
        assert set(inputs.training_inputs(suite, None, None, given)) == {"corpus"}
        assert "reward lips phones" in inputs.training_inputs(suite, "absent", None, given)

    def test_records_of_before_hold_no_inputs(self, place: Path) -> None:
        step = Step((), place / "a.json", ("a",), inputs={"start": "x"})
        atomic_write_json(step.record, {"status": "done", "key": ["a"]})
        assert is_done(step)


# stands still in the second run, until a file tells it to go on; holds the run's folder as a recipe does
STANDING = (
    """
import fcntl, time
from pathlib import Path
import sys
given = dict(item.split("=", 1) for item in sys.argv[1:])
folder = Path(given["root"], given["name"])
folder.mkdir(parents=True, exist_ok=True)
lock = open(folder / ".lock", "w")
fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
if given["name"].startswith("ours") and not Path("go").exists():
    import os
    Path("standing.part").write_text(str(os.getpid()))
    Path("standing.part").rename("standing")
    time.sleep(60)
"""
    + RECIPE
)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_same_command_goes_on(place: Path, number: signal.Signals) -> None:
    """The recipe dies with the suite; at once the same command finishes, and what was done is not done again."""
    (place / "recipes" / "fake.py").write_text(STANDING)
    code = (
        "import signal, sys; from pathlib import Path; from benchmarks import run; "
        "from tests.benchmarks.test_suite_inputs import run as again\n"
        "for n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, signal.default_int_handler)\n"
        "sys.exit(again(Path('.'), jobs=1))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE) as suite:
        while not (place / "standing").exists():
            assert suite.poll() is None
            time.sleep(0.02)
        child = int((place / "standing").read_text())
        suite.send_signal(number)
        suite.communicate(timeout=60)
    assert suite.returncode != 0
    (place / "go").touch()
    assert run(place, jobs=1) == 0
    assert gone(child)
    calls = [line.split()[0] for line in (place / "calls.txt").read_text().splitlines()]
    assert calls == ["supervised", "control/first/seed0", "ours/first/seed0"]
