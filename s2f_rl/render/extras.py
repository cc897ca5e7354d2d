"""Packages of the ``render`` extra: imported when first needed, and missed with a remedy."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from s2f_rl.errors import UserError


def import_extra(module: str) -> ModuleType:
    """Import a module of the ``render`` extra. Raises UserError with the command that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        package = {"PIL": "Pillow"}.get(module.split(".")[0], module.split(".")[0])
        raise UserError(f'rendering needs {package} ({error}); run: pip install "s2f_rl[render]"') from error
