"""The encoder that knows phones: what it hears at every rate, its shipped weights, and its mistakes in training."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny import make_tiny_corpus
from torch import Tensor

from s2f_rl.data import FaceCorpus
from s2f_rl.data.synthetic.phones import PHONES
from s2f_rl.data.synthetic.sentences import N_SHARED_POOL, SENTENCES
from s2f_rl.data.synthetic.speech import speak, speak_in_turn
from s2f_rl.data.synthetic.voices import VOICES
from s2f_rl.data.tensor_files import save_safetensors
from s2f_rl.errors import UserError
from s2f_rl.models import FaceFormer, ListenerAudioEncoder
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.checkpoint import actor_payload, load_actor
from s2f_rl.models.hearing import Hearing
from s2f_rl.models.mishearing import CONFUSABLE, misheard
from s2f_rl.models.recogniser import PhoneRecogniser
from s2f_rl.models.recogniser_files import ABOUT, SHIPPED, WEIGHTS, about_recogniser, load_recogniser, save_recogniser
from s2f_rl.training.spoken import heard, phone_numbers


def sound(n: int = 16000) -> Tensor:
    x = torch.randn(1, n, generator=torch.Generator().manual_seed(0))
    return (x - x.mean()) / x.std(correction=0)


class TestShipped:
    def test_hears_voices_and_texts_that_it_never_met(self) -> None:
        pytest.importorskip("espeakng_loader")
        recogniser = load_recogniser()
        right = []
        for k, voice in enumerate(VOICES[-4:]):
            bands, phones = heard(recogniser, speak(SENTENCES[N_SHARED_POOL + 7 * k], voice))
            right.append((recogniser(bands[None].float())[0].argmax(-1) == phones).float().mean())
        assert float(torch.stack(right).mean()) > 0.7
        about = about_recogniser()
        assert {voice.espeak.partition("+")[2] for voice in VOICES} == set(about["held_out_variants"])
        assert about["command"] == "python recipes/listener.py" and about["unheard"]["accuracy"] > 0.75

    def test_is_what_its_record_tells_of(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"recogniser\.json.*not there|recogniser\.json"):
            load_recogniser(tmp_path)
        save_recogniser(tmp_path, load_recogniser(), {"seed": 3})
        assert about_recogniser(tmp_path)["seed"] == 3
        assert (tmp_path / WEIGHTS).stat().st_size < 1.1e6
        assert about_recogniser(tmp_path)["sha256"] == about_recogniser(SHIPPED)["sha256"], "float16 keeps all of it"
        other = load_recogniser(tmp_path)
        with torch.no_grad():
            other.phones.bias[0] += 1
        (tmp_path / "other").mkdir()
        save_recogniser(tmp_path / "other", other, {})
        shutil.copy(tmp_path / "other" / WEIGHTS, tmp_path / WEIGHTS)
        with pytest.raises(UserError, match=r"recogniser\.safetensors: is not the file that recogniser\.json tells of"):
            load_recogniser(tmp_path)
        (tmp_path / ABOUT).write_text(json.dumps([1]))
        with pytest.raises(UserError, match="tells of no phone recogniser"):
            load_recogniser(tmp_path)

    def test_another_size_is_read_off_its_weights(self, tmp_path: Path) -> None:
        save_recogniser(tmp_path, PhoneRecogniser(5, width=6, n_layers=3, n_mels=10), {})
        ear = ListenerAudioEncoder(8, pretrained=str(tmp_path)).recogniser
        assert (ear.n_phones, ear.width, ear.n_layers, ear.n_mels, ear.look_around) == (5, 6, 3, 10, 8)

    def test_a_file_that_is_none(self, tmp_path: Path) -> None:
        """Refused before its sizes ask for memory: the first would take 18 GB, the second 2."""
        good = {name: each.half() for name, each in PhoneRecogniser(5, 6, 2, 10).state_dict().items()}
        few = {"phones.bias": torch.zeros(3), "convolutions.0.weight": torch.zeros(1)}
        wrong = {
            "size mismatch|Missing": {**few, "input.weight": torch.zeros(30000, 2)},
            "1000000 mel bands": {**few, "input.weight": torch.zeros(1, 2 * 10**6)},
            "'phones.bias' holds int64": {**good, "phones.bias": torch.zeros(5, dtype=torch.int64)},
            "Unexpected": {**good, "another": torch.zeros(1)},
            "no phone recogniser": {**good, "phones.bias": torch.tensor(1.0)},
        }
        for reason, tensors in wrong.items():
            save_safetensors(tmp_path / WEIGHTS, tensors)
            digest = hashlib.sha256((tmp_path / WEIGHTS).read_bytes()).hexdigest()
            (tmp_path / ABOUT).write_text(json.dumps({"sha256": digest}))
            with pytest.raises(UserError, match=reason) as caught:
                load_recogniser(tmp_path)
            assert str(tmp_path) in str(caught.value) and len(str(caught.value)) < len(str(tmp_path)) + 300

    def test_mistakes_need_the_phones_that_they_are_of(self, tmp_path: Path) -> None:
        save_recogniser(tmp_path, PhoneRecogniser(5, width=6, n_layers=3, n_mels=10), {})
        with pytest.raises(UserError, match=r"actor\.audio\.errors=0\.1: of 44 phones .* tells 5; use 0"):
            ListenerAudioEncoder(8, pretrained=str(tmp_path), errors=0.1)


class TestHearing:
    def test_one_set_of_posteriors_serves_every_rate(self) -> None:
        x, expected = sound(), None
        for clock in ({}, {"topology": "biwi"}, {"fps": 24.0}, {"fps": 25.0}, {"fps": 60.0}):
            torch.manual_seed(0)
            encoder = ListenerAudioEncoder(8, pretrained=SHIPPED, **clock).eval()
            posteriors = encoder.conv_features(x)
            expected = posteriors if expected is None else expected
            assert torch.equal(posteriors, expected) and posteriors.shape == (1, 49, len(PHONES))
            torch.testing.assert_close(posteriors.sum(-1), torch.ones(1, 49))
            n_frames = encoder.n_frames(x.shape[1])
            assert encoder(x).shape == (1, n_frames * encoder.features_per_frame, 8)

    def test_hears_as_far_as_it_says(self) -> None:
        """A frame of the bands changes the posteriors of so many on either side, and of no other."""
        encoder = ListenerAudioEncoder(8, pretrained=SHIPPED)
        bands = torch.randn(1, 101, 80, generator=torch.Generator().manual_seed(0))
        other = bands.clone()
        other[0, 50] += 1
        changed = (encoder.widened(bands) != encoder.widened(other)).any(-1)[0].nonzero()[:, 0]
        assert encoder.look_around == 18 and (int(changed.min()), int(changed.max())) == (32, 68)

    def test_the_recogniser_never_trains(self) -> None:
        encoder = ListenerAudioEncoder(8, pretrained=SHIPPED).train()
        encoder.set_trainable(True)
        encoder(sound()).sum().backward()
        trained = {name.partition(".")[0] for name, p in encoder.named_parameters() if p.grad is not None}
        assert trained == {"input", "convolutions", "norms"}

    def test_rl_trains_what_follows_it(self, tmp_path: Path) -> None:
        corpus = FaceCorpus(make_tiny_corpus(tmp_path), split="all")
        encoder = ListenerAudioEncoder(8, pretrained=SHIPPED).eval().requires_grad_(False)
        kept, hearing = CachedAudio(encoder, corpus).get(0), Hearing(encoder, corpus)
        names = {name for name, p in encoder.named_parameters() if any(p is each for each in hearing.trained)}
        assert names == {name for name, _ in encoder.named_parameters() if not name.startswith("recogniser.")}
        torch.testing.assert_close(hearing.get(0)[: len(kept)], kept)

    def test_a_checkpoint_carries_it(self, tmp_path: Path) -> None:
        """And not the errors, nor where it came from."""
        torch.manual_seed(0)
        encoder = ListenerAudioEncoder(8, pretrained=SHIPPED, errors=0.5)
        actor = FaceFormer(encoder, 8, feature_dim=16, n_subjects=2).eval()
        payload = actor_payload(actor, ["a", "b"])
        torch.save({"actor": payload}, tmp_path / "best.pt")
        again = load_actor(tmp_path)[0]
        assert again.audio_encoder.errors == 0
        assert torch.equal(again.audio_encoder(sound()), encoder(sound()))
        for wrong in ({"errors": 0.5}, {"pretrained": "shipped"}, {"ear_layers": 900}, {"n_phones": 10**9}):
            audio = {**payload["config"]["audio"], **wrong}
            torch.save({"actor": {**payload, "config": {**payload["config"], "audio": audio}}}, tmp_path / "best.pt")
            with pytest.raises(UserError, match=next(iter(wrong))):
                load_actor(tmp_path)


class TestMishearing:
    def test_in_training_alone(self, tmp_path: Path) -> None:
        corpus = FaceCorpus(make_tiny_corpus(tmp_path), split="all")
        torch.manual_seed(0)
        encoder = ListenerAudioEncoder(8, pretrained=SHIPPED, errors=0.5).train()
        clean = CachedAudio(encoder, corpus).get(0)
        wrong = encoder(corpus[0].waveform[None])[0].unflatten(0, (-1, 1))
        encoder.errors = 0.0
        right = encoder(corpus[0].waveform[None])[0].unflatten(0, (-1, 1))
        torch.testing.assert_close(clean, right[: len(clean)])
        assert not torch.allclose(wrong, right)

    def test_each_stretch_is_of_one_of_three_kinds(self) -> None:
        """By hand, of one-hot posteriors: another phone of the group, a mean, or a frame nearby."""
        torch.manual_seed(0)
        told = torch.randint(len(PHONES), (40, 300))
        clean = torch.nn.functional.one_hot(told, len(PHONES)).double()
        heard = misheard(clean, 0.1)
        torch.testing.assert_close(heard.sum(-1), torch.ones(40, 300, dtype=torch.float64))
        group_of = {name: group for group in CONFUSABLE for name in group.split()}
        seen = {"other": 0, "mean": 0, "near": 0}
        for row, frame in (heard != clean).any(-1).nonzero().tolist():
            value = heard[row, frame]
            near = told[row, max(0, frame - 4) : frame + 5].tolist()
            if value.max() < 1:
                assert set(value.nonzero()[:, 0].tolist()) <= set(near)
                seen["mean"] += 1
            elif int(value.argmax()) in told[row, max(0, frame - 2) : frame + 3].tolist():
                seen["near"] += 1
            else:
                name = PHONES[int(told[row, frame])]
                assert PHONES[int(value.argmax())] in group_of[name].split(), name
                seen["other"] += 1
        assert all(100 < n < 700 for n in seen.values()), seen
        assert torch.equal(misheard(clean, 0.0), clean)

    def test_groups_share_no_phone(self) -> None:
        names = " ".join(CONFUSABLE).split()
        assert len(set(names)) == len(names) and set(names) <= set(PHONES)


def test_the_phone_of_a_frame_is_that_of_its_middle() -> None:
    phones = [("sil", 0.0, 0.1), ("m", 0.1, 0.1175), ("aa", 0.1175, 0.31), ("sil", 0.31, 0.4)]
    expected = []
    for k in range(21):
        at = 0.02 * k + 0.0175
        expected.append(next((name for name, start, end in phones if start <= at < end), "sil"))
    assert [PHONES[k] for k in phone_numbers(phones, 21).tolist()] == expected


def test_many_texts_by_one_process() -> None:
    """The first is as by itself; the same list gives the same samples."""
    pytest.importorskip("espeakng_loader")
    texts = [("Bob may pay.", VOICES[0]), ("A foamy bath.", VOICES[1])]
    first, again = speak_in_turn(texts), speak_in_turn(texts)
    alone = speak(*texts[0])
    assert (first[0].samples == alone.samples).all() and first[0].phones == alone.phones
    assert [(a.samples == b.samples).all() for a, b in zip(first, again, strict=True)] == [True, True]
    assert [name for name, _, _ in first[1].phones][1:3] == ["ax", "f"]
