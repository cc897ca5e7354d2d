"""Features while an encoder trains: what does not train is computed once, and nothing else is any different."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import WAV2VEC2, WAV2VEC2_BERT, make_tiny_corpus
from torch import Tensor, nn

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.models import AudioEncoder, MelAudioEncoder, build_audio_encoder
from s2f_rl.models.audio_cache import CachedAudio, TrainingAudio

ENCODERS: dict[str, dict[str, Any]] = {
    "wav2vec2": {"config": WAV2VEC2},
    "hubert": {"config": WAV2VEC2},
    "wav2vec2-bert": {"config": WAV2VEC2_BERT},
    "mel": {"width": 12},
    "listener": {"width": 12, "n_phones": 7, "ear_width": 6, "ear_layers": 2},
}


@pytest.fixture(scope="module", params=["vocaset", "biwi"])
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FaceCorpus:
    root = make_tiny_corpus(tmp_path_factory.mktemp("corpus"), topology=request.param)
    return FaceCorpus(root, split="all")


def made(kind: str, corpus: FaceCorpus) -> AudioEncoder:
    torch.manual_seed(0)
    clock = {"fps": corpus.fps, "features_per_frame": corpus.audio_features_per_frame}
    return build_audio_encoder(kind, **ENCODERS[kind], **clock)


def counted(encoder: AudioEncoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Samples of every waveform that the encoder makes 50 Hz features of."""
    heard: list[int] = []
    original = encoder.conv_features

    def noted(waveform: Tensor) -> Tensor:
        heard.append(waveform.shape[1])
        return original(waveform)

    monkeypatch.setattr(encoder, "conv_features", noted)
    return heard


def whole(encoder: AudioEncoder, corpus: FaceCorpus, index: int) -> Tensor:
    return encoder(corpus[index].waveform[None])[0].unflatten(0, (-1, encoder.features_per_frame))


@pytest.mark.parametrize("kind", ENCODERS)
def test_features_and_gradients_are_those_of_the_whole_encoder(
    kind: str, corpus: FaceCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout and masks of the same seeds, over steps that change the weights."""
    encoder, twin = made(kind, corpus).train(), made(kind, corpus).train()
    heard = counted(encoder, monkeypatch)
    audio = TrainingAudio(encoder, corpus)
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (encoder, twin)]
    for step, index in enumerate((0, 1, 0, 0, 1)):
        torch.manual_seed(step)
        np.random.seed(step)
        found = audio.get(index)
        torch.manual_seed(step)
        np.random.seed(step)
        expected = whole(twin, corpus, index)
        assert torch.equal(found, expected) and found.requires_grad
        for optimizer, features in zip(optimizers, (found, expected), strict=True):
            optimizer.zero_grad()
            features.square().mean().backward()
            optimizer.step()
    assert len(heard) == 2
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("kind", ENCODERS)
def test_on_disk(kind: str, corpus: FaceCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by the sound and by what does not train: another transformer shares it, other convolutions do not."""
    encoder = made(kind, corpus).eval()
    features = TrainingAudio(encoder, corpus, tmp_path).get(0)
    (path,) = tmp_path.iterdir()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    heard = counted(encoder, monkeypatch)
    again = TrainingAudio(encoder, corpus, tmp_path).get(0)
    assert heard == [] and torch.equal(again, whole(encoder, corpus, 0)) and not torch.equal(again, features)
    path.write_bytes(b"\x93NUMPY broken")
    heard.clear()
    assert torch.equal(TrainingAudio(encoder, corpus, tmp_path).get(0), again) and len(heard) == 1
    if kind in ("wav2vec2", "hubert"):
        with torch.no_grad():
            encoder.model.feature_extractor.conv_layers[0].conv.weight.mul_(1.5)
        TrainingAudio(encoder, corpus, tmp_path).get(0)
        assert len(list(tmp_path.iterdir())) == 2


def test_convolutions_that_train_run_every_time(corpus: FaceCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = made("wav2vec2", corpus)
    encoder.requires_grad_(True)
    heard = counted(encoder, monkeypatch)
    audio = TrainingAudio(encoder, corpus)
    audio.get(0)
    audio.get(0).sum().backward()
    assert len(heard) == 2
    assert float(encoder.model.feature_extractor.conv_layers[0].conv.weight.grad.abs().sum()) > 0


class OwnEncoder(AudioEncoder):
    """An encoder of somebody else's, who wrote the forward pass alone."""

    kind = "own"

    def __init__(self, corpus: FaceCorpus) -> None:
        super().__init__(4, fps=corpus.fps, features_per_frame=corpus.audio_features_per_frame)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, waveform: Tensor, n_frames: int | None = None) -> Tensor:
        n = self.n_frames(waveform.shape[1]) * self.features_per_frame
        return waveform[:, :n, None] * self.scale


def test_an_encoder_of_ones_own(corpus: FaceCorpus) -> None:
    encoder = OwnEncoder(corpus)
    features = TrainingAudio(encoder, corpus).get(0)
    assert torch.equal(features, whole(encoder, corpus, 0)) and features.requires_grad
    cached = CachedAudio(encoder, corpus)
    for factor in (2.0, 3.0):
        with torch.no_grad():
            encoder.scale.fill_(factor)
        cached.refresh()
        torch.testing.assert_close(cached.get(0), factor * features.detach()[: corpus.n_frames(0)])


@pytest.mark.parametrize("kind", ENCODERS)
def test_validation_while_it_trains(
    kind: str, corpus: FaceCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every refresh the features are those of the weights as they are, in evaluation mode."""
    encoder = made(kind, corpus).train()
    heard = counted(encoder, monkeypatch)
    cached = CachedAudio(encoder, corpus, tmp_path)
    for _ in range(3):
        cached.refresh()
        features = cached.get(0)
        assert encoder.training and not features.requires_grad and cached.get(0) is features
        with torch.no_grad():
            expected = whole(encoder.eval(), corpus, 0)[: corpus.n_frames(0)]
            encoder.train()
            heard.pop()
            assert torch.equal(features, expected)
            for parameter in encoder.parameters():
                if parameter.requires_grad:
                    parameter.mul_(1.1)
    assert len(heard) == 1 and [path.name[:5] for path in tmp_path.iterdir()] == ["front"]


def test_other_rates_are_refused(corpus: FaceCorpus) -> None:
    with pytest.raises(UserError, match="make the encoder with fps="):
        TrainingAudio(MelAudioEncoder(width=8, fps=60), corpus)
