"""Which utterance and which style each lane gets: a seeded sequence that can be saved, restored and continued."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from s2f_rl.errors import UserError
from s2f_rl.ranks import step_seed

STYLE_MODES = ("own", "random", "all")


class UtteranceDraws:
    """A deterministic function of ``seed`` and of a counter of draws.

    Every epoch is one seeded permutation of the N entries: the corpus's utterances, each as often as ``times`` says.
    Draw ``n`` is entry ``n % N`` of epoch ``n // N``. So the whole state is one integer, and no draw depends on how
    many lanes, workers or resets came before.

    Several environments share an epoch without overlap (:meth:`take_part`): part k of K has the draws k, K + k,
    2 K + k, ... of the whole. What all have drawn together is what one alone would have drawn.

    Args:
        own_styles: per utterance, the index of its speaker among the training subjects, None for other speakers. [N]
        n_styles: S, number of training subjects.
        style: ``"own"``, ``"random"``, ``"all"`` or an index, see :class:`s2f_rl.envs.SpeechToFaceEnv`.
        seed: any integer.
        times: how often each utterance is in an epoch, [N], 1 and more; None: once.

    Raises:
        UserError: unknown ``style``, or an empty corpus.
    """

    def __init__(
        self,
        own_styles: Sequence[int | None],
        n_styles: int,
        style: str | int = "own",
        seed: int = 0,
        times: Sequence[int] | None = None,
    ) -> None:
        if not own_styles:
            raise UserError("the corpus has no utterance to draw from: check the split and the folder")
        if n_styles < 1:
            raise UserError("the corpus names no training subject: a style needs at least one")
        if isinstance(style, bool) or not isinstance(style, (str, int)):
            raise UserError(f"style={style!r}: use an index or one of {', '.join(STYLE_MODES)}")
        if isinstance(style, str) and style not in STYLE_MODES:
            raise UserError(f"style={style!r} is unknown: use an index or one of {', '.join(STYLE_MODES)}")
        if isinstance(style, int) and not 0 <= style < n_styles:
            raise UserError(f"style={style}: the corpus has {n_styles} training subjects, use 0 to {n_styles - 1}")
        self.own_styles = list(own_styles)
        self._entries = np.repeat(np.arange(len(own_styles)), 1 if times is None else list(times))
        self.n_styles = n_styles
        self.style = style
        self.n_drawn = 0
        self.part, self.n_parts = 0, 1
        self._noise = self._kept = False
        self.set_seed(seed)

    def take_part(self, part: int, n_parts: int) -> None:
        """Draw part ``part`` of ``n_parts`` from now on, and let torch's generator start anew at every :meth:`draw`.

        So the noise of a batch follows from seed, part and draw alone: a worker that is started again, or a rank of a
        resumed run, goes on with the noise of an unbroken one.
        """
        self.part, self.n_parts, self._noise = part, n_parts, True

    def keep_next(self) -> None:
        """The next :meth:`draw` shall use up nothing."""
        self._kept = True

    @property
    def n_utterances(self) -> int:
        """Draws of an epoch."""
        return len(self._entries)

    def set_seed(self, seed: int) -> None:
        """Start again at the first draw of ``seed``."""
        self.seed = int(seed) % 2**63  # numpy wants no negative seed
        self.n_drawn = 0
        self._permutation: tuple[int, np.ndarray] | None = None

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._permutation is None or self._permutation[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.n_utterances)
            self._permutation = (epoch, order)
        return self._permutation[1]

    def draw(self, n: int) -> list[tuple[int, int]]:
        """The next ``n`` pairs (utterance, style index)."""
        if self._noise:
            torch.manual_seed(step_seed(self.seed, self.part, self.n_drawn))
        pairs = []
        for _ in range(n):
            epoch, position = divmod(self.n_drawn * self.n_parts + self.part, self.n_utterances)
            utterance = int(self._entries[self._epoch(epoch)[position]])
            # "all": every utterance meets every style once in S epochs, and styles also vary within an epoch.
            pairs.append((utterance, self._style_of(utterance, turn=utterance + epoch, key=epoch)))
            self.n_drawn += 1
        if self._kept:
            self.n_drawn, self._kept = self.n_drawn - n, False
        return pairs

    def choose(self, utterances: Sequence[int], group_size: int = 1) -> list[tuple[int, int]]:
        """Pairs for chosen utterances, one per lane; no draw is used up.

        Random styles are the same at every call; ``"all"`` counts the groups of ``group_size`` adjacent lanes.
        """
        return [(int(u), self._style_of(int(u), turn=lane // group_size, key=0)) for lane, u in enumerate(utterances)]

    def _style_of(self, utterance: int, turn: int, key: int) -> int:
        if isinstance(self.style, int):
            return self.style
        if self.style == "all":
            return turn % self.n_styles
        own = self.own_styles[utterance]
        if self.style == "own" and own is not None:
            return own
        return int(np.random.default_rng([self.seed, key, utterance, 1]).integers(self.n_styles))

    def state(self) -> dict[str, int]:
        """Plain numbers from which :meth:`load_state` continues."""
        return {"seed": self.seed, "n_drawn": self.n_drawn * self.n_parts, "n_utterances": self.n_utterances}

    def load_state(self, state: dict[str, int]) -> None:
        """Continue where ``state`` was taken. Raises :class:`UserError` if the corpus has another size since."""
        try:
            seed, n_drawn, n_utterances = (int(state[k]) for k in ("seed", "n_drawn", "n_utterances"))
        except (KeyError, TypeError, ValueError) as error:
            message = "draw state: expected seed, n_drawn and n_utterances; was it saved by draw_state()?"
            raise UserError(message) from error
        if n_utterances != self.n_utterances:
            raise UserError(
                f"draw state: saved with {n_utterances} utterances, the corpus has {self.n_utterances}; "
                "resume on the same corpus and split, or start a new run"
            )
        self.set_seed(seed)
        self.n_drawn = -(-n_drawn // self.n_parts)  # with another number of parts, none of them draws twice
