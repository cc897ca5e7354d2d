"""The reward's losses on two ranks against one process with both batches, and the draws of the ranks."""

from __future__ import annotations

import torch
from closeness import assert_close_to_largest
from two_ranks import on_ranks

from s2f_rl import ranks
from s2f_rl.rewards import ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.corruptions import chosen_corruptions
from s2f_rl.rewards.training.clips import ClipBatch, ClipSampler
from s2f_rl.rewards.training.losses import reward_losses
from tests.rewards.settings import CLIPS


def sampler(bank, motion, seed=0):
    options = {**CLIPS, "n_stretches": 2, "n_windows": 2, "n_corruptions": 2}
    return ClipSampler(bank, motion, None, bank.fit_regressor(motion), chosen_corruptions(None), seed, **options)


def joined(first: ClipBatch, second: ClipBatch) -> ClipBatch:
    """Both batches as one, row by row: the true clips of both, then the others of both."""
    n = [len(first.mel), len(second.mel)]
    clips, audio, moved = [], [], [{}, {}]
    for wanted_true in (True, False):
        for k, batch in enumerate((first, second)):
            for row in range(len(batch.clips)):
                if (row < n[k]) == wanted_true:
                    moved[k][row] = len(clips)
                    clips.append(batch.clips[row])
                    audio.append(int(batch.audio[row]) + (n[0] if k else 0))
    rows = {}
    for name in ("better", "worse", "spoiled"):
        own = [[moved[k][int(row)] for row in getattr(batch, name)] for k, batch in enumerate((first, second))]
        rows[name] = torch.tensor(own[0] + own[1])
    names = ("mel", "recording", "clip", "visible", "heads", "spoiled_visible", "spoiled_heads")
    rest = {name: torch.cat([getattr(first, name), getattr(second, name)]) for name in names}
    return ClipBatch(
        clips=torch.stack(clips), audio=torch.tensor(audio), n_windows=first.n_windows, seed=0, **rows, **rest
    )


def losses_and_gradients(backbone, head, batch, average):
    terms = reward_losses(backbone, head, batch)
    sum(terms.values()).backward()
    parameters = [*backbone.parameters(), *head.parameters()]
    if average:
        ranks.average_gradients(parameters)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return {"terms": {name: term.detach() for name, term in terms.items()}, "gradients": gradients}


def test_losses_of_two_halves(bank, motion, tmp_path):
    torch.manual_seed(0)
    backbone = SpeechMeshTransformer(135, 16, depth=1, n_heads=2)
    torch.nn.init.normal_(backbone.encoder.patch_embed.weight, std=10.0)
    head = ScoreHead(16, 16, 8, dropout=0.0)
    draws = sampler(bank, motion)
    halves = draws.draw(), draws.draw()
    assert len(halves[0].clips) != len(halves[1].clips) or len(halves[0].clips) > 8
    found = on_ranks(lambda: losses_and_gradients(backbone, head, halves[ranks.rank()], True), tmp_path)
    one = losses_and_gradients(backbone, head, joined(*halves), False)
    for other in found:
        for name, term in one["terms"].items():
            torch.testing.assert_close(other["terms"][name], term, rtol=1e-5, atol=1e-6, msg=name)
        for ours, theirs in zip(other["gradients"], one["gradients"], strict=True):
            assert_close_to_largest(ours, theirs, 1e-4)


def test_recordings_are_shared(bank, motion, tmp_path):
    """Both ranks go through all recordings together; what an iteration draws follows from it."""
    n = len(bank)

    def drawn():
        each = sampler(bank, motion, seed=4)
        found, noise = [], []
        for iteration in range(n):
            each.begin(iteration, 2)
            (one, draws), (other, _) = each.next_positions(2)
            found += [one, other]
            noise.append(draws.initial_seed())
        again = sampler(bank, motion, seed=4)
        again.begin(1, 2)
        (one, draws), (other, _) = again.next_positions(2)
        assert [one, other, draws.initial_seed()] == [*found[2:4], noise[1]]
        return [found, noise]

    (first, noise), (second, other_noise) = on_ranks(drawn, tmp_path)
    together = [position for pair in zip(first, second, strict=True) for position in pair]
    assert len(together) == 4 * n
    for epoch in range(4):
        assert sorted(together[epoch * n : (epoch + 1) * n]) == sorted(range(n))
    assert not set(noise) & set(other_noise)
