"""Signs of life of what takes long: a bar on a terminal; elsewhere a line of the log every 30 seconds.

One line tells of everything that is under way, the outermost first:
``ppo 12/60, 5.2 s each, 0:04:10 left; evaluate 3/40, 1.4 each second, 0:00:26 left``.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from datetime import timedelta
from typing import TypeVar

logger = logging.getLogger(__name__)

EVERY_S = 30.0
T = TypeVar("T")


class Watch:
    """Something under way: a context, inside which :meth:`update` is called.

    Args:
        label: its name.
        total: how many there are; None: nobody knows.
        unit: what one is called beside the bar.
        done: how many were done before.
        enabled: off: neither bar nor lines.
        bar: off: nothing on a terminal, and elsewhere only while nothing else is under way; for a program as a whole.
        leave: leave the finished bar on the screen.
        delay: seconds before the bar appears.
        scale: shorten large numbers beside the bar.
        clock: seconds.
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        unit: str = "it",
        done: int = 0,
        enabled: bool = True,
        bar: bool = True,
        leave: bool = True,
        delay: float = 0.0,
        scale: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label, self.total, self.done, self.bar, self.clock = label, total, done, bar, clock
        self._first, self._started = done, clock()
        self._bar = None
        if enabled and not sys.stderr.isatty():
            _open(self)
        elif enabled and bar:
            from tqdm import tqdm

            self._bar = tqdm(
                total=self.total, initial=done, desc=label or None, unit=unit, unit_scale=scale, leave=leave,
                delay=delay, dynamic_ncols=True,
            )  # fmt: skip

    def update(self, n: int = 1, figures: Mapping[str, str] | None = None) -> None:
        """So many more are done; ``figures`` are shown behind the bar."""
        self.done += n
        if self._bar is not None:
            if figures:
                self._bar.set_postfix(figures, refresh=False)
            self._bar.update(n)

    def text(self) -> str:
        """How far it is, how fast, and the time that is left or, before the first is done, has passed."""
        passed, n = self.clock() - self._started, self.done - self._first
        words = [self.label if self.total is None and not n else f"{self.label} {self.done}"]
        if self.total is not None:
            words[0] = f"{self.label} {self.done}/{self.total}"
        if not n or passed <= 0:
            return f"{words[0]}, {_span(passed)} so far"
        words.append(f"{n / passed:.3g} each second" if n > passed else f"{passed / n:.3g} s each")
        if self.total is not None:
            words.append(f"{_span((self.total - self.done) * passed / n)} left")
        return ", ".join(words)

    def close(self) -> None:
        """It is over."""
        _close(self)
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def watched(
    items: Iterable[T],
    label: str,
    total: int | None = None,
    unit: str = "it",
    enabled: bool = True,
    leave: bool = True,
    delay: float = 0.0,
) -> Iterator[T]:
    """The items, while a :class:`Watch` counts them; ``total``: by default their number, where they have one."""
    total = len(items) if total is None and isinstance(items, Sized) else total
    with Watch(label, total, unit, enabled=enabled, leave=leave, delay=delay) as watch:
        for item in items:
            yield item
            watch.update()


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


_lock = threading.Lock()
_under_way: list[Watch] = []
_heart: threading.Thread | None = None


def _open(watch: Watch) -> None:
    global _heart
    with _lock:
        _under_way.append(watch)
        if _heart is None or not _heart.is_alive():
            # of the process alone, so that a step of any length is told of; the end of the process ends it
            _heart = threading.Thread(target=_beat, name="signs of life", daemon=True)
            _heart.start()


def _close(watch: Watch) -> None:
    with _lock:
        _under_way[:] = [each for each in _under_way if each is not watch]


def _beat() -> None:
    while True:
        time.sleep(EVERY_S)
        with _lock:
            told = [watch for watch in _under_way if watch.bar] or _under_way
            texts = [watch.text() for watch in told]
        if texts:
            logger.info("%s", "; ".join(texts))
