"""What a phone recogniser gets wrong, put into its posteriors while an actor is trained on them."""

from __future__ import annotations

import torch
from torch import Tensor

from s2f_rl.data.synthetic.phones import PHONES

CONFUSABLE = (
    "p t k ch", "b d g jh dx", "m n ng", "f th s sh hh", "v dh z zh", "w r l y el",
    "iy ih ey eh ae", "uw uh ow ao", "aa ah ax er", "aw ay oy",
)  # fmt: skip
"""Phones that are taken for each other: the way of speaking is heard, the place is not."""
_LONGEST, _SHIFT = 5, 2  # frames


def misheard(posteriors: Tensor, share: float) -> Tensor:
    """Posteriors [B, T, P] of which about ``share`` of the frames are wrong, in stretches of 1 to 5 frames.

    Of a stretch either each phone is another one of its group (:data:`CONFUSABLE`), or all frames are their mean, or
    it is up to two frames early or late. Drawn from torch's generator of the CPU. P is that of ``PHONES``.
    """
    n_rows, n_frames, _ = posteriors.shape
    heard, mean_length = posteriors.clone(), (1 + _LONGEST) / 2
    begins = (torch.rand(n_rows, n_frames) < share / mean_length).nonzero().tolist()
    for row, begin in begins:
        length, kind, turn = (int(torch.randint(n, ())) for n in (_LONGEST, 3, 4))
        stretch = slice(begin, begin + 1 + length)
        if kind == 0:
            heard[row, stretch] = posteriors[row, stretch][:, _other_phones(turn).to(posteriors.device)]
        elif kind == 1:
            heard[row, stretch] = posteriors[row, stretch].mean(0)
        else:
            late = (-_SHIFT, -1, 1, _SHIFT)[turn]
            frames = torch.arange(n_frames)[stretch] - late
            heard[row, stretch] = posteriors[row, frames.clamp(0, n_frames - 1)]
    return heard


def _other_phones(turn: int) -> Tensor:
    """For each phone the one of its group, ``turn`` places on, that is heard in its place: [P]."""
    order = torch.arange(len(PHONES))
    for group in CONFUSABLE:
        members = [PHONES.index(name) for name in group.split()]
        turned = 1 + turn % (len(members) - 1)
        order[members] = torch.tensor(members[turned:] + members[:turned])
    return order
