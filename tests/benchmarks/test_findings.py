"""What the pages state of the runs, worked out again from the rows."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from benchmarks import findings
from benchmarks.harness.matrix import open_suite

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "findings.md").read_text(encoding="utf-8")
TABLES = (DOCS / "findings" / "tables.md").read_text(encoding="utf-8")
MATTERED = (DOCS / "findings" / "what_mattered.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = DOCS / "results"
GRADIENT_METHODS = ("ppo", "ppo_kl", "grpo", "rloo", "reward_gradient")
T_4 = 2.7764  # Student's t(0.975, 4): five seeds
Row = dict[str, Any]
Score = Callable[[Row], float]


def lip(row: Row) -> float:
    return float(row["judge_lip_score"])


def both(row: Row) -> float:
    return float(row["judge_lip_score"] + row["judge_real_score"])


def train(row: Row) -> float:
    return float(row["lip_score"] + row["real_score"])


class Speakers:
    """The rows of the last checkpoints, read without the harness."""

    def __init__(self, place: str) -> None:
        text = (RESULTS / place / "runs.jsonl").read_text(encoding="utf-8")
        rows = [row for row in map(json.loads, text.splitlines()) if row["gain"] == 1]
        (self.truth,) = [row for row in rows if row["variant"] == "truth"]
        (self.start,) = [row for row in rows if row["variant"] == "start"]
        self.runs: dict[str, list[Row]] = {}
        for row in sorted(rows, key=lambda row: row["seed"] or 0):
            if row["seed"] is not None and row["checkpoint"] == "last":
                self.runs.setdefault(row["variant"], []).append(row)
        self.variants = [name for name, runs in self.runs.items() if runs[0]["control"] is not None]

    def controls(self, variant: str) -> list[Row]:
        return self.runs[self.runs[variant][0]["control"]]

    def mean(self, variant: str, column: str) -> float:
        return mean(row[column] for row in self.runs[variant])

    def gap_closed(self, variant: str, score: Score) -> float:
        control = mean(map(score, self.controls(variant)))
        return (mean(map(score, self.runs[variant])) - control) / (score(self.truth) - control)

    def train_shares(self, variant: str) -> list[float]:
        begin = train(self.start)
        return [(train(row) - begin) / (train(self.truth) - begin) for row in self.runs[variant]]

    def rise(self, variant: str, column: str) -> float:
        """Relative to the control."""
        return self.mean(variant, column) / mean(row[column] for row in self.controls(variant)) - 1

    def interval(self, variant: str, column: str) -> tuple[float, float]:
        """Of the differences to the control, paired by seed."""
        differences = [a[column] - b[column] for a, b in zip(self.runs[variant], self.controls(variant), strict=True)]
        half = T_4 * stdev(differences) / math.sqrt(len(differences))
        return mean(differences) - half, mean(differences) + half

    def missed(self, variant: str) -> set[str]:
        """Points of the registered claim that a variant does not meet."""
        met = {
            "gap": min(self.gap_closed(variant, lip), self.gap_closed(variant, both)) >= 0.5,
            "LVE": self.rise(variant, "lve") <= 0.05,
            "closure": self.interval(variant, "closure_rate")[0] > 0,
            "MTM": self.interval(variant, "mtm")[1] < 0,
            "true distance": self.interval(variant, "true_distance")[1] < 0,
            "jitter": abs(self.mean(variant, "jitter_ratio") - 1) <= 0.1,
            "amplitude": abs(self.mean(variant, "amplitude_ratio") - 1) <= 0.1,
        }
        return {point for point, holds in met.items() if not holds}


@pytest.fixture(scope="module")
def speakers() -> Speakers:
    return Speakers("algorithms_test")


def opened_section() -> str:
    return TABLES.split("## The test speakers, opened once")[1].split("\n## ")[0]


def published_table() -> dict[str, dict[str, str]]:
    """The table of the test speakers on the page: method -> column -> cell."""
    lines = [line.strip("| ").split(" | ") for line in opened_section().splitlines() if line.startswith("|")]
    header = lines[0]
    return {name: dict(zip(header, cells, strict=True)) for name, *cells in lines[2:]}


def percent(value: float) -> int:
    return round(100 * value)


def ends(text: str, pattern: str) -> list[tuple[int, ...]]:
    """The whole numbers of every place where ``pattern`` stands, over the ends of lines."""
    found = re.findall(pattern, " ".join(text.split()))
    assert found, f"nowhere: {pattern}"
    return [tuple(int(number) for number in ([item] if isinstance(item, str) else item)) for item in found]


def in_readme(pattern: str) -> set[tuple[int, ...]]:
    """The same in the README, which need not have it."""
    return set(ends(README, pattern)) if re.search(pattern, " ".join(README.split())) else set()


@pytest.mark.parametrize(("page", "place", "lines"), list(findings.all_tables()))
def test_tables_are_those_of_the_rows(page: str, place: str, lines: list[str]) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    missing = [line for line in lines if line not in text.splitlines()]
    assert not missing, f"docs/{page} differs from the rows of {place}; run python -m benchmarks.findings"
    assert "\n".join(lines) in text


def test_no_page_of_the_findings_is_forgotten() -> None:
    """Each table of runs that a page shows is one that is made from rows: those have the signs of an interval."""
    made = {line for _, _, lines in findings.all_tables() for line in lines}
    for path in (DOCS / "findings.md", *(DOCS / "findings").glob("*.md"), *(DOCS / "algorithms").glob("*.md")):
        rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|") and "+-" in line]
        assert [line for line in rows if line not in made] == [], path


class TestTestSpeakers:
    def test_gap_closed(self, speakers: Speakers) -> None:
        table = published_table()
        assert [findings.NAMES[v] for v in speakers.variants] == list(table)
        for variant in speakers.variants:
            cells = table[findings.NAMES[variant]]
            assert cells["gap closed: lip"] == f"{percent(speakers.gap_closed(variant, lip))}%"
            assert cells["lip and real"] == f"{percent(speakers.gap_closed(variant, both))}%"
        for score, pattern in (
            (lip, r"close (\d+) to (\d+)% of the gap between"),
            (both, r"(\d+) to (\d+)% on lip and real together"),
        ):
            shares = [percent(speakers.gap_closed(variant, score)) for variant in GRADIENT_METHODS[:4]]
            assert set(ends(PAGE, pattern)) == {(min(shares), max(shares))} >= in_readme(pattern)
        gradient = [percent(speakers.gap_closed("reward_gradient", score)) for score in (lip, both)]
        assert ends(PAGE, r"through the same reward closes (\d+)% and (\d+)%") == [tuple(gradient)]
        single = [percent(speakers.gap_closed(variant, lip)) for variant in ("a2c", "reinforce", "awr")]
        assert ends(PAGE, r"close (\d+) and (\d+)% of the lip gap; AWR closes (\d+)%") == [tuple(single)]
        prose = ends(TABLES, r"GRPO closes (\d+)% of the lip gap to its control, RLOO, PPO-KL and PPO (\d+)%")
        shares = [percent(speakers.gap_closed(variant, lip)) for variant in ("grpo", "rloo", "ppo_kl", "ppo")]
        assert prose == [(shares[0], shares[1])] and shares[1:] == [shares[1]] * 3
        prose = ends(TABLES, r"\(lip and real: (\d+), (\d+), (\d+) and (\d+)%\); the reward gradient (\d+)% \((\d+)%\)")
        shares = [percent(speakers.gap_closed(variant, both)) for variant in ("grpo", "rloo", "ppo_kl", "ppo")]
        assert prose == [(*shares, *gradient)]

    def test_train_reward_above_the_truth(self, speakers: Speakers) -> None:
        table = published_table()
        for variant in speakers.variants:
            shares = speakers.train_shares(variant)
            cells = table[findings.NAMES[variant]]
            assert float(cells["train reward's gap closed"]) == pytest.approx(mean(shares), abs=0.00501)
            above = sum(train(row) > train(speakers.truth) for row in speakers.runs[variant])
            assert cells["runs above the truth's train reward"] == f"{above} of {len(shares)}"
        runs = [row for variant in GRADIENT_METHODS for row in speakers.runs[variant]]
        above = sum(train(row) > train(speakers.truth) for row in runs)
        pattern = r"(\d+) of (\d+) runs"
        assert set(ends(PAGE, pattern)) == {(above, len(runs))} >= in_readme(pattern)
        assert f"All {above} runs of these five end above" in TABLES
        means = [mean(speakers.train_shares(variant)) for variant in GRADIENT_METHODS]
        low, high = min(means), max(means)
        assert f"mean share of its gap {low:.2f} to {high:.2f}" in " ".join(TABLES.split())
        assert ends(PAGE, r"they close (\d+) to (\d+)% of its gap") == [(percent(low), percent(high))]

    def test_the_claim_is_met_by_nobody(self, speakers: Speakers) -> None:
        missed = {variant: speakers.missed(variant) for variant in speakers.variants}
        assert all(missed.values())
        first = next(each for each in PAGE.split("\n\n") if each.startswith("**No algorithm meets the claim.**"))
        assert PAGE.split("\n\n")[1].startswith("**No registered claim is met**")
        assert "no claim that was registered before tuning is met" in " ".join(README.split())
        # what is said of each of them
        assert missed["ppo"] == missed["rloo"] == {"MTM", "true distance", "amplitude"}
        assert missed["grpo"] == missed["ppo_kl"] == missed["ppo"] | {"LVE", "jitter", "closure"}
        assert all("gap" in missed[variant] for variant in ("a2c", "reinforce", "reward_gradient", "awr"))
        short = [percent(1 - speakers.mean(variant, "amplitude_ratio")) for variant in ("ppo", "rloo")]
        assert ends(first, r"amplitude stays (\d+) and (\d+)% short") == [tuple(short)]
        short = [percent(1 - speakers.mean(variant, "amplitude_ratio")) for variant in GRADIENT_METHODS[:4]]
        assert ends(TABLES, r"Amplitude comes within (\d+) to (\d+)%") == [(min(short), max(short))]

    def test_costs(self, speakers: Speakers) -> None:
        rises = [percent(speakers.rise(variant, "true_distance")) for variant in GRADIENT_METHODS[:4]]
        assert ends(PAGE, r"by (\d+) to (\d+)% for the policy gradients") == [(min(rises), max(rises))]
        assert in_readme(r"true distance \+(\d+) to \+(\d+)%") <= {(min(rises), max(rises))}
        rises = [percent(speakers.rise(variant, "lve")) for variant in GRADIENT_METHODS[:4]]
        assert in_readme(r"at (\d+) to (\d+)% of lip error") <= {(min(rises), max(rises))}
        four = [percent(speakers.rise(variant, "lve")) for variant in ("ppo", "rloo", "grpo", "ppo_kl")]
        told = ends(PAGE, r"at (\d+)% of lip vertex error .*? it does not, at (\d+) and (\d+)%")
        assert four[0] == four[1] and told == [tuple(four[1:])]
        told = re.findall(r"LVE \+([\d.]+)% and \+([\d.]+)%", opened_section())
        pairs = (("ppo", "rloo"), ("grpo", "ppo_kl"))
        assert told == [tuple(f"{100 * speakers.rise(v, 'lve'):.1f}" for v in pair) for pair in pairs]

    def test_true_distance_rests_on_few_utterances(self, speakers: Speakers) -> None:
        """The truth's own rows say how many: their mean is that of the suite."""
        with open(RESULTS / "algorithms_test" / "true_distance.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        n = len(rows)
        measured = mean(float(row["true_distance"]) for row in rows)
        assert measured == pytest.approx(speakers.truth["true_distance"], rel=1e-9)
        section = opened_section()
        overrides = section.split("`")[1].removeprefix("(the same line) ").split()
        assert open_suite(["suite=algorithms", *overrides])["true_distances"] == n
        column = next(label for label in published_table()["PPO"] if label.startswith("true distance"))
        assert column == f"true distance mm, of {n} utterances"
        pattern = r"measured on (\d+) test utterances"
        assert set(ends(PAGE, pattern)) == {(n,)} >= in_readme(pattern)
        for text in (section, PAGE.replace("**", "")):
            assert ends(text, r"True distance rests on (\d+) utterances") == [(n,)]


def test_validation_speakers() -> None:
    speakers, order = Speakers("algorithms"), ("grpo", "ppo_kl", "rloo", "ppo")
    shares = [percent(speakers.gap_closed(variant, lip)) for variant in order]
    assert ends(TABLES, r"lip score GRPO (\d+)%, PPO-KL (\d+)%, RLOO (\d+)%, PPO (\d+)%") == [tuple(shares)]
    shares = [percent(speakers.gap_closed(variant, both)) for variant in order]
    assert ends(TABLES, r"on lip and real together (\d+), (\d+), (\d+) and (\d+)%") == [tuple(shares)]
    rises = [f"+{100 * speakers.rise(variant, 'lve'):.1f}%" for variant in order]
    assert f"LVE stays within 5% ({', '.join(rises)})" in TABLES
    above = sum(train(row) > train(speakers.truth) for variant in GRADIENT_METHODS for row in speakers.runs[variant])
    assert ends(TABLES, r"on the validation speakers (\d+) of 25") == [(above,)]


def test_numbers() -> None:
    shown = [findings.number(*given) for given in ((0.5, 2), (-0.004, 2), (12.34, 1), (0.5, 2, True), (-0.06, 2, True))]
    assert shown == [".50", "-.00", "12.3", "+.50", "-.06"]
