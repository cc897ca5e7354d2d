"""Composing a recipe's config and telling mistakes in it as one line each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from s2f_rl.errors import UserError

# Hydra raises bare ValueErrors too (a group set to a number), and so does the reading of a file that is no text
CONFIG_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)


def compose_config(folder: Path, name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose ``folder/name.yaml`` with ``overrides`` (Hydra's syntax), unresolved. Raises UserError."""
    if not (folder / f"{name}.yaml").is_file():
        raise UserError(f"{folder / name}.yaml: no such config; restore the file")
    running = GlobalHydra.instance()
    outer = running.hydra  # a recipe started by Hydra may compose the config of another one
    running.clear()
    try:
        with initialize_config_dir(str(folder), job_name=name, version_base="1.3"):
            return compose(name, overrides=list(overrides))
    except CONFIG_ERRORS as error:
        raise explain(error, folder, name) from error
    finally:
        GlobalHydra.set_instance(running)
        running.hydra = outer


def finish_config(cfg: DictConfig, folder: Path, name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Check an already composed config and resolve its interpolations in place.

    Values given by the user must have the type of the default they replace: ``seed=abc`` is refused here, by name,
    and not by whatever would first stumble over it. Defaults that are null accept anything, null replaces
    anything, whole numbers may stand for real ones, and a number given for a text becomes that text.

    Raises:
        UserError: missing mandatory value, wrong type, interpolation that leads nowhere.
    """
    defaults = compose_config(folder, name, [item for item in overrides if _is_group_choice(item, folder)])
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        if missing:
            raise UserError(f"{name}: {', '.join(missing)} must be given, for example {missing[0]}=...")
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            key = override.get_key_element().lstrip("+~")
            if not override.is_delete() and not _is_group_choice(f"{key}=", folder):
                _check_type(key, str(override.input_line).split("=", 1)[1], OmegaConf.select(defaults, key), cfg)
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        raise explain(error, folder, name) from error
    return cfg


def explain(error: BaseException, folder: Path, name: str) -> UserError:
    """A UserError in one line for any of :data:`CONFIG_ERRORS`."""
    text = str(error)
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        return UserError(f"{name}: unknown key '{unknown.group(1)}'{_suggestion(unknown.group(1), folder, name)}")
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
        return UserError(f"{_yaml_place(error, folder)}: not valid YAML ({text}); mend the file")
    lines = [line.strip() for line in text.splitlines() if line.strip() and "hydra.cc" not in line]
    return UserError(f"{name}: {' '.join(lines)}; mend the override or the config")


def _check_type(key: str, raw: str, default: Any, cfg: DictConfig) -> None:
    if OmegaConf.is_missing(cfg, key) or default is None:
        return
    value = OmegaConf.select(cfg, key)
    expected: str | None = None
    if isinstance(default, DictConfig):
        expected = None if isinstance(value, DictConfig) else "a group of keys; set one of its keys"
    elif value is None:
        return
    elif OmegaConf.is_list(default):
        expected = None if OmegaConf.is_list(value) else "a list, for example [a,b]"
    elif isinstance(default, bool):
        expected = None if isinstance(value, bool) else "true or false"
    elif isinstance(default, int):
        expected = None if isinstance(value, int) and not isinstance(value, bool) else "a whole number"
    elif isinstance(default, float):
        expected = None if isinstance(value, (int, float)) and not isinstance(value, bool) else "a number"
    elif isinstance(default, str):
        if isinstance(value, (int, float)):
            OmegaConf.update(cfg, key, raw)
        expected = "a text" if isinstance(value, DictConfig) else None
    if expected:
        raise UserError(f"{key}={raw}: expected {expected}")


def _is_group_choice(override: str, folder: Path) -> bool:
    key = override.split("=", 1)[0].lstrip("+~").split("@", 1)[0]
    return "=" in override and bool(key) and (key.startswith("hydra/") or (folder / key).is_dir())


def _suggestion(key: str, folder: Path, name: str) -> str:
    known = list(_keys(OmegaConf.to_container(compose_config(folder, name), resolve=False)))
    by_leaf = [other for other in known if other.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    near = by_leaf or difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near[:3])}? " if near else ""
    return f"; {hint}--cfg job lists all keys"


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(config, dict):
        for key, value in config.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")


def _yaml_place(error: yaml.YAMLError, folder: Path) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{mark.name}" if mark is not None else str(folder)
