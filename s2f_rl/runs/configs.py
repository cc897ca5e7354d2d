"""Composing a recipe's config and telling mistakes in it as one line each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from s2f_rl.errors import UserError
from s2f_rl.runs.overrides import literal
from s2f_rl.runs.schema import accepts, hint_at, like, read

# Hydra raises bare ValueErrors too (a group set to a number), and so does the reading of a file that is no text
CONFIG_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)

Folders: TypeAlias = Path | tuple[Path, ...]
"""The folder of a recipe's config, or several: that one first, then those that lend it config groups."""


def search_path(folder: Folders) -> list[str]:
    """The override by which Hydra looks for groups in the folders that lend them."""
    lent = [f"file://{path}" for path in _each(folder)[1:]]
    return [f"hydra.searchpath={literal(lent)}"] if lent else []


def compose_config(folder: Folders, name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose ``name.yaml`` in ``folder`` with ``overrides`` (Hydra's syntax), unresolved. Raises UserError."""
    own = _each(folder)[0]
    if not (own / f"{name}.yaml").is_file():
        raise UserError(f"{own / name}.yaml: no such config; restore the file")
    running = GlobalHydra.instance()
    outer = running.hydra  # a recipe started by Hydra may compose the config of another one
    running.clear()
    try:
        with initialize_config_dir(str(own), job_name=name, version_base="1.3"):
            return compose(name, overrides=[*overrides, *search_path(folder)])
    except CONFIG_ERRORS as error:
        raise explain(error, folder, name) from error
    finally:
        GlobalHydra.set_instance(running)
        running.hydra = outer


def finish_config(
    cfg: DictConfig, folder: Folders, name: str, overrides: Sequence[str] = (), schema: type | None = None
) -> DictConfig:
    """Resolve the interpolations of a composed config in place and check it against its schema.

    A number given for a text becomes that text. Without a schema, values must have the type of the default that they
    replace: defaults that are null accept anything, and null replaces anything.

    Args:
        schema: a dataclass, see :mod:`s2f_rl.runs.schema`.

    Raises:
        UserError: missing mandatory value, interpolation that leads nowhere, and what the schema refuses.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        if missing:
            raise UserError(f"{name}: {', '.join(missing)} must be given, for example {missing[0]}=...")
        kinds: object = schema or like(_defaults(folder, name, overrides))
        typed: dict[str, str] = {}
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            key = override.get_key_element().lstrip("+~")
            if override.is_delete() or _is_group_choice(f"{key}=", folder):
                continue
            typed[key] = str(override.input_line).split("=", 1)[1]
            if override.value() == {}:
                raise UserError(f"{key}={{}}: changes nothing; set one of its keys, or take one away with ~{key}.KEY")
            if accepts(hint_at(kinds, key), str) and isinstance(OmegaConf.select(cfg, key), (int, float)):
                if not accepts(hint_at(kinds, key), type(OmegaConf.select(cfg, key))):
                    OmegaConf.update(cfg, key, typed[key])
        OmegaConf.resolve(cfg)
        read(kinds, OmegaConf.to_container(cfg), typed)  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise explain(error, folder, name) from error
    return cfg


def opened(overrides: Sequence[str], schema: type | None) -> list[str]:
    """Let overrides name keys that the YAML does not have in groups that are open: a stage's settings, named weights.

    To Hydra such a key is one to be added: ``rl.gamma=0.5`` becomes ``++rl.gamma=0.5``, and so does a whole group,
    ``reward.parts={lips: {kind: closure}}``.
    """

    def is_open(item: str) -> bool:
        name, _, value = item.partition("=")
        parts = name.split(".")
        places = (".".join(parts[:n]) for n in range(1, len(parts) + value.lstrip().startswith("{")))
        return item[:1].isalpha() and any(accepts(hint_at(schema, place), dict) for place in places)

    return [f"++{item}" if schema and is_open(item) else item for item in overrides]


def _defaults(folder: Folders, name: str, overrides: Sequence[str]) -> object:
    chosen = compose_config(folder, name, [item for item in overrides if _is_group_choice(item, folder)])
    return OmegaConf.to_container(chosen, resolve=False)


def explain(error: BaseException, folder: Folders, name: str) -> UserError:
    """A UserError in one line for any of :data:`CONFIG_ERRORS`."""
    text = str(error)
    unknown = re.search(r"Could not override '([^']+)'", text)
    deeper = re.search(r"full_key: (\S+)", str(error.__cause__))
    if unknown and _is_group(unknown.group(1), folder):  # Hydra took a group of keys for a choice of a config group
        return UserError(f"{unknown.group(1)}: expected a group of keys; set one of them, {unknown.group(1)}.KEY=...")
    if unknown:
        key = (deeper or unknown).group(1)
        return UserError(f"{name}: unknown key '{key}'{_suggestion(key, folder, name)}")
    if deeper and text.startswith("Error merging override"):
        return UserError(f"{text.removeprefix('Error merging override ')}: expected a group of keys; set one of them")
    if isinstance(error, OverrideParseException):
        return UserError(f"{error.override}: not of the form key=value; put quotes around special characters")
    if isinstance(error, MissingConfigException) and error.options:
        choice = str(error.missing_cfg_file).replace("/", "=")
        return UserError(f"{choice}: no such choice; use {' or '.join(error.options)}")
    if isinstance(error, OmegaConfBaseException):
        first = text.splitlines()[0] if text else type(error).__name__
        key = f"config key '{error.full_key}': " if error.full_key else ""
        return UserError(f"{name}: {key}{first}; mend the value or its config file")
    if isinstance(error, yaml.YAMLError):
        return UserError(f"{_yaml_place(error, _each(folder)[0])}: not valid YAML ({text}); mend the file")
    lines = [line.strip() for line in text.splitlines() if line.strip() and "hydra.cc" not in line]
    return UserError(f"{name}: {' '.join(lines)}; mend the override or the config")


def _is_group_choice(override: str, folder: Folders) -> bool:
    key = override.split("=", 1)[0].lstrip("+~").split("@", 1)[0]
    return "=" in override and bool(key) and (key.startswith("hydra/") or _is_group(key, folder))


def _is_group(key: str, folder: Folders) -> bool:
    return any((path / key).is_dir() for path in _each(folder))


def _each(folder: Folders) -> tuple[Path, ...]:
    return (folder,) if isinstance(folder, Path) else folder


def _suggestion(key: str, folder: Folders, name: str) -> str:
    known = list(_keys(OmegaConf.to_container(compose_config(folder, name), resolve=False)))
    by_leaf = [other for other in known if other.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    if key in known:
        return "; it was taken away with ~ and is needed"
    near = by_leaf or difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near[:3])}? " if near else ""
    return f"; {hint}--cfg job lists all keys"


def _keys(config: object, prefix: str = "") -> Iterator[str]:
    if isinstance(config, dict):
        for key, value in config.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")


def _yaml_place(error: yaml.YAMLError, folder: Path) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{mark.name}" if mark is not None else str(folder)
