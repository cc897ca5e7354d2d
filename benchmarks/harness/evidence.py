"""Tables for a reader who doubts: differences over starts, rewards and speakers, and judges beside what vetoes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.harness.crossed import crossed_bootstrap, over_starts
from benchmarks.harness.matrix import run_name
from benchmarks.harness.results import TRAIN, Measure, Results
from benchmarks.harness.statistics import Estimate
from benchmarks.harness.tables import ABOVE, DASH, Table, named, number, over_seeds, qualities, verdict_of

Place = tuple[str, str | None, int]  # start, reward, seed of a run
VETO: dict[str, Any] = {"lve": 1.05, "closure": 0.05, "false_closure": 0.03, "articulation": None}
"""Of a judge that is tested, and of results that were made before suites had the key ``veto``."""


def crossed_table(results: Results) -> Table:
    """Variants minus control, start, placebo and so on, with intervals over starts, rewards, seeds and speakers."""
    rows = []
    for variant in results.variants:
        for other in (*results.compared(variant).values(), "start"):
            for measure in qualities(results):
                values = results.speaker_differences(variant, other, measure)
                if measure.closed or not values.size:
                    continue
                wide, narrow = over_starts(values), crossed_bootstrap(values)
                better = {"up": 1, "down": -1}.get(measure.aim, 0)
                rows.append(
                    [named(results, variant), other, measure.label, number(narrow.value, measure.digits, True),
                     _ends(narrow, measure), _ends(wide, measure), " x ".join(map(str, values.shape)),
                     verdict_of(narrow, better)]
                )  # fmt: skip
    note = (
        "Means over a speaker's sequences, then over speakers, seeds, rewards and starts. Bootstrap: 95% percentile "
        "interval; starts, rewards and speakers are resampled independently of each other, seeds within each start and "
        "reward (Owen, 2007): where other starts, rewards, seeds and voices would land. With three starts it leaves a "
        "third of their variance out and is too narrow; the 95% t interval over the means of the starts is not, and "
        "knows nothing of the other factors. Levels: starts x rewards x seeds x speakers; a factor with one level adds "
        "nothing. The last column says better or worse where the bootstrap interval leaves out zero; it is not "
        "corrected for the number of comparisons."
    )
    if not rows:
        note = "No seed has all its runs yet." if results.sequences else "The rows of sequences were not kept."
    header = ["variant", "minus", "measure", "difference", "95% bootstrap", "95% t over starts", "levels", ""]
    return Table("Differences over starts, rewards and speakers", note, header, rows)


def vetoes(results: Results, variant: str) -> dict[Place, list[str]]:
    """What speaks against each run of a variant; a run with any of it is vetoed.

    Beside its own control (same start and seed): LVE above ``veto.lve`` times it, closures below it by more than
    ``veto.closure``, false closures above it by more than ``veto.false_closure``; the score of ``veto.articulation``
    below the t interval of the controls of its start over seeds (below its own control where there is but one).
    """
    limits = results.suite["veto"] or VETO
    control = str(results.control_of[variant])
    found: dict[Place, list[str]] = {}
    for start, reward in results.strata:
        for seed in results.seeds:
            ours = results.row(variant, start, seed, reward=reward)
            theirs = results.row(control, start, seed)
            if ours is None or theirs is None:
                continue
            against = held_against(ours, theirs, limits)
            heard = articulation(results)
            if heard is not None:
                a = results.starts.index(start)
                scores = results.scores(control, heard)
                reach = over_seeds(scores[:, a : a + 1]).low
                least = reach if math.isfinite(reach) else results.value(theirs, heard)
                against += ["articulation"] if results.value(ours, heard) < least else []
            found[start, reward, seed] = against
    return found


def held_against(ours: Mapping[str, Any], theirs: Mapping[str, Any], limits: Mapping[str, Any]) -> list[str]:
    """What of the veto holds against a motion's columns beside another's: LVE, closure, false closures; nan: nothing.

    limits: ``lve``, ``closure``, ``false_closure``, as in :data:`VETO`.
    """
    lost = [_value(theirs, name) - _value(ours, name) for name in ("closure_rate", "false_closure_rate")]
    checks = {
        "LVE": _value(ours, "lve") > limits["lve"] * _value(theirs, "lve"),
        "closure": lost[0] > limits["closure"],
        "false closures": -lost[1] > limits["false_closure"],
    }
    return [name for name, against in checks.items() if against]


def articulation(results: Results) -> Measure | None:
    """The measure that ``veto.articulation`` names: the sum of that judge's scores."""
    name = (results.suite["veto"] or VETO)["articulation"]
    return judge_sums(results).get(name) if name is not None else None


def judge_sums(results: Results) -> dict[str, Measure]:
    """For every judge the sum of its scores."""
    closed = {m.label.removesuffix(", share of gap closed"): m for m in results.measures if m.closed}
    return {name: Measure(name, closed[name].columns) for name in results.judges if name in closed}


def veto_table(results: Results) -> Table:
    """Every run's judges beside what may veto them; the summary counts the gains that are left."""
    vetoer = (results.suite["veto"] or VETO)["articulation"]
    judges = {name: m for name, m in judge_sums(results).items() if name != vetoer}
    heard = articulation(results)
    train = next((m for m in results.measures if m.label == TRAIN), None)
    rows = []
    gains = {name: [0, 0] for name in judges}  # runs above their control, and those of them that are vetoed
    n_runs = n_vetoed = 0
    for variant in results.variants:
        control = str(results.control_of[variant])
        for (start, reward, seed), against in vetoes(results, variant).items():
            ours, theirs = results.row(variant, start, seed, reward=reward), results.row(control, start, seed)
            assert ours is not None and theirs is not None
            n_runs, n_vetoed = n_runs + 1, n_vetoed + bool(against)
            cells = []
            for name, m in judges.items():
                gain = results.value(ours, m) - results.value(theirs, m)
                gains[name][0] += gain > 0
                gains[name][1] += gain > 0 and bool(against)
                cells.append(number(gain, 3, True) + (" vetoed" if against and gain > 0 else ""))
            lve = _value(ours, "lve") / _value(theirs, "lve") if _value(theirs, "lve") > 0 else math.nan
            cells += [number(100 * (lve - 1), 1, True) + "%" if math.isfinite(lve) else DASH]
            for name, digits in (("closure_rate", 2), ("false_closure_rate", 3)):
                cells.append(number(_value(ours, name) - _value(theirs, name), digits, True))
            if heard is not None:
                cells.append(number(results.value(ours, heard) - results.value(theirs, heard), 3, True))
            high = train is not None and results.value(ours, train, reward) > results.value(
                results.row("truth", None, None), train, reward
            )
            mark = f" {ABOVE} 1 of 1" if high else ""
            rows.append([run_name(variant, start, reward, seed) + mark, *cells, ", ".join(against) or DASH])
    limits: Mapping[str, Any] = results.suite["veto"] or VETO
    said = [
        f"{name}: {up} of {n_runs} runs are above their control, {out} of these are vetoed: {up - out} count as gains."
        for name, (up, out) in gains.items()
    ]
    note = (
        "Differences of each run to its own control. A judge cannot veto a broken mouth, so its gain is not counted "
        f"where lip error is over {100 * (limits['lve'] - 1):.0f}% above the control's, closures fall by more than "
        f"{limits['closure']:g}, false closures rise by more than {limits['false_closure']:g}"
        + ("" if heard is None else f", or {vetoer} lies below the controls' interval")
        + f". {n_vetoed} of {n_runs} runs are vetoed. " + " ".join(said)
    )  # fmt: skip
    header = [
        "run",
        *judges,
        "LVE",
        "closure",
        "false closures",
        *([] if heard is None else [str(vetoer)]),
        "vetoed by",
    ]
    return Table("Judges beside the veto", note, header, rows)


def _value(row: Mapping[str, Any], column: str) -> float:
    value = row.get(column)
    return math.nan if value is None else float(value)


def _ends(estimate: Estimate, measure: Measure) -> str:
    if not np.isfinite(estimate.low):
        return DASH
    return f"{number(estimate.low, measure.digits, True)} to {number(estimate.high, measure.digits, True)}"
