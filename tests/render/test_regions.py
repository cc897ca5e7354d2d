"""The picture of the regions shows them where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s2f_rl import cli
from s2f_rl.errors import UserError
from s2f_rl.render.camera import frame_camera
from s2f_rl.render.layout import caption_height
from s2f_rl.render.regions import corpus_regions_picture, regions_picture
from tests.ellipsoid import REGIONS, V, ellipsoid, make_ellipsoid_corpus, triangles

SIZE = 128


@pytest.mark.parametrize("faces", [triangles(), None])
def test_colours_are_where_the_regions_are(faces: np.ndarray | None, tmp_path: Path) -> None:
    points = ellipsoid()
    picture = regions_picture(points, faces, REGIONS, tmp_path / "a.png", size=SIZE)
    front = picture[caption_height(SIZE) :][:SIZE, :SIZE].astype(int)
    at = frame_camera([points[None]]).project(points, SIZE)[:, :2].astype(int).clip(0, SIZE - 1)
    red, green, blue = front[at[:, 1], at[:, 0]].T
    facing = points[:, 2] > 0.05
    lips, upper = (np.isin(np.arange(V), REGIONS[name]) for name in ("lips", "upper_face"))
    assert (red[lips & facing] > 2 * green[lips & facing]).all() and (lips & facing).sum() > 10
    assert (blue[upper & facing] > 1.3 * red[upper & facing]).mean() > 0.9
    rest = facing & (np.abs(points[:, 1]) < 0.01)
    assert (red[rest] < 1.6 * green[rest]).all() and (blue[rest] < red[rest]).all()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_missing_is_said() -> None:
    points = ellipsoid()
    without = regions_picture(points, triangles(), {}, size=SIZE)
    plain = regions_picture(points, triangles(), {"lips": REGIONS["lips"]}, size=SIZE)
    assert without.shape[1] == plain.shape[1] == 3 * SIZE and (without[-10:] != plain[-10:]).any()


def test_check_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_ellipsoid_corpus(tmp_path / "corpus")
    assert cli.main(["check", str(root), "--picture", str(tmp_path / "p.png")]) in (0, 1)
    assert capsys.readouterr().out.endswith("p.png: written\n")
    assert np.array_equal(corpus_regions_picture(root, tmp_path / "q.png").shape, (36 + 420 + 39, 3 * 420, 3))
    assert (tmp_path / "p.png").read_bytes() == (tmp_path / "q.png").read_bytes()
    (root / "templates.pkl").unlink()
    with pytest.raises(UserError, match="templates.pkl"):
        corpus_regions_picture(root, tmp_path / "r.png")
    assert not (tmp_path / "r.png").exists()
