"""A small policy, its rollout of unequal lengths, and a corpus of two utterances, one of them without vertices."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from tensordict import TensorDict

B, T, V, S = 4, 12, 8, 3


class SmallCorpus:
    n_vertices = V
    regions = {"lips": torch.tensor([1, 2])}

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.truth = 2e-3 * torch.randn(T, 3 * V, generator=generator)
        self.template = torch.randn(3 * V, generator=generator)

    def has_vertices(self, i):
        return i != 1

    def __getitem__(self, i):
        vertices = None if i == 1 else self.template + self.truth[: T - 2]
        return SimpleNamespace(vertices=vertices, template=self.template, style=torch.eye(S)[i])


def rollout(policy, lengths, n_frames=T, seed=2):
    """A batch as the collector gives it, with random rewards, values and advantages on valid frames."""
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(len(lengths), T, 1, 10, generator=generator)
    numbers = torch.randn(3, len(lengths), T, 1, generator=generator)
    audio = torch.nn.functional.pad(audio, (0, 0, 0, 0, 0, n_frames - T))
    torch.manual_seed(seed)
    rows = []
    for t in range(n_frames):
        rows.append(
            policy(
                TensorDict(
                    {
                        "audio": audio[:, t],
                        "style": torch.eye(S)[torch.arange(len(lengths)) % S],
                        "utterance": torch.tensor([0, 1, 2, 0])[: len(lengths), None],
                        "frame_index": torch.full((len(lengths), 1), t),
                        "frame_mask": (t < lengths)[:, None],
                    },
                    [len(lengths)],
                )
            )
        )
    batch = torch.stack(rows, 1)
    numbers = torch.nn.functional.pad(numbers, (0, 0, 0, n_frames - T))
    batch["advantage"], batch["value_target"], batch["next", "reward"] = numbers
    return batch
