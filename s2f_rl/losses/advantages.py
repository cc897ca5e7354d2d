"""Returns and advantages on padded [B, T, 1] rows of whole utterances; padding never enters a sum or a statistic.

TorchRL's ``MCAdvantage`` needs unpadded trajectories and ``GAE(average_gae=True)`` counts padding, so these few lines
are ours. ``frame_mask`` [B, T, 1] is True on valid frames.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchrl.objectives.value.functional import generalized_advantage_estimate

from s2f_rl.errors import UserError


def discounted_returns(reward: Tensor, frame_mask: Tensor, gamma: float) -> Tensor:
    """Reward-to-go sum_k gamma^k r_{t+k}, [B, T, 1]; 0 on padding."""
    reward = torch.where(frame_mask, reward, torch.zeros_like(reward))
    out = torch.zeros_like(reward)
    running = torch.zeros_like(reward[:, 0])
    for t in range(reward.shape[1] - 1, -1, -1):
        running = reward[:, t] + gamma * running
        out[:, t] = running
    return torch.where(frame_mask, out, torch.zeros_like(out))


def window_returns(reward: Tensor, frame_mask: Tensor, window: int = 5) -> Tensor:
    """Sum of the rewards whose ``window`` frames contain the frame: r_t + .. + r_{t+window-1}, [B, T, 1]."""
    reward = torch.where(frame_mask, reward, torch.zeros_like(reward))
    padded = torch.nn.functional.pad(reward, (0, 0, 0, window - 1))
    out = padded.unfold(1, window, 1).sum(-1)
    return torch.where(frame_mask, out, torch.zeros_like(out))


def masked_standardise(x: Tensor, frame_mask: Tensor, centre: bool = True, eps: float = 1e-6) -> Tensor:
    """(x - mean) / std over valid frames (``centre=False`` keeps the mean); 0 on padding. Population std."""
    valid = x[frame_mask]
    if valid.numel() == 0:
        return torch.zeros_like(x)
    mean = valid.mean()
    std = valid.std(correction=0)
    out = ((x - mean) if centre else x) / (std + eps)
    return torch.where(frame_mask, out, torch.zeros_like(out))


def group_relative_advantage(
    returns: Tensor, frame_mask: Tensor, group_size: int, leave_one_out: bool = True
) -> Tensor:
    """Return minus the mean return, at the same frame, of the other samples of the same utterance, [B, T, 1].

    G adjacent lanes share utterance and style. With ``leave_one_out`` the baseline is the mean of the other G - 1
    samples (RLOO, Kool et al., 2019; Ahmadian et al., 2024), independent of the sample's own noise and so unbiased;
    without it the mean of all G (GRPO, Shao et al., 2024).

    Raises:
        UserError: G < 2, or B is not a multiple of G.
    """
    n_lanes = len(returns)
    if group_size < 2 or n_lanes % group_size:
        raise UserError(f"group_size={group_size}: group baselines need at least 2 and a divisor of {n_lanes} lanes")
    groups = returns.unflatten(0, (-1, group_size))
    baseline = groups.mean(1, keepdim=True)
    advantage = groups - baseline
    if leave_one_out:
        advantage = advantage * (group_size / (group_size - 1))
    return torch.where(frame_mask, advantage.flatten(0, 1), torch.zeros_like(returns))


def gae_advantage(
    reward: Tensor, value: Tensor, frame_mask: Tensor, gamma: float, lmbda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al., 2016) on rows that end at their last valid frame.

    Args:
        reward, value: [B, T, 1]; ``value`` is the critic's estimate at each frame.
        gamma, lmbda: in [0, 1].

    Returns:
        advantage and value target (advantage + value), [B, T, 1], both 0 on padding.
    """
    zero = torch.zeros_like(reward)
    reward, value = torch.where(frame_mask, reward, zero), torch.where(frame_mask, value.detach(), zero)
    after = torch.cat([frame_mask[:, 1:], torch.zeros_like(frame_mask[:, :1])], dim=1)
    last = frame_mask & ~after
    next_value = torch.cat([value[:, 1:], zero[:, :1]], dim=1)
    # Padding follows the last frame, where `terminated` cuts the recursion, so it cannot leak backwards.
    advantage, target = generalized_advantage_estimate(
        gamma, lmbda, value, next_value, reward, done=last | ~frame_mask, terminated=last | ~frame_mask
    )
    return torch.where(frame_mask, advantage, zero), torch.where(frame_mask, target, zero)
