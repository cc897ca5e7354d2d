"""Progress bar with the numbers worth watching, and a log that does not tear it."""

from __future__ import annotations

import copy
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import SupportsFloat

from tqdm import tqdm

from s2f_rl import ranks
from s2f_rl.errors import one_line, printable
from s2f_rl.signs import Watch


class Progress:
    """A bar over iterations: frames per second and a few metrics behind it.

    Where stderr is no terminal a line every 30 s (:mod:`s2f_rl.signs`); silent when ``enabled`` is off.

    Args:
        total: iterations of the whole run.
        done: iterations done before (a resumed run).
        enabled: the recipe's ``progress`` switch.
        label: text before the bar.

    Example:
        >>> with Progress(total=100, label="ppo") as progress:          # doctest: +SKIP
        ...     progress.update(frames=800, metrics={"reward": 0.71, "loss_objective": -0.02})
    """

    def __init__(self, total: int, done: int = 0, enabled: bool = True, label: str = "") -> None:
        self.frames = 0
        self._started = time.monotonic()
        self._watch: Watch = Watch(label, total, done=done, enabled=enabled and ranks.is_first())

    def update(self, frames: int = 0, metrics: Mapping[str, SupportsFloat] | None = None) -> None:
        """One iteration more, with the frames it handled and the metrics to show."""
        self.frames += frames
        shown: dict[str, str] = {}
        if sys.stderr.isatty():  # a number that lies on a GPU is not asked for where nobody sees it
            shown = {key: f"{float(value):.4g}" for key, value in (metrics or {}).items()}
            if self.frames:
                shown["frames/s"] = f"{self.frames / (time.monotonic() - self._started):.0f}"
        self._watch.update(1, shown)

    def close(self) -> None:
        """Leave the finished bar on the screen."""
        self._watch.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _PlainFormatter(logging.Formatter):
    """One line per record unless the message itself has several; names from files cannot add any, or control signs."""

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.args, tuple):
            record = copy.copy(record)
            record.args = tuple(one_line(a) if isinstance(a, (str, Path, Exception)) else a for a in record.args or ())
        return "\n".join(printable(line) for line in super().format(record).split("\n"))


class _BarHandler(logging.Handler):
    """Writes log lines above a running bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


def show_log(level: int = logging.INFO) -> None:
    """Show this package's log on stderr, unless the program has set up logging itself. Calling twice is harmless."""
    log = logging.getLogger("s2f_rl")
    if log.handlers or logging.getLogger().handlers:
        return
    handler = _BarHandler()
    handler.setFormatter(_PlainFormatter("%(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(level)
