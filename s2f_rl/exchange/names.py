"""A table that maps the names of a rig's shapes to those that another program wants."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import torch

from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.files import atomic_write_text, read_text
from s2f_rl.errors import UserError
from s2f_rl.exchange.live_link import arkit_name

_HEAD = ["name in the basis", "name outside"]


def write_names(path: str | os.PathLike[str], names: tuple[str, ...]) -> None:
    """Write a table to edit, atomically: each name, and beside it ARKit's where the spelling tells it, else itself."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_HEAD, *([name, arkit_name(name) or name] for name in names)])
    atomic_write_text(path, text.getvalue())


def renamed(basis: LinearBasis, path: str | os.PathLike[str]) -> LinearBasis:
    """The basis with the names of a table.

    Shapes that the table does not mention keep their names; those with nothing in the second column are left out.

    Args:
        path: CSV, two columns, a first row of headings.

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
        if inside not in basis.names:
            raise UserError(
                f"{path}: row {number}: the basis has no shape {inside[:60]!r}; it has {_some(basis.names)}"
            )
        if inside in table:
            raise UserError(f"{path}: row {number}: {inside[:60]!r} is named twice; keep one row of it")
        table[inside] = outside
    names = [table.get(name, name) for name in basis.names]
    kept = [k for k, name in enumerate(names) if name]
    if not kept:
        raise UserError(f"{path}: leaves every shape out; write names in the second column")
    try:
        return LinearBasis(
            basis.neutral, basis.shapes[kept], tuple(names[k] for k in kept), basis.bounds[torch.tensor(kept)]
        )
    except UserError as error:
        raise UserError(f"{path}: {str(error).removeprefix('basis: ')}") from error


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
