"""Statistics of motion and the view of the mesh that is folded into the first layer."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.motion.subspace import MotionSubspace, principal_directions
from s2f_rl.rewards.motion.unseen_faces import polynomial_fields, unseen_differences
from s2f_rl.rewards.training.mse_regressor import SpeechRegressor
from s2f_rl.rewards.training.projection import MeshProjection
from s2f_rl.rewards.training.recordings import MotionBank


class TestPrincipalDirections:
    @pytest.mark.parametrize("n_rows", [20, 200])
    def test_equals_svd(self, n_rows: int) -> None:
        rows = torch.randn(n_rows, 60, generator=torch.Generator().manual_seed(0))
        rows = (rows * torch.linspace(3, 0.1, 60)).double()
        rows = (rows - rows.mean(0)).float()
        directions, std = principal_directions(rows, 6)
        _, values, expected = torch.linalg.svd(rows.double(), full_matrices=False)
        assert torch.allclose(std.double(), values[:6] / n_rows**0.5, rtol=1e-5)
        assert torch.allclose((directions.double() @ expected[:6].T).abs(), torch.eye(6).double(), atol=1e-4)

    def test_directions_without_motion_are_left_out(self) -> None:
        rows = torch.randn(50, 2) @ torch.randn(2, 30)
        assert len(principal_directions(rows - rows.mean(0), 10)[1]) == 2

    def test_faces_that_do_not_move(self) -> None:
        with pytest.raises(UserError, match="do not move"):
            principal_directions(torch.zeros(10, 30), 4)


class TestMotionStatistics:
    def test_tiny_corpus_has_two_motions(self, motion: MotionSubspace) -> None:
        assert len(motion.std) == 2  # jaw and brow, as tests/tiny.py makes them
        assert torch.allclose(motion.basis @ motion.basis.T, torch.eye(2), atol=1e-5)

    def test_decode_inverts_coefficients(self, motion: MotionSubspace, bank: MotionBank) -> None:
        displacement = bank[0].displacement
        assert torch.allclose(motion.decode(motion.coefficients(displacement)), displacement, atol=1e-6)

    def test_opening_opens_by_as_much(self, motion: MotionSubspace, bank: MotionBank) -> None:
        recording = bank[0]
        rest = motion.lip_to_lip(recording.template).norm(dim=-1)
        opened = motion.lip_to_lip(recording.template + 2e-3 * motion.opening).norm(dim=-1)
        assert float(opened - rest) == pytest.approx(2e-3, abs=2e-4)

    def test_lip_rms_by_hand(self, motion: MotionSubspace) -> None:
        displacement = torch.zeros(1, 135).view(1, 45, 3)
        displacement[0, motion.lips[0]] = torch.tensor([3e-3, 0.0, 4e-3])
        expected = 5e-3 / len(motion.lips) ** 0.5
        assert float(motion.lip_rms(displacement.flatten(1))[0]) == pytest.approx(expected, rel=1e-5)

    def test_unseen_faces_vary_about_as_much_as_the_subjects(self, motion: MotionSubspace, corpus) -> None:
        templates = torch.stack([corpus.template(subject) for subject in corpus.subjects])
        spread = (templates - templates.mean(0)).square().sum() / (len(templates) - 1)
        modes = unseen_differences(motion.templates)
        drawn = torch.randn(2000, len(modes), generator=torch.Generator().manual_seed(0)) @ modes
        share = 0.5**2 + 0.35**2 + 0.35**2 + 0.25**2  # polynomials, and fields of 40, 15 and 7 mm
        assert float(drawn.square().sum(1).mean()) == pytest.approx(share * float(spread), rel=0.15)

    def test_nothing_recorded(self, tmp_path) -> None:
        from tests.tiny import make_tiny_corpus

        silent = FaceCorpus(make_tiny_corpus(tmp_path, audio_only="all"), "train")
        with pytest.raises(UserError, match="no utterance with vertices"):
            MotionSubspace.fit(silent)
        with pytest.raises(UserError, match="no utterance with vertices"):
            MotionBank(silent)


def test_polynomial_fields_hold_translation_and_scaling() -> None:
    template = torch.randn(90, generator=torch.Generator().manual_seed(0)) * 0.1
    fields = polynomial_fields(template)
    assert fields.shape == (60, 90)
    assert torch.allclose(fields.square().sum(1) / 30, torch.ones(60), rtol=1e-4)
    for wanted in (template, torch.tensor([0.0, 1.0, 0.0]).repeat(30)):
        weights = torch.linalg.lstsq(fields.double().T, wanted.double()[:, None]).solution
        assert torch.allclose((fields.double().T @ weights)[:, 0], wanted.double(), atol=1e-6)


@pytest.fixture(scope="module")
def projection(motion: MotionSubspace) -> MeshProjection:
    return MeshProjection.fit(motion, n_rough=6, generator=torch.Generator().manual_seed(0))


class TestProjection:
    def test_is_of_order_one(self, projection: MeshProjection, bank: MotionBank) -> None:
        seen = torch.cat([projection(bank[p].template + bank[p].displacement) for p in range(len(bank))])
        assert seen.shape[1] == projection.width == 2 + 6
        assert 0.3 < float(seen[:, :2].std(0).min()) and float(seen[:, :2].std(0).max()) < 2.0

    def test_motion_counts_and_identity_does_not(self, projection: MeshProjection, motion: MotionSubspace) -> None:
        modes = unseen_differences(motion.templates)
        faces = torch.randn(500, len(modes), generator=torch.Generator().manual_seed(1)) @ modes
        moves = motion.std[:, None] * motion.basis
        by_identity = (faces @ projection.matrix.T)[:, :2].std(0)
        by_motion = (moves @ projection.matrix.T)[:, :2].abs().amax(0)
        naive_identity = (faces @ motion.basis.T / motion.std).std(0)
        assert (by_identity / by_motion < naive_identity).all()

    @pytest.mark.parametrize("factor", [1.0, 1e-2, 1e-4])
    def test_what_nobody_sees_stays_small(self, motion: MotionSubspace, factor: float) -> None:
        """However little a direction is used, a movement of 0.25 mm in it counts as one unit at most."""
        alike = torch.lerp(motion.templates.mean(0), motion.templates, 1e-3)  # identity is another floor
        fine = dataclasses.replace(motion, std=motion.std * factor, templates=alike)
        projection = MeshProjection.fit(fine, n_rough=0)
        for k, direction in enumerate(motion.basis):
            points = direction.view(-1, 3).norm(dim=1)
            size = max(float(points.square().mean().sqrt()), float(points[motion.lips].square().mean().sqrt()))
            seen = projection(projection.mean + direction * (0.25e-3 / size))
            assert 0.0 < abs(float(seen[k])) <= 1.001

    def test_rough_rows_see_neither_motion_nor_smooth_fields(
        self, projection: MeshProjection, motion: MotionSubspace
    ) -> None:
        rough = projection.matrix[2:]
        rough = rough / rough.norm(dim=1, keepdim=True)
        fields = polynomial_fields(motion.template_mean)
        assert float((rough @ motion.basis.T).abs().max()) < 1e-3
        assert float((rough @ (fields / fields.norm(dim=1, keepdim=True)).T).abs().max()) < 1e-3

    def test_offsets_are_as_large_as_measured(self, projection: MeshProjection) -> None:
        generator = torch.Generator().manual_seed(0)
        offsets = torch.stack([projection.random_offset(generator, spread=2.0) for _ in range(4000)])
        torch.testing.assert_close(offsets.std(0), 2 * projection.offset_std, rtol=0.1, atol=1e-6)
        assert offsets.mean(0).abs().max() < 0.1 * 2 * projection.offset_std.max()

    def test_folding_changes_no_score(self, projection: MeshProjection, bank: MotionBank, motion) -> None:
        torch.manual_seed(0)
        backbone = SpeechMeshTransformer(projection.width, 32, depth=2, n_heads=4)
        with torch.no_grad():
            backbone.encoder.patch_embed.bias.normal_()
        folded = projection.fold(backbone)
        assert folded.n_vertices == 45 and folded.encoder.patch_embed.weight.shape == (32, 135)
        head = ScoreHead(32, 32, 16)
        model = RewardModel(folded, head)
        recording = bank[0]
        vertices = recording.template + recording.displacement
        audio = model.encode_audio(recording.mel_clips)[None]
        found = model.score_batch(vertices[None], audio)
        exact = backbone.double()
        mean, matrix = projection.mean.double(), projection.matrix.double()
        with torch.no_grad():
            mesh = exact.encode_mesh(((vertices.double() - mean) @ matrix.T)[None])[0]
            n = min(len(mesh), audio.shape[1])
            lip, real = head.double().scores(audio[0, :n].double(), mesh[:n])
        mask = found["score_mask"][0]
        assert (found["lip_score"][0][mask] - lip).abs().max() < 1e-5
        assert (found["real_score"][0][mask] - real).abs().max() < 1e-5


class TestRegressor:
    def test_learns_a_linear_relation(self, motion: MotionSubspace) -> None:
        generator = torch.Generator().manual_seed(0)
        examples = []
        for _ in range(6):
            mel = torch.randn(60, 20, 128, generator=generator)
            # a coefficient that is the mean of one band in the clip around the frame
            drive = mel[:, :, :8].mean((1, 2))[(torch.arange(64) - 2).clamp(0, 59)] * 20
            coefficients = torch.stack([drive, torch.zeros(64)], 1)
            examples.append((motion.decode(coefficients), mel))
        regressor = SpeechRegressor.fit(motion, examples[:-1], ridge=1e-6, smoothing_frames=0.0)
        displacement, mel = examples[-1]
        error = motion.coefficients(regressor(mel, 64) - displacement + motion.mean)
        assert float(error.abs().max()) < 0.05

    def test_length_is_free_and_silence_is_fine(self, motion: MotionSubspace, bank: MotionBank) -> None:
        regressor = bank.fit_regressor(motion)
        assert regressor(torch.zeros(3, 20, 128), 40).shape == (40, 135)
        assert regressor(torch.zeros(0, 20, 128), 4).shape == (4, 135)

    def test_moves_less_than_the_truth(self, motion: MotionSubspace, bank: MotionBank) -> None:
        regressor = bank.fit_regressor(motion)
        truth = torch.cat([bank[p].displacement for p in range(len(bank))])
        predicted = torch.cat([regressor(bank[p].mel_clips, len(bank[p].displacement)) for p in range(len(bank))])
        assert motion.coefficients(predicted)[:, 1].std() < motion.coefficients(truth)[:, 1].std()
