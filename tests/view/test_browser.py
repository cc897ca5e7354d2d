"""The page in a real browser: it plays, follows the sound, is where it is put, and asks nothing of a network."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s2f_rl.view import Measured, write_page
from s2f_rl.view.compress import Packed
from tests.view.conftest import FPS
from tests.view_browser import Browser

NAMES = ["truth", "ours <b>", "short"]
PHONES = [("sil", 0.0, 0.4), ("b", 0.4, 1.0), ("iy", 1.0, 2.0)]


@pytest.fixture(scope="module")
def written(balls, clicks, tmp_path_factory) -> tuple[Path, Packed]:
    sequences, faces = balls
    measured = [Measured("Size", "mm", [np.arange(len(s)) / 10 for s in sequences]),
                Measured("Distance", "mm", [None, np.arange(50.0), np.arange(30.0)])]  # fmt: skip
    path = tmp_path_factory.mktemp("page") / "page.html"
    packed = write_page(sequences, NAMES, faces, clicks, FPS, path, measured=measured, phones=PHONES, error_mm=0.001)
    return path, packed


@pytest.fixture
def page(chromium: Browser, written: tuple[Path, Packed]) -> Browser:
    chromium.size(1280, 900)
    chromium.media(prefers_color_scheme="dark")
    chromium.open(written[0])
    return chromium


@pytest.fixture
def silent(chromium: Browser, balls, tmp_path: Path) -> Browser:
    write_page(balls[0][:1], ["alone"], None, None, FPS, tmp_path / "silent.html")
    chromium.open(tmp_path / "silent.html")
    return chromium


def shown(page: Browser, frame: int) -> None:
    page.run(f"viewer.clock.seek({frame} / {FPS})")
    page.wait(f"viewer.state.frame === {frame} && !viewer.state.dirty")


def array(page: Browser, script: str) -> np.ndarray:
    return np.array(page.run(f"Array.from({script})"), np.float64)


def picture(page: Browser) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.picture())).convert("RGB"), np.int64)


def panel(page: Browser, index: int) -> tuple[int, int, int, int]:
    box = page.run(f"JSON.stringify(document.querySelectorAll('.panel')[{index}].getBoundingClientRect())")
    found = json.loads(box)
    return int(found["x"]), int(found["y"]), int(found["width"]), int(found["height"])


def test_vertices_normals_and_distances_are_those_of_the_motion(page, written, balls):
    sequences, faces = balls
    starts = np.cumsum((0, *written[1].lengths))
    assert len(written[1].scale) > 4 and len(written[1].scale) % 4  # both ways of adding them up
    page.press("h")
    for frame in (0, 17, 49):
        shown(page, frame)
        at = [min(frame, len(s) - 1) for s in sequences]  # what has ended keeps its last frame
        for i, t in enumerate(at):
            positions = array(page, f"viewer.faces[{i}].positions").reshape(-1, 3)
            stored = written[1].frames(starts[i] + t, starts[i] + t + 1)[0]
            np.testing.assert_allclose(positions, stored, atol=1e-7)
            np.testing.assert_allclose(positions, sequences[i][t], atol=2e-5)
            a, b, c = (positions[faces[:, corner]] for corner in range(3))
            normals = np.zeros_like(positions)
            for corner in range(3):
                np.add.at(normals, faces[:, corner], np.cross(b - a, c - a))
            np.testing.assert_allclose(array(page, f"viewer.faces[{i}].normals").reshape(-1, 3), normals, atol=1e-9)
            apart = 1000 * np.linalg.norm(sequences[i][t] - sequences[0][at[0]], axis=-1)
            np.testing.assert_allclose(array(page, f"viewer.faces[{i}].distances"), apart, atol=0.03)
    assert page.run("[...document.querySelectorAll('.panel.over')].length") == 1


def test_frames_follow_the_sound(page):
    assert page.run("viewer.clock.sound.duration") == pytest.approx(2.0, abs=0.03)
    page.run("window.seen = []; viewer.clock.loop = false; viewer.clock.play()")
    page.run("""(() => { const look = () => {
        if (viewer.clock.playing && viewer.clock.time() > 0)  // the sound as it was when the frame was chosen
            seen.push([viewer.state.time, viewer.state.frame]);
        requestAnimationFrame(look); }; requestAnimationFrame(look); })()""")
    page.wait("!viewer.clock.playing")
    seen = np.array(page.run("seen"))
    assert len(seen) >= 3 and (np.diff(seen[:, 1]) >= 0).all() and seen[-1, 1] > seen[0, 1]
    wanted = np.minimum(np.floor(seen[:, 0] * FPS), 49)
    assert np.abs(seen[:, 1] - wanted).max() <= 1, seen
    page.wait("viewer.state.frame === 49 && viewer.clock.sound.paused")
    page.press(" ")  # from the beginning again
    page.wait("viewer.clock.playing && viewer.clock.sound.currentTime > 0 && viewer.state.frame < 49")
    page.press("<")
    assert page.run("[viewer.clock.rate, viewer.clock.sound.playbackRate]") == [0.5, 0.5]
    page.press("k")
    page.wait("viewer.clock.sound.paused && !viewer.clock.playing")
    assert page.run("document.getElementById('play').getAttribute('aria-label')") == "play"
    assert page.told == []


def test_it_loops(page):
    assert page.run("viewer.clock.loop")
    page.run("viewer.clock.seek(1.9); viewer.clock.play()")
    page.wait("viewer.clock.playing && viewer.clock.time() < 1.5")
    page.press("l")
    page.run("viewer.clock.seek(1.9)")
    page.wait("!viewer.clock.playing && viewer.state.frame === 49")
    page.media(prefers_reduced_motion="reduce")
    page.run("location.reload()")
    page.wait("document.readyState === 'complete' && window.viewer !== undefined && !viewer.clock.loop")


def test_it_is_where_it_is_put(page):
    scrub = "document.getElementById('scrub')"
    page.run(f"{scrub}.value = 31; {scrub}.dispatchEvent(new Event('input'))")
    page.wait("viewer.state.frame === 31")
    assert page.run(f"{scrub}.getAttribute('aria-valuetext')") == "1.24 of 2.00 seconds, frame 32 of 50, phone iy"
    for key, frame in {"ArrowRight": 32, "ArrowLeft": 31, "Home": 0, "End": 49}.items():
        page.press(key)
        page.wait(f"viewer.state.frame === {frame}")
    for frame in range(50):  # every frame can be stood on
        page.run(f"viewer.clock.seek({frame} / {FPS})")
        assert page.run("viewer.frameAt(viewer.clock.time())") == frame
    area = page.run("(() => { const b = document.querySelector('.area').getBoundingClientRect();"
                    " return [b.left, b.top, b.width, b.height]; })()")  # fmt: skip
    x, y = area[0] + area[2] * 20 / 49, area[1] + area[3] / 2
    page.mouse("mousePressed", x, y, button="left", clickCount=1)
    page.mouse("mouseReleased", x, y, button="left", clickCount=1)
    page.wait("viewer.state.frame === 20")
    left = page.run("document.querySelector('.cursor').getBoundingClientRect().left")
    assert left == pytest.approx(x, abs=1.0)
    values = page.run("[...document.querySelectorAll('.plot output')].map((each) => each.textContent)")
    assert values == ["2.00", "2.00", "2.00", "20.00", "20.00"]
    assert page.run("document.querySelector('#phones .now').textContent") == "b"
    page.press("End")
    page.wait("document.querySelectorAll('.plot output')[2].textContent === '–'")  # it has ended


def test_faces_are_drawn_and_turned_together(page):
    page.run("viewer.clock.pause()")
    shown(page, 10)
    before = picture(page)
    for index in range(3):
        x, y, w, h = panel(page, index)
        middle, corner = before[y + h // 2, x + w // 2], before[y + h - 8, x + 8]
        assert middle[0] > corner[0] + 60, index  # skin before a dark wall
    x, y, w, h = panel(page, 0)
    page.mouse("mousePressed", x + w // 2, y + h // 2, button="left", buttons=1, clickCount=1)
    page.mouse("mouseMoved", x + w // 2 + 50, y + h // 2, button="left", buttons=1)
    page.mouse("mouseReleased", x + w // 2 + 50, y + h // 2, button="left", clickCount=1)
    page.wait("viewer.view.yaw === -20 && viewer.view.pitch === 0 && !viewer.state.dirty")
    page.mouse("mouseWheel", x + w // 2, y + h // 2, deltaX=0, deltaY=-400)
    page.wait("viewer.view.zoom > 1.5 && !viewer.state.dirty")
    after = picture(page)
    for index in range(3):
        x, y, w, h = panel(page, index)
        moved = np.abs(after - before)[y : y + h, x : x + w].max(-1) > 30
        assert moved.mean() > 0.02, index  # nearer: where the wall was is skin
    page.press("0")
    page.wait("viewer.view.zoom === 1 && viewer.view.yaw === 0")
    page.press("2")
    assert page.run("[...document.querySelectorAll('.panel')].map((each) => each.hidden)") == [True, False, True]
    page.press("2")
    assert page.run("document.querySelectorAll('.panel[hidden]').length") == 0


def test_fingers_and_keys_turn_as_well(page):
    x, y, w, h = panel(page, 1)
    middle = (x + w // 2, y + h // 2)
    page.touch("touchStart", middle)
    page.touch("touchMove", (middle[0], middle[1] + 25))
    page.touch("touchEnd")
    page.wait("viewer.view.pitch === 10 && viewer.view.yaw === 0 && viewer.view.zoom === 1")
    page.touch("touchStart", (middle[0] - 20, middle[1]), (middle[0] + 20, middle[1]))
    page.touch("touchMove", (middle[0] - 50, middle[1]), (middle[0] + 50, middle[1]))
    page.touch("touchEnd")  # what was between the fingers still is
    page.wait("Math.abs(viewer.view.zoom - 2.5) < 1e-9 && Math.hypot(...viewer.view.shift) < 2.2")  # of pixels halved
    for key in "adds=-":
        page.press(key)
    page.wait("viewer.view.yaw === 5 && viewer.view.pitch === 5 && Math.abs(viewer.view.zoom - 2.5) < 1e-9")
    page.press("0")
    page.wait("viewer.view.yaw === 0 && viewer.view.pitch === 0 && viewer.view.zoom === 1")


def test_the_camera_is_that_of_the_films(page, balls):
    from s2f_rl.render import frame_camera

    for yaw, pitch in ((0, 0), (35, -20)):
        page.run(f"Object.assign(viewer.view, {{yaw: {yaw}, pitch: {pitch}}})")
        camera = frame_camera(balls[0], yaw_degrees=yaw, pitch_degrees=pitch)
        np.testing.assert_allclose(array(page, "viewer.view.rotation()").reshape(3, 3), camera.rotation(), atol=1e-12)
    x, y, w, h = panel(page, 0)
    size = min(w, h)
    page.run("viewer.view.reset(); viewer.state.dirty = true")
    shown(page, 0)
    drawn = picture(page)[y : y + h, x : x + w]
    lit = np.argwhere(np.abs(drawn - drawn[:, :1]).sum(-1)[40:] > 40) + [40, 0]  # below the caption
    points = frame_camera(balls[0]).project(balls[0][0][0], size)[:, :2] + [(w - size) / 2, (h - size) / 2]
    assert lit[:, 0].max() == pytest.approx(points[:, 1].max(), abs=2)
    assert lit[:, 1].min() == pytest.approx(points[:, 0].min(), abs=2)
    assert lit[:, 1].max() == pytest.approx(points[:, 0].max(), abs=2)


def test_heat_colours_all_but_the_first(page):
    shown(page, 4)  # the second is far off above, the first nowhere
    plain = picture(page)
    page.press("h")
    page.wait("viewer.state.heat && !viewer.state.dirty && viewer.state.frame === 4")
    hot = picture(page)
    for index, changed in ((0, False), (1, True)):
        x, y, w, h = panel(page, index)
        middle = slice(y + h // 3, y + h // 2), slice(x + w // 3, x + w // 2)
        assert (np.abs(hot - plain)[middle].mean() > 15) == changed, index
    x, y, w, h = panel(page, 1)
    top, below = hot[y + int(0.24 * h), x + w // 2], hot[y + int(0.6 * h), x + w // 2]
    assert below.min() > 120 and top[2] < 0.6 * top[0]  # clay where it is alike, red where it is not
    assert "mm from truth" in page.run("document.getElementById('scale').textContent")
    assert page.run("document.getElementById('heat').getAttribute('aria-pressed')") == "true"


def test_light_and_dark(page):
    paper = "getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    assert page.run(paper) < 150
    page.press("t")
    page.wait(f"{paper} > 600")
    page.press("t")
    page.wait(f"{paper} < 150")
    page.media(prefers_color_scheme="light")
    page.run("location.reload()")
    page.wait(f"document.readyState === 'complete' && {paper} > 600")


def test_a_phone_shows_two_in_a_row_and_nothing_beside_the_window(page):
    page.size(390, 844)
    page.wait("innerWidth === 390 && document.documentElement.scrollWidth <= 390")
    rows = [panel(page, index)[1] for index in range(3)]
    assert rows[0] == rows[1] < rows[2]


def test_all_can_be_named_by_a_screen_reader(page):
    page.press("?")
    assert page.run("document.getElementById('help').open")
    assert page.run("document.querySelectorAll('#key_list tr').length") > 8
    page.press("?")
    assert not page.run("document.getElementById('help').open")
    page.call("Accessibility.enable")
    nodes = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    told = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    pressed = [name for role, name in told if role in ("button", "slider", "combobox", "ToggleButton")]
    assert len(pressed) == 10 and all(pressed)
    assert ("image", "face 2: ours <b>") in told and ("slider", "time") in told
    assert ("image", "Distance (mm) of ours <b>, short") in told


def test_nothing_is_fetched_and_nothing_complains(page, written):
    page.press(" ")
    page.wait("viewer.state.frame > 3")
    page.press(" ")
    assert {address for address in page.asked if not address.startswith("data:")} == {written[0].resolve().as_uri()}
    assert page.told == []


def test_without_sound_and_triangles(silent):
    assert silent.run("viewer.clock.sound") is None
    assert silent.run("document.getElementById('heat').hidden")  # there is nothing to compare with
    x, y, w, h = panel(silent, 0)
    silent.wait("viewer.state.frame === 0 && !viewer.state.dirty")
    drawn = picture(silent)
    assert drawn[y + h // 2, x + w // 2, 0] > drawn[y + h - 8, x + 8, 0] + 60
    silent.run("viewer.clock.loop = false; viewer.clock.setRate(0.5); viewer.clock.seek(1.5); viewer.clock.play()")
    silent.wait("!viewer.clock.playing")
    silent.wait("viewer.state.frame === 49 && viewer.clock.time() === 2")
    assert silent.told == []


def test_a_sound_that_cannot_be_played_is_told_and_gone_without(chromium, written, tmp_path):
    text = written[0].read_text()
    start = text.index("data:audio/webm;base64,") + len("data:audio/webm;base64,")
    broken = tmp_path / "broken.html"
    broken.write_text(text[:start] + "AAAA" + text[text.index('"', start) :])
    chromium.open(broken)
    chromium.wait("viewer.clock.sound === null && !document.getElementById('silent').hidden")
    chromium.press(" ")
    chromium.wait("viewer.state.frame > 3")


def test_a_browser_without_webgl_is_told(chromium, written, tmp_path):
    lost = tmp_path / "lost.html"
    lost.write_text(written[0].read_text().replace('getContext("webgl2"', 'getContext("webgl3"'))
    chromium.open(lost)
    said = chromium.run("document.getElementById('failed').textContent")
    assert said == "The faces cannot be drawn: this browser offers no WebGL2."
