"""``report.html`` of a run, from what its folder holds."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import yaml

from s2f_rl.data.coefficients.rig import require_mesh
from s2f_rl.data.files import atomic_write_text, is_there, read_text
from s2f_rl.errors import UserError
from s2f_rl.runs.report.page import Face, as_html
from s2f_rl.runs.rows import read_rows

logger = logging.getLogger(__name__)
FILE = "report.html"
KINDS = ("none", "curves", "stills", "films")
"""How much there is on the page."""


def write_run_report(run: Path, kind: str = "films", keep: bool = False) -> Path:
    """Write ``report.html`` into a run's folder: one file that opens from disk and asks nothing of a network.

    Args:
        run: the folder, with ``metrics.jsonl`` and ``config.yaml``.
        kind: "curves"; "stills" (with pictures of three utterances, before and after) or "films" (with films too).
        keep: use films that are there and newer than the run's actor: a run's logger may have made them.

    Returns:
        The file. Where no faces can be shown (the corpus is gone, the extra ``render`` is missing), the page says why.

    Raises:
        UserError: no run, or its files cannot be read.
    """
    started = time.perf_counter()
    rows = read_rows(run / "metrics.jsonl")
    config = read_config(run)
    faces: list[Face] = []
    notes: list[str] = []
    if kind in ("stills", "films"):
        try:
            faces, notes = run_faces(run, config, kind == "films", keep)
        except UserError as error:
            notes.append(f"No faces are shown: {error}.")
    atomic_write_text(run / FILE, as_html(str(config.get("name") or run.name), rows, config, faces, notes))
    logger.info("%s: written in %.1f s", run / FILE, time.perf_counter() - started)
    return run / FILE


def report_at_end(run: Path, kind: str) -> None:
    """:func:`write_run_report`, which never fails a run that has ended well; without faces if they are what fails."""
    try:
        write_run_report(run, kind, keep=True)
    except Exception as error:  # whatever it is: the run is whole, and s2f-rl report tells more
        logger.warning("%s: not written (page=%s; %s: %s)", run / FILE, kind, type(error).__name__, error)
        if kind != "curves":
            report_at_end(run, "curves")


def read_config(run: Path) -> Mapping[str, object]:
    """``config.yaml`` of a run, empty where there is none. Raises UserError when it cannot be read."""
    path = run / "config.yaml"
    if not is_there(path):
        return {}
    try:
        config = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: is no readable YAML; restore the file") from error
    if not isinstance(config, Mapping):
        raise UserError(f"{path}: holds no config; restore the file")
    return config


def run_faces(
    run: Path, config: Mapping[str, object], with_films: bool, keep: bool = False
) -> tuple[list[Face], list[str]]:
    """Three utterances of the validation split, before and after; none where a run has no corpus or no actor.

    With sentences on which actors they are. Films are left in ``films/`` of the run's folder as well. Raises UserError
    when they cannot be made.
    """
    from s2f_rl.runs.report.motions import open_validation, shown_utterances
    from s2f_rl.runs.report.pictures import make_films, make_stills

    corpus = open_validation(config)
    if corpus is None:
        return [], []
    require_mesh(corpus, "a picture of a run")
    shown, notes = shown_utterances(run, config, corpus)
    stills = make_stills(corpus, shown)
    films: list[bytes] | list[None] = [None] * len(shown)
    if with_films:
        films = [film.read_bytes() for film in make_films(run, corpus, shown, keep)]
    faces = []
    for each, still, film in zip(shown, stills, films, strict=True):
        curves = {
            what: [(k / corpus.fps, float(opening)) for k, opening in enumerate(own)]
            for what, own in each.opening_mm.items()
        }
        faces.append(Face(each.name, list(each.motions), still, film, curves))
    return faces, notes
