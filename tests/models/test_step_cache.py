"""Step mode: operations per frame, its threads, gradients, lanes that start over, parameters that change."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from s2f_rl.models import FaceFormer, MelAudioEncoder, decoder, step_cache
from tests.closeness import assert_close_to_largest
from tests.operations import CountOperations

B, S, D = 3, 4, 12
BOUND = {1: 35, 2: 50}  # operations per frame, by audio features per frame; there were 84 and 120


@pytest.fixture(params=["vocaset", "biwi"])
def actor(request) -> FaceFormer:
    torch.manual_seed(0)
    encoder = MelAudioEncoder(width=D, topology=request.param)
    model = FaceFormer(encoder, 9, feature_dim=16, n_subjects=S).double()
    torch.nn.init.normal_(model.decoder.vertice_map_r.weight, std=1e-3)
    torch.nn.init.normal_(model.decoder.vertice_map_r.bias, std=1e-3)
    torch.nn.init.normal_(model.decoder.vertice_map.weight, std=30.0)
    return model


def inputs(actor, n_frames: int, n_lanes: int = B):
    generator = torch.Generator().manual_seed(1)
    n_features = actor.audio_encoder.features_per_frame
    audio = torch.randn(n_lanes, n_frames, n_features, D, generator=generator, dtype=torch.float64)
    return audio, torch.eye(S, dtype=torch.float64)[torch.arange(n_lanes) % S]


def by_prefix(actor, audio, style, noise=None):
    """Latents of :meth:`FaceFormer.generate`, every frame from sequence mode over all frames so far."""
    decoder = actor.decoder
    matrix, offset = decoder.feedback_map(detach_output_map=False)
    style_embedding = decoder.obj_vector(style).unsqueeze(1)
    fed_back, latents = [torch.zeros_like(style_embedding)], []
    for t in range(audio.shape[1]):
        latent = decoder.run_sequence(torch.cat(fed_back, 1) + style_embedding, audio[:, : t + 1])[:, -1:]
        latents.append(latent if noise is None else latent + noise[:, t : t + 1])
        fed_back.append(F.linear(latents[-1], matrix, offset))
    return torch.cat(latents, 1)


@torch.no_grad()
def run_through(actor, audio, style, starts, change=None):
    """Step mode with lanes that start over at the frames ``starts[lane]``; latents [B, T, H].

    ``change`` (frame, function): called before that frame.
    """
    decoder = actor.decoder
    cache = decoder.new_cache(len(audio), capacity=8)
    style_embedding = decoder.obj_vector(style)
    embedding, latents = style_embedding, []
    for t in range(audio.shape[1]):
        if change is not None and t == change[0]:
            change[1]()
        begins = torch.tensor([t in lane for lane in starts])
        if begins.any():
            cache.restart(begins)
            style_embedding = decoder.obj_vector(style)
            fed_back = cache.feedback(latents[-1])
            embedding = torch.where(begins[:, None], 0.0, fed_back) + style_embedding
        latents.append(decoder.run_step(embedding, decoder.hear(audio[:, t]), cache))
        embedding = cache.feedback(latents[-1]) + style_embedding
    return torch.stack(latents, 1)


class TestCost:
    @torch.no_grad()
    def test_operations_per_frame(self, actor):
        audio, style = inputs(actor, 90)
        with CountOperations() as few:
            actor.generate(audio[:, :10], style)
        with CountOperations() as many:
            actor.generate(audio, style)
        bound = BOUND[actor.audio_encoder.features_per_frame]
        assert (many.n - few.n) / 80 <= bound
        assert few.n <= 10 * bound + 60  # what is laid out once

    @torch.no_grad()
    def test_one_thread_inside_and_the_count_of_before_outside(self, actor, monkeypatch):
        audio, style = inputs(actor, 4)
        before, seen = torch.get_num_threads(), []
        step = actor.decoder.run_step
        monkeypatch.setattr(
            actor.decoder, "run_step", lambda *args: seen.append(torch.get_num_threads()) or step(*args)
        )
        torch.set_num_threads(3)
        try:
            actor.generate(audio, style)
            assert seen == [1] * 4 and torch.get_num_threads() == 3
            with pytest.raises(RuntimeError):
                actor.generate(audio, style, noise=torch.zeros(B, 4, 5))
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(before)


class TestGradient:
    def test_values_and_gradients_by_prefix(self, actor):
        audio, style = inputs(actor, 40)
        noise = 1e-2 * torch.randn(B, 40, 16, dtype=torch.float64)
        weights = torch.randn(B, 40, 27, dtype=torch.float64)
        found = []
        for latents in (actor.generate(audio, style, noise=noise), by_prefix(actor, audio, style, noise)):
            actor.zero_grad()
            (actor.decoder.decode(latents) * weights).sum().backward()
            grads = {name: p.grad.clone() for name, p in actor.decoder.named_parameters() if p.grad is not None}
            found.append((latents.detach(), grads))
        (ours, our_grads), (theirs, their_grads) = found
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)
        assert our_grads.keys() == their_grads.keys() and len(our_grads) > 20
        for name, grad in our_grads.items():
            scale = float(their_grads[name].abs().max())
            assert float((grad - their_grads[name]).abs().max()) <= 1e-9 * scale + 1e-15, name

    def test_without_gradient_the_same_values(self, actor):
        audio, style = inputs(actor, 40)
        with torch.no_grad():
            inside = actor.generate(audio, style)
        torch.testing.assert_close(actor.generate(audio, style).detach(), inside, atol=1e-12, rtol=1e-10)

    def test_noise_where_it_stood_before(self, actor):
        audio, style = inputs(actor, 12)
        noise = torch.randn(B, 12, 16, dtype=torch.float64)
        with torch.no_grad():
            with pytest.warns(FutureWarning, match="noise=..."):
                old = actor.generate(audio, style, noise)
            assert torch.equal(old, actor.generate(audio, style, noise=noise))
            assert not torch.equal(old, actor.generate(audio, style, [12] * B))

    def test_dropout_draws_in_every_place(self, actor):
        """At a rate of almost one nothing but the residual path is left, and every frame differs from the mean."""
        audio, style = inputs(actor, 6)
        torch.manual_seed(3)
        once = actor.generate(audio, style, dropout=0.5)
        torch.manual_seed(3)
        assert torch.equal(once, actor.generate(audio, style, dropout=0.5))
        assert ((once - actor.generate(audio, style)).abs().amax((0, 2)) > 1e-3).all()


class TestLanes:
    def test_staggered_starts_against_fresh_runs(self, actor):
        """Also where the store grows, and where it drops rows that no lane needs any more."""
        audio, style = inputs(actor, 150)
        starts = [(40, 110), (60, 61), (50, 149)]
        seen = run_through(actor, audio, style, starts)
        with torch.no_grad():
            for lane, begins in enumerate(starts):
                edges = [0, *begins, 150]
                for first, end in zip(edges, edges[1:], strict=False):
                    fresh = actor.generate(audio[lane : lane + 1, first:end], style[lane : lane + 1])
                    torch.testing.assert_close(seen[lane, first:end], fresh[0], atol=1e-11, rtol=1e-9)

    def test_a_restart_takes_up_changed_parameters(self, actor):
        """Replaced, as loading by assignment does, or written in place."""
        audio, style = inputs(actor, 30)
        other = FaceFormer.from_config(actor.config()).double()
        torch.nn.init.normal_(other.decoder.vertice_map_r.weight, std=1e-3)
        for assign in (True, False):
            before = {name: value.clone() for name, value in actor.state_dict().items()}
            change = (20, lambda assign=assign: actor.load_state_dict(other.state_dict(), assign=assign))
            seen = run_through(actor, audio, style, [(20,), (), ()], change)
            fresh = other.generate(audio[:1, 20:], style[:1])
            torch.testing.assert_close(seen[0, 20:], fresh[0].detach(), atol=1e-11, rtol=1e-9)
            actor.load_state_dict(before, assign=True)


class TestForgetting:
    """A head sees no frame older than its horizon; by prefix, with a mask that says the same."""

    HORIZONS = (3, 8, 8, 20)

    @pytest.fixture
    def forgetful(self, actor, monkeypatch):
        whole = decoder.temporal_bias

        def masked(slopes, n_frames, period):
            t = torch.arange(n_frames)
            old = (t[:, None] - t[None, :])[None] >= torch.tensor(horizons)[:, None, None]
            return whole(slopes, n_frames, period).masked_fill(old, float("-inf"))

        horizons = list(self.HORIZONS)
        monkeypatch.setattr(decoder, "temporal_bias", masked)
        monkeypatch.setattr(step_cache, "horizons", lambda *given: horizons)
        return horizons

    def test_each_head_its_own(self, actor, forgetful):
        audio, style = inputs(actor, 130)
        with torch.no_grad():
            torch.testing.assert_close(
                actor.generate(audio, style), by_prefix(actor, audio, style), atol=1e-12, rtol=1e-10
            )

    def test_with_a_gradient_and_equal_horizons(self, actor, forgetful):
        forgetful[:] = [6] * 4
        audio, style = inputs(actor, 12)
        found = []
        for latents in (actor.generate(audio, style), by_prefix(actor, audio, style)):
            actor.zero_grad()
            latents.square().sum().backward()
            found.append((latents.detach(), actor.decoder.layer.self_attn.in_proj_weight.grad.clone()))
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-8)

    @torch.no_grad()
    def test_forget_after_bounds_memory_and_what_is_seen(self, actor, forgetful):
        forgetful[:] = [50] * 4  # what the mask says
        audio, style = inputs(actor, 300)
        steps = actor.decoder.steps(style)
        steps.cache.forget_after(50)
        latents = []
        for frame in steps.hear(audio).unbind(1):
            latents.append(steps.advance(frame, latents[-1] if latents else None, None))
        assert steps.cache._store.shape[2] <= 256
        expected = by_prefix(actor, audio[:, :100], style)
        torch.testing.assert_close(torch.stack(latents, 1)[:, :100], expected, atol=1e-12, rtol=1e-10)
        # positions go on after rows were dropped: the same as one that keeps all
        kept = actor.decoder.steps(style, capacity=1000)
        kept.cache.forget_after(50)
        last = None
        for frame in kept.hear(audio).unbind(1):
            last = kept.advance(frame, last, None)
        assert kept.cache._store.shape[2] == 1000
        torch.testing.assert_close(latents[-1], last, atol=1e-12, rtol=1e-10)

    def test_lanes_that_start_over(self, actor, forgetful):
        audio, style = inputs(actor, 90)
        seen = run_through(actor, audio, style, [(40,), (60, 61), ()])
        with torch.no_grad():
            for lane, begins in enumerate([(40,), (60, 61), ()]):
                edges = [0, *begins, 90]
                for first, end in zip(edges, edges[1:], strict=False):
                    fresh = actor.generate(audio[lane : lane + 1, first:end], style[lane : lane + 1])
                    torch.testing.assert_close(seen[lane, first:end], fresh[0], atol=1e-11, rtol=1e-9)

    def test_what_is_forgotten_is_less_than_the_last_bit(self):
        """Frames beyond a horizon weigh less than 2^-23 where scores are equal; with a period more they would not."""
        slopes = decoder.alibi_slopes(4)
        for slope, horizon in zip(slopes, step_cache.horizons(slopes, 30), strict=True):
            weight = torch.exp(-slope * (torch.arange(20 * horizon, dtype=torch.float64) // 30))
            share = weight[horizon:].sum() / weight.sum()
            assert share <= 2**-23 < weight[horizon - 30 :].sum() / weight.sum()

    @torch.no_grad()
    def test_by_default_no_frame_changes_beyond_rounding(self, monkeypatch):
        """Against float64 that forgets nothing; a period of one frame forgets after 64 frames."""
        torch.manual_seed(0)
        model = FaceFormer(MelAudioEncoder(width=D), 9, feature_dim=16, n_subjects=S, period=1)
        torch.nn.init.normal_(model.decoder.vertice_map_r.weight, std=1e-3)
        torch.nn.init.normal_(model.decoder.vertice_map.weight, std=30.0)
        audio, style = (x.float() for x in inputs(model, 400))
        ours = model.generate(audio, style)
        monkeypatch.setattr(step_cache, "horizons", lambda slopes, *given: [10**9] * len(slopes))
        whole = model.double().generate(audio.double(), style.double())
        assert_close_to_largest(ours.double(), whole, 3e-6)
        monkeypatch.setattr(step_cache, "horizons", lambda slopes, *given: [40] * len(slopes))
        assert float((model.generate(audio.double(), style.double()) - whole).abs().max()) > 1e-4
