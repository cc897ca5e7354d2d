"""Statistics, optimizers and the choice of the best checkpoint."""

from __future__ import annotations

import pickle
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from torch.distributions import Distribution, Normal

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.models.contract import LinearMotion
from s2f_rl.models.distributions import MaskedNormal
from s2f_rl.models.policy import MotionCore
from s2f_rl.training import (
    Validation,
    actor_entry,
    batch_statistics,
    clip_gradients,
    cosine_decay,
    load_moments,
    make_optimizer,
    named_moments,
)
from s2f_rl.training import validation as validation_module
from s2f_rl.training.parts import lane_minibatches
from s2f_rl.training.statistics import mean_amplitude_mm
from tests.tiny import make_tiny_corpus


def test_batch_statistics():
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(6) < torch.tensor([6, 4])[:, None]).unsqueeze(-1)
    latent, loc = torch.randn(2, 2, 6, 3, generator=generator)
    action, reward = torch.randn(2, 6, 12, generator=generator), torch.randn(2, 6, 1, generator=generator)
    weight = torch.randn(12, 3, generator=generator)
    core = SimpleNamespace(latent_space=True, decoder=SimpleNamespace(linear_decode=LinearMotion(weight, weight[:, 0])))
    core.batch_figures = partial(MotionCore.batch_figures, core)
    core.distribution = lambda td: MaskedNormal(td["loc"], torch.tensor([0.1, 0.2, 0.5]), td["frame_mask"])
    score_mask = mask & (torch.arange(6)[:, None] >= 2)
    batch = TensorDict(
        {
            "frame_mask": mask, "latent": latent, "loc": loc, "action": action,
            "next": {"reward": reward, "score_mask": score_mask, "lip_score": 2 * reward},
        }, [2, 6],
    )  # fmt: skip
    lips = torch.tensor([1, 3])
    out = batch_statistics(batch, SimpleNamespace(core=core), lips, ["lip_score", "real_score"])
    assert out["batch_frames"] == 10
    assert out["reward"] == pytest.approx(float(torch.cat([reward[0, 2:6], reward[1, 2:4]]).mean()))
    assert out["lip_score"] == pytest.approx(2 * out["reward"], rel=1e-5)
    squared, noise = [], []
    for b, n in ((0, 6), (1, 4)):
        motion = action[b, :n].view(n, 4, 3)[:, lips]
        squared.append((motion - motion.mean(0)).square().sum(-1).flatten())
        moved = ((latent - loc)[b, :n] @ weight.T).view(n, 4, 3)[:, lips]
        noise.append(moved.square().sum(-1).flatten())
    assert out["amplitude_mm"] == pytest.approx(1e3 * float(torch.cat(squared).mean().sqrt()), rel=1e-5)
    assert out["noise_mm"] == pytest.approx(1e3 * float(torch.cat(noise).mean().sqrt()), rel=1e-5)
    entropy = sum(Normal(0.0, sigma).entropy() for sigma in (0.1, 0.2, 0.5))  # of every frame, padding has none
    assert out["entropy"] == pytest.approx(float(entropy), rel=1e-5) and "spread_mm" not in out


def test_spread_within_groups():
    """Two groups of three samples, of six and four frames, against a loop; without an entropy no column."""
    generator = torch.Generator().manual_seed(0)
    lengths, lips = (6, 6, 6, 4, 4, 4), torch.tensor([1, 3])
    mask = (torch.arange(6) < torch.tensor(lengths)[:, None]).unsqueeze(-1)
    action = torch.randn(6, 6, 12, generator=generator)
    core = SimpleNamespace(
        batch_figures=lambda batch, vertices: {}, distribution=lambda td: Distribution(validate_args=False)
    )
    batch = TensorDict({"frame_mask": mask, "action": action, "next": {"score_mask": mask}}, [6, 6])
    out = batch_statistics(batch, SimpleNamespace(core=core), lips, [], group_size=3)
    squares = []
    for group, n in ((action[:3], 6), (action[3:], 4)):
        for t in range(n):
            for vertex in (1, 3):
                at = group[:, t, 3 * vertex : 3 * vertex + 3]
                squares.append(float((at - at.mean(0)).square().sum()) / 2)
    assert out["spread_mm"] == pytest.approx(1e3 * (sum(squares) / len(squares)) ** 0.5, rel=1e-5)
    assert "entropy" not in out


def test_moments_carry_over():
    """Two optimizers that share moments make the same step; without them they do not."""
    torch.manual_seed(0)
    nets = [torch.nn.Linear(4, 2) for _ in range(3)]
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    optimizers = [make_optimizer([(net.named_parameters(), 1.0)], 1e-2) for net in nets]
    for _ in range(5):
        nets[0](torch.randn(3, 4)).square().sum().backward()
        optimizers[0].step()
        optimizers[0].zero_grad()
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    moments = named_moments(optimizers[0], nets[0].named_parameters())
    assert load_moments(optimizers[1], nets[1].named_parameters(), moments) == 2
    x = torch.randn(3, 4)
    for net, optimizer in zip(nets, optimizers, strict=True):
        net(x).square().sum().backward()
        optimizer.step()
    assert torch.equal(nets[0].weight, nets[1].weight)
    assert not torch.allclose(nets[0].weight, nets[2].weight)
    assert load_moments(optimizers[1], [("weight", torch.nn.Parameter(torch.zeros(1)))], moments) == 0


def test_rates():
    net = torch.nn.ModuleDict({"output": torch.nn.Linear(2, 2), "other": torch.nn.Linear(2, 2)})
    critic = torch.nn.Linear(2, 1)
    groups = [(net.named_parameters(), 1.0), (critic.named_parameters(), 10.0)]
    with pytest.raises(ValueError, match="output_lr_factor=0.03 is of nothing"):
        make_optimizer(groups, 1.0, 0.03)
    optimizer = make_optimizer(groups, 1.0, 0.03, output_map=net["output"].parameters())
    options = SimpleNamespace(lr=1.0, final_lr=0.1)
    for iteration, lr in ((1, 1.0), (6, 0.55), (11, 0.1)):
        assert cosine_decay(optimizer, options, iteration, 10) == pytest.approx(lr)
        rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
        assert rates[id(net["output"].weight)] == pytest.approx(0.03 * lr)
        assert rates[id(net["other"].weight)] == pytest.approx(lr)
        assert rates[id(critic.weight)] == pytest.approx(10 * lr)


def test_groups_of_one_rate_are_clipped_apart():
    """The first group's gradient of 30 leaves the second's of 0.4 alone, though both have the same rate."""
    nets = [torch.nn.Linear(1, 1, bias=False) for _ in range(2)]
    optimizer = make_optimizer([(net.named_parameters(), 1.0) for net in nets], 1e-3)
    for net, gradient in zip(nets, (30.0, 0.4), strict=True):
        net.weight.grad = torch.full((1, 1), gradient)
    assert clip_gradients(optimizer, 1.0).tolist() == pytest.approx([30.0, 0.4])
    assert [net.weight.grad.item() for net in nets] == pytest.approx([1.0, 0.4])


def test_no_clipping_and_no_turning_round():
    net = torch.nn.Linear(1, 1, bias=False)
    optimizer = make_optimizer([(net.named_parameters(), 1.0)], 1e-3)
    net.weight.grad = torch.full((1, 1), 3e8)
    assert float(clip_gradients(optimizer, None)[0]) == net.weight.grad.item() == 3e8
    for norm in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="above 0; null: no clipping"):
            clip_gradients(optimizer, norm)
        assert net.weight.grad.item() == 3e8


def test_minibatches_cover_every_row_once():
    batch = TensorDict({"x": torch.arange(7)[:, None].expand(7, 3)}, [7, 3])
    seen = torch.cat([rows["x"][:, 0] for rows in lane_minibatches(batch, 3)])
    assert sorted(seen.tolist()) == list(range(7))


def test_best_checkpoint_is_guarded():
    validation = Validation.__new__(Validation)
    validation.select, validation.max_lve_ratio, validation.start_lve = "reward", 1.05, 1.0
    validation.max_closure_drop, validation.start_closure = 0.05, 0.7
    validation.counts = {"lip_score": 1.0, "real_score": 1.0, "closure_score": 0.5}
    fair, cheat = {"lve": 1.04, "lip_score": 0.5, "real_score": 0.5}, {"lve": 1.2, "lip_score": 0.9, "real_score": 0.9}
    assert validation.value(fair) == 1.0
    assert validation.value(fair | {"closure_score": 0.2, "open_score": 9.0}) == pytest.approx(1.1)
    assert validation.value(cheat) == float("-inf")
    assert validation.value(fair | {"closure_rate": 0.64}) == float("-inf")
    assert validation.value(fair | {"closure_rate": 0.66}) == 1.0
    validation.max_closure_drop = None
    assert validation.value(fair | {"closure_rate": 0.0}) == 1.0
    with pytest.raises(UserError, match="score on no frame of the validation utterances .* use evaluation.select=lve"):
        validation.value({"lve": 1.0})
    validation.select = "lve"
    assert validation.value(fair) > validation.value(cheat)


def test_sold_closures_are_told_once(tmp_path, monkeypatch, caplog):
    """Values as they come from one validation after the other: start, lost with less reward, lost with more, again."""
    actor, corpus = SimpleNamespace(audio_encoder=MelAudioEncoder(width=10)), FaceCorpus(make_tiny_corpus(tmp_path))
    validation = Validation(actor, corpus, max_closure_drop=0.05, counts={"lip_score": 1.0})
    told = []
    for closure, score in ((0.7, 0.4), (0.5, 0.3), (0.66, 0.5), (0.6, 0.5), (0.3, 0.6)):
        values = {"lve": 1.0, "closure_rate": closure, "lip_score": score}
        monkeypatch.setattr(validation_module, "evaluate_actor", lambda *_, row=values, **__: [row])
        monkeypatch.setattr(validation_module, "summarise", lambda rows: dict(rows[0]))
        monkeypatch.setattr(validation_module, "counts", lambda rows: {})
        assert validation() == values
        told.append(len(caplog.messages))
    assert told == [0, 0, 0, 1, 1]
    assert caplog.messages[0].startswith("closures are being sold: the lips close in 60% of the frames where they")
    other = Validation(actor, corpus, max_closure_drop=0.05)
    other.load_state_dict(validation.state_dict())
    assert (other.start_lve, other.start_closure, other.start_score) == (1.0, 0.7, 0.4)
    other.load_state_dict({"start_lve": 2.0})  # of a run from before the guard
    assert other.value({"lve": 3.0}) == -3.0 and other.start_closure is None


def test_mean_amplitude():
    generator = torch.Generator().manual_seed(0)
    motions = [torch.randn(5, 12, generator=generator), None, torch.randn(9, 12, generator=generator)]
    corpus = [SimpleNamespace(vertices=m) for m in motions]
    lips = torch.tensor([0, 2])
    expected = []
    for m in (motions[0], motions[2]):
        own = m.view(-1, 4, 3)[:, lips]
        expected.append(float((own - own.mean(0)).square().sum(-1).mean()))
    assert mean_amplitude_mm(corpus, lips) == pytest.approx(1e3 * (sum(expected) / 2) ** 0.5, rel=1e-5)
    assert mean_amplitude_mm([SimpleNamespace(vertices=None)], lips) is None


def test_actor_of_a_corpus_of_some_speakers(tmp_path):
    """Style columns of speakers that the copy of a corpus lacks stay; their faces are not in the file."""
    root = make_tiny_corpus(tmp_path)
    gone = FaceCorpus(root).subjects[0]
    templates = pickle.loads((root / "templates.pkl").read_bytes())
    (root / "templates.pkl").write_bytes(pickle.dumps({s: face for s, face in templates.items() if s != gone}))
    for path in [*root.glob(f"wav/{gone}_*"), *root.glob(f"vertices_npy/{gone}_*")]:
        path.unlink()
    corpus = FaceCorpus(root)
    actor = FaceFormer(MelAudioEncoder(width=16), corpus.n_vertices, 16, len(corpus.subjects))
    torch.save({"actor": actor_entry(actor, corpus)}, tmp_path / "best.pt")
    found, about = load_actor(tmp_path / "best.pt")
    assert gone in found.styles and set(about["templates"]) == set(corpus.subjects) - {gone}
