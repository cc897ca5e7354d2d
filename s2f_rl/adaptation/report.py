"""What an adaptation did, as one page: ``report.md`` and ``report.html``, which needs no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s2f_rl.adaptation.corpus import ADAPTED, HELD_BACK
from s2f_rl.adaptation.measure import Change
from s2f_rl.data.files import atomic_write_text
from s2f_rl.errors import printable
from s2f_rl.pages import document, escape

_TITLES = {ADAPTED: "Sentences that it was adapted to", HELD_BACK: "Sentences held back: training never heard them"}
_IN_WORDS = {ADAPTED: "adapted", HELD_BACK: "held-back"}
_VERB = {True: "rose", False: "fell"}
_FIGURES = {
    "lip_amplitude_mm": "lip amplitude, mm",
    "lip_jerk_mm": "lip jerk, mm per frame³",
    "closed_on_bilabials": "lips closed on m, b, p (share of frames)",
    "closed_elsewhere": "lips closed elsewhere in speech (share of frames)",
}
_SMALLEST = 0.0005  # what the page's three digits show
_HEAD = ("figure", "before", "after", "change", "95% interval", "sentences")
_READING = (
    "Before and after are means over the sentences. The interval is that of the mean change over sentences of this one "
    "run; another seed would land elsewhere, and that is not in it. Where it leaves out zero, the change is in bold.",
    "That rewarded figures rise on the adapted sentences is what training did, and shows nothing by "
    "itself; the other figures, the held-back sentences and the film do.",
    "Without a recorded face no error can be measured. Lips that move less, close less on m, b, p "
    "or more elsewhere, or tremble more are what a reward gives away first.",
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 900px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 14px; } th, td { padding: .22rem .6rem; border-bottom: 1px solid #ddd; }
td, th { text-align: right; } td:first-child, th:first-child { text-align: left; } video { max-width: 100%; }
"""


@dataclass(frozen=True)
class Page:
    """What the report is made of.

    Attributes:
        changes: of all figures. rewarded: which figures training climbed.
        about: (what, value) of the run, in order. notes: sentences that a reader must know.
        film: file name beside the page; None without one.
    """

    changes: Sequence[Change]
    rewarded: frozenset[str]
    about: Sequence[tuple[str, str]]
    notes: Sequence[str]
    film: str | None = None

    def label(self, figure: str) -> str:
        """A figure in words."""
        words = _FIGURES.get(figure, figure.removesuffix("_score").replace("_", " "))
        return words + (" (rewarded)" if figure in self.rewarded else "")


def verdict(page: Page) -> str:
    """What is apart from zero by more than the last digit shown, in a sentence."""
    said = []
    for part, name in _IN_WORDS.items():
        own = [change for change in page.changes if change.part == part]
        if not own:
            said.append(f"no sentence was {'held back' if part == HELD_BACK else 'adapted to'}")
            continue
        clear = [change for change in own if _is_clear(change)]
        moved = [
            f"{page.label(change.figure)} {_VERB[change.difference > 0]} by {_number(abs(change.difference))}"
            for change in clear
        ]
        n = max(change.sentences for change in own)
        where = f"on the {name} sentences ({n})" if n > 1 else f"on the single {name} sentence"
        nothing = "nothing is apart from zero" if n > 1 else "nothing can be told apart from zero"
        said.append(f"{where} {', '.join(moved) or nothing}")
    text = "; ".join(said)
    return text[0].upper() + text[1:] + "."


def write_page(folder: Path, page: Page) -> None:
    """Write ``report.md`` and ``report.html`` into ``folder``."""
    atomic_write_text(folder / "report.md", as_markdown(page))
    atomic_write_text(folder / "report.html", as_html(page))


def as_markdown(page: Page) -> str:
    """The page as markdown."""
    lines = ["# Adaptation", "", f"**{_cell(verdict(page))}**", ""]
    lines += [line for note in page.notes for line in (_cell(note), "")]
    lines += [] if page.film is None else [f"Film, before and after: [{page.film}]({page.film})", ""]
    for part, title in _TITLES.items():
        rows = _rows(page, part)
        if rows:
            lines += [f"## {title}", "", f"| {' | '.join(_HEAD)} |", "|---|" + "---|" * (len(_HEAD) - 1)]
            lines += [f"| {' | '.join(_bold(row, '**', '**'))} |" for row in rows]
            lines.append("")
    lines += ["## How to read it", "", *(f"- {text}" for text in _READING), "", "## How it was made", ""]
    lines += [f"- {key}: {_cell(value)}" for key, value in page.about]
    return "\n".join(lines) + "\n"


def as_html(page: Page) -> str:
    """The page as HTML that stands alone, but for the film beside it."""
    parts = ["<h1>Adaptation</h1>", f"<p><b>{escape(verdict(page))}</b></p>"]
    parts += [f"<p>{escape(note)}</p>" for note in page.notes]
    if page.film is not None:
        parts.append(f'<video controls src="{escape(page.film)}"></video>')
    for part, title in _TITLES.items():
        rows = _rows(page, part)
        if rows:
            head = "".join(f"<th>{name}</th>" for name in _HEAD)
            cells = ("".join(f"<td>{cell}</td>" for cell in _bold(row, "<b>", "</b>")) for row in rows)
            body = "".join(f"<tr>{line}</tr>\n" for line in cells)
            parts.append(f"<h2>{title}</h2>\n<table><tr>{head}</tr>\n{body}</table>")
    parts.append(f"<h2>How to read it</h2><ul>{''.join(f'<li>{text}</li>' for text in _READING)}</ul>")
    about = "<br>".join(f"{key}: {escape(value)}" for key, value in page.about)
    parts.append(f"<h2>How it was made</h2><p>{about}</p>")
    return document("Adaptation", _STYLE, parts)


def _rows(page: Page, part: str) -> list[tuple[bool, list[str]]]:
    """Cells of the table of a part, and whether a row is named in the verdict."""
    rows = []
    for change in page.changes:
        if change.part == part:
            low, high = change.difference - change.margin, change.difference + change.margin
            interval = "-" if math.isnan(change.margin) else f"{_number(low, '+')} to {_number(high, '+')}"
            cells = [page.label(change.figure), _number(change.before), _number(change.after)]
            cells += [_number(change.difference, "+"), interval, str(change.sentences)]
            rows.append((_is_clear(change), cells))
    return rows


def _is_clear(change: Change) -> bool:
    return change.is_apart_from_zero and abs(change.difference) >= _SMALLEST


def _bold(row: tuple[bool, list[str]], before: str, after: str) -> list[str]:
    is_apart, cells = row
    return [*cells[:3], f"{before}{cells[3]}{after}" if is_apart else cells[3], *cells[4:]]


def _number(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.3f")


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")
