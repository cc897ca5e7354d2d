"""RewardModel: alignment of scores against a slow per-clip loop, frozenness, files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer

V, E = 10, 16


def make_model(with_head: bool = True, n_heads: int = 2) -> RewardModel:
    torch.manual_seed(0)
    backbone = SpeechMeshTransformer(V * 3, E, depth=1, n_heads=n_heads)
    return RewardModel(backbone, ScoreHead(E, E, 8) if with_head else None)


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return make_model()


def inputs(n_frames: int, n_clips: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_frames, V * 3, generator=generator), torch.randn(n_clips, 20, 128, generator=generator)


def slow_scores(model: RewardModel, vertices: Tensor, mel: Tensor, stride: int = 1) -> dict[str, Tensor]:
    """One clip at a time, both halves, as the reference does."""
    n_frames = len(vertices)
    lip, real, mask = torch.zeros(n_frames), torch.zeros(n_frames), torch.zeros(n_frames, dtype=torch.bool)
    for t in range(4, n_frames):
        clip = t - 4
        if clip < len(mel) and clip % stride == 0:
            mesh, audio = model.backbone(vertices[None, t - 4 : t + 1], mel[None, None, clip])
            if model.head is None:
                lip[t] = torch.cosine_similarity(mesh, audio)[0]
            else:
                scores = model.head(audio, mesh)
                lip[t], real[t] = scores.lip[0], scores.real[0]
            mask[t] = True
    return {"lip_score": lip, "real_score": real, "score_mask": mask}


class TestScore:
    @pytest.mark.parametrize(("n_frames", "n_clips", "stride"), [
        (20, 16, 1), (20, 9, 1), (20, 30, 1), (20, 16, 3), (20, 9, 5), (7, 1, 1), (5, 1, 1), (5, 9, 2),
        (4, 3, 1), (1, 5, 1), (0, 5, 1), (12, 0, 1),
    ])  # fmt: skip
    @pytest.mark.parametrize("with_head", [True, False])
    def test_equals_the_slow_loop(self, n_frames: int, n_clips: int, stride: int, with_head: bool) -> None:
        model = make_model(with_head)
        vertices, mel = inputs(n_frames, n_clips)
        with torch.no_grad():
            expected = slow_scores(model, vertices, mel, stride)
            found = model.score(vertices, mel, stride=stride)
        assert set(found) == ({"lip_score", "real_score", "score_mask"} if with_head else {"lip_score", "score_mask"})
        assert torch.equal(found["score_mask"], expected["score_mask"])
        assert int(found["score_mask"].sum()) == -(-max(0, min(n_clips, n_frames - 4)) // stride)
        for key, value in found.items():
            assert value.shape == (n_frames,)
            assert torch.isfinite(value.float()).all()
            assert torch.allclose(value.float(), expected[key].float(), atol=1e-6), key
            assert (value[~found["score_mask"]] == 0).all()

    def test_accepted_shapes_and_types(self, model: RewardModel) -> None:
        vertices, mel = inputs(9, 5)
        plain = model.score(vertices, mel)["lip_score"]
        for other in (
            model.score(vertices.view(9, V, 3), mel[:, None]),
            model.score(vertices.numpy(), mel.numpy()),
            model.score(vertices.double(), mel.double()),
        ):
            assert torch.allclose(other["lip_score"], plain, atol=1e-6)

    @pytest.mark.parametrize(("vertices", "mel", "message"), [
        (torch.zeros(9, 33), torch.zeros(5, 20, 128), "meshes of 10 vertices"),
        (torch.zeros(9, 11, 3), torch.zeros(5, 20, 128), "meshes of 10 vertices"),
        (torch.zeros(2, 9, 30), torch.zeros(5, 20, 128), "expected \\[T, V\\*3\\]"),
        (torch.zeros(9, 30), torch.zeros(5, 20, 127), "expected \\[n, 20, 128\\]"),
    ])  # fmt: skip
    def test_wrong_shapes(self, model: RewardModel, vertices: Tensor, mel: Tensor, message: str) -> None:
        with pytest.raises(UserError, match=message):
            model.score(vertices, mel)

    def test_stride_zero(self, model: RewardModel) -> None:
        with pytest.raises(UserError, match="stride=0"):
            model.score(*inputs(9, 5), stride=0)


class TestScoreBatch:
    def test_unequal_lanes_and_nan_padding(self, model: RewardModel) -> None:
        lengths, clips, n_frames = [12, 4, 9], [8, 3, 2], 12
        vertices = torch.full((3, n_frames, V * 3), float("nan"))
        audio = torch.full((3, 8, E), float("nan"))
        alone = []
        for lane, (length, n_clips) in enumerate(zip(lengths, clips, strict=True)):
            one, mel = inputs(length, n_clips, seed=lane)
            vertices[lane, :length] = one
            audio[lane, :n_clips] = model.encode_audio(mel)
            alone.append(model.score(one, mel))
        n_clips = torch.tensor([min(c, t - 4) for c, t in zip(clips, lengths, strict=True)])
        vertices.requires_grad_()
        found = model.score_batch(vertices, audio, n_clips)
        for lane, length in enumerate(lengths):
            for key, value in found.items():
                assert value.shape == (3, n_frames)
                assert torch.allclose(value[lane, :length].float(), alone[lane][key].float(), atol=1e-6), (lane, key)
                assert (value[lane, length:] == 0).all()
        (found["lip_score"] + found["real_score"]).sum().backward()
        assert vertices.grad is not None and torch.isfinite(vertices.grad).all()
        assert vertices.grad[0].abs().sum() > 0 and vertices.grad[1].abs().sum() == 0

    def test_gradient_against_finite_differences(self) -> None:
        model = make_model().double()
        vertices, mel = inputs(7, 3)
        audio = model.encode_audio(mel)[None]
        vertices = vertices.double()[None].requires_grad_()
        assert torch.autograd.gradcheck(lambda v: model.score_batch(v, audio, stride=2)["lip_score"], vertices)

    def test_no_clip_anywhere(self, model: RewardModel) -> None:
        found = model.score_batch(torch.zeros(2, 3, V * 3), torch.zeros(2, 7, E), [0, 0])
        assert found["lip_score"].shape == (2, 3) and not found["score_mask"].any()


class TestFrozen:
    def test_train_changes_nothing(self) -> None:
        model = make_model()
        vertices, mel = inputs(9, 5)
        before = model.score(vertices, mel)
        torch.nn.ModuleList([model]).train()
        assert not any(module.training for module in model.modules())
        for key, value in model.score(vertices, mel).items():
            assert torch.equal(value, before[key])

    def test_only_the_value_branch_takes_gradients(self) -> None:
        model = make_model()
        trainable = {name for name, p in model.named_parameters() if p.requires_grad}
        assert trainable == {name for name, _ in model.named_parameters() if name.startswith("head.value")}
        assert not any(p.requires_grad for p in make_model(with_head=False).parameters())

    def test_training_the_critic_leaves_scores_and_hash(self) -> None:
        model = make_model()
        vertices, mel = inputs(12, 8)
        before, name = model.score(vertices, mel), model.content_hash()
        mesh, audio = model.encode_mesh(vertices[None]), model.encode_audio(mel)[None]
        start = model.value(mesh, audio).detach()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            (model.value(mesh, audio) - 2.0).square().mean().backward()
            optimizer.step()
        assert (model.value(mesh, audio) - start).abs().min() > 1e-3
        for key, value in model.score(vertices, mel).items():
            assert torch.equal(value, before[key])
        assert model.content_hash() == name

    def test_no_value_without_a_head(self) -> None:
        with pytest.raises(UserError, match="no head"):
            make_model(with_head=False).value(torch.zeros(1, E), torch.zeros(1, E))

    def test_head_of_another_width(self) -> None:
        with pytest.raises(UserError, match="width 8"):
            RewardModel(make_model().backbone, ScoreHead(8, 8, 4))


class TestPrecision:
    def test_bfloat16_is_near_float32_and_leaves_it_as_it_was(self) -> None:
        model, (vertices, mel) = make_model(), inputs(40, 36)
        before = {key: value.clone() for key, value in model.score(vertices, mel).items()}
        hashes = model.content_hash(), model.audio_hash()
        names = set(model.state_dict())
        model.backbone.precision = "bfloat16"
        rounded = model.score(vertices, mel)
        differences = [float((rounded[key] - before[key]).abs().max()) for key in model.score_names]
        assert 0 < max(differences) < 0.01, differences
        assert rounded["lip_score"].dtype == torch.float32
        assert model.content_hash() != hashes[0] and model.audio_hash() != hashes[1]
        assert set(model.state_dict()) == names
        model.backbone.precision = "float32"
        assert all(torch.equal(value, before[key]) for key, value in model.score(vertices, mel).items())
        assert (model.content_hash(), model.audio_hash()) == hashes

    def test_bfloat16_sees_new_weights(self) -> None:
        model, other, (vertices, mel) = make_model(), make_model(), inputs(12, 8)
        model.backbone.precision = other.backbone.precision = "bfloat16"
        model.score(vertices, mel)
        for each in (model, other):
            with torch.no_grad():
                each.backbone.encoder.blocks[0].mlp.fc1.weight.mul_(1.5)
        assert torch.equal(model.score(vertices, mel)["lip_score"], other.score(vertices, mel)["lip_score"])

    def test_gradient_points_the_same_way(self) -> None:
        model, (vertices, mel) = make_model(), inputs(20, 16)
        slopes = []
        for precision in ("float32", "bfloat16"):
            model.backbone.precision = precision
            moving = vertices.clone().requires_grad_()
            model.score(moving, mel)["lip_score"].sum().backward()
            slopes.append(moving.grad.flatten())
        assert torch.cosine_similarity(*slopes, dim=0) > 0.999

    def test_no_such_precision(self) -> None:
        with pytest.raises(UserError, match="reward.precision='float16'"):
            make_model().backbone.precision = "float16"


class TestHash:
    def test_names_the_scores(self, model: RewardModel) -> None:
        assert model.content_hash() == make_model().content_hash() != make_model(with_head=False).content_hash()
        other = make_model()
        with torch.no_grad():
            other.head.lip.bias += 1e-3  # type: ignore[union-attr]
        assert other.content_hash() != model.content_hash()
        assert other.audio_hash() == model.audio_hash()

    def test_number_of_heads_counts(self) -> None:
        assert make_model(n_heads=2).content_hash() != make_model(n_heads=4).content_hash()


class TestFiles:
    def test_roundtrip_through_a_folder(self, model: RewardModel, tmp_path: Path) -> None:
        model.save(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model_loss.pth", "v4_best.pt"]
        loaded = RewardModel.load(tmp_path)
        assert loaded.content_hash() == model.content_hash() and loaded.backbone.n_heads == 2
        vertices, mel = inputs(9, 5)
        for key, value in loaded.score(vertices, mel).items():
            assert torch.equal(value, model.score(vertices, mel)[key])
        by_name = RewardModel.load(backbone=tmp_path / "model_loss.pth", head=tmp_path / "v4_best.pt")
        assert by_name.content_hash() == model.content_hash()
        assert RewardModel.load(tmp_path / "model_loss.pth").head is None

    def test_activation_survives(self, tmp_path: Path) -> None:
        model = RewardModel(make_model().backbone, ScoreHead(E, E, 8, out_activation="none"))
        model.save(tmp_path)
        assert RewardModel.load(tmp_path).head.out_activation == "none"  # type: ignore[union-attr]

    def test_published_files_hold_plain_state_dicts(self, model: RewardModel, tmp_path: Path) -> None:
        model.save(tmp_path)
        content = torch.load(tmp_path / "model_loss.pth", weights_only=True)
        assert set(content["model"]) == set(model.backbone.state_dict())
        torch.save({"model": content["model"]}, tmp_path / "model_loss.pth")
        with pytest.raises(UserError, match="n_heads=8 .* width 12|n_heads"):
            RewardModel.load(tmp_path, n_heads=5)
        assert RewardModel.load(tmp_path).backbone.n_heads == 8

    def test_one_file_with_both(self, model: RewardModel, tmp_path: Path) -> None:
        both = {"model": model.backbone.state_dict(), "head": model.head.state_dict(), "config": {"n_heads": 2}}  # type: ignore[union-attr]
        torch.save(both, tmp_path / "reward.pt")
        assert RewardModel.load(tmp_path / "reward.pt").content_hash() == model.content_hash()

    def test_safetensors(self, model: RewardModel, tmp_path: Path) -> None:
        save_file(dict(model.backbone.state_dict()), tmp_path / "model_loss.safetensors", metadata={"n_heads": "2"})
        save_file(dict(model.head.state_dict()), tmp_path / "v4_best.safetensors")  # type: ignore[union-attr]
        assert RewardModel.load(tmp_path).content_hash() == model.content_hash()

    def test_from_reference(self, model: RewardModel) -> None:
        built = RewardModel.from_reference({"model": model.backbone.state_dict()}, model.head.state_dict(), n_heads=2)  # type: ignore[union-attr]
        assert built.content_hash() == model.content_hash()

    @pytest.mark.parametrize("make", [
        lambda path: None,
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a checkpoint"),
        lambda path: path.write_bytes(pickle.dumps(Path("/"))),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"model": {"x": torch.zeros(1)}}, path),
        lambda path: torch.save({"model": torch.nn.Linear(2, 2)}, path),
        lambda path: np.save(path.with_suffix(".npy"), np.zeros(3)),
    ])  # fmt: skip
    @pytest.mark.parametrize("name", ["model_loss.pth", "model_loss.safetensors"])
    def test_hostile_files(self, tmp_path: Path, make, name: str) -> None:
        make(tmp_path / name)
        for attempt in (lambda: RewardModel.load(tmp_path), lambda: RewardModel.load(tmp_path / name)):
            with pytest.raises(UserError) as caught:
                attempt()
            assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)

    def test_truncated(self, model: RewardModel, tmp_path: Path) -> None:
        model.save(tmp_path)
        content = (tmp_path / "v4_best.pt").read_bytes()
        (tmp_path / "v4_best.pt").write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError, match="v4_best.pt"):
            RewardModel.load(tmp_path)

    def test_neither_or_both_sources(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="either"):
            RewardModel.load()
        with pytest.raises(UserError, match="either"):
            RewardModel.load(tmp_path, backbone=tmp_path)
