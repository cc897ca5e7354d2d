"""The folder of one run: config, checkpoints, rows; never deleted, never overwritten by accident."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

import yaml
from torch import Tensor

from s2f_rl import ranks
from s2f_rl.data.files import atomic_write_text
from s2f_rl.data.shared_tensors import SharedTensors, is_shared_file, share_tensors, without_shared
from s2f_rl.data.temporary import remove_leftovers
from s2f_rl.errors import Diverged, NotFinite, UserError
from s2f_rl.runs.checkpoints import load_checkpoint, save_checkpoint
from s2f_rl.runs.inputs import keep_inputs
from s2f_rl.runs.report.write import FILE as REPORT
from s2f_rl.runs.report.write import report_at_end
from s2f_rl.runs.rows import MetricsRows

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

# what changes no number; iterations changes how far the run goes, and a learning rate that decays towards its end;
# parallel changes which process draws which noise
MAY_CHANGE = (
    "resume",
    "debug",
    "progress",
    "logger",
    "logger_online",
    "logger_films",
    "page",
    "checkpoint_minutes",
    "draw_threads",
    "device",
    "root",
    "iterations",
    "corpus.cache",
    "parallel",
)

BEFORE = {
    "actor.kind": "faceformer",
    "evaluation.max_closure_drop": None,
    "evaluation.stride": 1,
    "evaluation.styles": None,
    "exploration.changed_codes": 0.07,
    "optimizer.encoder_lr_factor": 1.0,
    "placebo": False,
    "precision": "float32",
    "reward.precision": "float32",
    "supervised.feature_weight": 1.0,
    "train_encoder": False,
}
"""Keys that came later, and the value that says what runs did before; any key that is null is off, as it was."""

SAME = {"credit": ("discounted", None)}
"""Values of a key that mean the same for every run that was begun with the first of them."""

WAIT_S = 5.0
"""How long a run that goes on waits for the process before it, which was killed and may still be ending."""


class RunFolder:
    """``root/name/`` with ``config.yaml``, ``last.pt``, ``best.pt``, ``metrics.jsonl`` and whatever the recipe adds.

    With :meth:`share`, ``encoder-<hash>.pt`` holds what all checkpoints have in common.

    ``inputs.json`` holds what the run reads, by content (:mod:`s2f_rl.runs.inputs`). Where the config has a ``page``,
    leaving the folder without an error writes ``report.html`` (:mod:`s2f_rl.runs.report`), unless it is there and newer
    than ``last.pt``.

    Args:
        name: run name; may hold ``/`` for grouping (``bench/ppo_seed1``), never leaves ``root``.
        root: parent of all runs, relative to the working directory.
        config: resolved config (plain dict or OmegaConf), written to ``config.yaml``; the files that it names are
            remembered by content.
        resume: go on in a folder that exists. With nothing in it yet, the run simply starts.
        may_change: config keys (with everything under them) that a resumed run may change.
        seed: written into every metrics row; None takes ``config["seed"]``.
        hashes: of what else the run depends on, by config key; remembered as well.

    Attributes:
        path: the folder.
        resuming: there is a ``last.pt`` to go on from.
        rows: the run's :class:`~s2f_rl.runs.rows.MetricsRows`.

    Raises:
        UserError: the run exists and ``resume`` is off, its config or what it reads differs, another process works in
            it, or the name is no folder name.

    Example:
        >>> folder = RunFolder(cfg.name, root=cfg.root, config=cfg, resume=cfg.resume)   # doctest: +SKIP
        >>> if folder.resuming:                                                          # doctest: +SKIP
        ...     state.load_state_dict(folder.load_checkpoint("last.pt"))
        ...     folder.rows.cut_after(state.iteration)
    """

    _page = "none"
    _page_before: object = None

    def __init__(
        self,
        name: str,
        root: str | Path = "checkpoints",
        config: Mapping[str, Any] | None = None,
        resume: bool = False,
        may_change: tuple[str, ...] = MAY_CHANGE,
        seed: int | None = None,
        hashes: Mapping[str, str] | None = None,
    ) -> None:
        if problem := name_problem(str(name)):
            raise UserError(f"name={ascii(str(name))[1:-1][:80]}: {problem}")
        self.name = str(name)
        self.path = Path(root) / self.name
        self._shared: SharedTensors | None = None
        plain = _plain_config(config)
        self._page = "none" if config is None else str(config.get("page", "none"))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be made ({error.strerror}); choose another root or name") from error
        self._lock = self._take_lock(WAIT_S if resume else 0.0)
        self._saved_at = time.monotonic()
        try:
            remove_leftovers(self.path)
            if self._has_content() and not resume:
                raise UserError(
                    f"{self.path}: this run exists; continue it with resume=true or start another with name=...; "
                    "nothing is deleted for you"
                )
            if plain is not None:
                if resume:
                    self._compare_config(plain, may_change)
                keep_inputs(self.path, plain, resume, hashes)
                text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
                atomic_write_text(self.path / "config.yaml", text)
        except BaseException:
            self.close()
            raise
        self.resuming = resume and (self.path / "last.pt").exists()
        if seed is None:
            seed = int((plain or {}).get("seed") or 0)
        self.rows = MetricsRows(self.path / "metrics.jsonl", seed=seed)
        if resume and not self.resuming:
            logger.info("%s: no last.pt to resume from, starting from the beginning", self.path)
            self.rows.cut_after(-1)

    def __truediv__(self, name: str) -> Path:
        """``folder / "predictions"`` is a path in the folder."""
        return self.path / name

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        try:
            if error is None and self._page != "none" and self.rows.path.exists() and not self._has_page():
                report_at_end(self.path, self._page)
        finally:  # Ctrl-C during the films
            self.close()
        if isinstance(error, NotFinite):  # whatever found it, the run that it happened in has diverged
            kept = "and its last checkpoint stays" if any(self.path.glob("*.pt")) else "before its first checkpoint"
            raise Diverged(f"{self.path}: the run diverged {kept}: {error}") from error

    def _has_page(self) -> bool:
        """Whether the page is of the last checkpoint, and as much of one as is asked for."""
        page, last = self.path / REPORT, self.path / "last.pt"
        return (
            self._page_before == self._page
            and page.exists()
            and last.exists()
            and page.stat().st_mtime_ns > last.stat().st_mtime_ns
        )

    def close(self) -> None:
        """Let another process work in the folder. The end of the process does the same, however it ends."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def share(self, stem: str, tensors: Mapping[str, Tensor], near: Path | None = None) -> None:
        """Keep tensors that never change once, in ``<stem>-<hash>.pt``; the checkpoints saved from now on refer to it.

        Args:
            tensors: by name; none: nothing is done. near: see :func:`~s2f_rl.data.shared_tensors.share_tensors`.
        """
        self._shared = share_tensors(self.path, stem, tensors, near) if tensors else None

    def save_checkpoint(self, name: str, checkpoint: dict[str, object]) -> Path:
        """Write ``name`` (``"last.pt"``, ``"best.pt"``) atomically; see :func:`~s2f_rl.runs.checkpoints`."""
        if self._shared is not None:
            checkpoint = without_shared(checkpoint, self._shared)
        save_checkpoint(self.path / name, checkpoint)
        if name == "last.pt":
            self._saved_at = time.monotonic()
        return self.path / name

    def checkpoint_due(self, minutes: float | None) -> bool:
        """Whether the last ``last.pt`` (or the beginning) is ``minutes`` ago (None: never), on any rank."""
        return ranks.any_of(minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes)

    def load_checkpoint(self, name: str = "last.pt", needs: tuple[str, ...] = ()) -> dict[str, Any]:
        """Read ``name`` onto the CPU. Raises UserError when it is missing, damaged or hostile."""
        return load_checkpoint(self.path / name, needs=needs)

    def _has_content(self) -> bool:
        # a run that ended before its first row (its config is there) has nothing that could be lost
        nothing = (".lock", ".content.json", "inputs.json", "config.yaml")
        found = (entry for entry in self.path.iterdir() if entry.name not in nothing)
        entries = (entry for entry in found if not is_shared_file(entry.name))
        return any(not entry.is_dir() or any(each.is_file() for each in entry.rglob("*")) for entry in entries)

    def _take_lock(self, wait_s: float) -> IO[str] | None:
        # A record lock: the system drops it when the process ends, by SIGKILL too, and worker processes that outlive
        # the run do not inherit it, as they would inherit a flock.
        if sys.platform == "win32":  # two processes in one folder are not noticed there
            return None
        file = open(self.path / ".lock", "w")
        try:
            until = time.monotonic() + wait_s
            while True:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return file
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise
                    time.sleep(0.05)  # the process that was killed may still be ending
        except BlockingIOError as error:
            file.close()
            raise UserError(f"{self.path}: another process is writing this run; wait for it or use name=...") from error
        except OSError:  # a file system without locks: go on unguarded
            pass
        return file

    def _compare_config(self, config: Mapping[str, object], may_change: tuple[str, ...]) -> None:
        path = self.path / "config.yaml"
        if not path.exists():
            return
        try:
            before = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not isinstance(before, dict):
                raise ValueError("no mapping")
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"{path}: cannot be read, so the run cannot be resumed; restore the file") from error
        self._page_before = before.get("page")
        old, new = _flat(before), _flat(config)
        absent = object()
        changed = [
            f"{key} was {old.get(key, BEFORE.get(key, '(absent)'))!r} and is {new.get(key, '(absent)')!r}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key, BEFORE.get(key, absent)) != new.get(key, absent)
            and not (key not in old and new[key] is None)
            and (old.get(key, absent), new.get(key, absent)) != SAME.get(key)
            and not _covered(key, may_change)
        ]
        if changed:
            raise UserError(
                f"{path}: a resumed run keeps its config, but {'; '.join(changed)}. Set the old values back or start a "
                "new run with name=..."
            )


def name_problem(name: str) -> str | None:
    """What is wrong with a run name, in words; None for a good one. Groups are folders: ``bench/ppo_seed1``."""
    parts = PurePosixPath(name).parts
    usable = name.isprintable() and name == name.strip() and not name.startswith("/") and parts and ".." not in parts
    if usable and all(len(part.encode()) <= 255 for part in parts) and len(name) <= 1000:
        return None
    return "not a run name; use letters, digits, '-', '_' and, for groups, '/'" + (", 255 of them" if usable else "")


def _plain_config(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """OmegaConf or mapping -> plain resolved dict, as YAML will give it back."""
    if config is None:
        return None
    from omegaconf import OmegaConf

    known = OmegaConf.is_config(config)
    resolved: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True) if known else config
    plain: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(resolved)))
    return plain


def _flat(config: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):  # an empty one is as none at all
            flat.update(_flat(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def _covered(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
