"""Batches made ahead: the next one in threads, while the loop uses the last.

What is random about a batch is planned in the loop, in order; making it draws from generators of its own parts. So the
numbers are the same with any number of threads, and with none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from s2f_rl.threads import one_thread

Part = TypeVar("Part")
Batch = TypeVar("Batch")


class Sampler(Protocol):
    """What says where its draws are, and goes on from there."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor], /) -> object: ...


@dataclass
class Planned(Generic[Part, Batch]):
    """A batch that is yet to be made: its parts, which depend on nothing but themselves, and what makes them one."""

    jobs: Sequence[Callable[[], Part]]
    join: Callable[[list[Part]], Batch]

    def made(self) -> Batch:
        """Make it here."""
        return self.join([job() for job in self.jobs])


class DrawAhead(Generic[Part, Batch]):
    """The batches of iterations that follow each other, each begun when the one before it is handed out.

    Its state is that of the sampler when the batch in use was planned: a resumed run makes the next one again.

    Args:
        sampler: what ``plan`` draws from.
        plan: iteration -> its batch.
        last: the last iteration.
        threads: that make batches; 0: every batch is made when it is asked for.

    Example:
        >>> with DrawAhead(sampler, lambda iteration: sampler.plan(), last=100, threads=2) as draws:  # doctest: +SKIP
        ...     batch = draws(1)
    """

    def __init__(self, sampler: Sampler, plan: Callable[[int], Planned[Part, Batch]], last: int, threads: int) -> None:
        self.sampler, self.plan, self.last = sampler, plan, last
        self._pool = ThreadPoolExecutor(threads, "draw") if threads else None
        self._begun: tuple[int, list[Future[Part]], Planned[Part, Batch], dict[str, Tensor]] | None = None
        self._state: dict[str, Tensor] | None = None

    def __call__(self, iteration: int) -> Batch:
        """The batch of an iteration."""
        if self._begun is None or self._begun[0] != iteration:
            self._begin(iteration)
        assert self._begun is not None
        _, futures, planned, self._state = self._begun
        self._begun = None
        if self._pool is None:
            return planned.made()
        batch = planned.join([future.result() for future in futures])
        if iteration < self.last:
            self._begin(iteration + 1)
        return batch

    def _begin(self, iteration: int) -> None:
        planned = self.plan(iteration)
        futures = [] if self._pool is None else [self._pool.submit(_alone, job) for job in planned.jobs]
        self._begun = iteration, futures, planned, self.sampler.state_dict()

    def state_dict(self) -> dict[str, Tensor]:
        """State of the sampler after the batch in use; before the first, as it is."""
        return self.sampler.state_dict() if self._state is None else self._state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._begun = self._state = None
        self.sampler.load_state_dict(state)

    def __enter__(self) -> DrawAhead[Part, Batch]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _alone(job: Callable[[], Part]) -> Part:
    with one_thread():
        return job()
