"""The entry point of a recipe: Hydra's command line, with mistakes told in one line and no litter on disk."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import logging
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from s2f_rl import ranks
from s2f_rl.errors import Diverged, UserError, one_line
from s2f_rl.runs.configs import CONFIG_ERRORS, compose_config, explain, finish_config, opened, search_path
from s2f_rl.runs.mistakes import mistake_line
from s2f_rl.runs.progress import show_log
from s2f_rl.runs.recipes import CONF, recipe_script, recipes_folder
from s2f_rl.runs.tether import die_with, die_with_starter
from s2f_rl.signs import Watch
from s2f_rl.threads import use_available_cores

# Hydra would make a dated folder per run and configure logging itself; a run's outputs are in its run folder.
_QUIET = {
    "hydra.run.dir": ".",
    "hydra.sweep.subdir": ".",
    "hydra.output_subdir": "null",
    "hydra/job_logging": "none",
    "hydra/hydra_logging": "none",
}


def recipe_main(
    config_name: str, schema: type | None = None, config_folder: str = CONF, shipped_groups: bool = False
) -> Callable[[Callable[[DictConfig], object]], Recipe]:
    """Turn ``main(cfg)`` of a script into a recipe: a command line with Hydra overrides, and ``main.run([...])``.

    The config is ``conf/<config_name>.yaml`` beside the script and must have ``name`` (run name) and ``debug``.
    ``main`` receives it resolved and checked against ``schema`` (a dataclass, see :mod:`s2f_rl.runs.schema`), or
    without one against the types of the defaults.

    A recipe may lie in anybody's folder: ``s2f-rl copy ppo my_ppo.py`` makes one to edit. With ``shipped_groups`` its
    config may name the config groups of s2f_rl (``corpus: vocaset``, ``shared/rl``, ``critic: none``); a file of the
    same name in its own ``conf`` goes first. New keys need a schema of their own: a dataclass in the script, made from
    one of :mod:`s2f_rl.schemas`.

    Example (``recipes/ppo.py``):
        >>> @recipe_main("ppo", PPO)                                   # doctest: +SKIP
        ... def main(cfg):
        ...     folder = RunFolder(cfg.name, config=cfg, resume=cfg.resume)
        ...
        >>> if __name__ == "__main__":                                 # doctest: +SKIP
        ...     main()

    From the shell: ``python recipes/ppo.py seed=3 actor=biwi``; a sweep on all cores:
    ``python recipes/ppo.py -m seed=1,2,3 hydra/launcher=joblib`` (run names get the swept values: ``ppo_seed3``).
    From Python: ``main.run(["seed=3"])`` returns what ``main`` returns.
    """

    def decorate(function: Callable[[DictConfig], object]) -> Recipe:
        folder = Path(inspect.getfile(function)).resolve().parent / config_folder
        return Recipe(function, config_name, folder, schema, (recipes_folder() / CONF,) if shipped_groups else ())

    return decorate


def load_recipe(name: str) -> Recipe:
    """A recipe that comes with s2f_rl, from its file: scripts are imported by nobody. Raises UserError.

    Example (what the demo does):
        >>> load_recipe("supervised").run(["iterations=2", "name=trial"])    # doctest: +SKIP
    """
    module_name = f"s2f_rl_recipe_{name}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, recipe_script(name))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # where pickles of its functions look for them
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    main: Recipe = sys.modules[module_name].main
    return main


class Recipe:
    """A recipe's ``main`` function with its config. Made by :func:`recipe_main`."""

    def __init__(
        self,
        function: Callable[[DictConfig], object],
        config_name: str,
        folder: Path,
        schema: type | None = None,
        lenders: tuple[Path, ...] = (),
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.config_name = config_name
        self.folders = (folder, *lenders)
        self.schema = schema

    def compose(self, overrides: Sequence[str] = ()) -> DictConfig:
        """The checked and resolved config. Raises UserError."""
        overrides = opened(overrides, self.schema)
        cfg = compose_config(self.folders, self.config_name, overrides)
        return finish_config(cfg, self.folders, self.config_name, overrides, self.schema)

    def run(self, overrides: Sequence[str] = ()) -> Any:
        """Run the recipe in this process and return what it returns. Raises UserError for mistakes.

        Example:
            >>> main.run(["iterations=2", "name=trial"])               # doctest: +SKIP
        """
        return _within(self.function, self.compose(overrides))

    def __call__(self) -> None:
        """Run from ``sys.argv``, then leave the process with 0, 1 (a bug), 2 (the user's mistake), 3 (a run that
        diverged: its numbers were no longer finite) or 130 (Ctrl-C). A sweep leaves with the lowest of its jobs' codes
        that is not 0."""
        die_with_starter()
        arguments = opened(sys.argv[1:], self.schema)
        debug = any(re.fullmatch(r"\+{0,2}debug=(true|yes|on|1)", item, re.IGNORECASE) for item in arguments)
        show_log()
        with tempfile.TemporaryDirectory() as failures:
            try:
                job = _job(self, debug, _swept_keys(arguments), failures)
                with _hydra_surroundings(self, arguments):
                    folder = str(self.folders[0])
                    hydra.main(version_base="1.3", config_path=folder, config_name=self.config_name)(job)()
            except KeyboardInterrupt:
                _say("stopped by Ctrl-C; resume=true continues a run from its last checkpoint")
                sys.exit(130)
            except CONFIG_ERRORS as error:
                _report(explain(error, self.folders, self.config_name).with_traceback(error.__traceback__), debug)
                sys.exit(2)
            except (UserError, OSError) as error:
                if mistake_line(error) is None:
                    raise
                _report(error, debug)
                sys.exit(2)
            codes = [int(file.name[0]) for file in Path(failures).iterdir()]
        if codes:
            sys.exit(min(codes))


def _within(function: Callable[[DictConfig], object], cfg: DictConfig) -> object:
    """What the function returns; with ``parallel=ddp`` as one of the processes that torchrun started."""
    if OmegaConf.select(cfg, "parallel.kind") != "ddp":
        if ranks.under_torchrun():
            raise UserError("torchrun started several processes, which only parallel=ddp makes one run of; add it")
        return function(cfg)
    with ranks.joined(cfg.parallel.timeout_s):
        if not ranks.is_first():
            logging.getLogger("s2f_rl").setLevel(logging.ERROR)
        return function(cfg)


def _job(recipe: Recipe, debug: bool, swept: Sequence[str], failures: str) -> Callable[[DictConfig], object]:
    """The function that Hydra calls, perhaps in another process: an error is told where it happens.

    It is not raised on through Hydra, which would add lines of its own and, from another process, lose the traceback;
    the other jobs of a sweep go on. Files in the folder ``failures`` tell the first process of it.
    """
    function, folders, name, schema = recipe.function, recipe.folders, recipe.config_name, recipe.schema
    first = os.getpid()

    @functools.wraps(function)
    def job(cfg: DictConfig) -> object:
        if os.getppid() == first:  # a worker of a sweep, which nobody would end if the sweep were killed
            die_with(first)
        show_log()
        use_available_cores()
        context = HydraConfig.get()
        sweep = context.mode == RunMode.MULTIRUN
        overrides: Any = OmegaConf.to_container(context.overrides.task, resolve=False)
        try:
            if sweep and "name" in cfg and not OmegaConf.is_missing(cfg, "name") and "name" not in swept:
                with open_dict(cfg):
                    cfg.name = _sweep_name(str(cfg.name), swept, cfg, context.job.num)
            cfg = finish_config(cfg, folders, name, overrides, schema)
            with Watch(str(cfg.get("name", name)), enabled=bool(cfg.get("progress", True)), bar=False):
                return _within(function, cfg)
        except Exception as error:
            if isinstance(error, (HydraException, OmegaConfBaseException)):
                error = explain(error, folders, name).with_traceback(error.__traceback__)
            _report(error, debug, f"{cfg.get('name')}: " if sweep else "")
            tempfile.mkstemp(dir=failures, prefix=str(exit_code(error)))
            return None

    return job


@contextmanager
def _hydra_surroundings(recipe: Recipe, arguments: list[str]) -> Iterator[None]:
    """Hydra's own settings for a run, unless the user gave them; put back afterwards."""
    given = {item.split("=", 1)[0].lstrip("+~") for item in arguments}
    quiet = {**_QUIET, "hydra.sweep.dir": f"checkpoints/sweeps/{recipe.config_name}"}
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    ours = [*(f"{key}={value}" for key, value in quiet.items()), *search_path(recipe.folders)]
    ours = [item for item in ours if item.split("=", 1)[0] not in given]
    # Hydra's parser wants all overrides in one row: -m may stand among them, ours go beside them
    sweeps = [item for item in arguments if item in ("-m", "--multirun")]
    arguments = sweeps + [item for item in arguments if item not in sweeps]
    first = next((n for n, item in enumerate(arguments) if "=" in item and item[0] != "-"), len(arguments))
    sys.argv = [argv[0], *arguments[:first], *ours, *arguments[first:]]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us as exceptions instead of being printed by Hydra
    try:
        yield
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _swept_keys(arguments: Sequence[str]) -> list[str]:
    """Keys with several values on the command line; empty when something there is no override."""
    plain = [item for item in arguments if "=" in item and not item.startswith("-")]
    try:
        parsed = OverridesParser.create().parse_overrides(plain)
    except HydraException:  # Hydra itself will meet it again and be told in one line
        return []
    return [override.get_key_element().lstrip("+~") for override in parsed if override.is_sweep_override()]


def _sweep_name(name: str, swept: Sequence[str], cfg: DictConfig, number: int) -> str:
    """``ppo`` -> ``ppo_seed3_lr0.001``: one folder per job, and a sweep that is resumed finds it again."""
    leaves = [key.rsplit(".", 1)[-1] for key in swept]
    labels = [leaf if leaves.count(leaf) == 1 else key for leaf, key in zip(leaves, swept, strict=True)]
    choices = HydraConfig.get().runtime.choices
    values = [choices.get(key) if key in choices else OmegaConf.select(cfg, key) for key in swept]
    suffix = "_".join(f"{label}{value}" for label, value in zip(labels, values, strict=True)) or f"job{number}"
    suffix = re.sub(r"[^A-Za-z0-9._-]+", "-", suffix)
    if len(suffix) > 100:
        suffix = f"{suffix[:80]}-{hashlib.sha256(suffix.encode()).hexdigest()[:10]}"
    return f"{name}_{suffix}"


def exit_code(error: BaseException) -> int:
    """1 for a bug, 2 for the user's mistake, 3 for a run that diverged."""
    if isinstance(error, Diverged):
        return 3
    return 1 if mistake_line(error) is None else 2


def _report(error: BaseException, debug: bool, prefix: str = "") -> None:
    ranks.wait_for_turn()
    line = mistake_line(error)
    if debug or line is None:
        traceback.print_exception(type(error), error, error.__traceback__)
    else:
        _say(f"{prefix}{line}")


def _say(line: str) -> None:
    print(f"error: {one_line(line)}", file=sys.stderr, flush=True)
