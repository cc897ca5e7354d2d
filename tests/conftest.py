"""What the whole suite shares: a corpus that is awkward on purpose, and the same faces without the awkwardness."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.tiny import make_tiny_corpus

METRES_PER_UNIT = 0.186


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    there = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(there)


@pytest.fixture(scope="session", autouse=True)
def faceless_reports() -> Iterator[None]:
    """Hundreds of runs end with a page here; of faces on it tests/runs/report has its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s2f_rl.runs.report.write.run_faces", lambda *_: ([], []))
        yield


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children take SIGINT, also where these tests were started to ignore it (``nohup``, ``&`` in a script)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a handler is not inherited, ignoring is
    yield
    signal.signal(signal.SIGINT, before)


class Awkward(NamedTuple):
    """Two folders with the same speech and faces: ``own`` in a unit of 0.186 m, ``metres`` in metres.

    25 fps with two audio features per frame; subjects zoe, adam (they train, in this order), mia and bob (no style);
    utterances of unequal lengths, one of them without vertices.
    """

    own: Path
    metres: Path


@pytest.fixture(scope="session")
def awkward(tmp_path_factory: pytest.TempPathFactory) -> Awkward:
    folder = tmp_path_factory.mktemp("awkward")
    options = {
        "subjects": ["zoe", "adam", "mia", "bob"],
        "n_sentences": 3,
        "topology": "biwi",
        "seconds": (0.7, 1.6),
        "audio_only": ["adam_sentence02"],
    }
    own = make_tiny_corpus(folder / "own", metres_per_unit=METRES_PER_UNIT, **options)
    return Awkward(own, make_tiny_corpus(folder / "metres", **options))
