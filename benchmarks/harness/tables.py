"""The report's tables, as text in rows; markdown and HTML are two ways to write the same table."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.harness.matrix import run_name
from benchmarks.harness.results import Measure, Results
from benchmarks.harness.statistics import (
    Estimate,
    interquartile_mean,
    mean_t_interval,
    probability_of_improvement,
    stratified_bootstrap,
    welch_interval,
)

N_RESAMPLES = 2000
DASH = "–"


@dataclass(frozen=True)
class Table:
    """A title, a note in plain words, a header and rows of cells."""

    title: str
    note: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """GitHub markdown."""
        header, *rows = (f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in self._all())
        lines = [f"## {self.title}", "", self.note, "", header, "|" + "---|" * len(self.header), *rows]
        return "\n".join(lines) + "\n"

    def _all(self) -> list[list[str]]:
        return [self.header, *self.rows]

    def html(self) -> str:
        """A section with the table, first column as row headings."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.header)
        body = ""
        for first, *rest in self.rows:
            cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in rest)
            body += f"<tr><th>{html.escape(first)}</th>{cells}</tr>\n"
        return (
            f"<section><h2>{html.escape(self.title)}</h2><p>{html.escape(self.note)}</p>"
            f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div></section>\n'
        )


def number(value: float, digits: int, sign: bool = False) -> str:
    """Fixed digits; a dash for what was not measured."""
    return f"{value:{'+' if sign else ''}.{digits}f}" if math.isfinite(value) else DASH


def with_interval(estimate: Estimate, digits: int, sign: bool = False) -> str:
    """``0.31 [0.25, 0.37]``; the value alone without an interval."""
    if not math.isfinite(estimate.low):
        return number(estimate.value, digits, sign)
    ends = f"{number(estimate.low, digits, sign)}, {number(estimate.high, digits, sign)}"
    return f"{number(estimate.value, digits, sign)} [{ends}]"


ABOVE = "▲"
LEGEND = (
    f" {ABOVE} k of n: in so many runs the train reward is above the ground truth's own: the reward is mistaken or "
    "fooled there, and more of it is no gain. Where the supervised start has the mark too, the reward likes the "
    "average manner better than any one speaker's, as an articulation reward does with voices whose manner it does not "
    "know."
)


def named(results: Results, name: str, checkpoint: str = "last", gain: float = 1.0) -> str:
    """The name of a row, with the mark of runs whose train reward is above the ground truth's."""
    above, n = results.above_truth(name, checkpoint, gain)
    return f"{name} {ABOVE} {above} of {n}" if above else name


def with_legend(table: Table) -> Table:
    """The table; its note explains the mark if it has one."""
    marked = any(ABOVE in cell for row in table.rows for cell in row)
    return replace(table, note=table.note + LEGEND) if marked else table


def shape(results: Results) -> str:
    """``3 seeds x 2 starts x 2 rewards``."""
    rewards = f" x {len(results.rewards)} rewards" if len(results.rewards) > 1 else ""
    return f"{len(results.seeds)} seeds x {len(results.starts)} starts{rewards}"


def over_seeds(scores: np.ndarray) -> Estimate:
    """Mean and t interval over seeds of [seeds, starts]; a seed's starts are averaged first."""
    return mean_t_interval(scores.mean(axis=1)) if len(scores) else Estimate(math.nan, math.nan, math.nan, 0)


def cell(
    results: Results, name: str, measure: Measure, estimate: Estimate | None = None, checkpoint: str = "last"
) -> str:
    """A variant's value with its interval, by default over seeds; it says how many are in it where some are not."""
    scores = results.scores(name, measure, checkpoint=checkpoint)
    text = with_interval(over_seeds(scores) if estimate is None else estimate, measure.digits)
    n = len(scores)
    return text if n in (0, results.whole(name)) else f"{text} ({n} of {results.whole(name)} seeds)"


def main_table(results: Results) -> Table:
    """Variant x measure: mean over runs with the 95% t interval; ground truth, starts and controls among the rows."""
    rows = [[label, *(cell(results, name, m) for m in results.measures)] for label, name in _everyone(results)]
    n = len(results.seeds) * len(results.strata)
    note = (
        f"Last checkpoint, {results.where}, mean over sequences, then over {n} runs "
        f"({shape(results)}); 95% t interval over seeds: where another "
        "seed would land, with the same starts, reward, judges and voices (those are in the intervals of the "
        "differences over starts, rewards and speakers). A judge is a model that nothing was trained "
        "against. Share of gap closed: 0 is the supervised start, 1 the ground truth's own "
        "score; above 1 a policy fools the model."
    )
    if measured := sorted({row["true_distance_sequences"] for row in results.rows if "true_distance_sequences" in row}):
        note += f" Sequences measured for the true distance: {' or '.join(map(str, measured))}."
    partly = [f"{label} {n} of {whole}" for label, (n, whole) in results.partly_measured().items()]
    if partly:
        note += f" Means over fewer sequences, at least: {', '.join(partly)}; the others could not be measured."
    return Table("Main table", note, ["", *(m.label for m in results.measures)], rows)


def iqm_table(results: Results) -> Table:
    """The same as interquartile means with 95% stratified bootstrap intervals."""
    rows = []
    for label, name in _everyone(results, references=False):
        cells = []
        for m in results.measures:
            scores = results.scores(name, m)
            found = stratified_bootstrap(interquartile_mean, scores, n_resamples=N_RESAMPLES) if len(scores) else None
            cells.append(DASH if found is None else cell(results, name, m, found))
        rows.append([label, *cells])
    note = (
        "Interquartile mean over runs, 95% percentile interval of a bootstrap over seeds, stratified by start (Agarwal "
        "et al., 2021). With fewer than ten runs these intervals are too narrow: prefer the t intervals."
    )
    return Table("Interquartile means", note, ["", *(m.label for m in results.measures)], rows)


def differences_table(results: Results) -> Table:
    """Every variant minus its own control, paired by seed and start."""
    rows = []
    for variant, other, measure, ours, theirs in _comparisons(results):
        difference = ours - theirs
        estimate = over_seeds(difference)
        drawn = stratified_bootstrap(lambda d: float(d.mean()), difference, n_resamples=N_RESAMPLES)
        better = {"up": 1, "down": -1}.get(measure.aim, 0)
        probability = (
            with_interval(probability_of_improvement(better * ours, better * theirs, n_resamples=N_RESAMPLES), 2)
            if better
            else DASH
        )
        wins = f"{int((better * difference > 0).sum())} of {difference.size}" if better else DASH
        cells = [number(estimate.value, measure.digits, True)]
        for interval in (estimate, drawn):
            ends = (number(interval.low, measure.digits, True), number(interval.high, measure.digits, True))
            cells.append(f"{ends[0]} to {ends[1]}" if math.isfinite(interval.low) else DASH)
        verdict = verdict_of(estimate, better)
        rows.append([named(results, variant), other, measure.label, *cells, probability, wins, verdict])
    header = [
        "variant", "minus", "measure", "difference", "95% t", "95% bootstrap", "P(improvement)", "runs better", "",
    ]  # fmt: skip
    note = (
        "Variant minus its compute-matched control (the same rollouts and updates, no policy gradient) and minus what "
        "else the suite compares it with (a placebo, back-propagation), paired by seed, start and reward. "
        "Algorithms differ in their number of updates at one learning rate, so that only differences "
        "to the own control compare, not the rows of the main table. P(improvement): a run of the variant beats a run "
        "of the control (Mann-Whitney), pairs kept together in the bootstrap. The last column says better or worse "
        "only where the t interval leaves out zero; it is not corrected for the number of comparisons."
    )
    return Table("Paired differences to the control", note, header, rows)


def families_table(results: Results) -> Table:
    """The families of a suite beside each other: each minus the first, row by row of the main table."""
    (first, base), *others = results.families.items()
    several = all(len(part.starts) > 1 for part in results.families.values())
    rows = []
    for name, part in others:
        for label, row in _everyone(part):
            for measure in qualities(base):
                if row == "truth" or measure.closed or row not in ("start", *base.control_of):
                    continue
                if several:
                    estimate = welch_interval(part.by_start(row, measure), base.by_start(row, measure))
                else:
                    difference = part.by_seed(row, measure) - base.by_seed(row, measure)
                    estimate = mean_t_interval(difference[np.isfinite(difference)])
                better = {"up": 1, "down": -1}.get(measure.aim, 0)
                shown = with_interval(estimate, measure.digits, True)
                rows.append([label, f"{name} minus {first}", measure.label, shown, verdict_of(estimate, better)])
    interval = "over the starts' means (Welch's t, unpaired)" if several else "over seeds, which pair the rows (t)"
    note = (
        "Rows of one name: the same settings, reward, judges and utterances, another kind of start. 95% interval "
        f"{interval}. Differences of trained rows hold those of their starts; what training adds is in the paired "
        "differences to the control, family by family."
    )
    return Table("Families beside each other", note, ["", "difference of", "measure", "difference", ""], rows)


def gain_table(results: Results) -> Table:
    """The controls' motion times a constant: what a method has to beat before amplitude explains its gain."""
    shown = qualities(results)
    rows = []
    for control in results.controls:
        for gain in (1.0, *results.suite["gains"]):
            cells = [number(over_seeds(results.scores(control, m, gain=gain)).value, m.digits) for m in shown]
            rows.append([f"{control} x {gain:g}{named(results, control, gain=gain).removeprefix(control)}", *cells])
    note = (
        "Nothing is trained here: every displacement of the control is multiplied by a constant. A method that only "
        "opens the mouth wider lies on this line."
    )
    return Table("Global-gain baseline", note, ["", *(m.label for m in shown)], rows)


def gap_table(results: Results) -> Table:
    """Share of the gap closed by the reward that was trained against, by each judge, and the difference."""
    by_label = {m.label: m for m in results.measures}
    train = by_label.get("train, share of gap closed")
    rows = []
    for label, name in _everyone(results, references=False):
        for judge in results.judges:
            judged = by_label.get(f"{judge}, share of gap closed")
            if train is None or judged is None:
                continue
            ours, theirs = results.scores(name, train), results.scores(name, judged)
            if len(ours) and ours.shape == theirs.shape:
                cells = [with_interval(over_seeds(scores), 2, True) for scores in (ours, theirs, ours - theirs)]
                rows.append([label, judge, *cells])
    note = "A large difference means that the policy learned the reward model's mistakes."
    header = ["", "judge", "train reward", "judge", "gap: train minus judge"]
    return Table("Train reward against judge", note, header, rows)


def best_table(results: Results) -> Table:
    """The best checkpoint (chosen by validation reward within the LVE guard) beside the last one."""
    shown = qualities(results)
    rows = [
        [label, *(cell(results, name, m, checkpoint="best") for m in shown)]
        for label, name in _everyone(results, references=False, checkpoint="best")
    ]
    note = (
        "best.pt of every run. It was chosen on the validation speakers by the train reward, so on them its scores are "
        "a little too good."
    )
    return Table("Best checkpoints", note, ["", *(m.label for m in shown)], rows)


def failed_table(results: Results) -> Table:
    """Runs that failed or have not ended."""
    rows = [
        [
            run_name(row["variant"], row["start"], row.get("reward"), row["seed"]),
            row["status"],
            str(row["attempts"]),
            str(row["iteration"]),
        ]
        + [" / ".join(str(row["error"]).splitlines())[-300:]]
        for row in results.failed
    ]
    note = "None." if not rows else "These are in no figure; the seeds concerned are left out of their variant."
    return Table("Failed runs", note, ["run", "status", "attempts", "iteration", "last lines"], rows)


def qualities(results: Results) -> list[Measure]:
    """What is measured of the motion; what a run costs is left to the main table."""
    return [measure for measure in results.measures if measure.label not in ("updates", "frames/s")]


def _comparisons(results: Results) -> Iterator[tuple[str, str, Measure, np.ndarray, np.ndarray]]:
    for variant in results.variants:
        for other in results.compared(variant).values():
            for measure in qualities(results):
                ours, theirs = results.pairs(variant, measure, other=other)
                if len(ours):
                    yield variant, other, measure, ours, theirs


def verdict_of(estimate: Estimate, better: int) -> str:
    if not better or not math.isfinite(estimate.low) or estimate.low <= 0 <= estimate.high:
        return ""
    return "better" if better * estimate.value > 0 else "worse"


def _everyone(results: Results, references: bool = True, checkpoint: str = "last") -> list[tuple[str, str]]:
    """(label, name) of every row: what is not trained, controls, placebos and the like, variants."""
    first = [*results.controls, *results.references]
    trained = [*first, *(name for name in results.variants if name not in first)]
    ends = [("ground truth", "truth"), (named(results, "start").replace("start", "supervised start", 1), "start")]
    return [*(ends if references else []), *((named(results, name, checkpoint), name) for name in trained)]
