"""Wrong motion of the generator: right at strength 0, wrong in one way and no other, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.wrong_world import KINDS, WorldBank, world_corruptions, wrong_motion
from s2f_rl.data import FaceCorpus
from s2f_rl.data.synthetic import load_speakers, load_take, synthesize
from s2f_rl.data.synthetic.phones import BILABIALS
from s2f_rl.rewards.motion.subspace import MotionSubspace

pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("world"), 3, 2, vertices=300, workers=1, progress=False)


@pytest.mark.parametrize("kind", KINDS)
def test_strength_and_seed(world: Path, kind: str) -> None:
    corpus = FaceCorpus(world, split="train")
    u = corpus[0]
    take, speaker = load_take(world, u.name), load_speakers(world)[u.subject]
    truth = u.vertices - u.template
    none, some, all_, again = (wrong_motion(kind, take, speaker, s, 3)[: len(truth)] for s in (0.0, 0.5, 1.0, 1.0))
    assert float((none - truth).abs().max()) < 1e-6
    lips = corpus.regions["lips"]
    error = [float((m - truth).unflatten(-1, (-1, 3))[:, lips].square().sum(-1).mean()) for m in (some, all_)]
    assert error[1] > error[0] >= 0 and error[1] > (2e-4) ** 2 and torch.equal(all_, again)


def test_what_is_changed(world: Path) -> None:
    name = FaceCorpus(world, split="train")[0].name
    take = load_take(world, name)
    speaker = load_speakers(world)[name.rpartition("_sentence")[0]]

    def phones(kind: str, strength: float = 1.0) -> list[tuple[str, float, float]]:
        return KINDS[kind][0](take, speaker, strength, np.random.default_rng(0))[0].phones

    def closed(spoken: list[tuple[str, float, float]]) -> int:
        return sum(phone in BILABIALS for phone, _, _ in spoken)

    same_times = [p[1:] for p in take.phones]
    assert closed(take.phones) > 0 == closed(phones("dropped_closures"))
    assert closed(phones("added_closures")) > closed(take.phones)
    for kind in ("wrong_phones", "dropped_closures", "added_closures"):
        assert [p[1:] for p in phones(kind)] == same_times
    wrong, half = phones("wrong_phones"), phones("wrong_phones", 0.5)
    silent = [p[0] == "sil" for p in take.phones]
    assert [a[0] == b[0] for a, b in zip(wrong, take.phones, strict=True)] == silent
    # the same draws: what half of the strength replaces, the whole replaces alike
    assert all(h[0] in (t[0], w[0]) for h, t, w in zip(half, take.phones, wrong, strict=True))
    moved = phones("moved_boundaries")
    edges = [moved[0][1], *(end for _, _, end in moved)]
    assert (
        edges == sorted(edges)
        and edges[-1] == take.phones[-1][2]
        and [p[0] for p in moved] == [p[0] for p in take.phones]
    )


def test_as_corruptions_of_a_stretch(world: Path) -> None:
    corpus = FaceCorpus(world, split="train")
    bank, frames = WorldBank(corpus), slice(10, 40)
    context = bank.context(
        0, MotionSubspace.fit(corpus, n_components=5), torch.Generator().manual_seed(0), frames=frames
    )
    made = {each.name: each for each in world_corruptions()}
    assert set(made) == {*KINDS, "actor"} and not made["actor"].possible(context)
    truth = bank[0].displacement[frames]
    for kind in KINDS:
        torch.testing.assert_close(made[kind](truth, 0.0, context), truth, rtol=0, atol=1e-6)
        assert made[kind](truth, 1.0, context).shape == truth.shape
