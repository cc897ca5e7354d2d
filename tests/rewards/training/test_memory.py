"""What a training keeps is bounded: recordings, features, and what the gradient needs of a step; in bytes."""

from __future__ import annotations

import pytest
import torch

from s2f_rl import products
from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.rewards import SpeechMeshTransformer
from s2f_rl.rewards.corruptions import chosen_corruptions
from s2f_rl.rewards.model import speech_mesh
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.clips import ClipSampler
from s2f_rl.rewards.training.encoding import Encoding, clip_bytes
from s2f_rl.rewards.training.listening import MotionReadout, draw_pairs, listening_losses
from s2f_rl.rewards.training.losses import AudioFeatures, encoded_mesh
from s2f_rl.rewards.training.memory import MemoryPlan
from s2f_rl.rewards.training.recordings import MotionBank
from tests.rewards.settings import CLIPS


class Kept:
    """Bytes that autograd keeps at a time, each storage once, parameters left out."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.own = {p.untyped_storage().data_ptr() for p in module.parameters()}
        self.now: dict[int, list[int]] = {}
        self.most = 0

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.own:
            self.now[storage.data_ptr()] = [storage.nbytes()]
        self.most = max(self.most, sum(each[0] for each in self.now.values()))
        return tensor


@pytest.fixture(scope="module")
def backbone() -> SpeechMeshTransformer:
    torch.manual_seed(0)
    return SpeechMeshTransformer(12, 32, depth=4, n_heads=4).double()


def kept_bytes(backbone: SpeechMeshTransformer, n_clips: int) -> int:
    kept = Kept(backbone)
    clips = torch.randn(n_clips, CLIP_FRAMES, 12, generator=torch.Generator().manual_seed(1))
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        encoded_mesh(backbone, clips.float(), None)
    return kept.most


def test_bytes_of_a_clip() -> None:
    """The formula against what autograd keeps (float32); attention and the norms' statistics keep a little more."""
    torch.manual_seed(0)
    small = SpeechMeshTransformer(12, 64, depth=6, n_heads=4)
    per_clip = (kept_bytes(small, 60) - kept_bytes(small, 20)) / 40
    assert per_clip == pytest.approx(clip_bytes(small, CLIP_FRAMES), rel=0.2)


class TestEncoding:
    def losses(self, backbone: SpeechMeshTransformer, encoding: Encoding | None) -> tuple[torch.Tensor, list]:
        draws = torch.Generator().manual_seed(2)
        clips = torch.randn(7, CLIP_FRAMES, 12, generator=draws, dtype=torch.float64)
        goal = torch.randn(7, 32, generator=draws, dtype=torch.float64)
        loss = (encoded_mesh(backbone, clips, encoding) * goal).sum().square()
        return loss, list(torch.autograd.grad(loss, list(backbone.encoder.parameters())))

    def test_pieces_give_the_same_gradient(self, backbone: SpeechMeshTransformer, monkeypatch) -> None:
        monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # stay in float64
        whole, gradient = self.losses(backbone, None)
        sizes = []
        pool = backbone.encode_embedded
        monkeypatch.setattr(backbone, "encode_embedded", lambda clips: (sizes.append(len(clips)), pool(clips))[1])
        pieces, other = self.losses(backbone, Encoding(2.5 * clip_bytes(backbone, CLIP_FRAMES)))
        assert sizes == [2, 2, 2, 1] + sizes[4:] and sorted(sizes[4:]) == [1, 2, 2, 2], "forward, and again backward"
        torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=0)
        for one, two in zip(gradient, other, strict=True):
            torch.testing.assert_close(two, one, rtol=0, atol=1e-12 * float(one.abs().max()))

    def test_little_is_kept(self, backbone: SpeechMeshTransformer) -> None:
        small = SpeechMeshTransformer(12, 32, depth=4, n_heads=4)
        clips = torch.randn(64, CLIP_FRAMES, 12)
        limit = 8 * clip_bytes(small, CLIP_FRAMES)
        most = {}
        for name, encoding in (("whole", None), ("pieces", Encoding(limit))):
            kept = Kept(small)
            with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
                encoded_mesh(small, clips, encoding)
            most[name] = kept.most
        assert most["whole"] > 6 * limit and most["pieces"] < limit

    def test_bfloat16_is_near(self) -> None:
        torch.manual_seed(0)
        small = SpeechMeshTransformer(12, 32, depth=2, n_heads=4)
        clips = torch.randn(16, CLIP_FRAMES, 12)
        exact, rough = encoded_mesh(small, clips, None), encoded_mesh(small, clips, Encoding(bfloat16=True))
        assert rough.dtype == torch.float32
        assert 0 < float((exact - rough).detach().abs().max()) < 0.02 * float(exact.detach().abs().max())

    def test_metres_are_not_rounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """bfloat16 has steps of a millimetre at .2 m: the layer that sees the mesh, and no other, stays float32."""
        small = SpeechMeshTransformer(12, 32, depth=1, n_heads=4)
        kinds = {}

        def linear(x: torch.Tensor, weight: torch.Tensor, *more: object, **named: object) -> torch.Tensor:
            made: torch.Tensor = products.linear(x, weight, *more, **named)  # type: ignore[arg-type]
            kinds[weight] = made.dtype
            return made

        monkeypatch.setattr(speech_mesh, "linear", linear)
        encoded_mesh(small, torch.randn(2, CLIP_FRAMES, 12), Encoding(bfloat16=True))
        assert kinds.pop(small.encoder.patch_embed.weight) == torch.float32
        assert len(kinds) == 4 and set(kinds.values()) == {torch.bfloat16}

    def test_listening_in_pieces(self, bank: MotionBank, motion: MotionSubspace) -> None:
        sampler = ClipSampler(bank, motion, None, None, chosen_corruptions(["jitter"]), **CLIPS)
        batch = draw_pairs(sampler, motion, None, 3, 4)
        torch.manual_seed(0)
        small, readout = SpeechMeshTransformer(135, 16, 2, 2), MotionReadout(16, len(motion.std))
        found = []
        for encoding in (None, Encoding(3 * clip_bytes(small, 80))):
            torch.manual_seed(1)  # of the patches
            losses = listening_losses(small, readout, batch, 0.5, encoding=encoding)
            found.append((losses, torch.autograd.grad(sum(losses.values()), list(small.parameters()))))
        (whole, gradient), (pieces, other) = found
        assert all(pieces[name].item() == pytest.approx(whole[name].item(), rel=1e-5) for name in whole)
        for one, two in zip(gradient, other, strict=True):
            torch.testing.assert_close(two, one, rtol=0, atol=1e-4 * float(one.abs().max()) + 1e-8)


class TestPlan:
    MB = 2**20

    def test_shares_add_up(self) -> None:
        plan = MemoryPlan.within(3072, trained=63_000_000, frozen=0, features=255 * self.MB, step=3600 * self.MB)
        model = 20 * 63_000_000 / self.MB
        assert plan.features == 255 * self.MB
        assert (plan.recordings + plan.features + plan.step) / self.MB == pytest.approx(3072 - 500 - model, abs=1)
        assert plan.recordings / self.MB == pytest.approx((3072 - 500 - model) / 4, abs=1)

    def test_what_an_update_does_not_need_is_for_recordings(self) -> None:
        plan = MemoryPlan.within(2048, trained=100_000, frozen=0, features=10 * self.MB, step=40 * self.MB)
        assert plan.step == 40 * self.MB and plan.features == 10 * self.MB
        assert plan.recordings / self.MB == pytest.approx(2048 - 500 - 50 - 2, abs=1)

    def test_a_limit_that_the_model_fills(self) -> None:
        plan = MemoryPlan.within(100, trained=10**9, frozen=0, features=10**12, step=10**12)
        assert plan.recordings + plan.features + plan.step <= 25 * self.MB and plan.recordings > 6 * self.MB


def test_features_are_bounded(bank: MotionBank, motion: MotionSubspace) -> None:
    torch.manual_seed(0)
    small = SpeechMeshTransformer(135, 16, 1, 2)
    sampler = ClipSampler(bank, motion, None, None, chosen_corruptions(["jitter"]), **CLIPS)
    most = max(bank[p].mel_clips.shape[0] for p in range(len(bank))) * 16 * 4
    features = AudioFeatures(small, bank, limit_bytes=2 * most)
    for _ in range(8):
        batch = sampler.draw()
        with torch.no_grad():
            expected = small.encode_audio(batch.mel)
        assert torch.allclose(features(batch), expected, atol=1e-5)
        assert features._known.n_bytes <= 2 * most


def test_known_features_read_no_recording(corpus, motion: MotionSubspace, monkeypatch) -> None:
    bank = MotionBank(corpus)
    small = SpeechMeshTransformer(135, 16, 1, 2)
    batch = ClipSampler(bank, motion, None, None, chosen_corruptions(["jitter"]), **CLIPS).draw()
    features = AudioFeatures(small, bank)
    known = features(batch)
    monkeypatch.setattr(MotionBank, "__getitem__", lambda *_: pytest.fail("a recording was read"))
    assert torch.equal(features(batch), known)


def test_recordings_are_bounded(corpus, motion: MotionSubspace) -> None:
    whole = MotionBank(corpus)
    most = max(whole[p].nbytes for p in range(len(whole)))
    bank = MotionBank(corpus, None, 2.5 * most / 2**20)
    sampler = ClipSampler(bank, motion, None, bank.fit_regressor(motion), chosen_corruptions(), **CLIPS)
    for _ in range(4):
        sampler.draw()
        assert bank._memory.n_bytes <= 2.5 * most


def test_statistics_keep_no_recording(corpus, monkeypatch) -> None:
    """The frames that are looked at are copied: a view of them would keep everything that was read."""
    seen = []
    cat = torch.cat
    monkeypatch.setattr(torch, "cat", lambda rows, *rest, **more: (seen.extend(rows), cat(rows, *rest, **more))[1])
    MotionSubspace.fit(corpus, max_frames=8)
    frames = [each for each in seen if each.shape[-1] == 135]
    assert frames and all(each.untyped_storage().nbytes() == each.nbytes for each in frames)
