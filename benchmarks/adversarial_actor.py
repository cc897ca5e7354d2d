"""An actor that a discriminator taught: a negative that every judge of motion must turn down.

    python -m benchmarks.adversarial_actor CORPUS OUT --checkpoint START

Adversarial imitation (Ho and Ermon, 2016) from a supervised start, by back-propagation: a discriminator is given the
phones and the motion, both as a capture would have it, and learns to tell recordings from the actor's free-running
motion; the actor learns to look recorded, next to the supervised error, at a ratio of the gradients' norms. What comes
of it moves briskly and says something else. Writes ``OUT/last.pt``.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from s2f_rl.data import FaceCorpus
from s2f_rl.data.contract import Phone, recorded
from s2f_rl.data.tensor_files import save_tensors
from s2f_rl.data.units import MILLIMETRE
from s2f_rl.errors import UserError
from s2f_rl.losses.supervised import motion_errors
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.meeting import load_actor_for
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.runs import seed_everything
from s2f_rl.runs.mistakes import mistake_line
from s2f_rl.training import actor_entry

_WIDTH, _DIRECTIONS, _LANES = 64, 16, 8
_CAPTURE_MM = 0.15  # root mean square at the lips in every direction


class Discriminator(nn.Module):
    """Phones [B, T, P] and motion [B, T, K] -> log-odds [B, T] that the motion is recorded; each sees 13 frames."""

    def __init__(self, n_phones: int, n_directions: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = n_phones + n_directions
        for dilation in (1, 2):
            layers += [nn.Conv1d(channels, _WIDTH, 5, padding=2 * dilation, dilation=dilation), nn.LeakyReLU(0.2)]
            channels = _WIDTH
        self.layers = nn.Sequential(*layers, nn.Conv1d(_WIDTH, 1, 1))

    def forward(self, phones: Tensor, motion: Tensor) -> Tensor:
        return self.layers(torch.cat([phones, motion], -1).transpose(1, 2))[:, 0]


def phone_rows(phones: Sequence[Phone], names: Sequence[str], n_frames: int, fps: float) -> Tensor:
    """[T, P]: 1 for the phone at the instant of each frame."""
    rows = torch.zeros(n_frames, len(names))
    for phone, start, end in phones:
        rows[max(0, round(start * fps)) : max(0, round(end * fps)), names.index(phone)] = 1.0
    return rows


def train(
    corpus: FaceCorpus, checkpoint: Path, out: Path, iterations: int, weight: float, lr: float, seed: int
) -> None:
    """Train the actor of ``checkpoint`` on the training split ``corpus``; ``weight``: adversarial : supervised.

    Raises:
        UserError: an utterance has no phones, or the actor is one of another corpus.
    """
    seed_everything(seed)
    actor = load_actor_for(checkpoint, corpus)[0]
    actor.audio_encoder.requires_grad_(False)
    audio, draws = CachedAudio(actor.audio_encoder, corpus), torch.Generator().manual_seed(seed)
    usable = [i for i in range(len(corpus)) if corpus.has_vertices(i)]
    if any(corpus[i].phones is None for i in usable):
        raise UserError(f"{corpus.root}: the discriminator is given the phones; run `s2f-rl align {corpus.root}`")
    names = sorted({phone for i in usable for phone, _, _ in corpus[i].phones})
    motion = MotionSubspace.fit(corpus, n_components=_DIRECTIONS)
    noise = _CAPTURE_MM * MILLIMETRE / motion.seen_square(motion.basis).sqrt() / motion.std

    def seen(displacement: Tensor) -> Tensor:
        """Coefficients [B, T, K] with the noise of a capture: who is told by less is told by nothing that is seen."""
        exact = motion.coefficients(displacement)
        return exact + noise * torch.randn_like(exact)

    judge = Discriminator(len(names), len(motion.std))
    learners = [p for p in actor.parameters() if p.requires_grad]
    optimizer, other = torch.optim.Adam(learners, lr), torch.optim.Adam(judge.parameters(), 2e-3, (0.5, 0.9))
    for _ in range(iterations):
        picks = [usable[k] for k in torch.randint(len(usable), (_LANES,), generator=draws).tolist()]
        utterances = [corpus[i] for i in picks]
        motions = [recorded(u) - u.template for u in utterances]
        truth = pad_sequence(motions, True)
        mask = torch.arange(truth.shape[1]) < torch.tensor([len(m) for m in motions])[:, None]
        heard = pad_sequence([audio.get(i)[: len(m)] for i, m in zip(picks, motions, strict=True)], True)
        phones = pad_sequence(
            [phone_rows(u.phones, names, len(m), corpus.fps) for u, m in zip(utterances, motions, strict=True)], True
        )
        style = torch.eye(len(corpus.subjects))[[corpus.subjects.index(u.subject) for u in utterances]]
        made = actor.imitate(heard, style, truth, False)

        # the discriminator: recordings against the actor
        real, fake = (judge(phones, seen(m))[mask] for m in (truth, made.detach()))
        other.zero_grad()
        (F.softplus(-real).mean() + F.softplus(fake).mean()).backward()
        other.step()

        # the actor: both gradients brought to the ratio of their weights
        position, velocity = motion_errors(made, truth, mask[..., None])
        fooled = F.softplus(-judge(phones, seen(made))[mask]).mean()
        near = torch.autograd.grad(position + 10 * velocity, learners, retain_graph=True, allow_unused=True)
        far = torch.autograd.grad(fooled, learners, allow_unused=True)
        sizes = [sum(float(g.square().sum()) for g in grads if g is not None) ** 0.5 for grads in (near, far)]
        for p, a, b in zip(learners, near, far, strict=True):
            p.grad = None if a is None or b is None else a + b * (weight * sizes[0] / max(sizes[1], 1e-12))
        nn.utils.clip_grad_norm_(learners, 1.0)
        optimizer.step()
    save_tensors(out / "last.pt", {"actor": actor_entry(actor, corpus)})


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", required=True, type=Path, help="the supervised start")
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--weight", type=float, default=2.0, help="adversarial : supervised, of the gradients' norms")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    corpus = FaceCorpus(options.corpus, split="train", topology=None)
    train(corpus, options.checkpoint, options.out, options.iterations, options.weight, options.lr, options.seed)


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        if mistake_line(error) is None:
            raise
        sys.exit(f"error: {mistake_line(error)}")
