"""Which utterances a folder holds."""

from __future__ import annotations

import os
from pathlib import Path

from s2f_rl.errors import UserError


def list_sounds(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """{name: file} of the ``NAME.wav`` in a folder, sorted by name, the suffix in any case; nothing without a folder.

    Hidden files (half-written ones, and those of other systems) are left out.

    Raises:
        UserError: the folder cannot be listed, or two files have one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(_entries(Path(folder))):
        if path.suffix.lower() != ".wav" or path.name.startswith("."):
            continue
        other = found.setdefault(path.stem, path)
        if other is not path:
            raise UserError(f"{path}: differs from {other.name} only in case; rename or remove one of them")
    return dict(sorted(found.items()))


def list_names(folder: Path, suffix: str) -> set[str]:
    """Names of the entries of a folder with a suffix; hidden ones left out. Raises UserError as list_sounds."""
    names = (path.name for path in _entries(folder))
    return {name[: -len(suffix)] for name in names if name.endswith(suffix) and not name.startswith(".")}


def _entries(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder)]
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise UserError(f"{folder}: is a file where a folder is expected; move it away") from None
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error
