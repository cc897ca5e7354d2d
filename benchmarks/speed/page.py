"""The tables and plots of `docs/speed.md`, from the results of `run.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s2f_rl.data.files import atomic_path, atomic_write_text

PHASES = ("collect", "score", "advantage", "update")
GOALS = {1: 45, 5: 110}
"""Frames per second over those of the reference, by stride."""


def sections(results: Mapping[str, Any]) -> dict[str, str]:
    """Markdown tables by name of the mark that they stand under."""
    return {
        "machine": machine(results),
        "goals": table(("goal", "wanted", "measured", "met"), goals(results)),
        "iterations": iterations(results),
        "parts": parts(results),
        "limit": limit(results),
        "decode": decode(results),
        **({"scaling": scaling(results)} if "scaling" in results else {}),
    }


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers with three figures."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(shown, row)) + " |" for row in rows)])


def shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio(results: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    return row["frames/s"] / results["reference"]["frames/s"]


def machine(results: Mapping[str, Any]) -> str:
    found, size = results["machine"], results["size"]
    times = (
        "seconds that passed, nothing else running"
        if results["clock"] == "wall"
        else ("**processor seconds on one core of a machine that did other things too**")
    )
    return (
        f"{found['threads']} threads, torch {found['torch']}. Products of the reward's shape: "
        f"{found['onednn']:.0f} GFLOP/s by oneDNN, {found['mkl']:.0f} by MKL, {found['bfloat16']:.0f} in bfloat16. "
        f"V={size['vertices']}, reward {size['width']} x {size['depth']}, utterances of {size['shortest']} to "
        f"{size['longest']} frames. Times are {times}; the run took "
        f"{results['seconds'] / 60:.1f} minutes."
    )


def goals(results: Mapping[str, Any]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = []
    for row in results["iterations"]:
        if row["precision"] == "float32":
            wanted = GOALS[row["stride"]]
            found = ratio(results, row)
            what = f"iteration, {row['lanes']} lanes, stride {row['stride']}: frames/s over the reference's"
            rows.append((what, f">= {wanted}", found, found >= wanted))
    for row in results["update"]:
        found = row["vertices"] / row["latents"]
        rows.append((f"update, {row['lanes']} lanes: by all vertices over by the latents", ">= 10", found, found >= 10))
    for row in results["reward"]:
        found = row["scores"] / row["products"]
        what = f"reward in {row['precision']}: over its matrix products alone"
        rows.append((what, "<= 1.2", found, found <= 1.2))
    dense, strided = results["audio half"]
    found = strided["clips"] / dense["clips"]
    rows.append(("audio half, stride 5: clips heard of all", "<= .21", found, found <= 0.21))
    first, last = results["decode"][0], results["decode"][-1]
    found = last["ms per frame"] / first["ms per frame"]
    what = f"decode: time per frame at {last['frames']} frames over that at {first['frames']}"
    rows.append((what, "about 1", found, found <= 1.5))
    return rows


def iterations(results: Mapping[str, Any]) -> str:
    one = results["reference"]
    total = sum(one[part] for part in ("collect", "reward", "update"))
    head = ("", "lanes", "stride", "precision", "frames", *(f"{phase}, s" for phase in PHASES), "frames/s", "ratio")
    rows: list[Sequence[object]] = [
        ("reference", 1, 1, "float32", int(one["frames"]), one["collect"], one["reward"], "", one["update"],
         one["frames"] / total, 1)
    ]  # fmt: skip
    for row in results["iterations"]:
        phases = [row[phase] for phase in PHASES]
        rows.append(
            ("ours", row["lanes"], row["stride"], row["precision"], int(row["frames"]), *phases, row["frames/s"],
             ratio(results, row))
        )  # fmt: skip
    apart = ", ".join(f"{key.removesuffix(' differs')} {one[key]:.0e}" for key in one if key.endswith("differs"))
    return table(head, rows) + f"\n\nLargest differences between the two on one utterance: {apart}."


def parts(results: Mapping[str, Any]) -> str:
    """Shares of an iteration, and what an update and the reward consist of."""
    rows: list[Sequence[object]] = []
    for row in results["iterations"]:
        total = sum(row[phase] for phase in PHASES)
        shares = [f"{row[phase] / total:.0%}" for phase in PHASES]
        rows.append((f"{row['lanes']} lanes, stride {row['stride']}, {row['precision']}", *shares))
    text = [table(("share of an iteration", *PHASES), rows)]
    head = ("one gradient step on all lanes", "by all vertices, s", "by the latents, s", "policy term", "supervised")
    steps = [
        (f"{row['lanes']} lanes, {row['frames']} frames", row["vertices"], row["latents"], row["policy"],
         row["supervised"])
        for row in results["update"]
    ]  # fmt: skip
    text.append(table(head, steps))
    head = ("scores of a batch", "clips", "s", "its products alone, s", "ratio")
    scored = [
        (row["precision"], row["clips"], row["scores"], row["products"], row["scores"] / row["products"])
        for row in results["reward"]
    ]
    text.append(table(head, scored))
    what = f"bfloat16 against float32, {results['rounded reward']}"
    head = (what, "clips", "largest difference", "mean", "spread of the scores")
    columns = ("score", "frames", "largest", "mean", "spread")
    text.append(table(head, [[row[column] for column in columns] for row in results["rounding"]]))
    heard = [(row["stride"], row["clips"], row["seconds"]) for row in results["audio half"]]
    text.append(table(("audio half of one utterance: stride", "clips", "s"), heard))
    return "\n\n".join(text)


def limit(results: Mapping[str, Any]) -> str:
    """What an iteration's operations would take at the best speed of its products, over what it takes."""
    peak, rows = results["machine"]["onednn"] * 1e9, []
    for counted in results["operations"]:
        taken = next(
            row
            for row in results["iterations"]
            if (row["lanes"], row["stride"], row["precision"]) == (counted["lanes"], counted["stride"], "float32")
        )
        for phase in ("collect", "score", "update"):
            speed = counted[phase] / counted["frames"] / (taken[phase] / taken["frames"])
            gflop = counted[phase] / 1e9
            rows.append((f"stride {counted['stride']}, {phase}", gflop, speed / 1e9, f"{speed / peak:.0%}"))
    return table(("phase", "GFLOP", "GFLOP/s", "of the machine's"), rows)


def decode(results: Mapping[str, Any]) -> str:
    return table(
        ("frames", "ms per frame", "times real time"),
        [(row["frames"], row["ms per frame"], 1e3 / 30 / row["ms per frame"]) for row in results["decode"]],
    )


def scaling(results: Mapping[str, Any]) -> str:
    text = []
    for axis, rows in results["scaling"].items():
        body = [(row[axis], row["seconds"], row["peak MB"], row["of it imports, MB"]) for row in rows]
        text.append(table((axis, "s", "peak MB", "of it imports"), body))
    return "\n\n".join(text)


# -- the page ----------------------------------------------------------------------------------------------------------


def write(path: Path, results: Mapping[str, Any]) -> None:
    """Put each section between its mark ``<!-- NAME -->`` and the next ``<!-- end -->``; draw the plots."""
    text = path.read_text(encoding="utf-8")
    for name, body in sections(results).items():
        text, n = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda found, body=body: f"{found[1]}\n{body}\n\n{found[2]}",
            text, flags=re.DOTALL,
        )  # fmt: skip
        assert n == 1, f"{path} has no mark {name}"
    atomic_write_text(path, text)
    images = path.parent / "images"
    images.mkdir(exist_ok=True)
    draw_profile(images / "speed_profile.png", results)
    if "scaling" in results:
        draw_scaling(images / "speed_scaling.png", results)


def draw_profile(path: Path, results: Mapping[str, Any]) -> None:
    """Milliseconds per frame by phase."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in results["iterations"] if row["precision"] == "float32" or row["stride"] == 1]
    names = [f"{row['lanes']} lanes, stride {row['stride']}, {row['precision']}" for row in rows]
    figure, axes = pyplot.subplots(figsize=(7, 2.8), layout="constrained")
    left = [0.0] * len(rows)
    for phase in PHASES:
        width = [1e3 * row[phase] / row["frames"] for row in rows]
        axes.barh(names, width, left=left, label=phase)
        left = [a + b for a, b in zip(left, width, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds per frame")
    axes.legend(frameon=False, loc="lower right")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    pyplot.close(figure)


def draw_scaling(path: Path, results: Mapping[str, Any]) -> None:
    """Seconds and memory against each axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(2, len(results["scaling"]), figsize=(10, 4.4), layout="constrained")
    for column, (axis, rows) in zip(grid.T, results["scaling"].items(), strict=True):
        for cell, key in zip(column, ("seconds", "peak MB"), strict=True):
            cell.plot([row[axis] for row in rows], [row[key] for row in rows], "o-")
            cell.set_xscale("log")
            cell.minorticks_off()
            cell.set_xticks([row[axis] for row in rows], [str(row[axis]) for row in rows])
            cell.set_ylim(bottom=0)
            cell.set_ylabel(key)
        column[-1].set_xlabel({"vertices": "vertices", "corpus": "utterances on disk"}.get(axis, axis))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    pyplot.close(figure)
