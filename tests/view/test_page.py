"""What is in the file, whatever opens it."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s2f_rl.errors import UserError
from s2f_rl.view import Measured, Table, write_page
from s2f_rl.view.sound import sound_url
from tests.view.conftest import CLICKS_S, FPS

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u2028\x1b[2J"


class Elements(HTMLParser):
    """Names and attributes of all elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def data_of(path: Path) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text()).group(1))


def onsets(samples: np.ndarray, rate: int) -> list[float]:
    """Where it becomes loud after silence, seconds."""
    loud = np.flatnonzero(np.abs(samples) > 0.2)
    return [float(loud[i]) / rate for i in range(len(loud)) if i == 0 or loud[i] - loud[i - 1] > 0.1 * rate]


def test_names_of_any_origin_are_text(balls, tmp_path):
    sequences, faces = balls
    out = tmp_path / "page.html"
    measured = [Measured(HOSTILE, HOSTILE, [np.arange(5.0), None])]
    write_page(
        sequences[:2], [HOSTILE, HOSTILE], faces, None, FPS, out, title=HOSTILE, measured=measured,
        phones=[(HOSTILE, 0.0, 0.4)], table=Table(HOSTILE, {HOSTILE: {HOSTILE: HOSTILE}}),
    )  # fmt: skip
    found = Elements(out.read_text(encoding="utf-8")).found
    assert [tag for tag, _ in found].count("script") == 2 and "img" not in [tag for tag, _ in found]
    assert not [name for _, attributes in found for name in attributes if name.startswith("on")]
    assert "\x1b" not in out.read_text(encoding="utf-8")
    data = data_of(out)
    assert [each["name"] for each in data["sequences"]] == [HOSTILE, f"{HOSTILE} (2)"]  # two things have two names
    assert data["phones"] == [[HOSTILE, 0.0, 0.4]] and data["values"] == [[[0.0, 1.0, 2.0, 3.0, 4.0], None]]


def test_nothing_on_the_page_has_an_address(balls, clicks, tmp_path):
    sequences, faces = balls
    write_page(sequences, ["a", "b", "c"], faces, clicks, FPS, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    addresses = [v for _, a in Elements(text).found for k, v in a.items() if k in ("src", "href", "srcset", "action")]
    assert addresses and all(address.startswith("data:") for address in addresses)
    assert "url(" not in text and "@import" not in text and not re.search(r"https?://", text)
    policy = next(a["content"] for t, a in Elements(text).found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")


@pytest.mark.parametrize("with_av", [True, False])
def test_the_sound_begins_with_the_first_frame(clicks, monkeypatch, with_av):
    if not with_av:
        monkeypatch.setitem(sys.modules, "av", None)
    url = sound_url(*clicks)
    kind, content = re.fullmatch(r"data:audio/(\w+);base64,(.*)", url).groups()
    content = base64.b64decode(content)
    if with_av:
        import av

        assert kind == "webm"
        with av.open(io.BytesIO(content)) as file:
            rate = file.streams.audio[0].rate
            samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)])
        assert len(content) < 20_000  # two seconds
    else:
        assert kind == "wav"
        samples, rate = soundfile.read(io.BytesIO(content))
    np.testing.assert_allclose(onsets(samples, rate), CLICKS_S, atol=0.002)
    assert len(samples) / rate == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize(("seconds", "n_frames"), [(2.0, 75), (2.0, 10)])
def test_the_sound_is_as_long_as_the_motion(balls, clicks, tmp_path, monkeypatch, seconds, n_frames):
    monkeypatch.setitem(sys.modules, "av", None)
    frames = np.resize(balls[0][0], (n_frames, *balls[0][0].shape[1:]))
    write_page([frames], ["a"], balls[1], clicks, FPS, tmp_path / "page.html")
    source = next(a["src"] for t, a in Elements((tmp_path / "page.html").read_text()).found if t == "audio")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(source.split(",")[1])))
    assert len(samples) / rate == pytest.approx(n_frames / FPS, abs=1 / rate)


def test_the_end_of_the_heat_scale_is_round_and_above_nearly_all_distances(balls, tmp_path):
    sequences, faces = balls
    write_page(sequences[:2], ["a", "b"], faces, None, FPS, tmp_path / "page.html")
    apart = 1000 * np.linalg.norm(sequences[1] - sequences[0], axis=-1)
    assert data_of(tmp_path / "page.html")["heat_mm"] == 10.0 and 5 < np.percentile(apart, 99.5) <= 10


def test_mistakes_leave_no_page(balls, tmp_path):
    sequences, faces = balls
    broken = sequences[0].copy()
    broken[3, 4] = np.nan
    for message, arguments in {
        "ends in .html": (sequences[:1], ["a"], faces, None, FPS, tmp_path / "page.htm"),
        "2 captions for 1 sequences": (sequences[:1], ["a", "b"], faces, None, FPS, tmp_path / "page.html"),
        "no sequences": ([], [], faces, None, FPS, tmp_path / "page.html"),
        "fps is 0": (sequences[:1], ["a"], faces, None, 0, tmp_path / "page.html"),
        "frame 3 holds": ([broken], ["a"], faces, None, FPS, tmp_path / "page.html"),
        "no such file": (sequences[:1], ["a"], faces, str(tmp_path / "no.wav"), FPS, tmp_path / "page.html"),
        "refers to vertex 768": (sequences[:1], ["a"], faces + 1, None, FPS, tmp_path / "page.html"),
    }.items():
        with pytest.raises(UserError, match=message):
            write_page(*arguments)
    assert list(tmp_path.iterdir()) == []
