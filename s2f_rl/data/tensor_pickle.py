"""A dry run of the pickle inside a checkpoint, before torch runs it.

``torch.load(weights_only=True)`` calls nothing dangerous, but it hashes, copies and allocates whatever a file asks for.
Here the same program runs with stand-ins in place of tensors and with the bounds of :class:`BoundedUnpickler`.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import IO, Any, ClassVar

from s2f_rl.data.bounded_pickle import BoundedUnpickler
from s2f_rl.data.plain_pickle import CONSTRUCTORS, Finish
from s2f_rl.errors import UserError

_TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")
_CALLED = {
    *(("torch._utils", name) for name in (*_TENSORS, "_rebuild_parameter_with_state")),
    ("torch", "Size"),
    ("torch", "device"),
}
_PLAIN = {("collections", "OrderedDict"), ("_codecs", "encode")} | {
    (module, name) for module in ("builtins", "__builtin__") for name in ("set", "complex")
}
_MOST_PARTS = 10**6
_LEGACY_PARTS = 5  # magic number, version, system, content, names of the storages


class _StandIn:
    """Stands for what a checkpoint names or what a call would give; it has nothing that a pickle could use."""

    __slots__ = ("callable_name",)

    def __init__(self, callable_name: str | None = None) -> None:
        self.callable_name = callable_name

    def __call__(self, *_: object) -> _StandIn:
        if self.callable_name is not None:
            raise UserError(f"calls {self.callable_name[:80]}, which no checkpoint of plain tensors needs")
        return _StandIn("the result of a call")

    def __setstate__(self, state: object) -> None:
        raise UserError("sets attributes of something that is no plain data")


class DryRun(BoundedUnpickler):
    """Runs a checkpoint's pickle without torch; see the module.

    Args:
        file: at the start of a pickle.
        records: bytes of each storage by name, None where the file does not tell beforehand (the format before 2020).

    Raises:
        UserError: from :meth:`load`; calls of anything but what builds plain tensors, storages that are not there or
            of another size, containers that hold themselves, and all that :class:`BoundedUnpickler` refuses.
    """

    def __init__(self, file: IO[bytes], records: dict[str, int] | None = None) -> None:
        super().__init__(file)
        self._records = records
        self._storages: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return CONSTRUCTORS[module, name]
        return _StandIn(None if (module, name) in _CALLED else f"{module}.{name}")

    def persistent_load(self, pid: object) -> Any:
        self.spend(pid)
        if not isinstance(pid, tuple) or len(pid) < 5 or not isinstance(pid[2], str) or type(pid[4]) is not int:
            raise UserError("refers to a storage in an unknown way")
        name, n_elements = pid[2], pid[4]
        if any(part is not None for part in pid[5:]):
            raise UserError("refers to a part of a storage, which only very old files do; save it again")
        largest = self.size if self._records is None else self._records.get(name, -1)
        self._storages[name] = n_elements
        if not 0 <= n_elements <= largest or self._records is None and sum(self._storages.values()) > self.size:
            raise UserError(f"states {n_elements} numbers in storage {name[:40]!r}, which the file does not hold")
        return _StandIn("a storage")

    def _load_newobj(self) -> None:
        raise UserError("makes an object, which no checkpoint of plain tensors needs")

    def _load_build(self) -> None:
        state, thing = self.stack[-1], self.stack[-2]
        # torch gives the state dict of a module one attribute; others could replace its methods
        if not isinstance(thing, OrderedDict) or not isinstance(state, dict) or set(state) != {"_metadata"}:
            raise UserError("sets attributes, which no checkpoint of plain tensors needs")
        self.spend(self.stack.pop())

    dispatch: ClassVar[dict[int, object]] = {
        **BoundedUnpickler.dispatch,
        pickle.NEWOBJ[0]: _load_newobj,
        pickle.NEWOBJ_EX[0]: _load_newobj,
        pickle.INST[0]: _load_newobj,
        pickle.OBJ[0]: _load_newobj,
        pickle.BUILD[0]: _load_build,
    }

    def load(self) -> Any:
        return Finish(_MOST_PARTS + self.size, circular=False).of(super().load(), 0)[0]


def vet_legacy(file: IO[bytes]) -> None:
    """Dry run of a checkpoint in the format before 2020, five pickles in a row. Raises as :meth:`DryRun.load`."""
    for _ in range(_LEGACY_PARTS):
        run = DryRun(file)
        content = run.load()
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise UserError("does not list its storages")
