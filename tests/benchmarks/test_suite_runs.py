"""A suite's life with a pretended recipe: kills, failures, resuming, rows and the report."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import report
from benchmarks import run as suite_command
from benchmarks.harness.gather import summary_rows
from benchmarks.harness.pool import Job, Step, is_done, read_record, run_jobs
from benchmarks.harness.results import Measure, Results
from benchmarks.harness.tables import differences_table, gain_table, gap_table, main_table
from s2f_rl.errors import UserError
from tests.benchmarks.test_matrix import small_suite

# writes what a recipe writes; fails for the seed that a file "broken" names
RECIPE = """
import json, os, sys
from pathlib import Path
given = dict(item.split("=", 1) for item in sys.argv[1:])
folder = Path(given["root"], given["name"])
folder.mkdir(parents=True, exist_ok=True)
with open("calls.txt", "a") as file:
    file.write(f"{given['name']} {given['resume']} {os.environ['OMP_NUM_THREADS']}\\n")
broken = Path("broken")
if broken.exists() and broken.read_text() == given.get("seed"):
    print("about to fail")
    sys.exit("error: a mistake in one line")
with open(folder / "metrics.jsonl", "w") as file:
    for iteration in range(3):
        row = {"kind": "train", "iteration": iteration, "frames": 100 * iteration, "seed": 0, "commit": "abc",
               "versions": "v", "time/update_s": 0.5, "time/validation_s": 9.0, "updates": 2.0 * bool(iteration),
               "validation/lip_score": 0.1 * iteration, "grad_norm_policy": 2.0}
        file.write(json.dumps(row) + "\\n")
for name in ("last.pt", "best.pt"):
    (folder / name).write_text(given.get("seed", "0") + " " + given.get("control", "false"))
"""

# scores that can be worked out by hand; S = seed of the checkpoint
EVALUATION = """
import csv, sys
from pathlib import Path
given = [item.lstrip("-").split("=", 1) for item in sys.argv[1:]]
out = Path(dict(given)["out"])
out.parent.mkdir(parents=True, exist_ok=True)
gains = [1.0] + [float(v) for k, v in given if k == "gain"]
checkpoints = [v.split("=") for k, v in given if k == "checkpoint"] or [("truth", None)]
rows = []
for label, file in checkpoints:
    for gain in gains if label == "last" else [1.0]:
        for utterance in ("a", "b"):
            if label == "truth":
                score = 1.0
            elif Path(file).is_dir():
                score = 0.2
            else:
                seed, control = Path(file).read_text().split()
                score = 0.3 + 0.01 * int(seed) + (0.0 if control == "true" else 0.1) + 0.001 * (label == "best")
            rows.append({"checkpoint": label, "gain": gain, "utterance": utterance, "subject": "s", "condition": "c",
                         "frames": 10, "true_distance": 1e-3 if utterance == "a" else "",
                         "lve": gain * (2e-6 if utterance == "a" else 4e-6), "lip_score": score,
                         "real_score": score, "judge_lip_score": score / 2, "judge_real_score": ""})
with open(out, "w", newline="") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "fake.py").write_text(RECIPE)
    (tmp_path / "evaluate.py").write_text(EVALUATION)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(place: Path, **changes: Any) -> tuple[Path, int]:
    settings = {
        "jobs": 2,
        "seeds": [0, 1, 2],
        "gains": [1.2],
        "open_test": False,
        "conditions": [0],
        "true_distances": 0,
        **changes,
    }
    return suite_command.run_suite(small_suite(**settings), place / "recipes", place / "evaluate.py")


def calls(place: Path) -> list[str]:
    return (place / "calls.txt").read_text().splitlines()


class TestSuite:
    def test_everything_once(self, place: Path) -> None:
        out, failed = run(place)
        assert failed == 0 and out == Path("out/results/validation")
        names = [f"{variant}/first/seed{seed}" for seed in range(3) for variant in ("control", "ours")]
        assert sorted(line.split()[0] for line in calls(place)) == sorted(["supervised", *names])
        assert all(line.split()[1] == "true" for line in calls(place))
        rows = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
        assert {row["status"] for row in rows} == {"done"}
        (ours,) = [r for r in rows if r["variant"] == "ours" and r["seed"] == 2 and r["checkpoint"] == "last"]
        assert ours["updates"] == 4  # validation takes no time of them
        assert ours["frames"] == 200 and ours["frames_per_s"] == pytest.approx(200 / 1.5) and ours["commit"] == "abc"
        assert ours["lip_score"] == pytest.approx(0.42) and ours["lve"] == pytest.approx(3e-6)
        assert ours["true_distance"] == 1e-3 and ours["true_distance_sequences"] == 1
        assert ours["control"] == "control" and ours["sequences"] == 2 and "judge_real_score" not in ours
        # gains only for controls, and only on their last checkpoint
        assert sorted((r["variant"], r["seed"]) for r in rows if r["gain"] == 1.2) == [("control", s) for s in range(3)]
        text = (out / "suite.json").read_text()
        assert os.uname().nodename not in text and json.loads(text)["machine"]["jobs"] == 2

    def test_a_second_call_does_nothing(self, place: Path) -> None:
        run(place)
        before, stamp = calls(place), (place / "out/evaluations/validation/truth.csv").stat().st_mtime_ns
        run(place)
        assert calls(place) == before
        assert (place / "out/evaluations/validation/truth.csv").stat().st_mtime_ns == stamp

    def test_more_seeds_run_only_the_new_ones(self, place: Path) -> None:
        run(place, seeds=[0])
        n = len(calls(place))
        run(place, seeds=[0, 1])
        assert [line.split()[0] for line in sorted(calls(place)[n:])] == ["control/first/seed1", "ours/first/seed1"]

    def test_a_failure_is_a_row_and_is_tried_again(self, place: Path) -> None:
        (place / "broken").write_text("1")
        out, failed = run(place)
        assert failed == 2
        rows = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
        broken = [row for row in rows if row["status"] != "done"]
        assert [(row["variant"], row["seed"], row["status"]) for row in broken] == [
            ("control", 1, "failed"),
            ("ours", 1, "failed"),
        ]
        assert broken[0]["error"].endswith("about to fail\nerror: a mistake in one line")
        results = Results(out)
        measure = Measure("train", ("lip_score", "real_score"))
        assert results.scores("ours", measure)[:, 0] == pytest.approx([0.8, 0.84])  # the whole seed is left out
        (place / "broken").unlink()
        n = len(calls(place))
        out, failed = run(place)
        assert failed == 0 and len(calls(place)) == n + 2
        rows = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
        assert {row["attempts"] for row in rows if row.get("seed") == 1} == {2}

    def test_a_preparation_that_fails_ends_it(self, place: Path) -> None:
        (place / "recipes" / "fake.py").write_text("raise SystemExit('error: no corpus')")
        with pytest.raises(UserError, match="the preparation supervised failed"):
            run(place)

    def test_results_of_other_settings_are_not_mixed(self, place: Path) -> None:
        run(place)
        with pytest.raises(UserError, match="iterations=4.*iterations=5.*another root"):
            run(place, base={"iterations": 5, "evaluation": {"every": 2}})

    def test_another_recipe_is_another_setting(self, place: Path) -> None:
        run(place)
        (place / "recipes" / "other.py").write_text(RECIPE)
        with pytest.raises(UserError, match="recipe=fake.*recipe=other"):
            run(place, controls={"control": {"recipe": "other", "overrides": {}}})

    def test_stale_evaluations_are_not_taken(self, place: Path) -> None:
        """With other judges every evaluation is due; those that then fail are told as failed, references included."""
        run(place)
        (place / "evaluate.py").write_text("raise SystemExit('error: no such judge')")
        out, failed = run(place, judges={"judge": "rewards/three"})
        rows = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
        assert failed == 8 and [row["status"] for row in rows] == ["failed"] * 8
        assert [row["variant"] for row in Results(out).failed][:2] == ["truth", "start"]
        (place / "evaluate.py").write_text(EVALUATION)
        assert run(place)[1] == 0

    def test_stopped_before_evaluations_were_done_anew(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run(place)

        def stopped(*args: Any, **kwargs: Any) -> int:
            raise KeyboardInterrupt

        suite = small_suite(jobs=1, seeds=[0, 1, 2], gains=[], open_test=False, conditions=[0], true_distances=0,
                            setup={})  # fmt: skip
        monkeypatch.setattr(suite_command, "run_jobs", stopped)
        with pytest.raises(KeyboardInterrupt):
            suite_command.run_suite(suite, place / "recipes", place / "evaluate.py")
        rows = [json.loads(line) for line in Path("out/results/validation/runs.jsonl").read_text().splitlines()]
        # the evaluation of the controls was with gains; all others are as they were
        assert {row["variant"] for row in rows if row["status"] == "unfinished"} == {"control"}
        assert {row["variant"] for row in rows if row["status"] == "done"} == {"truth", "start", "ours"}

    def test_the_test_split_has_its_own_folder(self, place: Path) -> None:
        run(place)
        n = len(calls(place))
        out, _ = run(place, open_test=True)
        assert out == Path("out/results/test") and len(calls(place)) == n  # nothing is trained again

    def test_the_training_speakers_too(self, place: Path) -> None:
        """In their own style, without a run being trained again or its record touched."""
        run(place)
        n, trained = len(calls(place)), Path("out/records/train/ours/first/seed0.json").read_text()
        out, failed = run(place, split="train", utterances=1)
        assert out == Path("out/results/train") and not failed and len(calls(place)) == n
        assert Path("out/records/train/ours/first/seed0.json").read_text() == trained
        record = read_record(Path("out/records/train_speakers/ours/first/seed0.json"))
        assert record is not None and {"--conditions=own", "--utterances=1", "--split=train"} <= set(record["key"])
        assert run(place)[1] == 0 and len(calls(place)) == n


class TestAxes:
    def test_rewards_and_sets(self, place: Path) -> None:
        """Controls run once; every set has its own results, and what was trained is trained once for all sets."""
        sets = {"mine": {"split": "all", "names": ["S33_*"]}, "other": {"split": "validation", "corpus": "elsewhere"}}
        rewards = {"one": "rewards/one", "both": {"reward": {"folder": "rewards/one", "weights": {"lip_score": 2.0}}}}
        out, failed = run(place, seeds=[0], reward=None, rewards=rewards, evaluate=sets)
        assert failed == 0 and out == Path("out/results/mine")
        names = ["supervised", "control/first/seed0", "ours/first/one/seed0", "ours/first/both/seed0"]
        assert sorted(line.split()[0] for line in calls(place)) == sorted(names)
        for name in sets:
            rows = [json.loads(line) for line in Path(f"out/results/{name}/runs.jsonl").read_text().splitlines()]
            assert {(row["set"], row["status"]) for row in rows} == {(name, "done")}
            assert {row["reward"] for row in rows if row["variant"] == "ours"} == {"one", "both"}
        keys = {
            name: set(read_record(Path(f"out/records/sets/{name}/{run_}.json"))["key"])  # type: ignore[index]
            for name, run_ in (("mine", "ours/first/both/seed0"), ("other", "control/first/seed0"))
        }
        own = '--reward=train={"folder": "rewards/one", "weights": {"lip_score": 2.0}, "parts": {}}'
        assert {own, "--split=all", "--name=S33_*", "--corpus=corpus", "--test=closed"} <= keys["mine"]
        assert {"--split=validation", "--corpus=elsewhere", "--test=closed"} <= keys["other"]
        assert sum(key.startswith(("--reward=one={", "--reward=both={")) for key in keys["other"]) == 2
        before = calls(place)
        assert run(place, seeds=[0], reward=None, rewards=rewards, evaluate=sets)[1] == 0 and calls(place) == before


class TestPool:
    def step(self, place: Path, name: str, code: str) -> Step:
        return Step((sys.executable, "-c", code), place / f"{name}.json", (name,))

    def test_side_by_side(self, place: Path) -> None:
        """Two that wait for each other end only if they run at the same time."""
        code = (
            "import pathlib, sys, time; here, there = (pathlib.Path(p) for p in {!r})\n"
            "here.touch(); limit = time.time() + 30\n"
            "while not there.exists() and time.time() < limit: time.sleep(0.01)\n"
            "sys.exit(not there.exists())"
        )
        steps = [self.step(place, n, code.format((n + ".x", m + ".x"))) for n, m in (("a", "b"), ("b", "a"))]
        assert run_jobs([Job(step.record.stem, (step,)) for step in steps], n_parallel=2) == 0

    def test_a_failed_step_ends_its_job_only(self, place: Path) -> None:
        first, second = self.step(place, "first", "raise SystemExit(3)"), self.step(place, "second", "")
        other = self.step(place, "other", "")
        assert run_jobs([Job("one", (first, second)), Job("two", (other,))]) == 1
        record = read_record(first.record)
        assert record is not None and (record["status"], record["returncode"]) == ("failed", 3)
        assert read_record(second.record) is None and is_done(other)

    def test_threads_are_shared(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("benchmarks.harness.pool.available_cores", lambda: 8)
        step = self.step(place, "a", "import os; print(os.environ['OMP_NUM_THREADS'])")
        run_jobs([Job("a", (step,))], n_parallel=3)
        assert step.log.read_text() == "2\n"

    @pytest.mark.usefixtures("interruptible")
    def test_nothing_goes_on_after_it(self, place: Path) -> None:
        """Ctrl-C: the command that was running is ended, and its record does not say done."""
        code = (
            "from benchmarks.harness.pool import *\nfrom pathlib import Path\nimport sys\n"
            'wait = \'import os, time; open("pid", "w").write(str(os.getpid())); time.sleep(60)\'\n'
            "run_jobs([Job('a', (Step((sys.executable, '-c', wait), Path('a.json'), ()),))])"
        )
        root = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.PIPE) as process:
            while not (place / "pid").exists() or not (place / "pid").read_text():
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        with pytest.raises(ProcessLookupError):
            os.kill(int((place / "pid").read_text()), 0)
        record = read_record(place / "a.json")
        assert record is not None and record["status"] == "running"


class TestReport:
    def test_tables(self, place: Path) -> None:
        """Every number by hand: ours is 0.1 above the control for each seed, the gap from 0.2 to 1."""
        results = Results(run(place)[0])
        assert results.controls == ["control"] and results.variants == ["ours"]
        table = main_table(results)
        assert table.note.endswith(" Sequences measured for the true distance: 1.")
        assert "same starts, reward, judges and voices" in table.note
        cells = dict(zip(table.header, next(row for row in table.rows if row[0] == "ours"), strict=True))
        half = 4.3027 * 0.02 / 3**0.5  # t(0.975, 2); the scores are 0.80, 0.82, 0.84
        assert cells["train reward"] == f"0.820 [{0.82 - half:.3f}, {0.82 + half:.3f}]"
        assert cells["train, share of gap closed"].startswith(f"{(0.82 - 0.4) / 1.6:.2f} ")
        assert cells["LVE mm²"] == "3.00 [3.00, 3.00]" and cells["frames/s"].startswith("133 ")
        truth = next(row for row in table.rows if row[0] == "ground truth")
        assert truth[1:3] == ["2.000", "1.00"]
        differences = differences_table(results)
        row = next(row for row in differences.rows if row[:3] == ["ours", "control", "train reward"])
        assert row[3:] == ["+0.200", "+0.200 to +0.200", "+0.200 to +0.200", "1.00 [1.00, 1.00]", "3 of 3", "better"]
        gains = gain_table(results)
        assert [row[0] for row in gains.rows] == ["control x 1", "control x 1.2"]
        column = gains.header.index("LVE mm²")
        assert [row[column] for row in gains.rows] == ["3.00", "3.60"]
        assert gap_table(results).rows == []  # the pretended judge has no real score

    def test_what_was_left_out_is_told(self, place: Path) -> None:
        """One sequence of two without LVE in a run, and a seed without any."""
        out, _ = run(place)
        rows = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
        for row in rows:
            if row["variant"] == "ours" and row["checkpoint"] == "last" and row["seed"] == 1:
                row["not_measured"] = {"lve": 1}
            if row["variant"] == "ours" and row["checkpoint"] == "last" and row["seed"] == 2:
                del row["lip_score"]
        (out / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        table = main_table(Results(out))
        assert "Means over fewer sequences, at least: LVE mm² 1 of 2;" in table.note
        cells = dict(zip(table.header, next(row for row in table.rows if row[0] == "ours"), strict=True))
        assert cells["train reward"].endswith(" (2 of 3 seeds)") and cells["LVE mm²"] == "3.00 [3.00, 3.00]"

    def test_gathered_rows_count_what_is_missing(self) -> None:
        about = {"checkpoint": "last", "gain": 1.0, "frames": 9.0}
        sequences = [{**about, "utterance": name, "mtm": value} for name, value in (("a", 2.0), ("b", float("nan")))]
        (row,) = summary_rows({"variant": "ours"}, sequences)
        assert row["mtm"] == 2.0 and row["sequences"] == 2 and row["not_measured"] == {"mtm": 1}

    def test_page(self, place: Path) -> None:
        out, _ = run(place)
        assert report.main([str(out), "--out", str(place / "page")]) == 0
        page = (place / "page" / "report.html").read_text()
        pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
        assert len(pictures) == len(list((place / "page").glob("*.png"))) >= 3
        assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
        assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched
        for title in ("Main table", "Paired differences to the control", "Global-gain baseline", "Failed runs"):
            assert f"<h2>{title}</h2>" in page and f"## {title}" in (place / "page" / "report.md").read_text()

    def test_no_results(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert report.main([str(place)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and "runs.jsonl" in error and len(error.splitlines()) == 1

    def test_curves(self, place: Path) -> None:
        results = Results(run(place)[0])
        frames, values = results.curve("ours", "validation/lip_score")
        assert frames.tolist() == [0, 100, 200]
        np.testing.assert_allclose(values, [[0, 0.1, 0.2]] * 3)
        assert [run.tolist() for run in results.sequence_scores("truth", ("lip_score",))] == [[1.0, 1.0]]
