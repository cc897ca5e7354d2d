"""Where a row or a file comes from: the commit of the running source and the versions that change numbers."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import s2f_rl


@lru_cache(maxsize=1)
def source_commit() -> str | None:
    """Commit of the running source, ``+dirty`` with uncommitted changes; None outside a git checkout."""
    here = Path(s2f_rl.__file__).parent
    try:
        # an installed copy may lie inside somebody else's repository: ask whether git tracks this very file
        _git(here, "ls-files", "--error-unmatch", "__init__.py")
        return _git(here, "describe", "--always", "--dirty=+dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


@lru_cache(maxsize=1)
def package_versions() -> str:
    """Versions that change numbers, as one short string: ``python 3.11.7, s2f_rl 0.1.0, torch 2.13.0, ...``."""
    found = [f"python {platform.python_version()}"]
    for package in ("s2f_rl", "torch", "torchrl", "tensordict", "transformers", "numpy"):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
