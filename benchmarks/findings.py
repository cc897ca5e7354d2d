"""The tables of ``docs`` that come from rows, made again from ``docs/results``.

    python -m benchmarks.findings

Prints each under its page and the folder of its rows. A test compares every line with the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.harness.results import Measure, Runs, read_lines
from benchmarks.harness.scores import FIRST_SCORE, score_columns
from benchmarks.harness.tables import over_seeds

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
LABELS = {
    "train reward": "train reward", "judge lip": "judge lip", "judge real": "judge real",
    "judge, share of gap closed": "share of gap", "LVE mm²": "LVE mm²", "|FDD| mm²": "FDD mm²", "MTM frames": "MTM",
    "closure rate": "closure", "jitter ratio": "jitter", "amplitude ratio": "amplitude",
    "true distance mm": "true distance mm", "frames/s": "frames/s",
}  # fmt: skip
NAMES = {
    "truth": "ground truth", "start": "supervised start", "ppo": "PPO", "ppo_kl": "PPO-KL", "grpo": "GRPO",
    "rloo": "RLOO", "a2c": "A2C", "reinforce": "REINFORCE", "reward_gradient": "reward gradient", "awr": "AWR",
    "rg": "reward gradient",
}  # fmt: skip
ABLATIONS = {
    "rloo": "nothing changed", "gamma_0": "gamma 0", "gamma_95": "gamma .95",
    "window_credit": "credit over the window of 5 frames", "policy_weight_05": "policy : supervised .5",
    "policy_weight_6": "policy : supervised 6", "lip_weight_0": "lips as heavy as the rest", "slow": "lr 1e-4",
    "output_map": "the output map trained", "loud": "0.3 mm of noise", "correlated": "correlated noise",
    "fresh_moments": "fresh Adam moments", "teacher_forced": "teacher-forced supervised term",
    "reward_alone": "no supervised term", "capped": "reward capped at the truth's", "normalised": "normalised reward",
    "critic": "a learned critic, no groups", "kl": "KL to the start, .005",
    "constraint": "LVE at most 1.02 of the start's",
}  # fmt: skip

QUALITIES = tuple(label for label in LABELS if label != "frames/s")
SHORT = ("judge lip", "judge real", "judge, share of gap closed", "LVE mm²", "MTM frames", "closure rate",
         "true distance mm")  # fmt: skip
ABLATED = tuple(label for label in SHORT if label != "judge real")
SECOND = ("train reward", *(label for label in SHORT if label != "judge, share of gap closed"))
FIRST = ("judge lip", "judge real", "LVE mm²", "true distance mm")
ONE = ("judge lip", "judge real", "judge, share of gap closed", "LVE mm²", "MTM frames", "closure rate",
       "jitter ratio", "amplitude ratio", "true distance mm")  # fmt: skip
LIP, LIP_AND_REAL = score_columns("judge", (FIRST_SCORE,)), score_columns("judge")
ALGORITHMS = ("ppo", "ppo_kl", "grpo", "rloo", "a2c", "reinforce", "reward_gradient", "awr")


def open_runs(place: str) -> Runs:
    """The rows of ``docs/results/PLACE``: a folder's ``runs.jsonl``, or a file."""
    path = RESULTS / place
    return Runs(read_lines(path if path.suffix else path / "runs.jsonl"), ["judge"])


def number(value: float, digits: int, sign: bool = False) -> str:
    """Without the zero before the point.

    Example:
        >>> number(0.5, 2), number(-0.5, 1, sign=True), number(12.34, 1)
        ('.50', '-.5', '12.3')
    """
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("+-").startswith("0.") else text


def measure(runs: Runs, label: str) -> Measure:
    """By its label in the report."""
    return next(m for m in runs.measures if m.label == label)


def mean(runs: Runs, name: str, label: str, interval: bool = False) -> str:
    """``.531 [.525, .536]`` over seeds, of a variant, a control or a reference."""
    m = measure(runs, label)
    found = over_seeds(runs.scores(name, m))
    ends = f" [{number(found.low, m.digits)}, {number(found.high, m.digits)}]" if interval else ""
    return number(found.value, m.digits) + ends


def difference(runs: Runs, name: str, label: str, verdict: bool = False) -> str:
    """``+.138 +-.011 (better)``: to the own control, paired by seed, half the width of the 95% t interval."""
    m = measure(runs, label)
    ours, theirs = runs.pairs(name, m)
    found = over_seeds(ours - theirs)
    apart = abs(found.value) > found.high - found.value
    aim = {"up": 1, "down": -1}.get(m.aim, 0)
    word = f" ({'better' if aim * found.value > 0 else 'worse'})" if verdict and aim and apart else ""
    return f"{number(found.value, m.digits, True)} +-{number(found.high - found.value, m.digits)}{word}"


def gap_to_control(runs: Runs, name: str, columns: tuple[str, ...]) -> float:
    """Share of the way from the own control to the ground truth on the sum of ``columns``: means over seeds."""
    m = Measure("", columns)
    ours, theirs = runs.pairs(name, m)
    return float((ours - theirs).mean() / (runs.scores("truth", m).mean() - theirs.mean()))


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Markdown lines."""
    head, *body = (f"| {' | '.join(row)} |" for row in (header, *rows))
    return [head.replace("|  |", "| |"), "|" + "---|" * len(header), *body]


def main_table(runs: Runs) -> list[str]:
    """Means of references, controls and variants."""
    shown = [label for label in LABELS if any(m.label == label for m in runs.measures)]
    users: dict[str, list[str]] = {}
    for name in runs.variants:
        users.setdefault(str(runs.control_of[name]), []).append(NAMES[name])
    rows = []
    for name in ("truth", "start", *runs.controls, *runs.variants):
        told = f"control of {', '.join(users[name])}" if name in users else NAMES[name]
        known = [label for label in shown if label != "frames/s" or name not in ("truth", "start")]
        cells = [mean(runs, name, label, label == "judge lip" and name not in ("truth", "start")) for label in known]
        rows.append([told, *cells, *([""] * (len(shown) - len(known)))])
    return table(["", *(LABELS[label].replace("gap", "gap closed") for label in shown)], rows)


def differences_table(
    runs: Runs,
    labels: Sequence[str] = QUALITIES,
    names: Mapping[str, str] = NAMES,
    verdict: bool = True,
    corner: str = "",
) -> list[str]:
    """Variants minus their own controls; ``corner``: the first word of the header."""
    rows = [[names[v], *(difference(runs, v, label, verdict) for label in labels)] for v in runs.variants]
    return table([corner, *(LABELS[label] for label in labels)], rows)


def opened_table(runs: Runs) -> list[str]:
    """Of the test speakers. The gap on the judge is from control to truth, on the train reward from start to truth."""
    header = [
        "", "judge lip", "- control", "judge real - control", "gap closed: lip", "lip and real",
        "train reward's gap closed", "runs above the truth's train reward", "LVE mm²", "MTM", "closure", "jitter",
        "amplitude", "true distance mm, of 4 utterances",
    ]  # fmt: skip
    train = measure(runs, "train, share of gap closed")
    rows = []
    for v in runs.variants:
        shares = runs.scores(v, train)
        differences = [difference(runs, v, label) for label in ("judge lip", "judge real")]
        closed = [f"{100 * gap_to_control(runs, v, columns):.0f}%" for columns in (LIP, LIP_AND_REAL)]
        rows.append([
            NAMES[v], mean(runs, v, "judge lip"), *differences, *closed, mean(runs, v, train.label),
            f"{int((shares > 1).sum())} of {shares.size}",
            *(difference(runs, v, label) for label in ("LVE mm²", "MTM frames", "closure rate")),
            mean(runs, v, "jitter ratio"), mean(runs, v, "amplitude ratio"), difference(runs, v, "true distance mm"),
        ])  # fmt: skip
    return table(header, rows)


def closed_table(runs: Runs) -> list[str]:
    """The heart of :func:`opened_table`, best first: gap closed, and what it cost."""
    header = [
        "", "gap closed: lip", "lip and real", "train reward's gap closed", "LVE mm² - control", "closure - control",
        "true distance mm - control",
    ]  # fmt: skip
    rows = []
    for v in sorted(runs.variants, key=lambda v: -gap_to_control(runs, v, LIP)):
        closed = [f"{100 * gap_to_control(runs, v, columns):.0f}%" for columns in (LIP, LIP_AND_REAL)]
        costs = [difference(runs, v, label) for label in ("LVE mm²", "closure rate", "true distance mm")]
        rows.append([NAMES[v], *closed, mean(runs, v, "train, share of gap closed"), *costs])
    return table(header, rows)


def algorithm_table(variant: str) -> list[str]:
    """One algorithm beside its own control and the ground truth, on the validation and on the test speakers."""
    rows = []
    for place, voices in (("algorithms", "validation"), ("algorithms_test", "test")):
        runs = open_runs(place)
        told = {"truth": "ground truth", str(runs.control_of[variant]): "control", variant: NAMES[variant]}
        rows += [[f"{told[name]}, {voices}", *(mean(runs, name, label) for label in ONE)] for name in told]
        rows.append([f"difference, {voices}", *(difference(runs, variant, label) for label in ONE)])
    return table(["", *(LABELS[label] for label in ONE)], rows)


def adaptation_table() -> list[str]:
    """New voices, heard without meshes, and old ones."""
    lines: list[str] = []
    for place, voices in (("adaptation", "new voices"), ("adaptation/old_voices.jsonl", "old voices")):
        runs = open_runs(place)
        ends = ", ".join(f"{name} {mean(runs, name, 'judge lip')}" for name in ("start", "truth"))
        names = {v: f"{NAMES[v]}, {voices}" for v in runs.variants} | {"ppo": f"PPO, {voices} ({ends})"}
        found = differences_table(runs, SHORT, names, verdict=False)
        lines += found if not lines else found[2:]
    return lines


def first_table() -> list[str]:
    """The first version's PPO, with and without new voices."""
    lines: list[str] = []
    new = "PPO on new voices without meshes (`suite=adaptation`, 3 seeds)"
    for place, name in (("ppo", "PPO"), ("adaptation_v1", new)):
        found = differences_table(open_runs(place), FIRST, {"ppo": name}, corner="PPO - control")
        lines += found if not lines else found[2:]
    return lines


def all_tables() -> Iterator[tuple[str, str, list[str]]]:
    """(page below ``docs``, folder of the rows, markdown lines) of every table, in the order of the pages."""
    yield "findings.md", "algorithms_test", closed_table(open_runs("algorithms_test"))
    page = "findings/tables.md"
    yield page, "algorithms", main_table(open_runs("algorithms"))
    yield page, "algorithms", differences_table(open_runs("algorithms"))
    yield page, "algorithms_test", opened_table(open_runs("algorithms_test"))
    yield page, "adaptation", adaptation_table()
    ablated = differences_table(open_runs("ablations"), ABLATED, ABLATIONS, verdict=False, corner="RLOO, with")
    yield "findings/what_mattered.md", "ablations", ablated
    page = "findings/earlier.md"
    yield page, "algorithms_v3", differences_table(open_runs("algorithms_v3"))
    yield page, "output_map_trained", differences_table(open_runs("output_map_trained"))
    yield page, "algorithms_v2", differences_table(open_runs("algorithms_v2"), SECOND)
    yield page, "ppo, adaptation_v1", first_table()
    for variant in ALGORITHMS:
        yield f"algorithms/{variant}.md", "algorithms, algorithms_test", algorithm_table(variant)


def main() -> None:
    for page, place, lines in all_tables():
        print(f"docs/{page}: {place}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
