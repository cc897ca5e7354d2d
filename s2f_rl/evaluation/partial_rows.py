"""Rows that survive a kill: kept beside the table until the table itself is written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from s2f_rl.data.files import atomic_write_text
from s2f_rl.errors import UserError
from s2f_rl.evaluation.tables import Row


class PartialRows:
    """Finished rows in ``TABLE.part``, one JSON line each, appended as they come.

    The first line says what the rows depend on; a file about anything else is begun again. A last line that a kill
    cut short is left out.

    Args:
        table: the file that will hold the rows in the end; opening tells at once if its folder cannot be written.
        about: what all rows depend on, plain JSON values.

    Attributes:
        found: {key: row} of an earlier run.

    Raises:
        UserError: ``table`` is a folder, or its folder cannot be written.
    """

    def __init__(self, table: str | os.PathLike[str], about: Row) -> None:
        self.table = Path(table)
        self.path = self.table.with_name(self.table.name + ".part")
        if self.table.is_dir():
            raise UserError(f"{self.table}: is a folder; name a .csv file")
        self.found = self._read(about)
        # in one piece, so that a kill in here loses none of the earlier run's rows
        lines = (json.dumps(content) + "\n" for content in [about, *([key, row] for key, row in self.found.items())])
        try:
            atomic_write_text(self.path, "".join(lines))
            self._file = open(self.path, "a", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{self.table}: cannot be written ({error.strerror}); choose a writable folder") from error

    def add(self, key: str, row: Row) -> None:
        """Keep a finished row."""
        self._line([key, row])

    def finish(self, write: Callable[[Path, Sequence[Row]], None], rows: Sequence[Row]) -> None:
        """Write the table and delete the partial file."""
        write(self.table, rows)
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> PartialRows:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        if kind is not None and not self._has_rows():
            self.path.unlink(missing_ok=True)  # nothing to go on from

    def _line(self, content: object) -> None:
        self._file.write(json.dumps(content) + "\n")
        self._file.flush()

    def _has_rows(self) -> bool:
        try:
            return self.path.read_bytes().count(b"\n") > 1
        except OSError:
            return True

    def _read(self, about: Row) -> dict[str, Row]:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return {}
        try:
            if json.loads(lines[0]) != json.loads(json.dumps(about)):
                return {}
        except (IndexError, ValueError):
            return {}
        found = {}
        for line in lines[1:]:
            try:
                key, row = json.loads(line)
                found[str(key)] = dict(row)
            except (ValueError, TypeError):
                break
        return found
