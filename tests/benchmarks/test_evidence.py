"""Suites over starts, rewards and sets of utterances; placebo, veto and marks; the committed form. By hand."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks import report
from benchmarks.harness import evidence, tables
from benchmarks.harness.gather import TEXT
from benchmarks.harness.page import facts
from benchmarks.harness.results import Measure, Results, Runs
from benchmarks.report import all_tables
from tests.benchmarks.test_matrix import small_suite

DOCS = Path(__file__).resolve().parents[2] / "docs" / "results"
SPEAKERS, STARTS, REWARDS, SEEDS = ("x", "y"), ("a", "b"), ("p", "q"), (0, 1)


def score(variant: str, start: str, reward: str | None, seed: int, speaker: str) -> float:
    """What a run has on a speaker: every factor adds its own share."""
    own = {"control": 0.0, "placebo": 0.01, "ours": 0.1}[variant]
    of_reward = {"p": 0.02, "q": 0.04, None: 0.0}[reward] if variant == "ours" else 0.0
    return (
        0.3
        + own
        + of_reward
        + 0.1 * (start == "b")
        + 0.001 * seed
        + (0.005 * seed if variant == "ours" else 0)
        + (0.05 if speaker == "y" and variant == "ours" else 0.0)
    )


def write(folder: Path, spoil: bool = True, drop: tuple[Any, ...] | None = None) -> Path:
    """Results of control, placebo and ours; with ``spoil`` runs of start b and reward q have sold closures."""
    folder.mkdir(parents=True)
    suite = small_suite(
        seeds=list(SEEDS), starts=dict.fromkeys(STARTS, "f"), reward=None, rewards=dict.fromkeys(REWARDS, "f"),
        gains=[], judges={"judge": "f", "ear": {"kind": "closure"}},
    )  # fmt: skip
    suite["veto"] = {**suite["veto"], "articulation": "ear"}
    runs: list[dict[str, Any]] = []
    sequences: list[dict[str, Any]] = []

    def add(about: dict[str, Any], value: Any, more: dict[str, float]) -> None:
        leading = {"checkpoint": "truth" if about["variant"] == "truth" else "last", "gain": 1.0}
        own = {"lve": 1e-6, "closure_rate": 0.9, "false_closure_rate": 0.01, "ear_ear_score": 1.0, **more}
        found = []
        for speaker in SPEAKERS:
            scores = {"judge_lip_score": value(speaker), "judge_real_score": 0.5}
            found += [{**leading, "utterance": speaker + k, "subject": speaker, "condition": "s", **scores, **own}
                      for k in "12"]  # fmt: skip
        mean = {k: float(np.mean([row[k] for row in found])) for k in found[0] if k not in TEXT and k != "gain"}
        runs.append({"suite": "small", "status": "done", "control": None, "settings": {}, "family": about["variant"],
                     "commit": "c", "versions": "v", **about, **leading, "sequences": 4, **mean})  # fmt: skip
        named = {k: about.get(k) for k in ("variant", "start", "reward", "seed")}
        sequences.extend({**named, **row} for row in found)

    nothing = {"reward": None, "seed": None}
    shared = {"train_reward_p": 1.0, "train_reward_q": 1.0}
    add({"variant": "truth", "start": None, **nothing}, lambda s: 0.9, {"train_reward_p": 1.3, "train_reward_q": 1.6})
    for start in STARTS:
        add({"variant": "start", "start": start, **nothing}, lambda s: 0.2, shared)
        for seed in SEEDS:
            about = {"variant": "control", "start": start, "reward": None, "seed": seed}
            given = ("control", start, None, seed)
            add(about, lambda s, g=given: score(*g, s), {**shared, "ear_ear_score": 1.0 + 0.02 * seed})
            for reward in REWARDS:
                for variant in ("placebo", "ours"):
                    about = {"variant": variant, "start": start, "reward": reward, "seed": seed, "control": "control"}
                    if drop in ((variant, start, reward, seed), (variant, start, reward, None)):
                        continue
                    against = {"against": {"placebo": "placebo"}} if variant == "ours" else {}
                    spoilt = spoil and variant == "ours" and (start, reward) == ("b", "q")
                    sold = {"closure_rate": 0.8} if spoilt else {}
                    more = {"train_reward": 1.5 if variant == "ours" else 1.0, **sold}
                    given = (variant, start, reward, seed)
                    add({**about, **against}, lambda s, g=given: score(*g, s), more)
    (folder / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in runs))
    (folder / "suite.json").write_text(json.dumps({"suite": suite, "set": None, "machine": None}))
    from s2f_rl.evaluation import write_rows

    write_rows(folder / "sequences.csv", sequences)
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(write(tmp_path / "results"))


LIP = Measure("judge lip", ("judge_lip_score",))


class TestAxis:
    def test_controls_serve_all_rewards(self, results: Results) -> None:
        ours, theirs = results.pairs("ours", LIP)
        assert ours.shape == theirs.shape == (2, 4)  # seeds, starts x rewards
        np.testing.assert_allclose(ours - theirs, 0.1 + 0.025 + np.array([[0.02, 0.04] * 2]) + [[0], [0.005]])
        assert results.scores("control", LIP).shape == (2, 2) and results.scores("truth", LIP).shape == (1, 2)
        train = next(m for m in results.measures if m.label == "train reward")
        np.testing.assert_allclose(results.scores("truth", train), 1.45)  # the mean of what two rewards say
        closed = next(m for m in results.measures if m.label == "train, share of gap closed")
        np.testing.assert_allclose(results.scores("ours", closed)[0], [0.5 / 0.3, 0.5 / 0.6] * 2)

    def test_differences_by_speaker(self, results: Results) -> None:
        found = results.speaker_differences("ours", "control", LIP)
        assert found.shape == (2, 2, 2, 2)  # starts, rewards, seeds, speakers
        for (a, r, s, v), value in np.ndenumerate(found):
            assert value == pytest.approx(0.1 + (0.02, 0.04)[r] + 0.005 * s + 0.05 * v), (a, r, s, v)
        assert results.speaker_differences("ours", "placebo", LIP).mean() == pytest.approx(found.mean() - 0.01)
        train = next(m for m in results.measures if m.label == "train reward")
        assert results.speaker_differences("ours", "control", train) == pytest.approx(0.5)

    def test_a_missing_run_takes_its_seed(self, tmp_path: Path) -> None:
        results = Results(write(tmp_path / "r", drop=("ours", "a", "q", 1)))
        assert results.speaker_differences("ours", "control", LIP).shape == (2, 2, 1, 2)
        assert len(results.pairs("ours", LIP)[0]) == 1
        results = Results(write(tmp_path / "s", drop=("ours", "a", "q", None)))  # of a suite that has not gone far
        assert {row[0].split()[0] for row in evidence.crossed_table(results).rows} == {"placebo"}
        results.variants = ["ours"]
        table = evidence.crossed_table(results)
        assert not table.rows and table.note == "No seed has all its runs yet."

    def test_few_true_distances_are_told_apart(self, results: Results) -> None:
        columns = {"lve": 1, "true_distance": 3, "true_distance_style": 3}
        for row in results.rows:
            row |= {"not_measured": columns, "true_distance": 1e-3, "true_distance_style": 1e-3}
        known = Runs(results.rows, results.judges)
        assert set(known.partly_measured()) == {"LVE mm²"}

    def test_tables(self, results: Results) -> None:
        table = evidence.crossed_table(results)
        rows = {(row[0].split()[0], row[1]): row for row in table.rows if row[2] == "judge lip"}
        others = {("placebo", "control"), ("ours", "control"), ("ours", "placebo")}
        assert set(rows) == others | {("placebo", "start"), ("ours", "start")}
        assert rows["ours", "control"][6:] == ["2 x 2 x 2 x 2", "better"]
        assert float(rows["ours", "placebo"][3]) == pytest.approx(0.1475, abs=0.00051)
        assert [row[0] for row in tables.main_table(results).rows] == [
            "ground truth", "supervised start", "control", "placebo", "ours ▲ 4 of 8",
        ]  # fmt: skip
        assert "2 seeds x 2 starts x 2 rewards" in tables.main_table(results).note
        others = [row[1] for row in tables.differences_table(results).rows if row[0].startswith("ours")]
        assert set(others) == {"control", "placebo"}


class TestMarks:
    def test_above_the_truth(self, results: Results) -> None:
        """1.5 is above what the first reward says of the truth (1.3), not above what the second says (1.6)."""
        assert results.above_truth("ours") == (4, 8) and results.above_truth("control") == (0, 8)
        table = tables.with_legend(tables.main_table(results))
        assert "above the ground truth's own" in table.note and "▲" not in tables.failed_table(results).note

    def test_veto(self, results: Results) -> None:
        found = evidence.vetoes(results, "ours")
        # closures are sold in two runs; the ear's interval of two controls is too wide to say anything
        assert {place for place, against in found.items() if against} == {("b", "q", 0), ("b", "q", 1)}
        assert found["b", "q", 0] == ["closure"]
        table = evidence.veto_table(results)
        assert (
            "2 of 16 runs are vetoed. judge: 16 of 16 runs are above their control, 2 of these are vetoed: 14"
            in table.note
        )
        row = next(row for row in table.rows if row[0] == "ours/b/q/seed0")
        assert row[1] == "+0.165 vetoed" and row[3] == "-0.10" and row[-1] == "closure"
        assert table.header[-2] == "ear" and "ear lies below" in table.note
        marked = next(row for row in table.rows if row[0].startswith("ours/a/p/seed1"))
        assert marked[0].endswith("▲ 1 of 1") and marked[-1] == "–"

    @pytest.mark.parametrize(
        ("column", "fine", "bad", "told"),
        [("lve", 1.04e-6, 1.06e-6, "LVE"), ("closure_rate", 0.86, 0.84, "closure"),
         ("false_closure_rate", 0.035, 0.045, "false closures"), ("ear_ear_score", 0.8, 0.5, "articulation")],
    )  # fmt: skip
    def test_thresholds(self, results: Results, column: str, fine: float, bad: float, told: str) -> None:
        """The ear: controls at 1.00 and 1.02, so that the t interval begins at 1.01 - 12.706 * .01 = .883."""
        row = results.row("ours", "a", 0, reward="p")
        assert row is not None
        row[column] = 0.89 if column == "ear_ear_score" else fine
        assert evidence.vetoes(results, "ours")["a", "p", 0] == []
        row[column] = bad
        assert evidence.vetoes(results, "ours")["a", "p", 0] == [told]


class TestPublished:
    def test_the_page_again(self, results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tables, "N_RESAMPLES", 40)
        out = tmp_path / "published"
        assert report.main([str(results.folder), "--publish", str(out)]) == 0
        text = (out / "report.md").read_text()
        again = report.write_published(out, tmp_path / "again")
        assert again.read_text() == text and "not kept" not in text
        for name in ("sequences.csv.gz", "runs.jsonl"):
            assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert (out / "sequences.csv.gz").read_bytes()[4:8] == bytes(4)  # no time of day
        lines = gzip.decompress((out / "sequences.csv.gz").read_bytes()).decode().splitlines()
        assert len(lines) == 1 + 4 * (1 + 2 + 4 + 16)

    def test_rows_alone(self, tmp_path: Path) -> None:
        """A folder of an older version: what its rows say is shown, and what was not kept is told."""
        results = Results(DOCS / "parts")
        assert results.missing == ["suite.json", "sequences.csv", "curves.jsonl"]
        assert results.suite["judges"] == ["judge"] and results.suite["seeds"] == results.seeds
        made = [f(results) for f in (tables.main_table, evidence.crossed_table, evidence.veto_table)]
        rows = {row[0].split(" ")[0]: row for row in made[0].rows}
        published = (DOCS / "parts" / "report.md").read_text()
        column = made[0].header.index("LVE mm²")
        for name in results.variants:
            assert f"| {rows[name][column]} |" in published
        assert made[1].rows == [] and "not kept" in made[1].note and made[2].rows
        assert re.search(r"made without suite.json and sequences.csv, not kept", facts(results))


@pytest.mark.parametrize("folder", sorted(path.parent for path in DOCS.rglob("sequences.csv.gz")), ids=lambda p: p.name)
def test_committed_pages_are_those_of_their_rows(folder: Path) -> None:
    results = Results(folder)
    made = report.all_tables(results)
    text = (folder / "report.md").read_text(encoding="utf-8")
    for table in made:
        assert table.markdown() in text, table.title


class TestFamilies:
    @pytest.fixture
    def results(self, tmp_path: Path) -> Results:
        folder = write(tmp_path / "results", spoil=False)
        known = json.loads((folder / "suite.json").read_text())
        known["suite"]["families"] = {"one": ["a"], "two": ["b"]}
        (folder / "suite.json").write_text(json.dumps(known))
        return Results(folder)

    def test_each_has_its_own_runs(self, results: Results) -> None:
        for name, start in (("one", "a"), ("two", "b")):
            part = results.families[name]
            expected = [[np.mean([score("ours", start, r, s, v) for v in SPEAKERS]) for r in REWARDS] for s in SEEDS]
            np.testing.assert_allclose(part.scores("ours", LIP), expected)
            assert part.scores("truth", LIP) == pytest.approx(0.9) and part.starts == [start]
            assert part.speaker_differences("ours", "control", LIP).shape == (1, 2, 2, 2)
            assert {row["start"] for row in part.sequences} == {start, ""}
        assert results.starts == ["a", "b"]  # the whole is as it was

    def test_tables(self, results: Results) -> None:
        made = all_tables(results)
        assert {table.title.rpartition(": ")[2] for table in made[1:]} == {"one", "two"}
        by_row = {(row[0].split(" ▲")[0], row[2]): row[3] for row in made[0].rows}
        assert (
            by_row["ours", "judge lip"].startswith("+0.100 [") and by_row["supervised start", "judge lip"] == "+0.000"
        )
        assert not any(row[0] == "ground truth" for row in made[0].rows)

    def test_several_starts_in_each_are_two_samples(self, results: Results) -> None:
        results.suite["families"] = {"one": ["a", "b"], "two": ["b", "a"]}
        row = next(r for r in all_tables(results)[0].rows if r[0].startswith("ours") and r[2] == "judge lip")
        means = [np.mean([score("ours", start, r, s, v) for r in REWARDS for s in SEEDS for v in SPEAKERS])
                 for start in ("a", "b")]  # fmt: skip
        half = stats.ttest_ind(means, means, equal_var=False).confidence_interval().high
        low, high = (float(each) for each in re.findall(r"[+-][.\d]+", row[3])[1:])
        assert row[3].startswith(("+0.000", "-0.000")) and (low, high) == pytest.approx((-half, half), abs=6e-4)

    def test_a_family_without_runs_yet(self, results: Results) -> None:
        results.suite["families"] = {"one": ["a", "b"], "later": ["c"]}
        assert list(results.families) == ["one"]
        assert {table.title.rpartition(": ")[2] for table in all_tables(results)} == {"one"}
