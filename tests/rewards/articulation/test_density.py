"""Phone features, mistakes of transcripts and the density of lips, against loops and a normal density in float64."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm

from s2f_rl.data import FaceCorpus
from s2f_rl.data.mesh_identity import MeshIdentity
from s2f_rl.data.phone_classes import CLASSES, phone_class
from s2f_rl.errors import UserError
from s2f_rl.rewards.articulation.density import FLOOR_M, log_density, squared_error, widened
from s2f_rl.rewards.articulation.density_files import FILE, TrainedDensity, is_articulation
from s2f_rl.rewards.articulation.lessons import LessonSampler, describe, in_one_batch, lessons
from s2f_rl.rewards.articulation.phones import N_FEATURES, PhoneSource, phone_features, with_mistakes
from tests.rewards.articulation.speaking import PHONES, small_density, speaking_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> FaceCorpus:
    return FaceCorpus(speaking_corpus(tmp_path_factory.mktemp("density"), n_sentences=2), split="train")


class TestPhones:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [("m", "m"), ("AH0", "ah"), ("ax", "ah"), ("el", "l"), ("dx", "t"), ("q", "t"), ("sil", "sil"), ("_:", "sil"),
         (" B ", "b"), ("pcl", "p"), ("ʃ", "unknown"), ("wibble", "unknown")],
    )  # fmt: skip
    def test_classes(self, name: str, expected: str) -> None:
        assert CLASSES[phone_class(name)] == expected

    def test_features_against_a_loop(self) -> None:
        fps = 30.0
        found = phone_features(PHONES, fps)
        assert found.shape == (21, N_FEATURES)  # up to .7 s
        for t in range(21):
            low, high, at = (t - 0.5) / fps, (t + 0.5) / fps, t / fps
            share = np.zeros(len(CLASSES))
            for name, start, end in PHONES:
                share[phone_class(name)] += max(0.0, min(high, end) - max(low, start)) * fps
                if start <= at < end:
                    place, length = 2 * (at - start) / (end - start) - 1, math.log((end - start) / 0.1)
            np.testing.assert_allclose(found[t, :-2], share, atol=1e-6)
            np.testing.assert_allclose(found[t, -2:], [place, length], atol=1e-6)
        assert float(found[3:, :-2].sum(1).min()) == pytest.approx(1.0) and len(phone_features([], fps)) == 0

    def test_what_no_phone_touches_is_silence(self) -> None:
        whole = [("sil", 0.0, 0.2), ("m", 0.2, 0.3), ("sil", 0.3, 0.6), ("aa", 0.6, 0.7)]
        shown, expected = (phone_features(each, 30.0)[:, :-2] for each in (whole[1::2], whole))
        apart = [t for t in range(21) if not torch.allclose(shown[t], expected[t], atol=1e-5)]
        assert apart == [0, 6, 9, 18]  # at the boundaries, and half a frame before the start
        assert float(shown[12, 0]) == 1.0

    def test_mistakes(self) -> None:
        many = [(PHONES[k % len(PHONES)][0], k * 0.1, (k + 1) * 0.1) for k in range(4000)]
        draws = torch.Generator().manual_seed(0)
        assert with_mistakes(many, draws) == many and with_mistakes([], draws) == []
        found = with_mistakes(many, draws, substituted=0.2, boundary_noise_s=0.01)
        spoken = [(a, b) for (a, *_), (b, *_) in zip(many, found, strict=True) if phone_class(a) != 0]
        assert np.mean([a != b for a, b in spoken]) == pytest.approx(0.2, abs=0.03)
        assert all(new == old for (old, *_), (new, *_) in zip(many, found, strict=True) if phone_class(old) == 0)
        moved = np.array([new[2] - old[2] for old, new in zip(many, found, strict=True)][:-1])
        assert moved.std() == pytest.approx(0.01, rel=0.1) and abs(moved.mean()) < 1e-3
        assert found[0][1] == 0 and found[-1][2] == many[-1][2]
        assert all(a[2] == b[1] and a[1] <= a[2] for a, b in zip(found, found[1:], strict=False))

    def test_where_they_come_from(self, corpus: FaceCorpus, tmp_path: Path) -> None:
        (tmp_path / f"{corpus.names[0]}.json").write_text('[["b", 0.0, 0.5]]')
        source = PhoneSource(tmp_path)
        assert source.of(corpus[0]) == [("b", 0.0, 0.5)] and source.of(corpus[1]) == []
        assert PhoneSource().of(corpus[0]) == corpus[0].phones
        source.require(corpus)
        (tmp_path / f"{corpus.names[0]}.json").write_text('[["tʃ", 0.0, 0.5], ["b", 0.5, 0.6], ["ø", 0.6, 0.7]]')
        with pytest.raises(UserError, match=f"most of its .* that are not ARPAbet.* --out {tmp_path} --overwrite`"):
            source.require(corpus)
        (tmp_path / f"{corpus.names[0]}.json").unlink()
        with pytest.raises(UserError, match=f"no utterance has phone timings.*s2f-rl align.* --out {tmp_path}`"):
            source.require(corpus)
        with pytest.raises(UserError, match="no such folder of phones.*--out FOLDER"):
            PhoneSource(tmp_path / "absent")


class TestDensity:
    def test_log_density_against_scipy(self) -> None:
        torch.manual_seed(0)
        mean, c = torch.randn(2, 3, 7, 4, dtype=torch.float64) * 1e-3
        sd = FLOOR_M * (1 + torch.rand(3, 7, 4, dtype=torch.float64) * 5)
        c = torch.where((c - mean).abs() < 6 * sd, c, mean + 5.9 * sd)
        expected = norm.logpdf(c.numpy(), mean.numpy(), sd.numpy()).mean(-1) + math.log(
            FLOOR_M * math.sqrt(2 * math.pi)
        )
        np.testing.assert_allclose(log_density(c, mean, sd), expected, rtol=1e-12)
        assert float(log_density(mean, mean, torch.full_like(mean, FLOOR_M)).abs().max()) == 0

    def test_far_out_the_slope_stays_what_it_is_at_six(self) -> None:
        away = torch.tensor([6.0, 9.0, 400.0], dtype=torch.float64, requires_grad=True)
        sd = torch.full((3, 1), FLOOR_M, dtype=torch.float64)
        value = log_density(away[:, None] * FLOOR_M, torch.zeros(3, 1, dtype=torch.float64), sd)
        value.sum().backward()
        np.testing.assert_allclose(value.detach(), [-18.0, -36.0, -2382.0], rtol=1e-12)
        np.testing.assert_allclose(away.grad, [-6.0, -6.0, -6.0], rtol=1e-12)

    def test_squared_error(self) -> None:
        c = torch.tensor([[3e-3, 1e-3]], dtype=torch.float64)
        found = squared_error(c, torch.tensor([[1e-3, 0.0]]).double(), torch.tensor(2e-3))
        assert float(found) == pytest.approx(-(1.0 + 0.25) / 2, rel=1e-6)

    def test_widened(self) -> None:
        """Against a root that is searched for; where the density is sure, the mean stays."""
        torch.manual_seed(0)
        mean = torch.randn(40, 3, dtype=torch.float64) * 1e-3
        sd = FLOOR_M * (1 + 4 * torch.rand(40, 3, dtype=torch.float64))
        sd[:10] = 1e-3 * FLOOR_M
        m, v = mean.numpy(), sd.square().sum(1).numpy()

        def beyond(a: float) -> float:
            return float(((m * (1 + a * v[:, None])) ** 2).sum() - (m**2).sum() - v.sum())

        expected = m * (1 + brentq(beyond, 0.0, 1e8, xtol=1e-9, rtol=1e-14) * v[:, None])
        found = widened(mean, sd)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        np.testing.assert_allclose(found[:10], m[:10], rtol=1e-4)
        assert float(found.square().sum() / mean.square().sum()) > 1.1
        np.testing.assert_allclose(widened(mean.float(), sd.float()), expected, rtol=1e-5)
        assert float(widened(torch.zeros(4, 2), torch.ones(4, 2)).abs().max()) == 0

    def test_coefficients_are_metres_over_the_lips(self, corpus: FaceCorpus) -> None:
        """A motion along one direction has its root mean square over the lips as coefficient."""
        density = small_density(corpus)
        gram = density.basis @ density.basis.T
        torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-5, rtol=0)
        shape = (density.basis[1] * 0.01).double()
        c = density.coefficients(density.mean.double() + shape)
        rms = shape.view(-1, 3).square().sum(-1).mean().sqrt()
        assert float(c[1]) == pytest.approx(float(rms), rel=1e-6) and float(c[0].abs()) < 1e-8

    def test_the_floor(self, corpus: FaceCorpus) -> None:
        density = small_density(corpus)
        torch.nn.init.constant_(density.head.bias, -50.0)
        _, sd = density(phone_features(PHONES, 30.0)[None], torch.zeros(1, density.n_styles))
        assert bool((sd >= FLOOR_M * (1 - 1e-6)).all() and (sd < 1.1 * FLOOR_M).all())

    def test_padding_changes_nothing(self, corpus: FaceCorpus) -> None:
        density = small_density(corpus)
        known = lessons(corpus, PhoneSource(), density.lips)
        short, long = known[0], known[1]
        short.lips, short.phones = short.lips[:9], short.phones[:2]
        styles = torch.stack([short.style, long.style])
        both = in_one_batch(density, [short, long], [short.phones, long.phones], styles, corpus.fps)
        assert not bool(both.mask.all())
        together = density(both.features, both.style)
        for k, lesson in enumerate((short, long)):
            alone = in_one_batch(density, [lesson], [lesson.phones], styles[k : k + 1], corpus.fps)
            n = int(alone.mask.sum())
            for whole, part in zip(together, density(alone.features, alone.style), strict=True):
                torch.testing.assert_close(whole[k, :n], part[0], atol=1e-8, rtol=1e-5)

    def test_what_is_told_of_it(self, corpus: FaceCorpus) -> None:
        """Against all frames of all utterances, one after another."""
        density = small_density(corpus)
        known = lessons(corpus, PhoneSource(), density.lips)
        log, squares, style = [], [], {each.subject: each.style for each in corpus}
        for utterance in corpus:
            shown = phone_features(utterance.phones, corpus.fps)[: len(utterance.vertices)]
            mean, sd = (each[0].detach().double() for each in density(shown[None], style[utterance.subject][None]))
            lips = (utterance.vertices - utterance.template).view(len(utterance.vertices), -1, 3)[:, density.lips]
            c = density.coefficients(lips.flatten(1).double())[: len(mean)]
            log += log_density(c, mean, sd).tolist()
            squares.append(torch.stack([c - mean, sd, c, mean]).square().mean(-1).T)
        expected = torch.cat(squares).mean(0).sqrt() * 1e3
        found = describe(density, known, corpus.fps)
        assert found["log_density"] == pytest.approx(np.mean(log), rel=1e-4)
        told = [found[name] for name in ("error_mm", "sd_mm", "spread_mm", "mean_mm")]
        np.testing.assert_allclose(told, expected, rtol=1e-4)

    def test_lessons_are_drawn_with_mistakes_and_go_on(self, corpus: FaceCorpus) -> None:
        density = small_density(corpus)
        known = lessons(corpus, PhoneSource(), density.lips)
        options = {"batch_size": 3, "substituted": 0.5, "boundary_noise_s": 0.02, "style_left_out": 0.5}
        sampler = LessonSampler(known, corpus.fps, 7, **options)
        sampler.draw(density)
        state = sampler.state_dict()
        batch = sampler.draw(density)
        again = LessonSampler(known, corpus.fps, 8, **options)
        again.load_state_dict(state)
        for one, other in zip(vars(batch).values(), vars(again.draw(density)).values(), strict=True):
            assert torch.equal(one, other)
        shown = torch.cat([sampler.draw(density).style.sum(1) for _ in range(60)])
        assert sorted(set(shown.tolist())) == [0.0, 1.0] and float(shown.mean()) == pytest.approx(0.5, abs=0.12)
        with pytest.raises(UserError, match="no utterance has both motion and phones"):
            lessons(FaceCorpus(corpus.root, "validation"), PhoneSource(corpus.root / "wav"), density.lips)


class TestFile:
    def test_round_trip(self, corpus: FaceCorpus, tmp_path: Path) -> None:
        trained = TrainedDensity(
            small_density(corpus), tuple(corpus.subjects), corpus.fps, corpus.mesh_identity, {"seed": 3}
        )
        assert not is_articulation(tmp_path)
        trained.save(tmp_path)
        assert is_articulation(tmp_path) and is_articulation(tmp_path / FILE)
        found = TrainedDensity.load(tmp_path)
        assert found.content_hash() == trained.content_hash() and found.about == {"seed": 3}
        assert (found.subjects, found.fps) == (trained.subjects, 30.0) and found.mesh_identity == corpus.mesh_identity
        assert not any(each.requires_grad for each in found.density.parameters())
        with torch.no_grad():
            found.density.head.bias[0] += 1e-3
        assert found.content_hash() != trained.content_hash()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda c: c.pop("articulation"), "holds no density of lips"),
            (lambda c: c["config"].update(classes=["a"]), "classes of phones are not this version's"),
            (lambda c: c["config"].pop("subjects"), "which subjects"),
            (lambda c: c["config"].update(lips=[-1]), "which vertices its lips are"),
            (lambda c: c["config"].update(lips=[0]), "do not fit each other"),
            (lambda c: c["config"]["lips"].__setitem__(0, 10**6), "lips are not on its mesh"),
            (lambda c: c["articulation"].pop("style.weight"), "lacks 'style.weight'"),
            (lambda c: c["articulation"].update(mean=torch.zeros(5)), "do not fit each other"),
            (lambda c: c["articulation"].pop("head.bias"), "lacks 'head.bias'"),
        ],
    )
    def test_other_files(self, corpus: FaceCorpus, tmp_path: Path, change, message: str) -> None:
        TrainedDensity(small_density(corpus), tuple(corpus.subjects), 30.0, MeshIdentity(corpus.n_vertices)).save(
            tmp_path
        )
        content = torch.load(tmp_path / FILE, weights_only=True)
        change(content)
        torch.save(content, tmp_path / FILE)
        with pytest.raises(UserError, match=message):
            TrainedDensity.load(tmp_path)
