"""An actor of a rig is the actor of vertices whose output map is the product of its own with the basis."""

from __future__ import annotations

import copy

import pytest
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.losses import SupervisedLoss
from s2f_rl.models import FaceFormer
from s2f_rl.models.actors import new_actor
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.checkpoint import actor_from_payload, actor_payload, load_actor
from s2f_rl.models.latent_motion import frozen_decode
from s2f_rl.models.meeting import load_actor_for
from s2f_rl.training import actor_entry
from s2f_rl.training.build_policy import build_policy
from tests.coefficient_corpora import NAMES, make_coefficient_corpus

AUDIO = {"kind": "mel", "width": 8, "n_layers": 1}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return FaceCorpus(make_coefficient_corpus(tmp_path_factory.mktemp("rig") / "corpus"))


def made(corpus) -> FaceFormer:
    torch.manual_seed(0)
    actor = new_actor(None, AUDIO, corpus, feature_dim=16).eval()
    with torch.no_grad():
        for p in actor.decoder.output_parameters:
            p.normal_(std=2e-3)
    return actor


@pytest.fixture
def actor(corpus):
    return made(corpus)


def composed(actor) -> FaceFormer:
    """The same of vertices: the reference that knows no coefficients."""
    settings = {k: v for k, v in actor.config().items() if k != "n_coefficients"}
    plain = FaceFormer.from_config(settings).eval()
    tensors = copy.deepcopy(actor.state_dict())
    basis = tensors.pop("decoder.basis").double()
    del tensors["decoder.metres_per_coefficient"]
    for name in ("weight", "bias"):
        key = f"decoder.vertice_map_r.{name}"
        tensors[key] = (basis.T @ tensors[key].double()).float()
    plain.load_state_dict(tensors)
    return plain


def batch_of(corpus, actor, policy):
    from s2f_rl.envs import SpeechToFaceEnv

    env = SpeechToFaceEnv(corpus, CachedAudio(actor.audio_encoder, corpus), 2, seed=0)
    torch.manual_seed(1)
    return env.rollout(env.horizon, policy, break_when_any_done=False)


def test_its_output_map_goes_to_the_coefficients(actor, corpus):
    weight, bias = actor.output_map()
    assert weight.shape == (3, 16) and bias.shape == (3,)
    assert actor.controls.names == NAMES and actor.config()["n_coefficients"] == 3


def test_predicts_as_the_composed_map_does(actor, corpus):
    utterance = corpus[0]
    given = utterance.waveform[None], utterance.template[None], utterance.style[None]
    ours, theirs = actor.predict(*given), composed(actor).predict(*given)
    assert (ours - utterance.template).abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_vertices_are_the_basis_times_its_coefficients(actor, corpus):
    latents = torch.randn(2, 5, 16)
    coefficients = actor.coefficients(latents).double()
    expected = coefficients @ corpus.rig.basis.matrix.double()
    torch.testing.assert_close(actor.decode(latents).double(), expected, rtol=0, atol=1e-7)
    clamped = actor.controls.clamped(10 * coefficients)
    assert clamped.min() == 0 and clamped.max() == 1


def test_trains_as_the_composed_map_does(actor, corpus):
    """Gradient of the output map: that of W through the basis; all others are the same."""
    plain, utterance = composed(actor), corpus[0]
    truth = (utterance.vertices - utterance.template)[None]
    n, style = truth.shape[1], utterance.style[None]
    for forced in (False, True):
        for each in (actor, plain):
            each.zero_grad()
            error = 1e3 * (each.imitate(each.encode(utterance.waveform[None])[:, :n], style, truth, forced) - truth)
            error.square().mean().backward()
        own, other = (dict(each.named_parameters()) for each in (actor, plain))
        for name, p in own.items():
            expected = other[name].grad
            if "vertice_map_r" in name:
                expected = actor.decoder.basis @ expected
            if expected is not None:
                torch.testing.assert_close(p.grad, expected, rtol=0, atol=2e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("exploration", ["latent", "vertex"])
def test_its_policy_is_that_of_the_composed_map(actor, corpus, exploration):
    lips = corpus.regions["lips"]
    options = {"exploration": exploration, "noise_mm": 0.3}
    ours, theirs = (build_policy(each, options, lips) for each in (actor, composed(actor)))
    batches = [batch_of(corpus, actor, policy) for policy in (ours, theirs)]
    for key in ("latent", "latent_log_prob", "loc", "scale"):
        one, other = (batch.get(key) for batch in batches)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * float(other.abs().max()))
    losses = [SupervisedLoss(p.actor_module, corpus)(b) for p, b in zip((ours, theirs), batches, strict=True)]
    for key in ("loss_position", "loss_velocity"):
        torch.testing.assert_close(losses[0][key], losses[1][key], rtol=1e-4, atol=0)


def test_rl_stays_with_the_latents_and_composes_once(actor, corpus):
    policy = build_policy(actor, {"noise_mm": 0.3}, corpus.regions["lips"])
    assert not any(p.requires_grad for p in policy.core.frozen_in_rl()) and len(list(policy.core.frozen_in_rl())) == 2
    assert frozen_decode(policy.core) is not None and not policy.writes_action
    loss = SupervisedLoss(policy.actor_module, corpus)
    batch, composed_maps = batch_of(corpus, actor, policy), set()
    for _ in range(3):
        loss(batch)["loss_position"].backward()
        composed_maps.add(id(loss._projector._factors._value))
        _ = policy.core.linear_decode
    assert len(composed_maps) == 1
    with torch.no_grad():
        before = policy.core.linear_decode.weight.clone()
        actor.decoder.vertice_map_r.weight.mul_(2)
        torch.testing.assert_close(policy.core.linear_decode.weight, 2 * before)


@torch.no_grad()
def test_the_composed_map_moves_with_the_actor(actor):
    before = actor.linear_decode.weight
    assert actor.linear_decode.weight is before
    moved = actor.double().linear_decode.weight
    assert moved.dtype == torch.float64
    torch.testing.assert_close(moved.float(), before)


def test_comes_back_from_its_checkpoint(actor, corpus, tmp_path):
    torch.save({"actor": actor_entry(actor, corpus)}, tmp_path / "best.pt")
    again, _ = load_actor_for(tmp_path / "best.pt", corpus)
    assert again.controls.to_plain() == actor.controls.to_plain()
    latents = torch.randn(3, 16)
    for what in ("decode", "coefficients"):
        torch.testing.assert_close(getattr(again, what)(latents), getattr(actor, what)(latents), rtol=0, atol=0)


def test_published_layout_has_vertices(actor, tmp_path):
    tensors = actor.to_reference()
    assert not [name for name in tensors if "basis" in name]
    torch.testing.assert_close(tensors["vertice_map_r.weight"], actor.linear_decode.weight)


@pytest.mark.parametrize(
    "wrong", [None, {}, {"names": ["a"]}, {"names": ["a", "b", "b"]}, {"bounds": [[0, 1]] * 2}, {"bounds": [[0]] * 3}]
)
def test_a_checkpoint_whose_names_do_not_fit(actor, wrong):
    payload = actor_payload(actor, ["S0", "S1"])
    payload["controls"] = wrong if not wrong else {**payload["controls"], **wrong}
    with pytest.raises(UserError, match="coefficients are not 3 names"):
        actor_from_payload(payload, "best.pt")


def test_other_coefficients_are_another_corpus(actor, corpus, tmp_path):
    import json
    import shutil

    root = shutil.copytree(corpus.root, tmp_path / "other")
    about = json.loads((root / "coefficients.json").read_text())
    about["names"] = about["names"][::-1]
    (root / "coefficients.json").write_text(json.dumps(about))
    torch.save({"actor": actor_entry(actor, corpus)}, tmp_path / "best.pt")
    with pytest.raises(UserError, match="animates the coefficients jawOpen"):
        load_actor_for(tmp_path / "best.pt", FaceCorpus(root))
    assert load_actor(tmp_path / "best.pt")[0].controls.names == NAMES


def test_an_actor_of_vertices_has_no_coefficients(actor):
    with pytest.raises(UserError, match="has no coefficients"):
        composed(actor).coefficients(torch.zeros(1, 16))
