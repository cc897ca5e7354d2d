"""A table that maps the names of a rig's shapes to those that another program wants."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

from s2f_rl.data.coefficients.arkit import arkit_name
from s2f_rl.data.coefficients.basis import LinearBasis, names_problem
from s2f_rl.data.files import atomic_write_text, read_text
from s2f_rl.errors import UserError

_HEAD = ["name in the basis", "name outside"]


def write_names(path: str | os.PathLike[str], names: tuple[str, ...]) -> None:
    """Write a table to edit, atomically: each name, and beside it ARKit's where the spelling tells it, else itself."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_HEAD, *([name, arkit_name(name) or name] for name in names)])
    atomic_write_text(path, text.getvalue())


def read_names(path: str | os.PathLike[str], names: tuple[str, ...]) -> dict[int, str]:
    """The shapes that a table leaves, by their number in ``names``, with their names outside.

    Shapes that the table does not mention keep their names; those with nothing in the second column are left out.

    Args:
        path: CSV, two columns, a first row of headings.
        names: of the basis.

    Raises:
        UserError: no such file or table, a name that the basis has not, one given twice, or nothing left.
    """
    path = Path(path)
    rows = [row for row in csv.reader(io.StringIO(read_text(path))) if any(cell.strip() for cell in row)]
    table: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != 2:
            raise UserError(
                f"{path}: row {number} has {len(row)} columns; write the name in the basis, the name outside"
            )
        inside, outside = row[0].strip(), row[1].strip()
        if inside not in names:
            raise UserError(f"{path}: row {number}: the basis has no shape {inside[:60]!r}; it has {_some(names)}")
        if inside in table:
            raise UserError(f"{path}: row {number}: {inside[:60]!r} is named twice; keep one row of it")
        table[inside] = outside
    kept = {k: table.get(name, name) for k, name in enumerate(names) if table.get(name, name)}
    if not kept:
        raise UserError(f"{path}: leaves every shape out; write names in the second column")
    problem = names_problem(tuple(kept.values()))
    if problem is not None:
        raise UserError(f"{path}: {problem}")
    return kept


def renamed(basis: LinearBasis, kept: Mapping[int, str]) -> LinearBasis:
    """The basis with the shapes and names of :func:`read_names`."""
    which = list(kept)
    return LinearBasis(basis.neutral, basis.shapes[which], tuple(kept.values()), basis.bounds[which])


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
