"""How often utterances are drawn, so that sound without meshes gets its share."""

from __future__ import annotations

import pytest

from s2f_rl.errors import UserError
from s2f_rl.training.parts import times_drawn


class Corpus:
    """Utterances with and without vertices."""

    def __init__(self, recorded: int, silent: int) -> None:
        self.has = [True] * recorded + [False] * silent

    def __len__(self) -> int:
        return len(self.has)

    def has_vertices(self, i: int) -> bool:
        return self.has[i]


@pytest.mark.parametrize(
    ("recorded", "silent", "share"), [(160, 64, 0.5), (768, 64, 0.5), (8, 64, 0.5), (160, 64, 0.7)]
)
def test_about_this_share(recorded: int, silent: int, share: float) -> None:
    corpus = Corpus(recorded, silent)
    times = times_drawn(corpus, share)  # type: ignore[arg-type]
    assert times is not None and min(times) == 1 and len(set(times[:recorded])) == len(set(times[recorded:])) == 1
    drawn = sum(n for n, has in zip(times, corpus.has, strict=True) if not has)
    assert drawn / sum(times) == pytest.approx(share, abs=0.06)


def test_no_share_to_choose() -> None:
    assert times_drawn(Corpus(3, 2), None) is None  # type: ignore[arg-type]
    for corpus in (Corpus(3, 0), Corpus(0, 3)):
        with pytest.raises(UserError, match=r"unrecorded_share=0.5: . of 3 utterances of training have no meshes"):
            times_drawn(corpus, 0.5)  # type: ignore[arg-type]
