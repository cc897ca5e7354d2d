"""The report's page: curves, a table, faces, config and versions, in light and dark."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from s2f_rl.pages import document, escape
from s2f_rl.runs.report.charts import Points, line_chart
from s2f_rl.runs.rows import TIME_PREFIX, Row
from s2f_rl.view.curves import plots_style

VALIDATION = "validation/"
_FIRST = ("loss", "reward", "lip_score", "real_score", "articulation_score", "amplitude_mm", "entropy",
          "spread_mm", "grad_norm")  # fmt: skip
_MEASURED_FIRST = ("lve", "mve", "closure_rate", "amplitude_ratio", "lip_score", "real_score", "jitter_ratio")
_N_CHARTS = 6
_UNITS = {
    **dict.fromkeys(("lve", "mve", "fdd", "fdd_abs"), ("mm²", 1e6)),
    "lip_intensity": ("mm per frame", 1e3),
    "true_distance": ("mm", 1e3),
    "entropy": ("nats per frame", 1.0),
}
"""How figures are shown: unit, and by what measures are multiplied, which rows hold in metres."""
_NOT_DRAWN = ("iteration", "frames", "seed")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1120px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; } .soft { color: var(--soft); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: .8rem; }
figure { margin: 0; padding: .6rem .7rem; background: var(--card); border: 1px solid var(--line); border-radius: 6px; }
figcaption { font-size: 13px; font-weight: 600; } .plot figcaption { font-weight: 400; }
.plot .area, .plot .x { margin-left: 44px; } .plot .area { cursor: auto; margin-top: .6rem; height: 120px; }
.plot output:empty { display: none; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; }
th, td { padding: .22rem .8rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } img, video { width: 100%; display: block; border-radius: 4px; }
.faces { display: grid; grid-template-columns: 3fr 2fr; gap: .8rem; margin-bottom: .8rem; align-items: start; }
@media (max-width: 700px) { .faces { grid-template-columns: 1fr; } }
video { object-fit: contain; object-position: top; background: #1b1d22; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .8rem; overflow-x: auto;
  font-size: 12.5px; } summary { cursor: pointer; margin: .8rem 0; }
"""


@dataclass
class Face:
    """An utterance on the page: a picture or a film, and its lip opening.

    Attributes:
        name: of the utterance. still: a JPEG, or None. film: an mp4, or None.
        what: the motions side by side in them. opening_mm: lip opening over time (seconds, mm) by motion.
    """

    name: str
    what: Sequence[str]
    still: bytes | None = None
    film: bytes | None = None
    opening_mm: Mapping[str, Points] = field(default_factory=dict)


def as_html(
    name: str, rows: Sequence[Row], config: Mapping[str, object], faces: Sequence[Face], notes: Sequence[str]
) -> str:
    """The page of a run.

    Args:
        name: of the run. rows: of its ``metrics.jsonl``. config: as it was resolved.
        faces: utterances before and after. notes: sentences that a reader must know.
    """
    parts = [f"<h1>{escape(name)}</h1>", f'<p class="soft">{escape(_about(rows))}</p>']
    parts += [f"<p>{escape(note)}</p>" for note in notes]
    measured, trained = _curves(rows, VALIDATION), _curves(rows, "")
    parts += _table(measured)
    parts += _faces(faces)
    parts += _charts("Validation", measured, _MEASURED_FIRST)
    parts += _charts("Training", trained, _FIRST)
    parts.append("<h2>Made with</h2>")
    last: Mapping[str, object] = rows[-1] if rows else {}
    made = [f"{key}: {last[key]}" for key in ("versions", "commit") if last.get(key)]
    parts.append(f'<p class="soft">{"<br>".join(map(escape, made))}</p>')
    shown = yaml.safe_dump(dict(config), sort_keys=True, allow_unicode=True).splitlines()
    parts.append(f"<details><summary>Config</summary><pre>{chr(10).join(map(escape, shown))}</pre></details>")
    return document(name, plots_style() + _STYLE, parts)


def _about(rows: Sequence[Row]) -> str:
    if not rows:
        return "No iteration yet."
    seconds = sum(
        value for row in rows for key, value in row.items() if key.startswith(TIME_PREFIX) and _is_number(value)
    )
    last = rows[-1]
    return f"{last['iteration']} iterations, {last.get('frames', 0)} frames, seed {last.get('seed')}, {_time(seconds)}"


def _table(curves: Mapping[str, Points]) -> list[str]:
    """Every measure of the validation: at its first, its lowest, its highest and its last."""
    if not curves:
        return []
    lines = []
    once = all(len(points) == 1 for points in curves.values())
    for name in _ordered(curves, _MEASURED_FIRST):
        points = curves[name]
        low, high = min(points, key=lambda p: p[1]), max(points, key=lambda p: p[1])
        ends = [f"{low[1]:.4g} ({low[0]:g})", f"{high[1]:.4g} ({high[0]:g})"] if len(points) > 1 else ["", ""]
        label = f"{name}, {_unit(name)}" if _unit(name) else name
        cells = [escape(label), *([] if once else [f"{points[0][1]:.4g}", *ends]), f"{points[-1][1]:.4g}"]
        lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(
        f"<th>{each}</th>" for each in ("measure", *(() if once else ("first", "lowest (at)", "highest (at)")), "last")
    )
    return ["<h2>Measures</h2>", f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>']


def _charts(title: str, curves: Mapping[str, Points], first: Sequence[str]) -> list[str]:
    """The curves of more than one point, the most telling open, the others folded away."""
    names = [name for name in _ordered(curves, first) if len(curves[name]) > 1]
    if not names:
        return []
    drawn = [line_chart(name, _unit(name), {f"last {curves[name][-1][1]:.4g}": curves[name]}) for name in names]
    parts = [f"<h2>{title}</h2>", f'<div class="grid">{"".join(drawn[:_N_CHARTS])}</div>']
    if drawn[_N_CHARTS:]:
        more = "".join(drawn[_N_CHARTS:])
        parts.append(
            f'<details><summary>{len(names) - _N_CHARTS} more</summary><div class="grid">{more}</div></details>'
        )
    return parts


def _faces(faces: Sequence[Face]) -> list[str]:
    cards = []
    for face in faces:
        still = None if face.still is None else f"data:image/jpeg;base64,{base64.b64encode(face.still).decode()}"
        label = escape(face.name)
        if face.film is not None:
            poster = "" if still is None else f' poster="{still}"'
            source = f"data:video/mp4;base64,{base64.b64encode(face.film).decode()}"
            shape = f"aspect-ratio: {len(face.what)} / 1.35"  # the player's controls below the mouths, not over them
            shown = f'<video controls loop style="{shape}" aria-label="film of {label}"{poster} src="{source}"></video>'
        else:
            shown = "" if still is None else f'<img alt="faces saying {label}, mouths at their widest" src="{still}">'
        curve = line_chart("lip opening", "mm", face.opening_mm, "seconds") if face.opening_mm else ""
        cards.append(f"<figure><figcaption>{label}</figcaption>{shown}</figure>{curve}")
    if not cards:
        return []
    title = "Before and after" if any("before" in face.what for face in faces) else "Three utterances"
    return [f"<h2>{title}</h2>", *(f'<div class="faces">{card}</div>' for card in cards)]


def _curves(rows: Sequence[Row], prefix: str) -> dict[str, Points]:
    """The numbers of each column by iteration, measures in the unit that is shown.

    With "" what is neither measured, nor a clock's, nor a count.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key, value in row.items():
            own = key.startswith(prefix) if prefix else not key.startswith((VALIDATION, TIME_PREFIX))
            if own and key not in _NOT_DRAWN and _is_number(value):
                name = key.removeprefix(prefix)
                scale = _UNITS[name][1] if prefix and name in _UNITS else 1.0
                found.setdefault(name, []).append((float(row["iteration"]), scale * float(value)))
    return dict(found)


def _unit(name: str) -> str:
    return _UNITS[name][0] if name in _UNITS else ""


def _ordered(names: Mapping[str, object], first: Sequence[str]) -> list[str]:
    return [name for name in first if name in names] + [name for name in names if name not in first]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
