"""Several takes of one utterance by an actor that draws its motion, and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2f_rl import keys
from s2f_rl.errors import UserError
from s2f_rl.metrics import density_and_coverage, diversity, motion_distances

if TYPE_CHECKING:
    from s2f_rl.models.policy import MotionPolicy

NEIGHBOURS = 5


@torch.no_grad()
def draw_takes(policy: MotionPolicy, features: Tensor, style: Tensor, number: int, seed: int) -> Tensor:
    """Sampled as reinforcement learning does: displacements [number, T, V*3], metres, on the CPU.

    Args:
        policy: of :meth:`Actor.make_policy`.
        features: [T, A, D] of one utterance. style: [S].
        seed: of the draws, which leave torch's generator as it was.

    Raises:
        UserError: fewer than one take.
    """
    if number < 1:
        raise UserError(f"takes={number}: draw one at least")
    device = next(policy.parameters()).device
    heard = features.to(device).expand(number, *features.shape)
    asked = style.to(device).expand(number, -1)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        core = policy.core
        latents = core.roll_out(heard, asked)[0] if core.rolls_out else _by_steps(policy, heard, asked)
        # each alone: where frames are mixed, what is decoded together must not matter
        return torch.cat([core.decode(latent[None]) for latent in latents]).cpu()


def _by_steps(policy: MotionPolicy, audio: Tensor, style: Tensor) -> Tensor:
    """Latents [B, T, ..] of a policy whose core draws frame by frame only."""
    from tensordict import TensorDict

    n_lanes, latents = len(audio), []
    with policy.latents_only():
        for t, now in enumerate(audio.unbind(1)):
            index = torch.full((n_lanes, 1), t, device=audio.device)
            entries = {keys.AUDIO: now, keys.STYLE: style, keys.FRAME_INDEX: index, keys.FRAME_MASK: index >= 0}
            latents.append(policy(TensorDict(entries, [n_lanes], device=audio.device)).get(keys.LATENT))
    return torch.stack(latents, dim=1)


def variety(takes: Tensor, lips: Tensor) -> dict[str, float]:
    """``diversity_lips`` and ``diversity_face`` (metres) of motions [N, T, V*3]: see :func:`diversity`."""
    return {"diversity_lips": float(diversity(takes, lips)), "diversity_face": float(diversity(takes))}


def against_true_takes(takes: Tensor, plain: Tensor, true: Tensor, others: Tensor, lips: Tensor) -> dict[str, float]:
    """How well takes stand for what could have been, by the distance (root mean square over frames) of the lips.

    Args:
        takes: [N, T, V*3] displacements of the actor. plain: [T, V*3], its motion without draws.
        true: [M, T, V*3], motions that the corpus could have made. others: [N, T, V*3], so many more of these: what
            takes by the corpus itself would get.
        lips: vertex indices.

    Returns:
        metres ``nearest_take``: from a true motion to the nearest take, mean over true motions; the same of the
        motion without draws (``nearest_plain``) and of the others (``nearest_true``); ``density`` and ``coverage``
        (:func:`density_and_coverage`) and those of the others (``density_true``, ``coverage_true``); ``reached``:
        true motions that are some take's nearest, over N: 1 / N where all takes are nearest to the same; ``spanned``
        (:func:`spanned`) and that of the others (``spanned_true``).
    """
    apart, near = motion_distances(true, true, lips), motion_distances(true, takes, lips)
    far = motion_distances(true, others, lips)
    density, coverage = density_and_coverage(apart, near, NEIGHBOURS)
    density_true, coverage_true = density_and_coverage(apart, far, NEIGHBOURS)
    return {
        "nearest_take": float(near.min(1).values.mean()),
        "nearest_plain": float(motion_distances(true, plain[None], lips).mean()),
        "nearest_true": float(far.min(1).values.mean()),
        "density": density,
        "coverage": coverage,
        "density_true": density_true,
        "coverage_true": coverage_true,
        "reached": len(near.argmin(0).unique()) / near.shape[1],
        "spanned": spanned(true, takes, lips),
        "spanned_true": spanned(true, others, lips),
    }


def spanned(true: Tensor, takes: Tensor, lips: Tensor) -> float:
    """Share (0..1) of the true motions' variance about their mean that lies where takes differ from each other.

    Directions alone count, not sizes: noise that is drawn anew at every frame has about 0, whatever its size.

    Args:
        true: [M, T, V*3]. takes: [N, T, V*3]. lips: vertex indices.
    """
    chosen = (each.unflatten(-1, (-1, 3))[:, :, lips].flatten(1).double() for each in (true, takes))
    wanted, drawn = (each - each.mean(0) for each in chosen)
    _, sizes, directions = torch.linalg.svd(drawn, full_matrices=False)
    kept = directions[sizes > 1e-6 * sizes.max()]
    return float((wanted @ kept.T).square().sum() / wanted.square().sum().clamp_min(1e-30))


def best_of(rewards: Sequence[float], judged: Sequence[float]) -> dict[str, float]:
    """What choosing among takes by a reward gives, as somebody else judges it.

    Args:
        rewards, judged: score of each take [N] by the reward and by the judge; larger is better.

    Returns:
        ``judge_picked``: of the take that the reward likes best; ``judge_mean`` over the takes; ``judge_best``: the
        judge's own favourite; ``reward_picked`` and ``reward_mean``; ``agreement``: correlation of both over the takes,
        nan where one of them is constant.
    """
    reward, judge = (torch.tensor(list(values), dtype=torch.float64) for values in (rewards, judged))
    agreement = float(torch.corrcoef(torch.stack([reward, judge]))[0, 1]) if len(reward) > 1 else float("nan")
    return {
        "judge_picked": float(judge[reward.argmax()]),
        "judge_mean": float(judge.mean()),
        "judge_best": float(judge.max()),
        "reward_picked": float(reward.max()),
        "reward_mean": float(reward.mean()),
        "agreement": agreement,
    }
