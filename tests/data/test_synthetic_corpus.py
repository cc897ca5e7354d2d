"""The built-in corpus on disk, and its speech."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from s2f_rl.data import FaceCorpus, check_corpus
from s2f_rl.data.synthetic import Hidden, generate, load_speakers, load_take, synthesize
from s2f_rl.data.synthetic.phones import BILABIALS, PHONES, SILENCE
from s2f_rl.data.synthetic.sentences import SENTENCES
from s2f_rl.data.synthetic.speech import Speech, speak
from s2f_rl.data.synthetic.topology import build_topology
from s2f_rl.data.synthetic.voices import VOICES, Voice, voice_of
from s2f_rl.data.synthetic.write import displaced
from s2f_rl.errors import UserError

V = 320
ARGUMENTS = {"subjects": 3, "sentences": 2, "vertices": V, "seed": 4, "audio_only_subjects": 1, "progress": False}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader")
    return synthesize(tmp_path_factory.mktemp("synthetic") / "corpus", workers=1, **ARGUMENTS)


def _hashes(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def _names(root: Path) -> list[str]:
    return sorted(p.stem for p in (root / "vertices_npy").glob("*.npy"))


class TestSpeech:
    @pytest.fixture(scope="class")
    @classmethod
    def spoken(cls) -> list[Speech]:
        pytest.importorskip("espeakng_loader")
        return [speak(SENTENCES[0], voice) for voice in VOICES]

    def test_same_every_time(self, spoken: list[Speech]) -> None:
        again = speak(SENTENCES[0], VOICES[0])
        assert again.wav_bytes() == spoken[0].wav_bytes()
        assert again.phones == spoken[0].phones

    def test_no_voice_has_noise_seeded_by_the_clock(self) -> None:
        """Variants with breath sound different every second; hearing that would take the test as long."""
        loader = pytest.importorskip("espeakng_loader")
        for voice in VOICES:
            definition = Path(loader.get_data_path()) / "voices" / "!v" / voice.espeak.partition("+")[2]
            words = {line.split()[0] for line in definition.read_text(encoding="utf-8").splitlines() if line.split()}
            assert "language" in words and not words & {"breath", "breathw"}, voice

    def test_duration_and_level(self, spoken: list[Speech]) -> None:
        for speech in spoken:
            assert speech.rate_hz == 22050
            assert 2.0 < speech.duration_s < 4.0
            assert np.abs(speech.samples.astype(int)).max() == pytest.approx(0.7 * 32767, abs=1)

    def test_phones_cover_the_utterance_without_gaps(self, spoken: list[Speech]) -> None:
        for speech in spoken:
            assert speech.phones[0][0] == speech.phones[-1][0] == SILENCE
            assert speech.phones[0][1] == 0.0 and speech.phones[-1][2] == pytest.approx(speech.duration_s, abs=1e-5)
            for (before, _, end), (after, start, _) in zip(speech.phones, speech.phones[1:], strict=False):
                assert end == start and not (before == after == SILENCE)
            assert {p for p, _, _ in speech.phones} <= set(PHONES)

    def test_the_words_are_there(self, spoken: list[Speech]) -> None:
        """ "My mother bought a purple coat for Bob": its lip sounds in order, in every voice."""
        for speech in spoken:
            lips = [p for p, _, _ in speech.phones if p in BILABIALS | {"f", "v"}]
            assert lips == ["m", "m", "b", "p", "p", "f", "b", "b"]

    def test_a_stop_begins_with_its_closure(self, spoken: list[Speech]) -> None:
        """/p/ of "a purple": quiet in its middle, where the lips are closed."""
        for speech in spoken:
            loud = np.abs(speech.samples.astype(float)).max()
            first_p = next((s, e) for p, s, e in speech.phones if p == "p")
            assert 0.05 < first_p[1] - first_p[0] < 0.2
            start = int(first_p[0] * speech.rate_hz)
            closed = speech.samples[start : start + 220].astype(float)
            assert np.sqrt((closed**2).mean()) < 0.05 * loud

    def test_voices_differ(self, spoken: list[Speech]) -> None:
        """Long-term spectra in 24 bands and pitch: the nearest two voices are still well apart."""
        features = []
        for speech in spoken:
            x = speech.samples.astype(float)
            frames = np.lib.stride_tricks.sliding_window_view(x, 1024)[::512] * np.hanning(1024)
            power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
            edges = np.unique(np.geomspace(4, 480, 25).astype(int))
            bands = np.log10(np.add.reduceat(power.mean(0), edges) + 1)
            features.append(10 * (bands - bands.mean()))
        distance = [np.sqrt(((features[i] - features[j]) ** 2).mean()) for i in range(len(VOICES)) for j in range(i)]
        assert len(VOICES) == 48 and min(distance) > 1.0  # dB

    def test_every_sentence_in_every_accent_has_known_phones(self) -> None:
        pytest.importorskip("espeakng_loader")
        for espeak in sorted({v.espeak.partition("+")[0] for v in VOICES}):
            speech = speak(" ".join(SENTENCES), Voice("F", f"{espeak}+f1", 50, 400))
            assert sum(p in BILABIALS for p, _, _ in speech.phones) > 450

    def test_more_speakers_than_voices(self) -> None:
        assert voice_of(3) == VOICES[3]
        assert len({(voice_of(i).espeak, voice_of(i).pitch, voice_of(i).rate) for i in range(96)}) == 96

    def test_missing_extra(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "espeakng_loader", None)
        with pytest.raises(UserError, match=r'pip install "s2f_rl\[demo\]"'):
            speak("Hello.", VOICES[0])
        with pytest.raises(UserError, match=r"s2f_rl\[demo\]"):
            synthesize(tmp_path / "c", **ARGUMENTS)
        assert not (tmp_path / "c").exists()

    def test_unknown_voice(self) -> None:
        pytest.importorskip("espeakng_loader")
        with pytest.raises(UserError, match="no voice en-nowhere"):
            speak("Hello.", Voice("F", "en-nowhere", 50, 150))


class TestFiles:
    def test_layout(self, corpus: Path) -> None:
        names = _names(corpus)
        assert names == [f"{s}_sentence{k:02d}" for s in ("S01_F", "S02_M", "S03_F") for k in (1, 2)]
        assert len(list((corpus / "wav").glob("*.wav"))) == 8
        faces = np.load(corpus / "faces.npy")
        assert faces.dtype == np.int32 and np.array_equal(faces, build_topology(V).faces)
        with (corpus / "templates.pkl").open("rb") as file:
            templates = pickle.load(file)
        assert set(templates) == {"S01_F", "S02_M", "S03_F", "S04_M"}
        assert all(t.shape == (V, 3) for t in templates.values())
        colours = np.load(corpus / "colours.npy")
        assert colours.shape == (V, 3) and colours.dtype == np.uint8
        vertices = np.load(corpus / "vertices_npy" / f"{names[0]}.npy", mmap_mode="r")
        assert vertices.dtype == np.float32 and vertices.shape[1] == 3 * V

    def test_corpus_json(self, corpus: Path) -> None:
        content = json.loads((corpus / "corpus.json").read_text())
        assert content["training_subjects"] == ["S01_F"]
        assert content["splits"] == {
            "train": {"subjects": ["S01_F", "S04_M"], "sentences": [1, 2]},
            "validation": {"subjects": ["S02_M"], "sentences": [2, 2]},
            "test": {"subjects": ["S03_F"], "sentences": [2, 2]},
        }
        said = json.loads((corpus / "transcripts.json").read_text())
        seen = {said[f"{s}_sentence{k:02d}"] for s in ("S01_F", "S04_M") for k in (1, 2)}
        assert said["S02_M_sentence02"] not in seen and said["S03_F_sentence02"] not in seen

    def test_same_bytes_whatever_the_number_of_workers(self, corpus: Path, tmp_path: Path) -> None:
        synthesize(tmp_path / "again", workers=3, **ARGUMENTS)
        assert _hashes(tmp_path / "again") == _hashes(corpus)

    def test_resume_completes_and_changes_nothing(self, corpus: Path, tmp_path: Path) -> None:
        part = tmp_path / "part"
        shutil.copytree(corpus, part)
        (part / "corpus.json").unlink()
        (part / "wav" / "S02_M_sentence01.wav").unlink()
        (part / "vertices_npy" / "S01_F_sentence02.npy").unlink()
        (part / "vertices_npy" / ".S01_F_sentence02.0123456789ab.tmp.npy").write_bytes(b"killed while writing")
        kept = (part / "vertices_npy" / "S03_F_sentence01.npy").stat().st_mtime_ns
        synthesize(part, **ARGUMENTS)
        assert _hashes(part) == _hashes(corpus)
        assert (part / "vertices_npy" / "S03_F_sentence01.npy").stat().st_mtime_ns == kept

    def test_other_arguments_and_foreign_folders_are_refused(self, corpus: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="another seed"):
            synthesize(corpus, **{**ARGUMENTS, "seed": 5})
        foreign = tmp_path / "foreign"
        foreign.mkdir()
        (foreign / "thesis.txt").write_text("mine")
        with pytest.raises(UserError, match="not empty.*thesis.txt"):
            synthesize(foreign, **ARGUMENTS)
        assert (foreign / "thesis.txt").read_text() == "mine" and len(list(foreign.iterdir())) == 1
        with pytest.raises(UserError, match="is a file"):
            synthesize(foreign / "thesis.txt", **ARGUMENTS)

    @pytest.mark.parametrize(
        "key,value",
        [("subjects", 2), ("sentences", 0), ("sentences", 65), ("vertices", 299), ("vertices", 600.5), ("seed", -1),
         ("audio_only_subjects", -1), ("hidden_scale", float("nan")), ("workers", 0)],
    )  # fmt: skip
    def test_arguments_out_of_range(self, tmp_path: Path, key: str, value: object) -> None:
        with pytest.raises(UserError, match=key):
            synthesize(tmp_path / "c", **{**ARGUMENTS, key: value})
        assert not (tmp_path / "c").exists()

    def test_hidden_seed_changes_motion_but_not_audio(self, corpus: Path, tmp_path: Path) -> None:
        other = synthesize(tmp_path / "other", hidden_seed=99, **ARGUMENTS)
        before, after = _hashes(corpus), _hashes(other)
        for file in before:
            kind = Path(file).parts[0]
            if kind in ("vertices_npy", "hidden", "corpus.json", "synthesis.json"):
                assert before[file] != after[file], file
            else:
                assert before[file] == after[file], file


class TestMotion:
    def test_rebuilt_from_what_is_stored(self, corpus: Path) -> None:
        speakers = load_speakers(corpus)
        for name in _names(corpus):
            take = load_take(corpus, name)
            speaker = speakers[take.subject]
            made = displaced(speaker, generate(take.phones, take.n_frames, speaker, take.hidden))
            assert np.array_equal(made, np.load(corpus / "vertices_npy" / f"{name}.npy")), name

    def test_lips_close_at_bilabials_and_open_between(self, corpus: Path) -> None:
        landmarks = json.loads((corpus / "landmarks.json").read_text())
        upper, lower = landmarks["upper_lip"][0], landmarks["lower_lip"][0]
        with (corpus / "templates.pkl").open("rb") as file:
            templates = pickle.load(file)
        n = 0
        for name in _names(corpus):
            take = load_take(corpus, name)
            v = 1000.0 * np.load(corpus / "vertices_npy" / f"{name}.npy").reshape(-1, V, 3).astype(np.float64)
            t = 1000.0 * templates[take.subject].astype(np.float64)
            distance, rest = np.linalg.norm(v[:, upper] - v[:, lower], axis=-1), np.linalg.norm(t[upper] - t[lower])
            for phone, start, end in take.phones:
                if phone in BILABIALS:
                    assert 0.05 < distance[round(30 * (start + end))] <= rest + 0.05
                    n += 1
            assert distance.max() > 6.0
        assert n > 20

    def test_bad_takes_and_speakers(self, corpus: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="only the built-in corpus has takes"):
            load_take(corpus, "S09_F_sentence01")
        for content in ("[]", "{}", '{"format": 2, "speakers": []}', '{"format": 1, "speakers": [{"name": 3}]}', "x"):
            (tmp_path / "speakers.json").write_text(content)
            with pytest.raises(UserError, match="speakers.json"):
                load_speakers(tmp_path)

    def test_take_of_an_audio_only_speaker_can_be_made_up(self, corpus: Path) -> None:
        """Without ground truth there is no hidden variation on disk, but speaker and phones are known."""
        assert not (corpus / "hidden" / "S04_M_sentence01.npz").exists()
        phones = [tuple(p) for p in json.loads((corpus / "phones" / "S04_M_sentence01.json").read_text())]
        speaker = load_speakers(corpus)["S04_M"]
        assert generate(phones, 60, speaker, Hidden.none(len(phones))).shape == (60, 3 * V)


class TestReading:
    def test_face_corpus_reads_it(self, corpus: Path) -> None:
        train, test, everything = (FaceCorpus(corpus, split=s) for s in ("train", "test", "all"))
        assert list(train.names) == [f"{s}_sentence{k:02d}" for s in ("S01_F", "S04_M") for k in (1, 2)]
        assert list(test.names) == ["S03_F_sentence02"] and len(everything) == 8
        assert list(train.subjects) == ["S01_F"] and train.fps == 30 and train.n_vertices == V
        u = train["S01_F_sentence01"]
        stored = np.load(corpus / "vertices_npy" / "S01_F_sentence01.npy")[::2]
        n = len(u.vertices)
        assert abs(n - len(stored)) <= 2 and np.array_equal(u.vertices.numpy(), stored[:n])
        assert u.phones[0][0] == SILENCE and len(u.mel_clips) >= n - 6
        assert train["S04_M_sentence01"].vertices is None
        landmarks = json.loads((corpus / "landmarks.json").read_text())
        assert train.regions["upper_lip"].tolist() == landmarks["upper_lip"]
        assert np.abs(u.template.numpy().reshape(V, 3)).max() < 0.2

    def test_check_finds_no_fault(self, corpus: Path) -> None:
        result = check_corpus(corpus)
        assert not list(getattr(result, "faults", result)), result
