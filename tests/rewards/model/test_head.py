"""ScoreHead: what its scores look at, and that the critic trains without touching them."""

from __future__ import annotations

import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.rewards import HeadScores, ScoreHead


@pytest.fixture
def features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    audio, mesh = torch.randn(2, 6, 24, generator=generator)
    return torch.nn.functional.normalize(audio, dim=-1), torch.nn.functional.normalize(mesh, dim=-1)


@pytest.fixture
def head() -> ScoreHead:
    torch.manual_seed(0)
    return ScoreHead(24, 24, 16).eval()


class TestScores:
    def test_defaults(self) -> None:
        head = ScoreHead()
        assert (head.d_audio, head.d_mesh, head.hidden, head.out_activation) == (512, 512, 256, "sigmoid")

    def test_shapes_and_ranges(self, head: ScoreHead, features) -> None:
        scores = head(features[0].view(2, 3, 24), features[1].view(2, 3, 24))
        assert isinstance(scores, HeadScores)
        lip, real, value = scores
        assert lip.shape == real.shape == value.shape == (2, 3)
        assert 0 < lip.min() and lip.max() < 1 and 0 < real.min() and real.max() < 1

    def test_real_reads_the_mesh_only_and_lip_both(self, head: ScoreHead, features) -> None:
        audio, mesh = features
        before, after = head(audio, mesh), head(audio.flip(0), mesh)
        assert torch.equal(before.real, after.real)
        assert (before.lip - after.lip).abs().min() > 0
        assert (head(audio, mesh.flip(0)).lip - before.lip).abs().min() > 0

    def test_activation_is_applied_to_log_odds(self, features) -> None:
        torch.manual_seed(0)
        plain = ScoreHead(24, 24, 16, out_activation="none").eval()
        torch.manual_seed(0)
        squashed = ScoreHead(24, 24, 16, out_activation="tanh").eval()
        assert torch.allclose(plain(*features).lip.tanh(), squashed(*features).lip)
        assert torch.equal(plain(*features).lip, plain.log_odds(*features)[0])

    def test_unknown_activation(self) -> None:
        with pytest.raises(UserError, match="out_activation='relu'"):
            ScoreHead(out_activation="relu")


class TestValue:
    def test_starts_as_a_copy_of_the_trunk_with_output_zero(self, head: ScoreHead, features) -> None:
        assert torch.equal(head(*features).value, torch.zeros(6))
        for one, other in zip(head.trunk.parameters(), head.value_trunk.parameters(), strict=True):
            assert torch.equal(one, other) and one.data_ptr() != other.data_ptr()

    def test_training_it_leaves_lip_and_real_bit_identical(self, head: ScoreHead, features) -> None:
        audio, mesh = (feature.requires_grad_() for feature in features)
        before = [score.clone() for score in head(audio, mesh)]
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
        for _ in range(5):
            optimizer.zero_grad()
            (head(audio, mesh).value - 3.0).square().mean().backward()
            optimizer.step()
        after = head(audio, mesh)
        assert torch.equal(before[0], after.lip) and torch.equal(before[1], after.real)
        assert (after.value - before[2]).abs().min() > 0.1
        assert audio.grad is None and mesh.grad is None

    def test_value_is_not_squashed(self, head: ScoreHead, features) -> None:
        with torch.no_grad():
            head.value.bias.fill_(7.0)
        assert torch.equal(head(*features).value, torch.full((6,), 7.0))

    def test_value_parameters_are_exactly_its_branch(self, head: ScoreHead) -> None:
        named = {name for name, p in head.named_parameters() if any(p is q for q in head.value_parameters())}
        assert named == {name for name, _ in head.named_parameters() if name.startswith("value")}


class TestStateDict:
    def test_roundtrip_with_wrapper(self, head: ScoreHead, features) -> None:
        loaded = ScoreHead.from_state_dict({"head": {f"module.{k}": v for k, v in head.state_dict().items()}}).eval()
        for one, other in zip(head(*features), loaded(*features), strict=True):
            assert torch.equal(one, other)

    def test_missing_entry(self, head: ScoreHead) -> None:
        state = head.state_dict()
        state.pop("lip.bias")
        with pytest.raises(UserError, match="'lip.bias'"):
            ScoreHead.from_state_dict(state)
