"""Loggers for looking at a run while it runs. The record that counts is ``metrics.jsonl`` (:mod:`s2f_rl.runs.rows`)."""

from __future__ import annotations

import io
import logging
import math
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from omegaconf import OmegaConf

from s2f_rl import ranks
from s2f_rl.data.files import atomic_write_text
from s2f_rl.errors import UserError
from s2f_rl.runs.rows import Row, read_rows

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torchrl.record.loggers.common import Logger

    from s2f_rl.runs.report.page import Face

PROJECT = "s2f_rl"
log = logging.getLogger(__name__)
_SAME = ("iteration", "seed")


class RunLogger:
    """Several of TorchRL's loggers behind one call.

    Args:
        loggers: TorchRL loggers; may be empty. One of wandb that goes on with a run on the server has rows already, as
            many as its ``step`` says: so many of the first are not sent again.
        films_of: a run folder, of whose utterances a whole run shows films (wandb) or stills (tensorboard) at the end.
    """

    def __init__(self, loggers: Sequence[Logger], films_of: Path | None = None) -> None:
        self.loggers = list(loggers)
        self._films_of = films_of
        self._known = [int(getattr(logger.experiment, "step", 0) or 0) for logger in self.loggers]

    def log_row(self, row: Row) -> None:
        """Log a row of the metrics under its iteration; seed and versions are the same in all rows and left out."""
        self.log_scalars({key: value for key, value in row.items() if key not in _SAME}, row["iteration"])

    def log_scalars(self, scalars: Mapping[str, object], step: int) -> None:
        """Log numbers (or one-element tensors) of one iteration; what is no finite number is passed over."""
        numbers = {}
        for key, value in scalars.items():
            value = value.item() if hasattr(value, "item") else value
            if isinstance(value, (int, float)) and math.isfinite(value):
                numbers[key] = float(value)
        for place, logger in enumerate(self.loggers):
            if self._known[place]:
                self._known[place] -= 1
            else:
                logger.log_metrics(numbers, step=step)

    def close(self) -> None:
        """Finish every logger; afterwards nothing can be logged."""
        if self._films_of is not None and self.loggers:
            self._log_films(self._films_of)
        for logger in self.loggers:
            experiment = logger.experiment
            # one verb per backend: wandb's run finishes, tensorboard's writer closes, csv has open files
            for verb in ("finish", "close"):
                if callable(getattr(experiment, verb, None)):
                    getattr(experiment, verb)()
                    break
            else:
                for file in getattr(experiment, "files", {}).values():
                    file.close()
        self.loggers = []

    def _log_films(self, run: Path) -> None:
        """Show a run that has reached its last iteration; what keeps it from being shown is a warning."""
        from s2f_rl.runs.report.write import read_config, run_faces

        try:
            config = read_config(run)
            if read_rows(run / "metrics.jsonl")[-1]["iteration"] != config.get("iterations"):
                return
            films = any(hasattr(logger.experiment, "log_artifact") for logger in self.loggers)
            for face in run_faces(run, config, films, keep=True)[0]:
                for logger in self.loggers:
                    _show(logger, face)
        except Exception as error:  # the run itself has ended well
            log.warning("%s: no films for the logger (%s: %s)", run, type(error).__name__, error)


def _show(logger: Logger, face: Face) -> None:
    """A film in wandb, a still in tensorboard; csv has neither."""
    experiment = logger.experiment
    if hasattr(experiment, "add_image") and face.still is not None:
        from s2f_rl.render.extras import import_extra

        picture = np.asarray(import_extra("PIL.Image").open(io.BytesIO(face.still)))
        experiment.add_image(f"faces/{face.name}", picture, dataformats="HWC")
    elif hasattr(experiment, "log_artifact") and face.film is not None:
        import wandb

        experiment.log({f"faces/{face.name}": wandb.Video(io.BytesIO(face.film), format="mp4")})


def make_logger(
    kind: str | Sequence[str] | None,
    folder: str | Path,
    name: str,
    config: Mapping[str, object] | None = None,
    online: bool = False,
) -> RunLogger:
    """TorchRL's csv, tensorboard and wandb loggers, one or several, empty: a run's rows are fed to them.

    What the csv, tensorboard and offline wandb files of this folder hold of the run before it was stopped is removed:
    they end anywhere (tensorboard loses two minutes in a kill), and are written anew from ``metrics.jsonl`` by
    :meth:`~s2f_rl.runs.rows.MetricsRows.feed`. A wandb run on the server stays and is continued.

    Args:
        kind: ``"csv"``, ``"tensorboard"``, ``"wandb"``, ``"none"`` (or None), or a list of them.
        folder: the run folder; files go to ``folder/logs``.
        name: name of the run as the logger shows it.
        config: plain or OmegaConf config, stored by wandb.
        online: let wandb send the run to its server; otherwise it is written to disk only (``wandb sync`` sends it).

    Raises:
        UserError: unknown kind, or its package is not installed.

    Example:
        >>> logger = make_logger("csv", folder.path, "ppo")             # doctest: +SKIP
        >>> folder.rows.feed(logger)                                    # doctest: +SKIP
        >>> folder.rows.append({"reward": 0.7}, iteration=1)            # doctest: +SKIP
    """
    if config is not None and OmegaConf.is_config(config):
        config = cast("dict[str, object]", OmegaConf.to_container(cast("DictConfig", config), resolve=True))
    kinds = [kind] if isinstance(kind, str) else list(kind or [])
    kinds = [str(one) for one in kinds if str(one) != "none" and ranks.is_first()]
    makers: dict[str, Callable[[], Logger]] = {
        "csv": lambda: _csv(logs),
        "tensorboard": lambda: _tensorboard(logs),
        "wandb": lambda: _wandb(logs, name, config, online),
    }
    unknown = [one for one in kinds if one not in makers]
    if unknown:
        raise UserError(f"logger={unknown[0]}: unknown; use {', '.join(makers)}, none, or a list of them")
    logs = Path(folder) / "logs"
    films = bool(config is not None and config.get("logger_films"))
    return RunLogger([makers[one]() for one in dict.fromkeys(kinds)], Path(folder) if films else None)


def _csv(logs: Path) -> Logger:
    from torchrl.record.loggers.csv import CSVLogger

    for path in (logs / "csv" / "scalars").rglob("*.csv"):
        path.unlink()
    return CSVLogger(exp_name="csv", log_dir=str(logs))


def _tensorboard(logs: Path) -> Logger:
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise UserError("logger=tensorboard: the package is missing; pip install tensorboard") from error
    from torchrl.record.loggers.tensorboard import TensorboardLogger

    for path in (logs / "tensorboard").glob("events.out.tfevents.*"):
        path.unlink()
    return TensorboardLogger(exp_name="tensorboard", log_dir=str(logs))


def _wandb(logs: Path, name: str, config: Mapping[str, object] | None, online: bool) -> Logger:
    try:
        import wandb
    except ImportError as error:
        raise UserError("logger=wandb: the package is missing; pip install wandb") from error
    from torchrl.record.loggers.wandb import WandbLogger

    # the identifier is kept in the folder, so that a resumed run goes on in the same wandb run
    identifier = logs / "wandb_id"
    if not identifier.exists():
        atomic_write_text(identifier, uuid.uuid4().hex)
    run = identifier.read_text(encoding="utf-8").strip()
    for path in (logs / "wandb").glob(f"offline-run-*-{run}"):
        shutil.rmtree(path, ignore_errors=True)
    try:
        return WandbLogger(
            exp_name=name,
            save_dir=str(logs),
            id=run,
            project=PROJECT,
            # not TorchRL's offline=True, which sets WANDB_MODE for the whole process and everything after it
            mode="online" if online else "offline",
            config=dict(config) if config is not None else None,
            settings=wandb.Settings(silent=True),
        )
    except wandb.Error as error:
        raise UserError(f"logger=wandb: {error}; log in with `wandb login` or use it offline") from error
