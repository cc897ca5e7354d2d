"""What surrounds the loop of an RL recipe: folder, resume, clock, rows, validation, checkpoints; not the loop."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from tensordict import TensorDictBase

from s2f_rl import keys, ranks
from s2f_rl.errors import NotFinite
from s2f_rl.models.checkpoint import actor_file
from s2f_rl.runs import Progress, TrainingState, make_logger, shared_run_folder
from s2f_rl.training.divergence import StepGuard
from s2f_rl.training.parts import RLParts
from s2f_rl.training.setup import actor_moments, frozen_encoder
from s2f_rl.training.statistics import batch_statistics, mean_of, over_ranks

logger = logging.getLogger(__name__)

SHOWN = ("reward", "policy_kl_approx")


class RLRun:
    """Iterate over it inside ``with``; a killed run goes on where its last checkpoint was.

    Args:
        config: the recipe's config (a mapping): ``name``, ``root``, ``resume``, ``iterations``, ``group_size``,
            ``evaluation.every``, ``checkpoint_minutes``, ``logger``, ``logger_online``, ``progress``; written to the
            folder as a whole.
        parts: of :func:`~s2f_rl.training.prepare_rl`.
        optimizer, collector: of the recipe.
        **more: further parts with a state, such as a replay buffer or the anchor's norm of a balanced loss.

    ``last.pt`` holds the state of the run, and as ``actor`` what was validated: with ``ema_decay`` the average. Both it
    and ``best.pt`` hold the actor's Adam ``moments``, so that another run can start from either. A large audio encoder
    is in ``encoder-<hash>.pt``, to which they refer; it is a link to the start's where that has the same.

    Attributes:
        iteration: the current one, from 1.
        values: of the last validation.
        guard: makes the updates; skips those that are not finite.

    Example:
        >>> with RLRun(cfg, parts, optimizer, collector) as run:             # doctest: +SKIP
        ...     for iteration in run:
        ...         with run.clock("collect"):
        ...             batch = collector.next()
        ...         ...
        ...         run.log(batch, outputs)
        ...         run.evaluate_and_save()
        ... return run.values
    """

    def __init__(
        self, config: Mapping[str, Any], parts: RLParts, optimizer: torch.optim.Optimizer, collector: Any, **more: Any
    ) -> None:
        self.config, self.parts, self.optimizer, self.collector = config, parts, optimizer, collector
        self.guard = StepGuard(parts.average, scores=parts.reward.scores)
        self.state = TrainingState(
            policy=parts.policy, critic=parts.critic, optimizer=optimizer, collector=collector,
            average=parts.average, validation=parts.validation, alarm=parts.alarm, amplitude=parts.amplitude,
            signal=parts.signal, kl=parts.adaptive_kl, constraint=parts.constraint, guard=self.guard,
            placebo=parts.signal.placebo, **more,
        )  # fmt: skip
        self.values: dict[str, float] = {}
        self._times: dict[str, float] = {}
        self._row: dict[str, float] = {}
        self._unscored = False  # told once
        self._stack = contextlib.ExitStack()

    @property
    def iteration(self) -> int:
        return self.state.iteration

    def __enter__(self) -> RLRun:
        try:
            self._open(self.config)
        except BaseException:
            self._stack.close()  # the folder's lock and the collector
            raise
        return self

    def _open(self, config: Mapping[str, Any]) -> None:
        parts = config["reward"]["parts"]
        hashes = {f"reward.parts.{n}": each for n, each in self.parts.reward.parts.hashes().items() if n in parts}
        self.folder = self._stack.enter_context(
            shared_run_folder(config["name"], config["root"], config, config["resume"], hashes=hashes)
        )
        self._stack.enter_context(self.collector)
        self.folder.share("encoder", frozen_encoder(self.parts.start.actor), actor_file(config["start"]).parent)
        if self.folder.resuming:
            self.state.load_state_dict(self.folder.load_checkpoint("last.pt"))
            self.folder.rows.cut_after(self.state.iteration)
        else:
            self._validate()
            self.folder.rows.append({f"validation/{k}": v for k, v in self.values.items()}, 0, 0)
        self.logger = self.folder.rows.feed(
            make_logger(config["logger"], self.folder.path, config["name"], config, config["logger_online"])
        )
        self.progress = Progress(config["iterations"], self.iteration, config["progress"], config["name"])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.close()
        self.logger.close()
        self._stack.__exit__(kind, error, traceback)

    def __iter__(self) -> Iterator[int]:
        for iteration in range(self.iteration + 1, self.config["iterations"] + 1):
            self.state.iteration = iteration
            self._times, self._row = {}, {}
            yield iteration

    @contextlib.contextmanager
    def clock(self, phase: str) -> Iterator[None]:
        """Log the seconds spent inside as ``time/<phase>_s``."""
        started = time.perf_counter()
        yield
        self._times[f"time/{phase}_s"] = time.perf_counter() - started

    def log(
        self, batch: TensorDictBase, outputs: Sequence[TensorDictBase], more: Mapping[str, float] | None = None
    ) -> None:
        """Take in an iteration: the batch as collected and rewarded, the losses' outputs, further columns."""
        parts = self.parts
        group_size = self.config["group_size"]
        figures = batch_statistics(batch, parts.policy, parts.lips, parts.reward.scores, group_size)
        row = over_ranks(figures) | mean_of(outputs)
        if not self._unscored and not bool(batch.get(("next", keys.SCORE_MASK)).any()):
            self._unscored = True
            logger.warning(
                "iteration %d: no frame of the batch has a score, so nothing is rewarded; are utterances too short, "
                "or does the reward's mask leave all out?", self.iteration,
            )  # fmt: skip
        skipped = self.guard.skipped()
        row |= {"updates": float(len(outputs) - skipped), "skipped_steps": float(skipped)}
        row["sampled_amplitude_ratio"] = parts.amplitude.ratio(row["amplitude_mm"])
        self.state.frames += int(row["batch_frames"])
        watched = {"amplitude_ratio": row["sampled_amplitude_ratio"]}
        if "noise_mm" in row:  # not every policy adds noise
            watched["noise_mm"] = row["noise_mm"]
        kl = row.get("kl_kl_reference", row.get("policy_kl_approx"))
        parts.alarm.check(watched if kl is None else watched | {"kl": kl})
        self._row = {**row, **(more or {}), **self._times}
        self.progress.update(int(row["batch_frames"]), {k: row[k] for k in SHOWN if k in row})

    def evaluate_and_save(self) -> None:
        """Write the row; every ``evaluation.every`` iterations and at the end validate before and save after it.

        Where that takes longer than ``checkpoint_minutes``, save in between as well.
        """
        last = self.iteration == self.config["iterations"]
        due = last or self.iteration % self.config["evaluation"]["every"] == 0
        save = due or (self.folder.checkpoint_due(self.config["checkpoint_minutes"]) and not self.guard.in_row)
        row = self._row
        if due:
            started = time.perf_counter()
            with self.parts.average.swapped_in() if self.parts.average is not None else contextlib.nullcontext():
                self._validate()
            row |= {f"validation/{k}": v for k, v in self.values.items()}
            row["time/validation_s"] = time.perf_counter() - started
        # Rows before the checkpoint: after a kill, rows beyond it are cut off and none is missing.
        self.folder.rows.append(row, self.iteration, self.state.frames)
        if save:
            self.folder.save_checkpoint("last.pt", {**self.state.state_dict(), **self._actor(whole=True)})

    def _actor(self, whole: bool = False) -> dict[str, object]:
        """The actor as it is validated and its moments, as a run that starts from the checkpoint reads them.

        They share memory with the state of the run, so ``last.pt`` holds each number once.
        """
        moments = actor_moments(self.optimizer, self.parts.start.actor, whole)
        return {"actor": self.parts.actor_entry(), "moments": moments}

    def _validate(self) -> None:
        """Validate; write ``best.pt`` (and ``best_head.pt`` with a critic) if it beats the best so far."""
        parts, state = self.parts, self.state
        for name, figure in parts.policy.core.exploration().items():  # validation explores nothing
            if not bool(torch.isfinite(figure).all()):
                raise NotFinite(
                    f"the policy's {name} is not finite; use a smaller optimizer.noise_lr_factor in a new run"
                )
        self.values = ranks.alone(parts.validation)
        value = parts.validation.value(self.values)
        if state.best is not None and not value > state.best:
            return
        state.best = value
        about = {"iteration": state.iteration, "validation": self.values}
        self.folder.save_checkpoint("best.pt", {**self._actor(), **about})
        if parts.critic is not None:
            head = {k: v.detach().clone() for k, v in parts.critic.state_dict().items()}
            self.folder.save_checkpoint("best_head.pt", {"head": head, "kind": self.config["critic"]["kind"], **about})
