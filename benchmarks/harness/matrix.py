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
    a control itself), ``against`` further variants that it is compared with, ``reward`` one of ``rewards`` (None: a
    control, whose loss has no reward, or a suite with one reward).
    """

    variant: str
    family: str
    recipe: str
    control: str | None
    start: str
    seed: int
    overrides: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    reward: str | None = None
    against: dict[str, str] = field(default_factory=dict)
    corpus: str = ""

    @property
    def name(self) -> str:
        """``variant/start[/reward]/seedN``: the run's name, and its place in every folder of the results."""
        return run_name(self.variant, self.start, self.reward, self.seed)


def run_name(variant: str, start: str, reward: str | None, seed: int) -> str:
    """Name of a run.

    Example:
        >>> run_name("ppo", "first", None, 0), run_name("ppo", "first", "both", 0)
        ('ppo/first/seed0', 'ppo/first/both/seed0')
    """
    return "/".join([variant, start, *([] if reward is None else [reward]), f"seed{seed}"])


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


def stages(suite: Mapping[str, Any]) -> list[Stage]:
    """The preparations whose run folder a start, a reward, a judge or a later preparation points to.

    Each comes after those that it needs itself, whatever their order in the suite. Naming other folders
    (``reward=FOLDER starts.first=FOLDER judges.judge=FOLDER``) therefore leaves stages out.

    Raises:
        UserError: some need each other.
    """
    root = Path(suite["setup_root"])
    cells = {str(root / name): (name, stage, settings) for name, _, stage, settings in _cells(suite["setup"])}
    needs = {
        place: {text for text in _texts([stage["overrides"], settings]) if text in cells}
        for place, (_, stage, settings) in cells.items()
    }
    wanted = set(_texts([suite[key] for key in ("starts", "reward", "rewards", "judges")])) & set(cells)
    for place, own in needs.items():
        own.discard(place)
    while more := set().union(*(needs[place] for place in wanted)) - wanted:
        wanted |= more
    found: list[Stage] = []
    left = [place for place in cells if place in wanted]
    while left:  # in the suite's order, but each after those that it needs
        place = next((place for place in left if not needs[place] & set(left)), None)
        if place is None:
            raise UserError(f"{suite['name']}: setup: {', '.join(cells[p][0] for p in left)} need each other")
        left.remove(place)
        name, stage, settings = cells[place]
        options = as_overrides({"corpus.root": suite["corpus"]["root"]}, stage["overrides"], settings)
        found.append(Stage(name, stage["recipe"], (*options, f"root={literal(root)}", f"name={name}"), root / name))
    return found


def _texts(value: object) -> Iterator[str]:
    """Every text in nested values, as a path."""
    if isinstance(value, str):
        yield str(Path(value))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from _texts(each)


def runs(suite: Mapping[str, Any]) -> list[Run]:
    """Every run of the suite: seed by seed, so that an unfinished benchmark has whole seeds; controls first.

    What has fewer seeds than the suite comes after all that.
    """
    controls, variants = list(_cells(suite["controls"])), list(_cells(suite["variants"]))
    names = [variant for variant, *_ in (*controls, *variants)]
    if len(set(names)) != len(names):
        raise UserError(f"{suite['name']}: two variants share the name {max(names, key=names.count)}; rename one")
    rewards = reward_settings(suite)
    first = next(iter(rewards.values()))  # picks the best checkpoint of a control; nothing else of it sees a reward
    cells = [(None, cell, first, None, {}) for cell in controls]
    for reward, given in rewards.items():
        for cell in variants:
            others = {
                label: _matching(cell, family, variants) for label, family in (cell[2].get("against") or {}).items()
            }
            cells.append((reward, cell, given, _matching(cell, cell[2]["control"], controls), others))
    found: list[Run] = []
    later: list[Run] = []
    for seed, (start, folder) in itertools.product(suite["seeds"], suite["starts"].items()):
        for reward, (variant, family, cell, settings), given, control, others in cells:
            if cell.get("seeds") is not None and seed not in cell["seeds"]:
                continue
            given = {"corpus.root": suite["corpus"]["root"], "start": folder, **given}
            fixed = {"seed": seed, **({"control": True} if control is None else {})}
            layers = (given, suite["base"], cell["overrides"], settings, fixed)
            root = [flat(layer)["corpus.root"] for layer in layers if "corpus.root" in flat(layer)][-1]
            (found if cell.get("seeds") is None else later).append(
                Run(variant, family, cell["recipe"], control, start, int(seed), tuple(as_overrides(*layers)),
                    settings, reward, others, root)
            )  # fmt: skip
    return found + later


def reward_settings(suite: Mapping[str, Any]) -> dict[str | None, dict[str, Any]]:
    """Overrides of every reward by its name; of a suite with one reward by None."""
    if not suite["rewards"]:
        return {None: {"reward.folder": suite["reward"]}}
    return {
        name: {"reward.folder": given} if isinstance(given, str) else flat(given)
        for name, given in suite["rewards"].items()
    }


Cell = tuple[str, str, Mapping[str, Any], dict[str, Any]]


def _matching(variant: Cell, family: str, cells: Sequence[Cell]) -> str:
    """The cell of a family that a variant is compared with; of a swept one that with the variant's own values."""
    name, _, cell, settings = variant
    values = {**flat(cell["overrides"]), **settings}
    for other, its_family, _, swept in cells:
        if its_family == family and all(values.get(key) == value for key, value in swept.items()):
            return other
    raise UserError(f"variant {name}: its control {family} is not swept over the same values")


def _cells(group: Mapping[str, Any]) -> Iterator[Cell]:
    for family, cell in group.items():
        sweep = cell.get("sweep") or {}
        for values in itertools.product(*sweep.values()):
            settings = dict(zip(sweep, values, strict=True))
            suffix = "".join(f"_{key.rsplit('.', 1)[-1]}{value}" for key, value in settings.items())
            yield re.sub(r"[^A-Za-z0-9._-]+", "-", f"{family}{suffix}"), family, cell, settings
