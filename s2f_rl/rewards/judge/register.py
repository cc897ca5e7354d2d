"""The list of judges: which models may score a policy and never train one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from s2f_rl.data.files import atomic_write_json, load_json, require_target
from s2f_rl.errors import UserError


def _registered(judges_file: str | os.PathLike[str]) -> list[dict[str, object]]:
    """Entries of a list of judges, each with ``name`` and ``hash`` at least; none where the file does not exist yet.

    Raises:
        UserError: the file is no such list.
    """
    path = Path(judges_file)
    if not path.exists():
        return []
    entries = load_json(path)
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("hash"), str) and isinstance(entry.get("name"), str)
        for entry in entries
    ):
        raise UserError(f"{path}: not a list of judges with name and hash; mend it or name another file")
    return entries


def require_register(judges_file: str | os.PathLike[str]) -> None:
    """Raise UserError unless :func:`register_judge` could add to the file; asked before hours of training."""
    require_target(judges_file)
    _registered(judges_file)


def register_judge(judges_file: str | os.PathLike[str], entry: Mapping[str, object]) -> None:
    """Append ``entry`` (``name``, ``hash``, and where it comes from) to a list of judges, atomically.

    The same hash is written once: registering a judge again changes nothing.
    """
    entries = _registered(judges_file)
    if all(known["hash"] != entry["hash"] for known in entries):
        atomic_write_json(judges_file, [*entries, dict(entry)])
