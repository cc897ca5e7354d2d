"""An audio encoder that RL trains: its gradient against a slow composition, one function for rollout and update."""

from __future__ import annotations

import copy

import pytest
import torch
from tensordict import TensorDict
from torch.distributions import Normal
from two_ranks import on_ranks

from s2f_rl import ranks
from s2f_rl.data.contract import recorded
from s2f_rl.envs import SpeechToFaceEnv
from s2f_rl.errors import UserError
from s2f_rl.losses import (
    LagrangeMultiplier,
    ReferenceKL,
    ReinforceLoss,
    SupervisedLoss,
    WeightedLoss,
    check_ratio_is_one,
    total_loss,
)
from s2f_rl.models import FaceFormer, FaceFormerPolicy, MelAudioEncoder
from s2f_rl.models.critics import DecoderCritic
from s2f_rl.models.hearing import Hearing
from s2f_rl.training import LipErrorConstraint
from tests.envs.support import WIDTH, corpus_in


class Double(MelAudioEncoder):
    """In double precision, whatever the sound comes in."""

    def conv_features(self, waveform):
        return super().conv_features(waveform.double())


class Deaf(MelAudioEncoder):
    def set_trainable(self, train):
        self.requires_grad_(False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return corpus_in(tmp_path_factory.mktemp("corpus"), n_subjects=3, n_sentences=2, seconds=(0.3, 0.6))


def policy_over(encoder, corpus):
    torch.manual_seed(4)
    actor = FaceFormer(encoder, corpus.n_vertices, feature_dim=16, n_subjects=len(corpus.subjects))
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    torch.nn.init.normal_(actor.decoder.vertice_map.weight, std=10.0)
    return FaceFormerPolicy(actor.eval(), noise_mm=3.0).to(encoder.input.weight.dtype)


def moved(encoder, by=0.1):
    """Other weights, drawn anew."""
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(by * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(p)), dtype=p.dtype))


def collected(corpus, hearing, policy, lanes=4, **options):
    env = SpeechToFaceEnv(corpus, hearing, lanes, device_cache_mb=0.0, **options)
    return env.rollout(env.horizon, policy, break_when_any_done=False)


def rows(corpus, policy, utterances, lengths):
    """A batch in double precision with latents and advantages that are drawn, as no policy would draw them."""
    generator, n_time, width = torch.Generator().manual_seed(8), max(lengths), policy.core.decoder.latent_width
    mask = torch.arange(n_time) < torch.tensor(lengths)[:, None]
    styles = torch.stack([corpus[u].style for u in utterances]).double()

    def drawn(*shape):
        return torch.randn(len(lengths), n_time, *shape, generator=generator, dtype=torch.float64)

    return TensorDict(
        {
            "audio": drawn(1, policy.core.decoder.audio_feature_map.in_features),  # stale: it must enter nothing
            "utterance": torch.tensor(utterances).view(-1, 1, 1).expand(-1, n_time, 1),
            "style": styles[:, None].expand(-1, n_time, -1),
            "frame_mask": mask[..., None],
            "frame_index": torch.arange(n_time).view(1, -1, 1).expand(len(lengths), -1, 1),
            "latent": drawn(width),
            "advantage": drawn(1),
        },
        [len(lengths), n_time],
    )


def slow_loss(corpus, encoder, policy, batch):
    """Lane by lane, from the waveform: -advantage log-probability, and the squared errors in mm^2."""
    core, n_frames = policy.core, batch["frame_mask"].sum((1, 2)).tolist()
    policy_term, position, velocity = 0.0, [], []
    for lane, n in enumerate(n_frames):
        spoken = corpus[int(batch["utterance"][lane, 0])]
        audio = encoder(spoken.waveform[None])[0][:n]
        latent = batch["latent"][lane : lane + 1, :n]
        mean = core.means(audio.view(1, n, 1, -1), batch["style"][lane, :1], latent)[0]
        log_prob = Normal(mean, core.exploration()["noise"]).log_prob(latent[0]).sum(-1)
        policy_term = policy_term - (batch["advantage"][lane, :n, 0] * log_prob).sum() / sum(n_frames)
        error = 1000.0 * (core.decode(mean) - (recorded(spoken) - spoken.template)[:n].double())
        position.append(error.square())
        velocity.append((error[1:] - error[:-1]).square())
    return policy_term + torch.cat(position).mean() + torch.cat(velocity).mean()


class TestGradient:
    utterances, lengths = [0, 3, 0, 1], [9, 8, 5, 7]

    def parts(self, corpus):
        torch.manual_seed(1)
        encoder = Double(width=WIDTH).double().eval()
        policy, hearing = policy_over(encoder, corpus), Hearing(encoder, corpus)
        return encoder, policy, hearing, rows(corpus, policy, self.utterances, self.lengths)

    def test_against_a_slow_composition(self, corpus):
        encoder, policy, hearing, batch = self.parts(corpus)
        policy_term, supervised = ReinforceLoss(policy.actor_module), SupervisedLoss(policy.actor_module, corpus)
        loss = WeightedLoss({"policy": (policy_term, 1.0), "supervised": (supervised, 1.0)}, hearing=hearing)
        total = total_loss(loss(batch))
        total.backward()
        fast = [p.grad.clone() for p in hearing.trained]
        assert all((g != 0).any() for g in fast)
        slow = slow_loss(corpus, encoder, policy, batch)
        torch.testing.assert_close(total, slow, rtol=1e-9, atol=0)
        for p, gradient in zip(hearing.trained, fast, strict=True):
            (expected,) = torch.autograd.grad(slow, p, retain_graph=True)
            torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))
        for p, gradient in (
            (encoder.input.weight, fast[0]),
            (encoder.convolutions[1].bias, encoder.convolutions[1].bias.grad),
        ):
            place = gradient.abs().flatten().argmax()
            values = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    p.view(-1)[place] += step
                    values.append(slow_loss(corpus, encoder, policy, batch))
                    p.view(-1)[place] -= step
            assert float(gradient.view(-1)[place]) == pytest.approx(float(values[0] - values[1]) / 2e-5, rel=1e-5)

    def test_two_ranks_take_the_step_of_one(self, corpus, tmp_path):
        _, policy, hearing, batch = self.parts(corpus)
        terms = {
            "policy": (ReinforceLoss(policy.actor_module), 3.0),
            "supervised": (SupervisedLoss(policy.actor_module, corpus), 1.0),
        }
        loss = WeightedLoss(terms, balance="grad_norm", hearing=hearing)

        def gradients():
            half = len(batch) // ranks.count()
            total_loss(loss(batch[ranks.rank() * half :][:half])).backward()
            return [p.grad.clone() for p in hearing.trained]

        both = on_ranks(gradients, tmp_path)
        for one, first, second in zip(gradients(), *both, strict=True):
            assert torch.equal(first, second)
            torch.testing.assert_close(first, one, rtol=0, atol=1e-6 * float(one.abs().max()))

    def test_a_critic_does_not_move_it(self, corpus):
        encoder, policy, hearing, batch = self.parts(corpus)
        core = policy.core
        critic = DecoderCritic(core.decoder.latent_width, WIDTH, len(corpus.subjects)).double()
        batch["loc"] = batch["latent"]
        value = critic(hearing(batch))["state_value"].sum()
        assert not any(g is not None for g in torch.autograd.grad(value, hearing.trained, allow_unused=True))


class TestHearing:
    @pytest.fixture
    def parts(self, corpus):
        torch.manual_seed(1)
        encoder = MelAudioEncoder(width=WIDTH).eval().requires_grad_(False)
        policy = policy_over(encoder, corpus)
        return encoder, policy, Hearing(encoder, corpus)

    @pytest.mark.parametrize("options", [{}, {"group_size": 2, "max_frames": 6}])
    def test_rollout_and_update_hear_the_same(self, corpus, parts, options):
        encoder, policy, hearing = parts
        for _ in range(2):
            batch = collected(corpus, hearing, policy, **options)
            again = hearing(batch)
            torch.testing.assert_close(again["audio"].detach(), batch["audio"])
            assert again["audio"].requires_grad
            for lane, n in enumerate(batch["frame_mask"].sum((1, 2)).tolist()):
                spoken = corpus[int(batch["utterance"][lane, 0])]
                torch.testing.assert_close(batch["audio"][lane, :n, 0], encoder(spoken.waveform[None])[0][:n])
                assert not batch["audio"][lane, n:].any()
            assert check_ratio_is_one(policy.actor_module, again) < 1e-4
            moved(encoder)  # the next rollout hears with the weights of then
        with pytest.raises(RuntimeError, match="ratio is not 1"):
            check_ratio_is_one(policy.actor_module, hearing(batch))

    def test_an_utterance_is_encoded_once(self, corpus, parts):
        encoder, policy, hearing = parts
        batch = collected(corpus, hearing, policy, 6, group_size=3)
        calls = []
        encoder.contextualise = lambda x: calls.append(len(x)) or MelAudioEncoder.contextualise(encoder, x)
        encoder.conv_features = None  # the front end is kept
        hearing(batch)
        assert calls == [1] * len(batch["utterance"].unique())

    def test_nothing_trains(self, corpus):
        with pytest.raises(UserError, match="train_encoder=true: nothing trains in .* kind mel"):
            Hearing(Deaf(width=WIDTH), corpus)

    def test_the_reference_hears_what_the_start_heard(self, corpus, parts):
        encoder, policy, hearing = parts
        start = copy.deepcopy(encoder).requires_grad_(False)

        def speech(utterance):
            return start(corpus[utterance].waveform[None])[0].unflatten(0, (-1, 1))

        batch = collected(corpus, hearing, policy)
        kl = ReferenceKL(policy.actor_module, speech=speech)
        assert float(kl(hearing(batch))["kl_reference"]) == pytest.approx(0.0, abs=1e-6)
        moved(encoder)
        found = float(kl(hearing(batch))["kl_reference"])
        total, sigma = 0.0, policy.core.exploration()["noise"]
        for row in batch:
            n, u = int(row["frame_mask"].sum()), int(row["utterance"][0])
            heard = [e(corpus[u].waveform[None])[:, :n].unsqueeze(2) for e in (encoder, start)]
            now, then = (policy.core.means(a, row["style"][None, 0], row["latent"][None, :n]) for a in heard)
            total += float(((now - then) / sigma).detach().square().sum() / 2)
        assert found == pytest.approx(total / int(batch["frame_mask"].sum()), rel=1e-4)
        assert found > 1e-3

    def test_the_constraint_is_relative_to_what_the_start_heard(self, corpus, parts):
        encoder, policy, hearing = parts
        start = copy.deepcopy(encoder)
        truth = SupervisedLoss(policy.actor_module, corpus)

        def constraint():
            lips, speech = corpus.regions["lips"], lambda u: start(corpus[u].waveform[None])[0].unflatten(0, (-1, 1))
            return LipErrorConstraint(policy.core, truth, lips, LagrangeMultiplier(1.02), speech=speech)

        batch = collected(corpus, hearing, policy)
        before, after = constraint(), constraint()
        before.lve_ratio(batch)
        moved(encoder)
        after.lve_ratio(hearing(batch).detach())
        assert before.start_lve == pytest.approx(after.start_lve, rel=1e-5)
