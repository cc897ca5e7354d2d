"""A suite file and the matrix of runs that it describes: variants and controls x starts x seeds."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from s2f_rl.errors import UserError
from s2f_rl.runs.configs import compose_config, finish_config

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
    cfg = compose_config(folder, names[0], rest)
    cfg = finish_config(cfg, folder, names[0], rest)
    suite: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    _check(suite)
    return suite


def _check(suite: Mapping[str, Any]) -> None:
    variants, controls = suite["variants"], suite["controls"]
    twice = sorted(set(variants) & set(controls))
    if twice:
        raise UserError(f"{suite['name']}: {twice[0]} is both a variant and a control; rename one")
    for name, variant in variants.items():
        if variant["control"] not in controls:
            raise UserError(
                f"variants.{name}.control={variant['control']}: no such control; use {' or '.join(controls) or 'one'}"
            )
    for key in ("seeds", "starts", "judges"):
        if not suite[key]:
            raise UserError(f"{suite['name']}: {key} is empty; give at least one")
    if len(set(suite["seeds"])) != len(suite["seeds"]):
        raise UserError(f"seeds={suite['seeds']}: the same seed twice; the runs would be the same")
    if suite["split"] not in ("validation", "train"):
        hint = "; the test speakers are opened with open_test=true" if suite["split"] == "test" else ""
        raise UserError(f"split={suite['split']}: use validation or train{hint}")
    if suite["utterances"] is not None and suite["utterances"] < 1:
        raise UserError(f"utterances={suite['utterances']}: at least 1; null: all")
    if suite["jobs"] < 1:
        raise UserError(f"jobs={suite['jobs']}: must be at least 1")


def evaluated_split(suite: Mapping[str, Any]) -> str:
    """Whose motion is scored: ``validation``, ``train``, or ``test`` once those are opened."""
    return "test" if suite["open_test"] else str(suite["split"])


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping with dotted keys, in order.

    Example:
        >>> flat({"iterations": 60, "evaluation": {"every": 20}})
        {'iterations': 60, 'evaluation.every': 20}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def as_overrides(*layers: Mapping[str, Any]) -> list[str]:
    """Nested mappings as Hydra overrides; of the same key the last layer's value holds.

    Example:
        >>> as_overrides({"iterations": 60, "evaluation": {"every": 20}}, {"iterations": 6, "name": "a b"})
        ['iterations=6', 'evaluation.every=20', "name='a b'"]
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= flat(layer)
    return [f"{key}={literal(value)}" for key, value in merged.items()]


def literal(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(literal(item) for item in value)}]"
    text = str(value)
    if re.fullmatch(r"[A-Za-z0-9_./@+-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


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
