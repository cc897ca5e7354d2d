"""Processes that train as one, each on its part of every batch: what they exchange through ``torch.distributed``.

A *rank* is one of R processes that ``torchrun`` starts. All hold the same weights and take the same steps; each draws,
plays and rewards its own share of the lanes. Averages that enter a gradient are over all ranks, so that a step is the
one that a single process makes on the whole batch. In a run of one process every function here gives back what it got,
and nothing heavy is loaded for it.

A sum over a rank's frames divided by :func:`mean_count` of them, averaged over the ranks, is the mean over all frames:

    1/R sum_r (s_r / (N/R)) = sum_r s_r / N
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from s2f_rl.errors import UserError

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist
    from torch import Tensor

T = TypeVar("T")
_STARTED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun tells every process
_PATIENCE = timedelta(days=365)
_TURN_S = 10.0
_groups: dict[str, dist.ProcessGroup] = {}  # "patient": for what may take as long as it wants


class RankLost(UserError):
    """Another rank ended, or did not answer in time."""


class FirstFailed(UserError):
    """What the first rank did for all failed there, as it says itself."""


def count() -> int:
    """R, 1 in a run of one process."""
    if not _groups:
        return 1
    import torch.distributed as dist

    return dist.get_world_size()


def rank() -> int:
    """This process's number, 0 to R - 1."""
    if not _groups:
        return 0
    import torch.distributed as dist

    return dist.get_rank()


def is_first() -> bool:
    """Whether this process is the one that writes, logs and speaks."""
    return rank() == 0


def under_torchrun() -> bool:
    """Whether this process was started as one of several."""
    return all(name in os.environ for name in _STARTED) and os.environ["WORLD_SIZE"] != "1"


@contextlib.contextmanager
def joined(timeout_s: float) -> Iterator[None]:
    """Within, this process is one of those that torchrun started.

    Args:
        timeout_s: how long a rank waits for the others in an exchange before it gives up.

    Raises:
        UserError: it was not started by torchrun, or the others cannot be reached.
        RankLost: a rank ended inside.
    """
    import torch
    import torch.distributed as dist

    if not all(name in os.environ for name in _STARTED):
        raise UserError(
            "parallel=ddp: this is one process; start it by torchrun --nproc-per-node 2 recipes/NAME.py parallel=ddp"
        )
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
        _groups["patient"] = dist.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"parallel=ddp: the ranks do not find each other ({str(error)[:200]})") from error
    people = _people()
    before = signal.signal(signal.SIGTERM, lambda *_: _ended_by_torchrun(people))
    try:
        yield
    except BaseException as error:
        # destroying the group would wait for ranks that are somewhere else; the process ends soon
        _groups.clear()
        if not isinstance(error, RankLost):  # which is told when torchrun ends this rank as well
            signal.signal(signal.SIGTERM, before)
        raise
    signal.signal(signal.SIGTERM, before)
    _groups.clear()
    dist.destroy_process_group()


def share_of(total: int, what: str) -> int:
    """This rank's part of a count that is meant for all. Raises UserError if it cannot be divided."""
    if total % count():
        raise UserError(f"{what}={total} must be a multiple of the {count()} ranks that share it")
    return total // count()


def step_seed(seed: int, *numbers: int) -> int:
    """A seed of 63 bits for numbers such as rank and iteration, without a pattern between neighbours."""
    import numpy as np

    return int(np.random.SeedSequence([seed, *numbers]).generate_state(1, np.uint64)[0] >> 1)


def total(x: Tensor) -> Tensor:
    """Sum of ``x`` over the ranks."""
    if count() == 1:
        return x
    import torch.distributed as dist

    out = x.detach().clone()
    with _exchange():
        dist.all_reduce(out)
    return out


def mean(x: Tensor) -> Tensor:
    """Mean of ``x`` over the ranks, without gradient."""
    return x if count() == 1 else total(x) / count()


def mean_count(n: Tensor) -> Tensor:
    """Mean over the ranks of a count ``n``; see above. In a single process the count itself."""
    return n if count() == 1 else (total(n) / count()).float()


def share(n: Tensor) -> Tensor | float:
    """``n`` over :func:`mean_count`: a rank's mean over ``n`` frames times this, averaged, is the mean over all."""
    return 1.0 if count() == 1 else n / mean_count(n).clamp_min(1e-6)


def any_of(flag: bool) -> bool:
    """Whether ``flag`` holds on any rank."""
    import torch

    return flag if count() == 1 else bool(total(torch.tensor(float(flag))) > 0)


def average(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Means over the ranks in one exchange; None where every rank has none, and 0 for a rank that alone has none.

    Args:
        tensors: of the same shapes on every rank where there are any, of one device; no more than one type.
    """
    import torch
    import torch.distributed as dist

    if count() == 1:
        return list(tensors)
    sizes = torch.tensor([0 if x is None else x.numel() for x in tensors])
    with _exchange():
        dist.all_reduce(sizes, dist.ReduceOp.MAX)
    some = next((x for x in tensors if x is not None), torch.zeros(0))
    lengths: list[int] = sizes.tolist()
    parts = [some.new_zeros(n) if x is None else x.detach().flatten() for x, n in zip(tensors, lengths, strict=True)]
    out: list[Tensor | None] = []
    for x, each, n in zip(tensors, mean(torch.cat(parts)).split(lengths), lengths, strict=True):
        out.append(None if not n else each if x is None else each.view_as(x))
    return out


def average_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks."""
    if count() == 1:
        return
    for parameter, gradient in zip(parameters, average([p.grad for p in parameters]), strict=True):
        parameter.grad = None if gradient is None else gradient.view_as(parameter)


def rows_of_all(x: Tensor) -> Tensor:
    """Rows [N_r, ...] of every rank in the order of ranks, [sum N_r, ...]; numbers of rows may differ. No gradient."""
    import torch
    import torch.distributed as dist

    if count() == 1:
        return x
    lengths = total(torch.nn.functional.one_hot(torch.tensor(rank()), count()) * len(x)).tolist()
    padded = x.new_zeros(max(lengths), *x.shape[1:])
    padded[: len(x)] = x
    out = [torch.empty_like(padded) for _ in lengths]
    with _exchange():
        dist.all_gather(out, padded)
    return torch.cat([each[:n] for each, n in zip(out, lengths, strict=True)])


def rows_with_gradient(x: Tensor) -> Tensor:
    """:func:`rows_of_all` of [N_r, ...], differentiable: a rank's rows get the gradients of the losses of all ranks.

    A loss that every rank takes of all rows, whose parameter gradients are then averaged, has the gradient that one
    process has.
    """
    if count() == 1:
        return x
    import torch

    with torch.no_grad():
        lengths = rows_of_all(torch.tensor([len(x)])).tolist()
        before, _, after = rows_of_all(x).split([sum(lengths[: rank()]), len(x), sum(lengths[rank() + 1 :])])
    rows = torch.cat([before, x, after])
    if rows.requires_grad:
        rows.register_hook(total)
    return rows


def alone(function: Callable[[], T]) -> T:
    """What ``function`` returns on the first rank, for all; the others wait however long it takes.

    Args:
        function: its result is numbers, text, truth values, None, and lists and dicts of these.

    Raises:
        FirstFailed: on the others, what failed on the first; there the error itself.
    """
    import torch
    import torch.distributed as dist

    if count() == 1:
        return function()
    text = b""
    if is_first():
        try:
            text = json.dumps(function()).encode()
        except BaseException:
            with contextlib.suppress(RuntimeError):
                dist.broadcast(torch.tensor([-1]), 0, group=_groups["patient"])
            raise
    length = torch.tensor([len(text)])
    with _exchange():
        dist.broadcast(length, 0, group=_groups["patient"])
        if length < 0:
            raise FirstFailed("the first rank could not go on; see what it says")
        sent = torch.tensor(list(text) or [0] * int(length), dtype=torch.uint8)
        dist.broadcast(sent, 0, group=_groups["patient"])
    found: T = json.loads(bytes(sent.tolist()))
    return found


def same_weights(weights: Iterable[Tensor]) -> None:
    """Give every rank the first one's weights."""
    import torch
    import torch.distributed as dist

    if count() == 1:
        return
    with torch.no_grad(), _exchange():
        for each in weights:
            dist.broadcast(each.data, 0)


def wait_for_turn() -> None:
    """Let the first rank speak before this one does, which then mostly has been ended by torchrun."""
    if under_torchrun() and os.environ["RANK"] != "0":
        time.sleep(_TURN_S)


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch has one for gloo and for NCCL, and none of its own for this
        raise RankLost(
            "parallel=ddp: another rank ended, or did not answer within parallel.timeout_s; resume=true goes on from "
            f"the last checkpoint ({str(error).splitlines()[0][:120]})"
        ) from error


def _people() -> list[tuple[str, int]]:
    """Host and process number of every rank."""
    import torch

    name = f"{socket.gethostname()[:200]}\n{os.getpid()}".ljust(256).encode()[:256]
    rows = rows_of_all(torch.frombuffer(bytearray(name), dtype=torch.uint8)[None])
    told = [bytes(row.tolist()).decode(errors="replace").split() for row in rows]
    return [(each[0], int(each[-1])) for each in told]


def _ended_by_torchrun(people: Sequence[tuple[str, int]]) -> None:
    """torchrun ends all ranks when one has ended: the first that is left on this host says so."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    here = [process for host, process in people if host == socket.gethostname()]
    left = [process for process in here if _lives(process)]
    if left[:1] == [os.getpid()]:
        why = "a rank ended, or torchrun was told to stop"
        sys.stderr.write(f"error: stopped, because {why}; resume=true goes on from the last checkpoint\n")
        sys.stderr.flush()
    os._exit(1)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True
