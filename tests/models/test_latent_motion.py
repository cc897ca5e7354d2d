"""A motion by its latents against the vertices that it stands for."""

from __future__ import annotations

import pickle

import torch

from s2f_rl.models.contract import LinearMotion
from s2f_rl.models.latent_motion import LatentMotion, MadeOnce, ThroughLatents

B, T, V, H, E = 3, 5, 7, 4, 6


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def motion():
    torch.manual_seed(0)
    templates = [numbers(3 * V).float() for _ in range(2)]
    return LatentMotion(numbers(B, T, H), LinearMotion(numbers(3 * V, H), numbers(3 * V)), [*templates, templates[0]])


def vertices_by_loop(given, at_rest):
    out = torch.zeros(given.shape, dtype=torch.float64)
    for b in range(B):
        for t in range(T):
            moved = (
                torch.zeros(3 * V) if at_rest[b, t] else given.linear.weight @ given.latents[b, t] + given.linear.bias
            )
            out[b, t] = given.templates[b] + moved
    return out


def test_against_a_loop():
    given, at_rest = motion(), torch.zeros(B, T, dtype=torch.bool)
    through, weight, bias = ThroughLatents(), numbers(E, 3 * V), numbers(E)
    torch.testing.assert_close(given.vertices(), vertices_by_loop(given, at_rest))
    at_rest[0, 3:], at_rest[2, 1] = True, True
    given.latents[0, 4] = torch.nan
    still = given.resting(at_rest)
    expected = vertices_by_loop(given, at_rest)
    torch.testing.assert_close(still.vertices(), expected)
    lips = torch.tensor([5, 0, 2])
    torch.testing.assert_close(still.columns(lips), expected.view(B, T, V, 3)[:, :, lips].flatten(-2))
    for _ in range(2):
        torch.testing.assert_close(through(still, weight, bias), expected @ weight.T + bias)
    torch.testing.assert_close(through(still[1:], weight, bias), (expected @ weight.T + bias)[1:])
    assert still.shape == expected.shape and still[:2].shape == (2, T, 3 * V)
    displacement = LatentMotion(motion().latents, given.linear)
    torch.testing.assert_close(displacement.vertices()[1, 2], expected[1, 2] - given.templates[1])


def test_gradient_of_the_latents_alone():
    given = motion()
    given.latents.requires_grad_()
    assert given.requires_grad and given.device == torch.device("cpu")
    weight, bias = numbers(E, 3 * V).requires_grad_(), numbers(E)
    ThroughLatents()(given, weight, bias).sum().backward()
    expected = (weight.detach().sum(0) @ given.linear.weight).expand(B, T, H)
    torch.testing.assert_close(given.latents.grad, expected)
    assert weight.grad is None


def test_made_once():
    kept, a, b = MadeOnce(), torch.zeros(2), torch.zeros(2)
    made = []

    def make():
        made.append(1)
        return len(made)

    assert [kept.get([a, b], make) for _ in range(2)] == [1, 1]
    a.add_(1)
    assert [kept.get([a, b], make) for _ in range(2)] == [2, 2]
    assert kept.get([a, b.clone()], make) == 3
    assert pickle.loads(pickle.dumps(kept)).get([a, b], lambda: 7) == 7
