"""Where the recipes lie, what each does, and copies of them to edit. Nothing heavy is loaded.

In a checkout they are ``recipes/``, beside the package; a wheel holds the same files as ``s2f_rl/_recipes``.
"""

from __future__ import annotations

import ast
import difflib
import importlib.machinery
import re
import sys
import sysconfig
from pathlib import Path

import s2f_rl
from s2f_rl.errors import UserError

CONF = "conf"

_GROUPS_TOLD = """\
# Config groups that this folder lacks (corpus, shared/rl, ...) are those that come with s2f_rl; a file here wins.
"""


def recipes_folder() -> Path:
    """The folder of the scripts; their configs are in ``conf`` in it."""
    package = Path(s2f_rl.__file__).resolve().parent
    shipped = package / "_recipes"
    return shipped if shipped.is_dir() else package.parent / "recipes"


def recipe_names() -> list[str]:
    """The recipes, sorted."""
    folder = recipes_folder()
    return sorted(path.stem for path in folder.glob("*.py") if (folder / CONF / f"{path.stem}.yaml").is_file())


def recipe_script(name: str) -> Path:
    """The script of a recipe. Raises UserError, naming the known ones."""
    known = recipe_names()
    if name in known:
        return recipes_folder() / f"{name}.py"
    if not known:
        raise UserError(f"{recipes_folder()}: holds no recipes; install s2f_rl again")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"{name}: no such recipe; {hint}known are {', '.join(known)}")


def recipe_summary(name: str) -> str:
    """The first line of a recipe's docstring."""
    text = ast.get_docstring(ast.parse(recipe_script(name).read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def copy_recipe(name: str, to: str | Path, force: bool = False) -> tuple[Path, Path]:
    """Copy a recipe's script and config to edit: ``my_ppo.py`` and, in the folder ``conf`` beside it, ``my_ppo.yaml``.

    The copy runs as ``python my_ppo.py key=value ...``, and its runs are named ``my_ppo``. Its schema and all that it
    imports stay those of the installed package, and so do the config groups that its own ``conf`` lacks. The config is
    in a folder of its own because Hydra would take any folder beside it, a run's or a corpus's, for a config group.

    Args:
        name: of the recipe.
        to: the new script, or a folder for one of the recipe's own name.
        force: replace files that are there.

    Returns:
        the new script and its config.

    Raises:
        UserError: an unknown recipe, a name that is none for a script or that of a module, a file that is there.
    """
    # loads numpy, which a list of the recipes does without
    from s2f_rl.data.files import atomic_write_text, require_target

    source = recipe_script(name)
    to = Path(to)
    script = to / f"{name}.py" if to.is_dir() else to
    if script.suffix != ".py" or not re.fullmatch(r"[A-Za-z][\w-]*", script.stem, re.ASCII):
        raise UserError(f"{script}: not a name for the copy; use letters, digits, '-' and '_', and end it in .py")
    if _is_module(script.stem):
        raise UserError(f"{script}: would be imported in place of the module {script.stem}; choose another name")
    if not script.parent.is_dir():
        raise UserError(f"{script.parent}: no such folder; make it first")
    config = script.parent / CONF / f"{script.stem}.yaml"
    for path in (script, config):
        if path.exists() and path.resolve().is_relative_to(recipes_folder()):
            raise UserError(f"{path}: the recipe itself; choose another name")
        if path.exists() and not force:
            raise UserError(f"{path}: is there already; choose another name, or replace it with --force")
        require_target(path)
    text = source.read_text(encoding="utf-8").replace(f"recipes/{name}.py", script.name)
    text = re.sub(rf'(@recipe_main\()"{name}"(, \w+)\)', rf'\1"{script.stem}"\2, shipped_groups=True)', text)
    settings = (source.parent / CONF / f"{name}.yaml").read_text(encoding="utf-8")
    settings = settings.replace(f"recipes/{name}.py", script.name)
    settings = re.sub(rf"^name: {name}$", f"name: '{script.stem}'", settings, flags=re.MULTILINE)
    is_new = not config.exists()
    config.parent.mkdir(exist_ok=True)
    atomic_write_text(config, _GROUPS_TOLD + settings)
    try:
        atomic_write_text(script, text)
    except UserError:
        if is_new:  # alone, it would only be in the way of the next try
            config.unlink()
        raise
    return script, config


def _is_module(name: str) -> bool:
    """Whether Python or an installed package has a module of this name, which a script's folder goes before."""
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(Path(s2f_rl.__file__).parents[1])}
    found = importlib.machinery.PathFinder.find_spec(name, sorted(places))
    return name in sys.stdlib_module_names or (found is not None and found.origin is not None)
