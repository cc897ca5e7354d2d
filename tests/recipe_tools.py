"""Recipes are scripts: import them from their files."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

RECIPES = Path(__file__).parents[1] / "recipes"


def load_recipe(name: str):
    """The recipe's ``main``, imported from its file (recipes are scripts, not modules of the package)."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pickling of workers' functions needs to find it
    spec.loader.exec_module(module)
    return module.main
