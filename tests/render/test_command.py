from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.render import cli_render, command, corpus_look, face_camera, find_colours, render_frames
from tests.tiny import make_tiny_corpus

NAME = "S0_sentence01"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_tiny_corpus(tmp_path_factory.mktemp("corpus"))


def n_pictures(path) -> tuple[int, int]:
    with av.open(str(path)) as film:
        assert len(film.streams.audio) == 1
        frames = [f.to_ndarray(format="rgb24") for f in film.decode(video=0)]
    return len(frames), frames[0].shape[1]


def test_predictions_beside_the_recording_run_at_the_same_rate(corpus, tmp_path):
    vertices = FaceCorpus(corpus, "all")[NAME].vertices
    np.save(tmp_path / "prediction.npy", vertices.numpy().reshape(len(vertices), -1, 3))
    recorded = corpus / "vertices_npy" / f"{NAME}.npy"
    assert len(np.load(recorded)) >= 2 * len(vertices) - 1  # stored at 60 fps
    out = cli_render(
        [recorded, str(tmp_path / "prediction.npy")],
        str(corpus),
        corpus / "wav" / f"{NAME}.wav",
        tmp_path / "film.mp4",
        size=32,
    )
    assert n_pictures(out) == (len(vertices), 64)


def test_the_utterance_is_read_off_the_file_name(corpus):
    opened = FaceCorpus(corpus, "all")
    for stem, name in (
        (NAME, NAME),
        (f"{NAME}_condition_S2", NAME),
        ("S2_sentence02_condition_S0", "S2_sentence02"),
        ("film", None),
        (f"{NAME}x", None),
    ):
        assert command.utterance_of(Path(f"a/{stem}.npy"), opened) == name


def test_curves_stand_under_the_faces(corpus, tmp_path):
    recorded = corpus / "vertices_npy" / f"{NAME}.npy"
    sound = corpus / "wav" / f"{NAME}.wav"
    heights = []
    for curves in (False, True):
        out = cli_render([recorded], corpus, sound, tmp_path / "film.mp4", size=40, curves=curves)
        with av.open(str(out)) as film:
            heights.append(film.streams.video[0].height)
    assert heights == [40 + 12, 40 + 12 + 12]


def test_look_of_a_corpus_fits_the_film(corpus, tmp_path):
    opened = FaceCorpus(corpus, "all")
    vertices = opened[NAME].vertices
    look = corpus_look(opened, [vertices], "S0")
    assert look["camera"] == face_camera([vertices.numpy().reshape(len(vertices), -1, 3)], opened.regions)
    np.testing.assert_array_equal(look["colours"], find_colours(corpus, opened.n_vertices, opened.regions))
    assert render_frames(vertices, opened.faces, 32, **look).shape == (len(vertices), 32, 32, 3)


def test_mistakes_name_the_file(corpus, tmp_path):
    wav, n_vertices = corpus / "wav" / f"{NAME}.wav", FaceCorpus(corpus, "all").n_vertices
    np.save(tmp_path / "other.npy", np.zeros((4, 3 * n_vertices + 3), np.float32))
    broken = np.zeros((4, 3 * n_vertices), np.float32)
    broken[2, 5] = np.inf
    np.save(tmp_path / "broken.npy", broken)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "broken.npy").read_bytes()[:-8])
    (tmp_path / "text.npy").write_text("hello")
    np.save(tmp_path / "good.npy", np.zeros((4, 3 * n_vertices), np.float32))
    for name, message in (
        ("other.npy", "has 41 vertices, the corpus"),
        ("broken.npy", "frame 2 holds coordinates"),
        ("objects.npy", "Python objects"),
        ("cut.npy", "truncated"),
        ("text.npy", "npy"),
        ("missing.npy", "no such file"),
        ("", "is a folder"),
    ):
        with pytest.raises(UserError, match=message) as error:
            cli_render([tmp_path / name], corpus, wav, tmp_path / "film.mp4", size=32)
        assert str(tmp_path / name) in str(error.value)
    with pytest.raises(UserError, match="no such corpus folder"):
        cli_render([tmp_path / "good.npy"], tmp_path / "nowhere", wav, tmp_path / "film.mp4")
    with pytest.raises(UserError, match="good.npy: cannot be read as sound"):
        cli_render([tmp_path / "good.npy"], corpus, tmp_path / "good.npy", tmp_path / "film.mp4", size=32)
    assert not (tmp_path / "film.mp4").exists()


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, s2f_rl.render as r; assert 'render_film' in dir(r); "
        "bad = {'numba', 'av', 'PIL', 'torch', 'scipy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
