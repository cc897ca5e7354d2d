"""FaceCorpus: what it gives, what it refuses, and what it costs."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.data.audio import normalise, read_wav, resample
from s2f_rl.data.clock import PRESETS
from s2f_rl.errors import UserError
from tests.tiny import make_tiny_corpus


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_corpus(tmp_path_factory.mktemp("corpus"), n_subjects=4, audio_only=["S0_sentence02"])


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A corpus that a test may spoil."""
    return make_tiny_corpus(tmp_path / "corpus")


class TestReading:
    def test_the_corpus_as_a_whole(self, tiny: Path) -> None:
        corpus = FaceCorpus(tiny)
        assert corpus.names == ["S0_sentence01", "S0_sentence02", "S1_sentence01", "S1_sentence02"]
        assert (len(corpus), corpus.subjects, corpus.fps, corpus.n_vertices) == (4, ["S0", "S1"], 30, 40)
        assert (corpus.topology, corpus.audio_features_per_frame) == ("vocaset", 1)
        assert corpus.metadata["units"] == "metres" and corpus.metres_per_unit == 1.0
        assert corpus.metadata["dataset"] == "synthetic"
        assert corpus.faces is not None and corpus.faces.dtype == torch.int32 and corpus.faces.shape == (40, 3)
        assert [u.name for u in corpus] == corpus.names
        assert corpus["S1_sentence01"].index == corpus.index("S1_sentence01") == 2
        assert corpus[-1].name == "S1_sentence02" and corpus[np.int64(1)].index == 1
        assert "S0_sentence01" in corpus and "S3_sentence01" not in corpus
        assert "4 utterances" in repr(corpus)

    def test_an_utterance(self, tiny: Path) -> None:
        u = FaceCorpus(tiny)["S1_sentence01"]
        waveform, rate = read_wav(tiny / "wav" / "S1_sentence01.wav")
        speech = resample(waveform, rate, 16000)
        stored = np.load(tiny / "vertices_npy" / "S1_sentence01.npy")
        expected = stored[::2][: PRESETS["vocaset"].natural_frames(len(speech))]
        assert (u.subject, u.sentence, u.sample_rate) == ("S1", 1, 16000)
        np.testing.assert_array_equal(u.waveform_raw.numpy(), speech)
        np.testing.assert_array_equal(u.waveform.numpy(), normalise(speech))
        np.testing.assert_array_equal(u.vertices.numpy(), expected)
        assert u.vertices.dtype == torch.float32 and u.n_frames == len(u) == len(expected)
        with open(tiny / "templates.pkl", "rb") as file:
            np.testing.assert_array_equal(u.template.numpy(), pickle.load(file)["S1"].reshape(-1))
        assert u.mel_clips.shape[1:] == (20, 128) and abs(len(u.mel_clips) - (len(u) - 4)) <= 1
        assert u.style.tolist() == [0.0, 1.0]
        assert u.phones is None and u.transcript is None and u.has_vertices

    def test_audio_only_utterances_are_first_class(self, tiny: Path) -> None:
        u = FaceCorpus(tiny)["S0_sentence02"]
        assert u.vertices is None and not u.has_vertices
        assert u.n_frames == PRESETS["vocaset"].natural_frames(len(u.waveform_raw)) > 0
        assert len(u.mel_clips) > 0 and u.style.tolist() == [1.0, 0.0] and len(u.template) == 120

    def test_a_corpus_of_sound_alone(self, tmp_path: Path) -> None:
        root = make_tiny_corpus(tmp_path, audio_only="all")
        shutil.rmtree(root / "vertices_npy")
        assert all(u.vertices is None and u.n_frames > 0 for u in FaceCorpus(root))

    def test_other_speakers_have_no_style(self, tiny: Path) -> None:
        for split, subject in (("validation", "S2"), ("test", "S3")):
            corpus = FaceCorpus(tiny, split)
            assert {u.subject for u in corpus} == {subject} and corpus.subjects == ["S0", "S1"]
            assert corpus[0].style is None
        assert len(FaceCorpus(tiny, "all")) == 8

    def test_n_frames_equals_the_vertices(self, tiny: Path) -> None:
        corpus = FaceCorpus(tiny, "all")
        for i, u in enumerate(corpus):
            if u.vertices is not None:
                assert corpus.n_frames(i) == len(u.vertices)

    @pytest.mark.parametrize("longer", ["sound", "motion"])
    def test_the_longer_one_is_cut(self, own: Path, longer: str) -> None:
        path = own / "vertices_npy" / "S0_sentence01.npy"
        vertices = np.load(path)
        natural = FaceCorpus(own)[0].n_frames
        kept = vertices[:21] if longer == "sound" else np.concatenate([vertices, vertices])
        np.save(path, kept)
        u = FaceCorpus(own)[0]
        assert len(u.vertices) == u.n_frames == (11 if longer == "sound" else natural)
        np.testing.assert_array_equal(u.vertices.numpy(), kept[::2][: u.n_frames])

    def test_vertices_may_be_three_dimensional_and_double(self, own: Path) -> None:
        path = own / "vertices_npy" / "S0_sentence01.npy"
        expected = FaceCorpus(own)[0].vertices
        np.save(path, np.load(path).reshape(-1, 40, 3).astype(np.float64))
        assert torch.equal(FaceCorpus(own)[0].vertices, expected)

    def test_biwi(self, tmp_path: Path) -> None:
        root = make_tiny_corpus(tmp_path, topology="biwi")
        corpus = FaceCorpus(root)
        assert (corpus.fps, corpus.audio_features_per_frame) == (25, 2)
        u = corpus[0]
        np.testing.assert_array_equal(u.vertices.numpy(), np.load(root / "vertices_npy" / f"{u.name}.npy")[: len(u)])
        assert u.n_frames <= PRESETS["biwi"].natural_frames(len(u.waveform_raw)) and u.mel_clips.shape[1:] == (20, 128)

    def test_phones_and_transcripts(self, own: Path) -> None:
        (own / "phones").mkdir()
        (own / "phones" / "S0_sentence01.json").write_text('[["m", 0.0, 0.1], ["a", 0.1, 0.25]]')
        (own / "transcripts.json").write_text('{"S0_sentence01": "ma"}')
        corpus = FaceCorpus(own)
        assert corpus[0].phones == [("m", 0.0, 0.1), ("a", 0.1, 0.25)] and corpus[0].transcript == "ma"
        assert corpus[1].phones is None and corpus[1].transcript is None
        for broken in ("{", "{}", '[["m", 1]]', '[["m", 1, 0]]', "[[1, 0, 1]]", '[["m", 0, Infinity]]'):
            (own / "phones" / "S0_sentence01.json").write_text(broken)
            with pytest.raises(UserError, match=r"S0_sentence01\.json"):
                corpus[0].phones  # noqa: B018

    def test_tensors_are_the_callers_own(self, own: Path) -> None:
        u = FaceCorpus(own)[0]
        for name in ("waveform_raw", "waveform", "vertices", "template", "mel_clips", "style"):
            before = getattr(u, name).clone()
            getattr(u, name).add_(1)
            assert torch.equal(getattr(u, name), before), name
        stored = FaceCorpus(own)[0].vertices
        assert torch.equal(stored, u.vertices)

    def test_pickling_and_threads(self, tiny: Path) -> None:
        corpus = FaceCorpus(tiny)
        expected = [(u.waveform, u.mel_clips, u.n_frames) for u in corpus]
        copy = pickle.loads(pickle.dumps(corpus))
        assert copy.names == corpus.names and copy._cache.n_bytes == 0 and set(copy.regions) == set(corpus.regions)
        with ThreadPoolExecutor(8) as pool:
            for i, (waveform, clips, n) in zip(
                [0, 1, 2, 3] * 8,
                pool.map(lambda i: (copy[i].waveform, copy[i].mel_clips, len(copy[i])), [0, 1, 2, 3] * 8),
                strict=True,
            ):
                assert torch.equal(waveform, expected[i][0]) and torch.equal(clips, expected[i][1])
                assert n == expected[i][2]


class TestDefaults:
    """Folders as FaceFormer's users have them, without corpus.json."""

    def _vocaset(self, root: Path) -> Path:
        make_tiny_corpus(root, n_subjects=3, n_sentences=1)
        (root / "corpus.json").unlink()
        people = ("FaceTalk_170904_00128_TA", "FaceTalk_170811_03275_TA", "FaceTalk_170809_00138_TA")
        with open(root / "templates.pkl", "rb") as file:
            templates = pickle.load(file)
        for k, person in enumerate(people):
            templates[person] = templates.pop(f"S{k}")
            for folder, suffix in (("wav", "wav"), ("vertices_npy", "npy")):
                (root / folder / f"S{k}_sentence01.{suffix}").rename(root / folder / f"{person}_sentence21.{suffix}")
        (root / "templates.pkl").write_bytes(pickle.dumps(templates, protocol=2))
        return root

    def test_vocaset(self, tmp_path: Path) -> None:
        root = self._vocaset(tmp_path)
        corpus = FaceCorpus(root, topology="vocaset")
        assert corpus.names == ["FaceTalk_170904_00128_TA_sentence21"] and corpus.fps == 30
        assert len(corpus.subjects) == 8 and corpus.subjects[0] == "FaceTalk_170728_03272_TA"
        assert corpus[0].style.tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
        assert FaceCorpus(root, "validation").names == ["FaceTalk_170811_03275_TA_sentence21"]
        assert FaceCorpus(root, "test").names == ["FaceTalk_170809_00138_TA_sentence21"]
        assert len(FaceCorpus(root, "all")) == 3
        with pytest.raises(UserError, match="known are train, validation, test, all"):
            FaceCorpus(root, "test_seen")

    def test_a_split_that_is_empty_says_why(self, own: Path) -> None:
        (own / "corpus.json").unlink()
        with pytest.raises(
            UserError, match="expects subjects such as FaceTalk_170728_03272_TA.*holds S0, S1, S2.*corpus.json"
        ):
            FaceCorpus(own)

    def test_other_sets_of_biwi_are_refused_by_their_vertices(self, own: Path) -> None:
        (own / "corpus.json").unlink()
        shutil.rmtree(own / "vertices_npy")
        for subject in ("S0", "S1", "S2"):
            for path in (own / "wav").glob(f"{subject}_*"):
                path.rename(path.with_name(path.name.replace(f"{subject}_sentence", f"F{int(subject[1]) + 2}_e")))
        templates = {f"F{k}": np.zeros((6918, 3), np.float32) for k in (2, 3, 4)}
        (own / "templates.pkl").write_bytes(pickle.dumps(templates))
        with pytest.raises(UserError, match="6918 vertices.*B3D.*23370.*BIWI Kinect head pose set"):
            FaceCorpus(own, topology="biwi")

    def test_the_unit_of_published_biwi_is_recognised(self, own: Path) -> None:
        (own / "corpus.json").unlink()
        with open(own / "templates.pkl", "rb") as file:
            templates = pickle.load(file)
        for factor, expected in ((1.0, 1.0), (1 / 0.1856, 0.1856)):
            scaled = {s: v * factor for s, v in templates.items()}
            (own / "templates.pkl").write_bytes(pickle.dumps(scaled))
            if factor != 1:  # faces of one unit, as published; mixed ones are refused
                for path in (own / "vertices_npy").iterdir():
                    np.save(path, np.load(path) * factor)
            assert FaceCorpus(own, "all", topology="biwi").metres_per_unit == expected


class TestRefusals:
    def _raises(self, root: Path, match: str, split: str = "train") -> None:
        with pytest.raises(UserError, match=match) as caught:
            for u in FaceCorpus(root, split):
                u.n_frames, u.waveform, u.vertices, u.mel_clips, u.template, u.style  # noqa: B018
        assert "\n" not in str(caught.value)

    def test_missing_parts(self, own: Path, tmp_path: Path) -> None:
        self._raises(tmp_path / "nowhere", "nowhere: no such corpus folder")
        (tmp_path / "file").write_text("x")
        self._raises(tmp_path / "file", "no such corpus folder")
        (own / "templates.pkl").rename(own / "kept.pkl")
        self._raises(own, r"templates\.pkl: no such file; it holds each subject's neutral face")
        (own / "kept.pkl").rename(own / "templates.pkl")
        shutil.rmtree(own / "wav")
        self._raises(own, "wav: no such folder")
        (own / "wav").mkdir()
        self._raises(own, r"wav: holds no \.wav files")
        (own / "wav").rmdir()
        (own / "wav").write_text("x")
        self._raises(own, "wav: is a file where a folder is expected")

    def test_a_missing_template_is_named(self, own: Path) -> None:
        with open(own / "templates.pkl", "rb") as file:
            templates = pickle.load(file)
        del templates["S1"]
        (own / "templates.pkl").write_bytes(pickle.dumps(templates))
        self._raises(own, "has no template of S1")
        assert len(FaceCorpus(own, "test")) == 2  # the other subjects are unharmed
        with pytest.raises(UserError, match="no template of S1; known are S0, S2"):
            FaceCorpus(own, "test").template("S1")

    @pytest.mark.parametrize(
        ("templates", "match"),
        [
            ([1, 2], "holds list where"),
            ({}, "holds dict where"),
            ({"S0": "x"}, "template of 'S0' is no array"),
            ({"S0": np.zeros((4, 2))}, r"shape \(4, 2\)"),
            ({"S0": np.zeros(4)}, r"shape \(4,\)"),
            ({"S0": np.full((4, 3), np.nan)}, "S0 holds NaN"),
            ({"S0": np.zeros((4, 3)), "S1": np.zeros((5, 3))}, r"differ in their number of vertices \(S0 4, S1 5\)"),
        ],
    )
    def test_broken_templates(self, own: Path, templates: object, match: str) -> None:
        (own / "templates.pkl").write_bytes(pickle.dumps(templates))
        self._raises(own, match)

    def test_templates_with_code(self, own: Path) -> None:
        (own / "templates.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
        self._raises(own, r"templates\.pkl: asks for os\.system")

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (np.zeros((30, 123), np.float32), r"shape \[30, 123\], but the templates have 40 vertices"),
            (np.zeros(30, np.float32), r"shape \[30\]"),
            (np.zeros((0, 120), np.float32), "too short for a single frame"),
            (np.full((60, 120), np.nan, np.float32), "NaN or infinity"),
            (np.full((60, 120), np.inf, np.float32), "NaN or infinity"),
            (b"", "not a readable npy"),
            ("folder", "is a folder"),
        ],
    )
    def test_broken_vertices(self, own: Path, content: np.ndarray | bytes | str, match: str) -> None:
        path = own / "vertices_npy" / "S1_sentence02.npy"  # not the first: opening looks at that one alone
        path.unlink()
        if isinstance(content, np.ndarray):
            np.save(path, content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.mkdir()
        self._raises(own, match)

    def test_truncated_vertices(self, own: Path) -> None:
        path = own / "vertices_npy" / "S0_sentence01.npy"
        path.write_bytes(path.read_bytes()[:-5])
        self._raises(own, r"S0_sentence01\.npy: truncated")

    def test_broken_sound(self, own: Path) -> None:
        path = own / "wav" / "S0_sentence01.wav"
        soundfile.write(path, np.zeros(300, np.float32), 16000)
        self._raises(own, "too short for a single frame")
        soundfile.write(path, np.empty(0, np.float32), 16000)
        self._raises(own, r"S0_sentence01\.wav")
        path.write_text("x")
        self._raises(own, "cannot be read as sound")

    def test_wrong_keys(self, tiny: Path) -> None:
        corpus = FaceCorpus(tiny)
        with pytest.raises(UserError, match="S9_sentence01: no such utterance in the split 'train'.*S0_sentence01"):
            corpus["S9_sentence01"]
        with pytest.raises(IndexError):
            corpus[4]
        with pytest.raises(IndexError):
            corpus.n_frames(-5)
        with pytest.raises(TypeError):
            corpus[1.0]  # type: ignore[index]

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"format": 2}, "format 2 is not 1"),
            ({"topology": "flame"}, "topology 'flame' is unknown; known are vocaset, biwi"),
            ({"stored_fps": "60"}, "stored_fps is 60"),
            ({"stored_fps": float("nan")}, "stored_fps is nan"),
            ({"frame_step": 0}, "frame_step is 0"),
            ({"frame_step": 1.5}, "frame_step is 1.5"),
            ({"stored_fps": 60, "frame_step": 7}, "stored_fps/frame_step is 8.57.*10 to 120"),
            ({"stored_fps": 240, "frame_step": 1}, "stored_fps/frame_step is 240"),
            ({"fps": 25}, "fps is 25, but stored_fps/frame_step is 30"),
            ({"audio_features_per_frame": 0}, "audio_features_per_frame is 0"),
            ({"audio_features_per_frame": 1.5}, "audio_features_per_frame is 1.5"),
            ({"n_vertices": 7}, "n_vertices is 7, but templates.pkl has faces of"),
            ({"units": 1}, "units must be a word"),
            ({"stored_fps": 100, "frame_step": 3, "fps": 30}, "fps is 30, but stored_fps/frame_step is 33"),
            ({"units": "furlongs"}, "units is 'furlongs', whose size is not known; give it as metres_per_unit"),
            ({"units": "mm", "metres_per_unit": 1}, "units is 'mm', but metres_per_unit is 1"),
            ({"metres_per_unit": -1}, "metres_per_unit is -1"),
            ({"training_subjects": "S0"}, "training_subjects must be a list"),
            ({"training_subjects": ["S0", "S0"]}, "names a subject twice"),
            ({"training_subjects": ["../../evil"]}, "training_subjects names '../../evil'"),
            ({"training_subjects": [".hidden"]}, "file name"),
            ({"training_subjects": ["a\\b"]}, "file name"),
            ({"training_subjects": ["a\0b"]}, "file name"),
            ({"splits": []}, "splits must be an object"),
            ({"splits": {"train": ["S0"]}}, "splits.train must be an object"),
            ({"splits": {"train": {"subjects": ["S0"], "sentences": [1]}}}, "splits.train needs subjects"),
            ({"splits": {"all": {"subjects": ["S0"]}}}, "splits.all cannot be defined"),
        ],
    )
    def test_broken_descriptions(self, own: Path, change: dict[str, object], match: str) -> None:
        content = json.loads((own / "corpus.json").read_text())
        (own / "corpus.json").write_text(json.dumps({**content, **change}))
        self._raises(own, match)

    def test_description_that_is_no_object(self, own: Path) -> None:
        for text, match in (("[]", "holds list"), ("{", "not readable as JSON")):
            (own / "corpus.json").write_text(text)
            self._raises(own, match)

    def test_topologies(self, tiny: Path) -> None:
        with pytest.raises(UserError, match="topology='flame': unknown"):
            FaceCorpus(tiny, topology="flame")
        with pytest.raises(UserError, match=r"topology='biwi': .*corpus\.json says 'vocaset'"):
            FaceCorpus(tiny, topology="biwi")


class TestDescription:
    def test_own_splits_and_rates(self, own: Path) -> None:
        content = json.loads((own / "corpus.json").read_text())
        content["splits"] = {"mine": {"subjects": ["S2", "S0"], "sentences": [2, 2]}}
        content["training_subjects"] = ["S2", "S0"]
        content |= {"stored_fps": 30, "frame_step": 1}
        (own / "corpus.json").write_text(json.dumps(content))
        corpus = FaceCorpus(own, "mine")
        assert corpus.names == ["S0_sentence02", "S2_sentence02"]
        assert corpus.subjects == ["S2", "S0"] and corpus["S0_sentence02"].style.tolist() == [0.0, 1.0]
        stored = np.load(own / "vertices_npy" / "S0_sentence02.npy")
        np.testing.assert_array_equal(corpus[0].vertices.numpy(), stored[: len(corpus[0])])

    @pytest.mark.parametrize(
        ("change", "size"),
        [({"units": "centimeter"}, 0.01), ({"units": "Millimetres"}, 0.001), ({"metres_per_unit": 0.2}, 0.2)],
    )
    def test_units_in_words_or_as_a_size(self, own: Path, change: dict[str, object], size: float) -> None:
        content = json.loads((own / "corpus.json").read_text())
        del content["units"]
        (own / "corpus.json").write_text(json.dumps({**content, **change}))
        with open(own / "templates.pkl", "rb") as file:
            templates = pickle.load(file)
        (own / "templates.pkl").write_bytes(pickle.dumps({s: v / size for s, v in templates.items()}))
        for path in (own / "vertices_npy").iterdir():
            np.save(path, np.load(path) / size)
        corpus = FaceCorpus(own, "all")
        assert corpus.metres_per_unit == size
        np.testing.assert_allclose(corpus.template("S0"), np.ravel(templates["S0"]), rtol=1e-6)

    def test_a_rate_rounded_by_hand(self, own: Path) -> None:
        content = json.loads((own / "corpus.json").read_text())
        (own / "corpus.json").write_text(json.dumps({**content, "stored_fps": 100, "frame_step": 3, "fps": 33.33}))
        assert FaceCorpus(own, "all").fps == pytest.approx(100 / 3)

    def test_a_half_written_file_is_no_utterance(self, own: Path) -> None:
        (own / "wav" / ".S0_sentence03.abc.tmp.wav").write_bytes(b"")
        assert "S0_sentence03" not in FaceCorpus(own, "all") and len(FaceCorpus(own, "all")) == 6
