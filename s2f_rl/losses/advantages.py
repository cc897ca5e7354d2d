"""Returns and advantages on padded [B, T, 1] rows of whole utterances; padding never enters a sum or a statistic.

TorchRL's ``MCAdvantage`` needs unpadded trajectories and ``GAE(average_gae=True)`` counts padding, so these few lines
are ours. ``frame_mask`` [B, T, 1] is True on valid frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.modules import set_recurrent_mode
from torchrl.objectives.value.functional import generalized_advantage_estimate

from s2f_rl import keys, ranks
from s2f_rl.errors import UserError

CREDITS = ("discounted", "window", "around", "utterance")


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


def around_returns(reward: Tensor, frame_mask: Tensor, reach: int = 2, window: int = 5) -> Tensor:
    """Sum of the rewards whose ``window`` frames contain one that is at most ``reach`` away, [B, T, 1].

    So those from r_{t-reach} to r_{t+reach+window-1}: a reward is that of the window which ends at its frame.
    """
    reward = torch.where(frame_mask, reward, torch.zeros_like(reward))
    padded = torch.nn.functional.pad(reward, (0, 0, reach, reach + window - 1))
    out = padded.unfold(1, 2 * reach + window, 1).sum(-1)
    return torch.where(frame_mask, out, torch.zeros_like(out))


def utterance_returns(reward: Tensor, frame_mask: Tensor) -> Tensor:
    """Sum of all rewards of the row at every frame of it, [B, T, 1]; 0 on padding."""
    zero = torch.zeros_like(reward)
    return torch.where(frame_mask, torch.where(frame_mask, reward, zero).sum(1, keepdim=True), zero)


def credit_of(credit: str | None, frame_wise: bool) -> str:
    """The credit for a policy, where ``credit`` may leave it open.

    Args:
        credit: of :func:`credited_returns`; None: ``"discounted"`` where a frame moves itself alone, ``"utterance"``
            where it also moves its neighbours.
        frame_wise: of the policy (:class:`~s2f_rl.models.contract.PolicyCore`).

    Raises:
        UserError: the credit begins at a frame that moves frames before it.
    """
    if credit is None:
        return "discounted" if frame_wise else "utterance"
    if not frame_wise and credit in ("discounted", "window"):
        raise UserError(
            f"credit={credit}: this actor's frames move those before them too, whose rewards that leaves out; use "
            "null, utterance or around"
        )
    return credit


def credited_returns(
    reward: Tensor, frame_mask: Tensor, credit: str | None = "discounted", gamma: float = 0.7
) -> Tensor:
    """What a frame is credited with, [B, T, 1]; 0 on padding.

    Args:
        reward: [B, T, 1].
        frame_mask: [B, T, 1].
        credit: ``"discounted"``: reward-to-go with ``gamma`` (:func:`discounted_returns`); ``"window"``: the rewards of
            the 5-frame clips that contain the frame, with equal weight (:func:`window_returns`); ``"around"``: of those
            that contain it or a neighbour of two frames (:func:`around_returns`); ``"utterance"``: all
            (:func:`utterance_returns`), to be compared with other samples of the utterance. None: ``"discounted"``.
        gamma: discount in [0, 1], of discounted credit alone.

    Raises:
        UserError: unknown ``credit``.
    """
    if credit is None or credit == "discounted":
        return discounted_returns(reward, frame_mask, gamma)
    without_discount: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
        "window": window_returns,
        "around": around_returns,
        "utterance": utterance_returns,
    }
    if credit not in without_discount:
        raise UserError(f"credit={credit}: use {', '.join(CREDITS)}")
    return without_discount[credit](reward, frame_mask)


def masked_standardise(x: Tensor, frame_mask: Tensor, centre: bool = True, eps: float = 1e-6) -> Tensor:
    """(x - mean) / std over valid frames (``centre=False`` keeps the mean); 0 on padding. Population std.

    Of several ranks (:mod:`s2f_rl.ranks`): over the frames of all of them.
    """
    valid = x[frame_mask]
    if ranks.count() > 1:
        valid = ranks.rows_of_all(valid)
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


def group_normalised_advantage(
    returns: Tensor, frame_mask: Tensor, group_size: int, scale: bool = True, eps: float = 1e-6
) -> Tensor:
    """Return minus the group's mean at the same frame, over the group's standard deviation, [B, T, 1] (GRPO).

    The deviation is taken over all valid frames of the G samples, as GRPO's process supervision does (Shao et al.,
    2024, sec. 4.1.3); at a single frame G samples are too few, and a frame where all agree would be blown up.
    ``scale=False`` leaves the division out (Dr. GRPO, Liu et al., 2025).

    Raises:
        UserError: G < 2, or B is not a multiple of G.
    """
    advantage = group_relative_advantage(returns, frame_mask, group_size, leave_one_out=False)
    if not scale:
        return advantage
    groups = advantage.unflatten(0, (-1, group_size))
    n = frame_mask.unflatten(0, (-1, group_size)).sum((1, 2, 3), keepdim=True).clamp_min(1)
    std = (groups.square().sum((1, 2, 3), keepdim=True) / n).sqrt()  # the mean is 0 already
    return (groups / (std + eps)).flatten(0, 1)


def group_decoupled_advantage(
    returns: Mapping[str, Tensor],
    weights: Mapping[str, float],
    frame_mask: Tensor,
    group_size: int,
    standardise: bool = True,
) -> Tensor:
    """Every term normalised within its group, weighted, summed, then standardised over the batch, [B, T, 1] (GDPO).

        A = standardise(sum_k w_k A_k),     A_k = :func:`group_normalised_advantage` of term k alone

    A sum that is normalised once (GRPO) is that of the term with the largest spread; here a weight says how much a term
    counts whatever its spread (Liu et al., 2026, arXiv:2601.05242; for faces GDPO-Listener, arXiv:2603.25020).

    Args:
        returns: of every term, [B, T, 1] (:func:`credited_returns`).
        weights: of the terms.
        frame_mask: [B, T, 1].
        group_size: G adjacent lanes that share utterance and style.
        standardise: over the valid frames of the batch, so that the size does not grow with the number of terms.
    """
    terms = [weights[name] * group_normalised_advantage(term, frame_mask, group_size) for name, term in returns.items()]
    total = torch.stack(terms).sum(0)
    return masked_standardise(total, frame_mask) if standardise else total


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


class BaselineAdvantage:
    """Writes ``advantage`` (and, with a critic, ``value_target``) into a batch [B, T]; most recipes share this step.

    Args:
        critic: a module that writes ``state_value``; None: leave-one-out group baselines
            (:func:`group_relative_advantage`).
        group_size: G adjacent lanes that share utterance and style.
        credit, gamma: see :func:`credited_returns`.
        gae_lambda: of :func:`gae_advantage`, with a critic and discounted credit. With other credit the advantage is
            the sum minus the value. With a gamma of 0 a frame's advantage is its own reward minus
            the value, so that a frame that was not scored (``next``, ``score_mask``) has none.
        normalise: standardise over the valid frames of the batch.

    Example:
        >>> estimate = BaselineAdvantage(critic=None, group_size=4)
        >>> batch = estimate(batch, batch["next", "reward"])
    """

    def __init__(
        self,
        critic: TensorDictModuleBase | None = None,
        group_size: int = 1,
        credit: str | None = "discounted",
        gamma: float = 0.7,
        gae_lambda: float = 0.9,
        normalise: bool = True,
    ) -> None:
        self.critic, self.group_size, self.credit = critic, int(group_size), credit or "discounted"
        self.gamma, self.gae_lambda, self.normalise = float(gamma), float(gae_lambda), normalise

    def __call__(self, batch: TensorDictBase, reward: Tensor) -> TensorDictBase:
        mask = credited = batch.get(keys.FRAME_MASK)
        if self.credit == "discounted" and self.gamma == 0.0:
            credited = mask & batch.get(("next", keys.SCORE_MASK), mask)
        if self.critic is None:
            returns = credited_returns(reward, mask, self.credit, self.gamma)
            advantage = group_relative_advantage(returns, mask, self.group_size)
        else:
            with torch.no_grad(), set_recurrent_mode(True):
                value = self.critic(batch.clone(False)).get(keys.STATE_VALUE)
            if self.credit == "discounted":
                advantage, target = gae_advantage(reward, value, mask, self.gamma, self.gae_lambda)
            else:
                target = credited_returns(reward, mask, self.credit)
                advantage = torch.where(mask, target - value, torch.zeros_like(target))
            batch.set(keys.VALUE_TARGET, target)
        advantage = torch.where(credited, advantage, torch.zeros_like(advantage))
        return batch.set(keys.ADVANTAGE, masked_standardise(advantage, credited) if self.normalise else advantage)
