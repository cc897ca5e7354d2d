"""Critics: what the policy's return is measured against."""

from __future__ import annotations

import copy
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import nn

from s2f_rl import keys


class DecoderCritic(TensorDictModuleBase):
    """State value from the policy's mean motion, the audio of the frame and the style: writes ``state_value``.

    Reads ``loc`` as the rollout stored it, and no gradient goes into the audio, so the critic never moves the actor and
    needs no history of its own (works in step and in sequence mode alike). With ``exploration="vertex"`` ``loc`` has
    V*3 columns: pass them as ``latent_width``.

    Args:
        latent_width: H (or V*3).
        audio_width: A*D.
        n_subjects: S.
        hidden: width of the two hidden layers.
        state_key: what to read in place of ``loc`` (:attr:`PolicyCore.state`).
    """

    def __init__(
        self, latent_width: int, audio_width: int, n_subjects: int, hidden: int = 64, state_key: str = keys.LOC
    ) -> None:
        super().__init__()
        self.state_key = state_key
        self.in_keys = [state_key, keys.AUDIO, keys.STYLE]
        self.out_keys = [keys.STATE_VALUE]
        self.mlp = nn.Sequential(
            nn.Linear(latent_width + audio_width + n_subjects, hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.Tanh(),
            nn.Linear(hidden, 1),
        )

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        loc = tensordict.get(self.state_key).detach()
        audio = tensordict.get(keys.AUDIO).detach().flatten(-2)
        return tensordict.set(keys.STATE_VALUE, self.mlp(torch.cat([loc, audio, tensordict.get(keys.STYLE)], dim=-1)))


class BackboneCritic(TensorDictModuleBase):
    """The original project's critic: the value branch on the frozen reward features of the clip that ends at the frame.

    Reads ``mesh_feature`` and ``audio_feature`` [.., E] that the reward transform wrote under "next"
    (``FrozenRewardTransform(write_features=True)``). Trains a copy of the reward head's value branch, which shares
    nothing with lip and real. Its baseline depends on the action; that is the original objective
    (advantage = reward - value), kept for comparison.

    Args:
        head: the reward model's :class:`~s2f_rl.rewards.ScoreHead`; copied, and only its value branch trains.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.in_keys = [("next", keys.MESH_FEATURE), ("next", keys.AUDIO_FEATURE)]
        self.out_keys = [keys.STATE_VALUE]
        self.head: Any = copy.deepcopy(head).requires_grad_(False)
        for parameter in self.head.value_parameters():
            parameter.requires_grad_(True)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        mesh, audio = (tensordict.get(key) for key in self.in_keys)
        return tensordict.set(keys.STATE_VALUE, self.head.estimate_value(audio, mesh).unsqueeze(-1))
