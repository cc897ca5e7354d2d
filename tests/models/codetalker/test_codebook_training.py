"""Training both stages: stage 2's loss, codes that are never chosen, the file of a codebook."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_codetalker import load
from torch import Tensor

from s2f_rl.data.mesh_identity import MeshIdentity
from s2f_rl.data.tensor_files import save_tensors
from s2f_rl.errors import UserError
from s2f_rl.models import CodeTalker, MelAudioEncoder
from s2f_rl.models.codetalker.code_use import DeadCodes, counts_of
from s2f_rl.models.codetalker.codebook import Autoencoded, Codebook, perplexity
from s2f_rl.models.codetalker.codebook_files import TrainedCodebook
from s2f_rl.models.contract import ImitatesByTerms

N_VERTICES = 5
SIZES = {"width": 8, "hidden": 12, "n_layers": 1, "n_head": 2, "n_codes": 6, "code_width": 4, "codes_per_frame": 2}


def small_codebook(seed: int = 0) -> Codebook:
    torch.manual_seed(seed)
    book = Codebook(3 * N_VERTICES, **SIZES)
    torch.nn.init.normal_(book.codes)
    return book


def passed(indices: Tensor, hidden: Tensor) -> Autoencoded:
    return Autoencoded(hidden, indices, hidden, hidden)


class TestImitation:
    @pytest.mark.parametrize("topology", ["vocaset", "biwi"])
    def test_golden(self, topology: str) -> None:
        """Term and gradients of the public code, beside the same utterance again and a shorter one."""
        golden = load(topology, torch.float64)
        actor, (audio, template, style, vertices) = golden.actor, golden.given(
            "in/audio", "in/template", "in/one_hot", "s2/nat/vertice"
        )  # fmt: skip
        n = vertices.shape[1]
        truth, heard = vertices - template.unsqueeze(1), actor.encode(audio, n)
        found = actor.imitation(heard, style, truth, [n])
        wanted = float(golden.arrays["s2/nat/loss_reg"])
        assert abs(float(found.terms["feature"].detach()) - wanted) < 2e-5
        motion = (found.displacement - truth).square().mean()
        assert abs(float(motion.detach()) - float(golden.arrays["s2/nat/loss_motion"])) < 2e-5
        for loss, name in ((motion, "grad_loss_motion"), (found.terms["feature"], "grad_loss_reg")):
            (gradient,) = torch.autograd.grad(loss, [actor.decoder.feature_map.weight], retain_graph=True)
            expected = torch.from_numpy(golden.arrays[f"s2/nat/{name}/feat_map.weight"])
            assert (gradient - expected).abs().max() < 2e-5
        short = truth.clone()
        short[:, 20:] = 0
        both = actor.imitation(heard.repeat(2, 1, 1, 1), style.repeat(2, 1), torch.cat([truth, short]), [n, 20])
        alone = actor.imitation(heard[:, :20], style, truth[:, :20], [20])
        torch.testing.assert_close(both.displacement[:1], found.displacement, rtol=0, atol=1e-10)
        torch.testing.assert_close(both.displacement[1:, :20], alone.displacement, rtol=0, atol=1e-10)
        assert not both.displacement[1, 20:].any()
        mean = (n * found.terms["feature"] + 20 * alone.terms["feature"]) / (n + 20)
        torch.testing.assert_close(both.terms["feature"], mean, rtol=1e-10, atol=0)
        torch.testing.assert_close(actor.imitate(heard, style, truth, True), found.displacement, rtol=0, atol=0)

    def test_weight_dropout_and_mode(self) -> None:
        torch.manual_seed(0)
        actor = CodeTalker(MelAudioEncoder(width=8), N_VERTICES, 2, 16, 2, feature_weight=3.0, dropout=0.5, **CODES)
        assert isinstance(actor, ImitatesByTerms)
        torch.nn.init.normal_(actor.decoder.feature_map.weight)
        given = torch.randn(2, 9, 1, 8), torch.eye(2), torch.randn(2, 9, 3 * N_VERTICES), [9, 9]
        dropped = actor.imitation(*given).terms["feature"]
        whole = actor.eval().imitation(*given).terms["feature"]
        assert not torch.equal(dropped, whole)
        actor.feature_weight = 1.0
        torch.testing.assert_close(3 * actor.imitation(*given).terms["feature"], whole)
        with pytest.raises(UserError, match="mode=autoregressive"):
            actor.imitate(*given[:3], False)


CODES = {"codebook_width": 8, "codebook_hidden": 12, "codebook_layers": 1, "codebook_heads": 2, "n_codes": 6,
         "code_width": 4, "codes_per_frame": 2}  # fmt: skip


class TestDeadCodes:
    def test_against_a_slow_count(self) -> None:
        """Codes 4 and 5 are never chosen: after three updates they lie on outputs of the third batch."""
        book = small_codebook()
        optimizer = torch.optim.AdamW(book.parameters(), lr=1e-9)
        book.codes.square().sum().backward()
        optimizer.step()
        dead, before, draws = DeadCodes(book, 3, seed=1), book.codes.detach().clone(), torch.Generator().manual_seed(0)
        for update in range(3):
            batch = [
                passed(torch.randint(4, (1, 30, 2), generator=draws), torch.randn(1, 30, 2, 4, generator=draws))
                for _ in range(2)
            ]
            placed = dead.update(batch, optimizer)
            assert placed == (2 if update == 2 else 0)
        assert torch.equal(book.codes[:4], before[:4])
        outputs = torch.cat([each.hidden.flatten(0, -2) for each in batch])
        for code in book.codes[4:]:
            assert (outputs == code).all(1).any()
        moments = optimizer.state[book.codes]
        assert not moments["exp_avg"][4:].any() and not moments["exp_avg_sq"][4:].any()
        assert moments["exp_avg"][:4].abs().min() > 0
        assert dead.update(batch, optimizer) == 0  # they have three updates again

    def test_none_leaves_them(self) -> None:
        book = small_codebook()
        dead, before = DeadCodes(book, None, seed=0), book.codes.detach().clone()
        one = [passed(torch.zeros(1, 3, 2, dtype=torch.int64), torch.randn(1, 3, 2, 4))]
        assert [dead.update(one, torch.optim.SGD(book.parameters(), lr=0.1)) for _ in range(9)] == [0] * 9
        assert torch.equal(book.codes, before)

    def test_goes_on(self) -> None:
        """A state loaded on the way gives the same codes."""
        ways = []
        for broken in (False, True):
            book, draws = small_codebook(), torch.Generator().manual_seed(3)
            optimizer = torch.optim.SGD(book.parameters(), lr=0.1)
            dead = DeadCodes(book, 2, seed=5)
            for update in range(6):
                if broken and update == 3:
                    again = DeadCodes(book, 2, seed=9)
                    again.load_state_dict(copy.deepcopy(dead.state_dict()))
                    dead = again
                indices = torch.randint(update % 3, update % 3 + 2, (1, 5, 2), generator=draws)
                dead.update([passed(indices, torch.randn(1, 5, 2, 4, generator=draws))], optimizer)
            ways.append(book.codes.detach())
        assert torch.equal(*ways) and not torch.equal(ways[0], small_codebook().codes)

    def test_perplexity(self) -> None:
        batch = [passed(torch.tensor(each).view(1, -1, 1), torch.zeros(1)) for each in ([0, 0, 2], [2, 3, 0])]
        counts = counts_of(batch, 5)
        assert counts.tolist() == [3, 0, 2, 1, 0]
        shares = [3 / 6, 2 / 6, 1 / 6]
        slow = math.exp(-sum(share * math.log(share) for share in shares))
        assert abs(float(perplexity(counts)) - slow) < 1e-5


def test_a_coordinate_counts_by_its_weight() -> None:
    book = small_codebook().double()
    motion = torch.randn(1, 7, 3 * N_VERTICES, dtype=torch.float64)
    weight = torch.arange(1.0, 3 * N_VERTICES + 1, dtype=torch.float64)
    weight /= weight.mean()
    found = book(motion)
    slow = sum(
        float(weight[k]) * abs(float(found.displacement.detach()[0, t, k] - motion[0, t, k]))
        for t in range(7)
        for k in range(3 * N_VERTICES)
    )
    assert abs(float(book.errors(found, motion, weight)[0]) - slow / (7 * 3 * N_VERTICES)) < 1e-12
    assert torch.equal(book.errors(found, motion)[0], book.losses(motion)["rec"])


class TestFile:
    def trained(self) -> TrainedCodebook:
        return TrainedCodebook(small_codebook(), 30.0, MeshIdentity(N_VERTICES), {"iteration": 3})

    def test_round_trip(self, tmp_path: Path) -> None:
        own = self.trained()
        own.save(tmp_path)
        again = TrainedCodebook.load(tmp_path)
        motion = torch.randn(1, 6, 3 * N_VERTICES)
        assert torch.equal(again.codebook.encode(motion), own.codebook.encode(motion))
        assert torch.equal(again.codebook(motion).displacement, own.codebook(motion).displacement)
        assert (again.fps, again.mesh_identity, again.about) == (30.0, own.mesh_identity, {"iteration": 3})
        assert not any(p.requires_grad for p in again.codebook.parameters())

    def test_metres(self) -> None:
        book = small_codebook().double()
        motion = torch.randn(1, 6, 3 * N_VERTICES, dtype=torch.float64)
        there = book(motion)
        in_metres = copy.deepcopy(book).to_metres(0.01)(0.01 * motion)
        assert torch.equal(there.indices, in_metres.indices)
        torch.testing.assert_close(0.01 * there.displacement, in_metres.displacement, rtol=1e-9, atol=0)

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"kind": "actor"}, "holds no codebook"),
            ({"format": 2}, "is of format 2"),
            ({"fps": 0.0}, "for which mesh, rate and unit"),
            ({"unit": "millimetres"}, "for which mesh, rate and unit"),
            ({"mesh": None}, "for which mesh, rate and unit"),
            ({"mesh": MeshIdentity(6).to_plain()}, "not of its mesh of 6 vertices"),
            ({"config": {"width": 8}}, "make no codebook"),
            ({"config": {**SIZES, "n_outputs": 15, "mapped": False, "n_layers": 10**6}}, "make no codebook"),
            ({"config": {**SIZES, "n_outputs": 15, "mapped": False, "n_codes": 7}}, "make no codebook"),
            ({"config": {**SIZES, "n_outputs": 15, "mapped": 1}}, "make no codebook .mapped is 1"),
            ({"state_dict": {"codes": torch.zeros(6, 4, dtype=torch.int64)}}, "'codes' holds int64"),
        ],
    )
    def test_refusals(self, change: dict[str, Any], match: str, tmp_path: Path) -> None:
        self.trained().save(tmp_path)
        content = torch.load(tmp_path / "codebook.pt", weights_only=True)
        save_tensors(tmp_path / "codebook.pt", {**content, **change})
        with pytest.raises(UserError, match=match) as caught:
            TrainedCodebook.load(tmp_path)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)

    def test_an_actor_takes_its_sizes_and_weights(self, tmp_path: Path) -> None:
        own = self.trained()
        own.save(tmp_path)
        actor = CodeTalker(MelAudioEncoder(width=8), N_VERTICES, 2, 16, 2, codebook=str(tmp_path))
        assert torch.equal(actor.codebook.codes, own.codebook.codes) and actor.mesh_identity == own.mesh_identity
        assert not any(p.requires_grad for p in actor.codebook.parameters())
        assert "codebook" not in actor.config()
        again = CodeTalker.from_config(actor.config())
        again.load_state_dict(actor.state_dict())
        assert again.config() == actor.config()
        with pytest.raises(UserError, match="is of 5 vertices at 30 fps, the corpus has 6 at 30"):
            CodeTalker(MelAudioEncoder(width=8), 6, 2, 16, 2, codebook=str(tmp_path))
        with pytest.raises(UserError, match="is of 5 vertices at 30 fps, the corpus has 5 at 25"):
            CodeTalker(MelAudioEncoder(width=8, fps=25.0), N_VERTICES, 2, 16, 2, codebook=str(tmp_path))
