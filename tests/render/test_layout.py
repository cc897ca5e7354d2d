from __future__ import annotations

import numpy as np
import pytest

from s2f_rl.errors import UserError
from s2f_rl.render import extras
from s2f_rl.render.layout import caption_height, caption_strip, join_panels


def ink(strip: np.ndarray) -> np.ndarray:
    return (strip.astype(int) - strip[0, 0].astype(int)).max(-1) > 60


def test_captions_are_drawn_centred_and_within_the_strip():
    strip = caption_strip("ground truth", 200, 20)
    columns = np.flatnonzero(ink(strip).any(0))
    rows = np.flatnonzero(ink(strip).any(1))
    assert strip.shape == (20, 200, 3)
    assert abs((columns[0] + columns[-1]) / 2 - 99.5) < 3 and 0 < rows[0] < rows[-1] < 19
    assert (caption_strip("supervised", 200, 20) != strip).any()


@pytest.mark.parametrize("text", ["a" * 40, "word " * 100, "Größe - 42 %", "", "two\nlines", "x"])
def test_any_text_fits(text):
    strip = caption_strip(text, 80, 16)
    seen = ink(strip)
    assert not seen[:, 0].any() and not seen[:, -1].any() and not seen[0].any() and not seen[-1].any()
    assert seen.any() == bool(text)


def test_panels_in_rows():
    pictures = [np.full((16, 16, 3), 10 * (i + 1), np.uint8) for i in range(3)]
    joined = join_panels(pictures, None, columns=2)
    assert joined.shape == (32, 32, 3)
    assert joined[0, 0, 0] == 10 and joined[0, 16, 0] == 20 and joined[16, 0, 0] == 30 and joined[20, 20, 0] == 27
    assert join_panels(pictures, None, columns=5).shape == (16, 48, 3)
    captioned = join_panels(pictures, ["a", "b", "c"], columns=3)
    assert captioned.shape == (16 + caption_height(16), 48, 3)
    np.testing.assert_array_equal(captioned[caption_height(16) :], join_panels(pictures, None, 3))


def test_a_missing_package_is_told_with_its_remedy():
    with pytest.raises(UserError, match=r'needs no_such_package .* pip install "s2f_rl\[render\]"'):
        extras.import_extra("no_such_package.part")
