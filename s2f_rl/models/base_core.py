"""What policy cores share: when lanes begin, how a distribution is made; and what a core may leave out, in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torch.distributions import Distribution
from torchrl.modules.tensordict_module.rnn import recurrent_mode

from s2f_rl import keys
from s2f_rl.errors import UserError
from s2f_rl.models.contract import LinearMotion


class BaseCore(TensorDictModuleBase):
    """Derive from it and write ``step``, ``sequence``, ``remember`` and ``decode``; see :class:`PolicyCore`.

    Without more, the core has no supervised term, no gradient through its rollout, no critic and no figures.
    """

    distribution_class: type[Distribution]
    distribution_keys: Mapping[str, str]
    distribution_kwargs: Mapping[str, Any] = {}
    frame_wise: bool = True
    supervised_modes: tuple[str, ...] = ()
    reparameterised: bool = False
    regresses: bool = False
    state: tuple[str, int] | None = None

    def __init__(self) -> None:
        super().__init__()
        # TorchRL's A2C selects the in_keys; the latent is read in sequence mode only, where it is what was drawn.
        self.in_keys = [keys.AUDIO, keys.STYLE, keys.FRAME_INDEX, keys.FRAME_MASK, keys.LATENT]

    @property
    def linear_decode(self) -> LinearMotion | None:
        return None

    # -- what a core must have ---------------------------------------------------------------------------------------

    def step(self, td: TensorDictBase) -> tuple[Tensor, ...]:
        """See the contract."""
        raise TypeError(f"{type(self).__name__} has no step()")

    def sequence(self, td: TensorDictBase, latent: Tensor) -> tuple[Tensor, ...]:
        """The parameters of all frames of rows [B, T], in the order of ``out_keys``.

        ``latent``: what was drawn, zero on padding.
        """
        raise TypeError(f"{type(self).__name__} has no sequence()")

    def remember(self, latent: Tensor) -> None:
        """See the contract."""
        raise TypeError(f"{type(self).__name__} has no remember()")

    def decode(self, latents: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """See the contract."""
        raise TypeError(f"{type(self).__name__} has no decode()")

    # -- what follows ------------------------------------------------------------------------------------------------

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        values = self.sequence(tensordict, drawn(tensordict)) if recurrent_mode() else self.step(tensordict)
        for key, value in zip(self.out_keys, values, strict=True):
            tensordict.set(key, value)
        return tensordict

    def distribution(self, td: TensorDictBase) -> Distribution:
        """See the contract."""
        return self.distribution_class(
            **{name: td.get(key, None) for name, key in self.distribution_keys.items()}, **self.distribution_kwargs
        )

    # -- what a core may have ----------------------------------------------------------------------------------------

    def calibrate(self, changed_codes: float, speech: Iterable[tuple[Tensor, Tensor]]) -> None:
        """See the contract."""

    def together(self) -> AbstractContextManager[None]:
        """See the contract."""
        return nullcontext()

    @property
    def rolls_out(self) -> bool:
        return False

    def roll_out(self, audio: Tensor, style: Tensor, sampled: bool = True) -> tuple[Tensor, ...]:
        """See the contract."""
        raise TypeError(f"{type(self).__name__} draws frame by frame only")

    def mean_motion(self, td: TensorDictBase, collected: bool = False, *, decoded: bool = True) -> Tensor:
        """See the contract."""
        raise UserError(f"{type(self).__name__} draws motions that have no mean; use supervised=none, constraint=none")

    def teacher_forced(self, td: TensorDictBase, truth: Tensor, *, decoded: bool = True) -> Tensor:
        """See the contract."""
        raise UserError(f"{type(self).__name__} cannot be teacher-forced; use supervised=none")

    def targets(self, displacement: Tensor) -> Tensor:
        """See the contract."""
        raise TypeError(f"{type(self).__name__} has no targets()")

    def regressed(self, td: TensorDictBase, targets: Tensor, truth: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See the contract."""
        raise TypeError(f"{type(self).__name__} has no regressed()")

    def unrolled(
        self,
        features: Tensor,
        style: Tensor,
        noise: Tensor | None = None,
        train_output_map: bool = False,
        *,
        decoded: bool = True,
        frame_mask: Tensor | None = None,
    ) -> Tensor:
        """See the contract."""
        raise UserError(f"{type(self).__name__} has no rollout with a gradient; use another algorithm")

    def unit_noise(self, td: TensorDictBase) -> Tensor:
        """See the contract."""
        raise UserError(f"{type(self).__name__} draws without noise to add; use an algorithm with a policy gradient")

    def exploration(self) -> dict[str, Tensor]:
        """See the contract."""
        return {}

    def batch_figures(self, td: TensorDictBase, vertices: Tensor) -> dict[str, float]:
        """See the contract."""
        return {}

    def frozen_in_rl(self) -> Iterable[nn.Parameter]:
        """See the contract."""
        return []


def lanes_that_begin(td: TensorDictBase) -> Tensor:
    """[B, 1] bool in step mode: ``frame_index`` is 0 (or, without that key, ``is_init`` is True)."""
    index = td.get(keys.FRAME_INDEX, None)
    if index is not None:
        return index == 0
    first = td.get("is_init", None)
    if first is None:
        raise KeyError("the policy needs frame_index (or is_init from InitTracker) to know where lanes start")
    return first


def drawn(td: TensorDictBase) -> Tensor:
    """What was drawn in rows [B, T] of whole utterances, in sequence mode; zero on padding, which may hold anything."""
    index = td.get(keys.FRAME_INDEX, None)
    if index is not None:
        begins = (index[:, 0] == 0).all()
        needs = "sequence mode needs rows that begin at frame 0: collect whole utterances"
        if begins.is_cuda:
            torch._assert_async(begins, needs)  # raises later; asking here would wait, at every gradient step
        elif not bool(begins):
            raise ValueError(needs)
    latent = td.get(keys.LATENT, None)
    if latent is None:
        raise KeyError("sequence mode evaluates what was sampled: the batch has no 'latent', collect it in step mode")
    mask = td.get(keys.FRAME_MASK, None)
    # padding must not reach the graph
    return latent if mask is None else torch.where(mask, latent, torch.zeros_like(latent))
