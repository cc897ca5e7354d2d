"""The policy of codes against slow references: published prediction, probabilities, modes, gradients, padding."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from golden_codetalker import load
from small_codetalker import small_actor
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch.distributions import Categorical, Independent, kl_divergence
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import set_recurrent_mode

from s2f_rl.errors import UserError
from s2f_rl.losses import (
    A2CLoss,
    AdvantageWeightedLoss,
    ClipPPOLoss,
    KLPenaltyPPOLoss,
    ReferenceKL,
    ReinforceLoss,
    check_ratio_is_one,
    total_loss,
)
from s2f_rl.models import CodeTalker, MotionPolicy
from s2f_rl.models.codetalker.policy import temperature_of
from s2f_rl.models.distributions import MaskedCodes

LENGTHS = (9, 6, 9, 1)


def calibrated(actor: CodeTalker, changed: float = 0.2, n_frames: int = 9) -> MotionPolicy:
    policy: MotionPolicy = actor.make_policy()
    dtype, width = actor.codebook.codes.dtype, actor.audio_encoder.width
    speech = torch.randn(n_frames, 1, width, generator=torch.Generator().manual_seed(7)).to(dtype)
    policy.core.calibrate(changed, [(speech, torch.eye(actor.n_styles, dtype=dtype)[0])])
    return policy


def rows(actor: CodeTalker, lengths: tuple[int, ...] = LENGTHS) -> TensorDict:
    """What an environment observes, of lanes that end and then idle."""
    n_lanes, n_frames, dtype = len(lengths), max(lengths), actor.codebook.codes.dtype
    time, ends = torch.arange(n_frames)[None, :, None], torch.tensor(lengths)[:, None, None]
    audio = torch.randn(n_lanes, n_frames, 1, actor.audio_encoder.width, generator=torch.Generator().manual_seed(5))
    style = torch.eye(actor.n_styles)[torch.arange(n_lanes) % actor.n_styles].unsqueeze(1).repeat(1, n_frames, 1)
    observed = {"audio": torch.where((time < ends).unsqueeze(-1), audio, 0.0).to(dtype), "style": style.to(dtype),
                "frame_mask": time < ends, "frame_index": torch.minimum(time, ends - 1)}  # fmt: skip
    return TensorDict(observed, [n_lanes, n_frames])


def collected(policy: MotionPolicy, actor: CodeTalker, lengths: tuple[int, ...] = LENGTHS) -> TensorDict:
    batch = rows(actor, lengths)
    torch.manual_seed(3)
    policy.roll_out(batch)
    policy.complete(batch)
    return batch


@pytest.fixture
def actor() -> CodeTalker:
    return small_actor().double()


@pytest.fixture
def policy(actor: CodeTalker) -> MotionPolicy:
    return calibrated(actor)


@pytest.fixture
def batch(policy: MotionPolicy, actor: CodeTalker) -> TensorDict:
    return collected(policy, actor).set("advantage", torch.randn(4, 9, 1, generator=torch.Generator().manual_seed(1)))


def evaluated(policy: MotionPolicy, batch: TensorDictBase) -> Any:
    with set_recurrent_mode(True):
        return policy.actor_module.get_dist(batch.clone(False))


def slow_features(actor: CodeTalker, audio: Tensor, style: Tensor, codes: Tensor) -> Tensor:
    """[T, Q, C] of one lane: for every frame all codes before it are decoded to vertices, as published."""
    book, fed = actor.codebook, actor.decoder.embed_style(style[None]).unsqueeze(1)
    inputs = [fed]
    for t in range(len(codes) - 1):
        seen = codes[None, : t + 1].repeat(1, 2 if t == 0 else 1, 1)
        inputs.append(actor.decoder.vertice_map(book.decode(seen)[:, -1:]) + fed)
    return actor.decoder.run(torch.cat(inputs, 1), audio[None])[0].unflatten(-1, (book.codes_per_frame, -1))


def slow_log_prob(policy: MotionPolicy, actor: CodeTalker, lane: TensorDictBase) -> Tensor:
    """[T]: a softmax of minus the squared distances over the temperature."""
    features = slow_features(actor, lane["audio"], lane["style"][0], lane["latent"])
    distances = (features.unsqueeze(-2) - actor.codebook.codes).square().sum(-1)
    chosen = (-distances / policy.core.exploration()["temperature"]).softmax(-1).log()
    return chosen.gather(-1, lane["latent"].unsqueeze(-1)).sum((-1, -2))


# -- the distribution ------------------------------------------------------------------------------------------------


def test_closed_forms() -> None:
    p, q = (3 * torch.randn(2, 5, 3, 7, dtype=torch.float64) for _ in range(2))
    codes = torch.randint(7, (2, 5, 3))
    ours, theirs = (MaskedCodes(x) for x in (p, q))
    plain, other = (Independent(Categorical(logits=x), 1) for x in (p, q))
    torch.testing.assert_close(ours.log_prob(codes), plain.log_prob(codes))
    torch.testing.assert_close(ours.entropy(), plain.entropy())
    torch.testing.assert_close(kl_divergence(ours, theirs), kl_divergence(plain, other))
    assert torch.equal(ours.deterministic_sample, p.argmax(-1))
    assert ours.expand(torch.Size([4, 2, 5])).log_prob(codes.expand(4, -1, -1, -1)).shape == (4, 2, 5)


def test_padding_is_nothing() -> None:
    logits = torch.randn(2, 3, 2, 5, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]], dtype=torch.bool).unsqueeze(-1)
    dirty = torch.where(mask.unsqueeze(-1), logits, torch.nan).requires_grad_()
    codes = torch.where(mask, torch.randint(5, (2, 3, 2)), -9)
    ours, clean = MaskedCodes(dirty, mask), MaskedCodes(logits)
    valid = mask.squeeze(-1)
    for found, expected in (
        (ours.log_prob(codes), clean.log_prob(codes.clamp_min(0))),
        (ours.entropy(), clean.entropy()),
        (kl_divergence(ours, MaskedCodes(0.5 * dirty, mask)), kl_divergence(clean, MaskedCodes(0.5 * logits))),
    ):
        torch.testing.assert_close(found[valid], expected[valid])
        assert not found[~valid].any()
        (gradient,) = torch.autograd.grad(found.sum(), dirty, retain_graph=True)
        assert bool(gradient.isfinite().all()) and not gradient[~valid].any() and gradient[valid].abs().sum() > 0


def test_draws_follow_the_probabilities() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([[0.0, 1.0, -200.0], [0.5, 0.5, 2.0]])
    drawn = MaskedCodes(logits).sample((20000,))
    assert drawn.shape == (20000, 2) and drawn.dtype is torch.int64
    shares = torch.stack([torch.bincount(drawn[:, q], minlength=3) / 20000 for q in range(2)])
    torch.testing.assert_close(shares, logits.softmax(-1), rtol=0, atol=0.015)
    assert shares[0, 2] == 0


# -- the published prediction ------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["vocaset", "biwi"])
def test_without_temperature_it_is_the_published_prediction(topology: str) -> None:
    golden = load(topology)
    audio, one_hot = golden.given("in/audio", "in/one_hot")
    policy = golden.actor.make_policy()
    with torch.no_grad():
        heard, indices = golden.actor.encode(audio), torch.from_numpy(golden.arrays["s2/predict/indices"])
        nearest, logits, _ = policy.core.roll_out(heard, one_hot, sampled=False)
        assert torch.equal(nearest[0], indices) and torch.equal(logits[0].argmax(-1), indices)
        warm, _, _ = policy.core.roll_out(heard, one_hot)
        policy.core.log_temperature.fill_(-30.0)
        cold, _, _ = policy.core.roll_out(heard, one_hot)
    assert torch.equal(cold[0], indices) and not torch.equal(warm[0], indices)


def test_temperature_is_that_of_the_share(actor: CodeTalker) -> None:
    scores = 5 * torch.randn(300, 4, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for wanted in (0.02, 0.07, 0.4):
        likeliest = (scores / temperature_of(scores, wanted)).softmax(-1).amax(-1)
        assert float(1 - likeliest.mean()) == pytest.approx(wanted, abs=1e-9)
    policy = calibrated(actor, 0.07, 60)
    speech = torch.randn(60, 1, 8, generator=torch.Generator().manual_seed(7)).double()
    _, logits, _ = policy.core.roll_out(speech[None], torch.eye(2).double()[:1], sampled=False)
    assert float(1 - logits.softmax(-1).amax(-1).mean()) == pytest.approx(0.07, abs=1e-6)
    for impossible, wanted in ((scores, 0.92), (torch.zeros(3, 4), 0.07)):
        with pytest.raises(UserError, match="exploration.changed_codes"):
            temperature_of(impossible, wanted)


# -- step mode, sequence mode, slow reference -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_steps_are_the_sequence(dtype: torch.dtype) -> None:
    """In float64 the past of 70 frames is kept to the last digits; more than what there is room for at first."""
    actor, lengths = small_actor().to(dtype), (70, 40)
    policy = calibrated(actor)
    batch, stepped = collected(policy, actor, lengths), rows(actor, lengths)
    torch.manual_seed(3)
    frames = [policy(frame.clone()) for frame in stepped.unbind(1)]
    mask = batch["frame_mask"].squeeze(-1)
    for key in ("latent", "logits", "fed_back", "latent_log_prob"):
        torch.testing.assert_close(torch.stack([f[key] for f in frames], 1)[mask], batch[key][mask])
    assert "action" not in frames[0].keys()
    with torch.no_grad():
        found = evaluated(policy, batch).log_prob(batch["latent"])
    tolerance = 1e-11 if dtype is torch.float64 else 1e-4
    assert (found - batch["latent_log_prob"])[mask].abs().max() < tolerance
    assert check_ratio_is_one(policy.actor_module, batch) < tolerance
    assert (batch["latent"] != batch["logits"].argmax(-1))[mask].float().mean() > 0.05


def test_log_probabilities_and_gradients_are_those_of_the_published_decoding(
    batch: TensorDict, policy: MotionPolicy, actor: CodeTalker
) -> None:
    """Motion map, style and all layers, through what was fed back."""
    found, expected = evaluated(policy, batch).log_prob(batch["latent"]), torch.zeros(4, 9, dtype=torch.float64)
    weights = torch.randn(4, 9, generator=torch.Generator().manual_seed(2)).double()
    for lane, n in enumerate(LENGTHS):
        expected[lane, :n] = slow_log_prob(policy, actor, batch[lane, :n])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.detach(), batch["latent_log_prob"], rtol=0, atol=1e-11)
    trained = {name: p for name, p in actor.decoder.named_parameters()}
    ours, theirs = (
        torch.autograd.grad((weights * x).sum(), list(trained.values()), allow_unused=True) for x in (found, expected)
    )
    for name, mine, slow in zip(trained, ours, theirs, strict=True):
        if slow is not None:
            assert mine is not None
            torch.testing.assert_close(mine, slow, rtol=1e-8, atol=1e-9, msg=name)
    assert theirs[list(trained).index("vertice_map.weight")].abs().max() > 1e-6


def test_later_frames_and_padding_change_nothing(batch: TensorDict, policy: MotionPolicy) -> None:
    mask = batch["frame_mask"]
    dirty = batch.clone()
    for key in ("audio", "latent", "fed_back", "logits"):
        value, seen = dirty[key], mask.reshape(*mask.shape[:2], *[1] * (dirty[key].ndim - 2))
        dirty[key] = torch.where(seen, value, torch.full_like(value, 5 if key == "latent" else torch.nan))
    dirty["audio"] = dirty["audio"].nan_to_num(9.0)
    found, clean = (evaluated(policy, each) for each in (dirty, batch))
    torch.testing.assert_close(found.log_prob(dirty["latent"]), clean.log_prob(batch["latent"]))
    torch.testing.assert_close(found.entropy(), clean.entropy())
    torch.testing.assert_close(policy.core.decode(dirty["latent"], mask), batch["action"])
    cut = batch[:, :5].clone()
    torch.testing.assert_close(evaluated(policy, cut).log_prob(cut["latent"]), clean.log_prob(batch["latent"])[:, :5])


def test_rows_are_decoded_as_if_alone(batch: TensorDict, actor: CodeTalker, policy: MotionPolicy) -> None:
    for lane, n in enumerate(LENGTHS):
        torch.testing.assert_close(batch["action"][lane, :n], actor.decode(batch["latent"][lane : lane + 1, :n])[0])
        assert not batch["action"][lane, n:].any()


def test_lanes_begin_together(policy: MotionPolicy, actor: CodeTalker) -> None:
    frames = rows(actor, (4, 4)).unbind(1)
    policy(frames[0].clone())
    late = frames[1].clone()
    late["frame_index"][0] = 0
    with pytest.raises(ValueError, match="lanes of codes begin together"):
        policy(late)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        codes = torch.stack([policy(frame.clone())["latent"] for frame in frames], 1)
    batch = rows(actor, (4, 4))
    assert torch.equal(codes, actor.generate(batch["audio"], batch["style"][:, 0]))


def test_copies_keep_the_temperature_and_no_past(batch: TensorDict, policy: MotionPolicy, actor: CodeTalker) -> None:
    policy(rows(actor)[:, 0])
    for other in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert other.core._steps is None and policy.core._steps is not None
        assert check_ratio_is_one(other.actor_module, batch) < 1e-11
    fresh = small_actor().double().make_policy()
    fresh.load_state_dict(policy.state_dict())
    assert check_ratio_is_one(fresh.actor_module, batch) < 1e-11


# -- losses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [A2CLoss, ReinforceLoss, ClipPPOLoss, KLPenaltyPPOLoss, AdvantageWeightedLoss])
def test_every_policy_loss(kind: Any, batch: TensorDict, policy: MotionPolicy, actor: CodeTalker) -> None:
    """At ratio 1 the gradient of all of them is that of -advantage * log-probability, up to a positive weight."""
    for parameter in policy.core.frozen_in_rl():
        parameter.requires_grad_(False)
    batch["advantage"] = batch["advantage"].double()
    total_loss(kind(policy.actor_module)(batch)).backward()
    parts = (actor.decoder.feature_map.weight, actor.decoder.vertice_map.weight, actor.decoder.style_embedding.weight)
    log_prob = evaluated(policy, batch).log_prob(batch["latent"])
    mask, advantage = batch["frame_mask"].squeeze(-1), batch["advantage"].squeeze(-1)
    weight = advantage.exp().clamp(max=20.0) if kind is AdvantageWeightedLoss else advantage
    expected = torch.autograd.grad(-(weight * log_prob)[mask].mean(), parts)
    for part, slow in zip(parts, expected, strict=True):
        torch.testing.assert_close(part.grad, slow, rtol=1e-6, atol=1e-12)
    assert actor.codebook.codes.grad is None


def test_entropy_bonus_and_divergence(batch: TensorDict, policy: MotionPolicy, actor: CodeTalker) -> None:
    out = A2CLoss(policy.actor_module, entropy_bonus=True, entropy_coeff=1.0)(
        batch.set("advantage", torch.zeros(4, 9, 1))
    )
    kl = ReferenceKL(policy.actor_module)
    with torch.no_grad():
        actor.decoder.feature_map.weight.mul_(1.5)
    now, start = evaluated(policy, batch), batch["logits"]
    mask, probs = batch["frame_mask"].squeeze(-1), start.softmax(-1)
    assert float(out["entropy"]) == pytest.approx(float(-(probs * probs.log()).sum((-1, -2))[mask].mean()), rel=1e-6)
    expected = (now.probs * (now.log_probs - start.log_softmax(-1))).sum((-1, -2))[mask].mean()
    assert float(kl(batch)["kl_reference"]) == pytest.approx(float(expected), rel=1e-6) and expected > 0.01


def test_figures(batch: TensorDict, policy: MotionPolicy) -> None:
    figures, mask = policy.core.batch_figures(batch, torch.arange(3)), batch["frame_mask"].squeeze(-1)
    codes, logits = batch["latent"][mask], batch["logits"][mask]
    assert figures["changed_codes"] == pytest.approx(float((codes != logits.argmax(-1)).float().mean()))
    assert figures["code_entropy"] == pytest.approx(float(Categorical(logits=logits).entropy().mean()))
    shares = [float((codes == k).float().mean()) for k in codes.unique()]
    assert figures["code_perplexity"] == pytest.approx(torch.tensor(shares).pow(-torch.tensor(shares)).prod().item())


# -- motion --------------------------------------------------------------------------------------------------------


def straight(actor: CodeTalker, features: Tensor, codes: Tensor) -> Tensor:
    """One lane's motion [T, V*3] of codes, with the gradient of the identity to the features."""
    vectors = features + (actor.codebook.codes[codes] - features).detach()
    return actor.codebook.decoder(vectors.flatten(-2)[None], True)[0]


def test_motion_has_the_straight_gradient(batch: TensorDict, policy: MotionPolicy, actor: CodeTalker) -> None:
    """Of the nearest codes given those drawn, and of the drawn ones themselves, every row by its own length."""
    core, mask, weight = policy.core, batch["frame_mask"], actor.decoder.feature_map.weight
    drawn = core.unrolled(batch["audio"], batch["style"][:, 0], core.unit_noise(batch), frame_mask=mask)
    torch.testing.assert_close(drawn, batch["action"])
    likely = core.mean_motion(batch)
    torch.testing.assert_close(core.mean_motion(batch, collected=True), likely)
    scale = torch.randn(9, 120, generator=torch.Generator().manual_seed(4)).double()
    sums = [torch.zeros(()).double(), torch.zeros(()).double()]
    for lane, n in enumerate(LENGTHS):
        own = batch[lane, :n]
        features = slow_features(actor, own["audio"], own["style"][0], own["latent"]).detach()
        given = actor.decoder.run(_inputs(actor, batch, lane, n), own["audio"][None])[0].unflatten(-1, (4, -1))
        torch.testing.assert_close(given.detach(), features)
        for k, codes in enumerate((own["latent"], actor.codebook.nearest(features))):
            motion = straight(actor, given, codes)
            torch.testing.assert_close((drawn, likely)[k][lane, :n], motion)
            sums[k] = sums[k] + (scale[:n] * motion).sum()
    for ours, slow in zip((drawn, likely), sums, strict=True):
        found, expected = (torch.autograd.grad(x, weight, retain_graph=True)[0] for x in ((scale * ours).sum(), slow))
        torch.testing.assert_close(found, expected)
        assert expected.abs().max() > 1e-3


def _inputs(actor: CodeTalker, batch: TensorDict, lane: int, n: int) -> Tensor:
    displaced = actor.codebook.decoder.output(batch["fed_back"][lane, 1:n])
    style = actor.decoder.embed_style(batch["style"][lane, :1])
    return torch.cat([style, actor.decoder.vertice_map(displaced) + style])[None]


def test_deterministic_motion_is_the_actors(policy: MotionPolicy, actor: CodeTalker) -> None:
    batch = rows(actor, (9, 9))
    found = policy.core.unrolled(batch["audio"], batch["style"][:, 0])
    expected = actor.decode(actor.generate(batch["audio"], batch["style"][:, 0]))
    torch.testing.assert_close(found, expected)
    out = actor.codebook.decoder.output.weight
    for trains in (False, True):
        moved = policy.core.unrolled(batch["audio"], batch["style"][:, 0], train_output_map=trains)
        assert (torch.autograd.grad(moved.sum(), out, allow_unused=True)[0] is not None) == trains


@pytest.mark.parametrize("topology", ["vocaset", "biwi"])
def test_regression_is_the_published_one(topology: str) -> None:
    """With the true history: ``loss_reg`` in units of the codebook's variance, and ``loss_motion``."""
    golden = load(topology)
    actor = golden.actor
    audio, template, one_hot, vertices = golden.given("in/audio", "in/template", "in/one_hot", "s2/nat/vertice")
    core, truth = actor.make_policy().core, vertices - template
    with torch.no_grad():
        heard = actor.encode(audio, truth.shape[1])
        codes = core.targets(truth[0])
        assert torch.equal(codes, torch.from_numpy(golden.arrays["s2/nat/indices_gt"]))
        td = TensorDict(
            {"audio": heard, "style": one_hot[:, None].expand(1, truth.shape[1], -1),
             "frame_mask": torch.ones(1, truth.shape[1], 1, dtype=torch.bool)}, [1, truth.shape[1]],
        )  # fmt: skip
        motion, error = core.regressed(td, codes[None], truth)
    spread = actor.codebook.codes.detach().var(0, correction=0).mean()
    assert float(error.mean() * spread) == pytest.approx(float(golden.arrays["s2/nat/loss_reg"]), abs=2e-5)
    loss_motion = float((motion - truth).square().mean())
    assert loss_motion == pytest.approx(float(golden.arrays["s2/nat/loss_motion"]), abs=2e-5)
