"""A suite file and the matrix of runs that it describes: variants and controls x starts x seeds."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from benchmarks.harness.schema import Suite
from s2f_rl.errors import UserError
from s2f_rl.runs.configs import compose_config, finish_config, opened
from s2f_rl.runs.overrides import as_overrides, flat, literal
from s2f_rl.schemas import SCHEMAS

SUITES = Path(__file__).resolve().parents[1] / "suites"
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
COMMON = "common"  # what all suites share; no suite by itself


@dataclass(frozen=True)
class Stage:
    """A preparation that runs once: a recipe whose run folder is ``folder``."""

    name: str
    recipe: str
    overrides: tuple[str, ...]
    folder: Path


@dataclass(frozen=True)
class Run:
    """One cell of the matrix.

    ``family`` is the variant's key in the suite file, ``variant`` that key with the swept values, ``settings`` the
    swept values, ``control`` the variant whose runs of the same start and seed this run is compared with (None: it is
    a control itself).
    """

    variant: str
    family: str
    recipe: str
    control: str | None
    start: str
    seed: int
    overrides: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``variant/start/seedN``: the run's name, and its place in every folder of the results."""
        return f"{self.variant}/{self.start}/seed{self.seed}"


def suite_names() -> list[str]:
    """Names of the suites that come with the project."""
    return sorted(path.stem for path in SUITES.glob("*.yaml") if path.stem != COMMON)


def open_suite(overrides: Sequence[str], folder: Path = SUITES) -> dict[str, Any]:
    """Compose ``suite=NAME`` with further Hydra overrides, resolved and checked.

    Raises:
        UserError: no suite named, an unknown one, an unknown key, a value of another type, a variant without its
            control.

    Example:
        >>> open_suite(["suite=smoke", "seeds=[0]"])["seeds"]
        [0]
    """
    names = [item.split("=", 1)[1] for item in overrides if item.startswith("suite=")]
    known = sorted(path.stem for path in folder.glob("*.yaml") if path.stem != COMMON)
    if len(names) != 1 or names[0] not in known:
        given = f"suite={names[0]}: unknown" if names else "no suite given"
        raise UserError(f"{given}; use suite={', suite='.join(known)}")
    rest = [item for item in overrides if not item.startswith("suite=")]
    rest = opened(rest, Suite)
    cfg = compose_config(folder, names[0], rest)
    cfg = finish_config(cfg, folder, names[0], rest, Suite)
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


_OWN = {
    "control": "name a family in controls",
    "start": "use starts",
    "seed": "use seeds",
    "corpus.root": "use corpus.root of the suite",
    "name": "it is the run's place in the suite",
    "root": "use root of the suite",
    "resume": "a suite goes on by itself",
}
"""Keys of a recipe that a suite writes into every run, whatever its settings say, and where to say it instead."""


def _settings(suite: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where runs get their settings from, each with its dotted keys."""
    yield "base", flat(suite["base"])
    for group in ("controls", "variants"):
        for name, cell in suite[group].items():
            yield f"{group}.{name}.overrides", flat(cell["overrides"])
            yield f"{group}.{name}.sweep", dict(cell.get("sweep") or {})


def check_runs(suite: Mapping[str, Any], recipes: Path = RECIPES) -> None:
    """Compose the config of every preparation and of one run of each cell. Raises UserError for the first fault.

    A mistake in a suite is told before its first run starts, not by the one run that has it.
    """
    for place, settings in _settings(suite):
        own = next((name for name in settings if name in _OWN), None)
        if own is not None:
            raise UserError(f"{suite['name']}: {place}.{own}: the suite sets it itself; {_OWN[own]}")
        empty = next((name for name, values in settings.items() if place.endswith("sweep") and not values), None)
        if empty is not None:
            raise UserError(f"{suite['name']}: {place}.{empty} is empty; give at least one value")
    cells = {run.variant: (run.recipe, run.overrides) for run in reversed(runs(suite))}
    for name, (recipe, overrides) in {**{s.name: (s.recipe, s.overrides) for s in stages(suite)}, **cells}.items():
        try:
            overrides = opened(overrides, SCHEMAS[recipe])  # as the recipe does
            cfg = compose_config(recipes / "conf", recipe, overrides)
            finish_config(cfg, recipes / "conf", recipe, overrides, SCHEMAS[recipe])
        except UserError as error:
            raise UserError(f"{suite['name']}: {name}: {error}") from error


def evaluated_split(suite: Mapping[str, Any]) -> str:
    """Whose motion is scored: ``validation``, ``train``, or ``test`` once those are opened."""
    return "test" if suite["open_test"] else str(suite["split"])


def stages(suite: Mapping[str, Any]) -> list[Stage]:
    """The preparations whose run folder a start, the reward or a judge points to; what is there already is not made.

    Naming other folders (``reward=FOLDER starts.first=FOLDER judges.judge=FOLDER``) therefore leaves stages out.
    """
    root = Path(suite["setup_root"])
    wanted = {str(Path(path)) for path in (suite["reward"], *suite["starts"].values(), *suite["judges"].values())}
    found = []
    for name, stage in suite["setup"].items():
        folder = root / name
        if str(folder) in wanted:
            options = as_overrides({"corpus.root": suite["corpus"]["root"]}, stage["overrides"])
            found.append(Stage(name, stage["recipe"], (*options, f"root={literal(root)}", f"name={name}"), folder))
    return found


def runs(suite: Mapping[str, Any]) -> list[Run]:
    """Every run of the suite: seed by seed, so that an unfinished benchmark has whole seeds; controls first."""
    controls = list(_cells(suite["controls"]))
    cells = [*controls, *_cells(suite["variants"])]
    names = [variant for variant, *_ in cells]
    if len(set(names)) != len(names):
        raise UserError(f"{suite['name']}: two variants share the name {max(names, key=names.count)}; rename one")
    found = []
    for seed, (start, folder) in itertools.product(suite["seeds"], suite["starts"].items()):
        for variant, family, cell, settings in cells:
            given = {"corpus.root": suite["corpus"]["root"], "start": folder, "reward.folder": suite["reward"]}
            fixed = {"seed": seed, **({"control": True} if family in suite["controls"] else {})}
            options = as_overrides(given, suite["base"], cell["overrides"], settings, fixed)
            control = None if family in suite["controls"] else _control_of(variant, cell, settings, controls)
            found.append(Run(variant, family, cell["recipe"], control, start, int(seed), tuple(options), settings))
    return found


Cell = tuple[str, str, Mapping[str, Any], dict[str, Any]]


def _control_of(variant: str, cell: Mapping[str, Any], settings: Mapping[str, Any], controls: Sequence[Cell]) -> str:
    """The control that a variant names; of a swept control the one with the variant's own values."""
    values = {**flat(cell["overrides"]), **settings}
    for name, family, _, swept in controls:
        if family == cell["control"] and all(values.get(key) == value for key, value in swept.items()):
            return name
    raise UserError(f"variant {variant}: its control {cell['control']} is not swept over the same values")


def _cells(group: Mapping[str, Any]) -> Iterator[Cell]:
    for family, cell in group.items():
        sweep = cell.get("sweep") or {}
        for values in itertools.product(*sweep.values()):
            settings = dict(zip(sweep, values, strict=True))
            suffix = "".join(f"_{key.rsplit('.', 1)[-1]}{value}" for key, value in settings.items())
            yield re.sub(r"[^A-Za-z0-9._-]+", "-", f"{family}{suffix}"), family, cell, settings
