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


@pytest.mark.parametrize("counts", [(160, 64), (768, 64), (8, 64), (64, 64), (99, 40)])
@pytest.mark.parametrize("share", [0.5, 0.55, 0.6, 0.8])
def test_about_this_share(counts: tuple[int, int], share: float) -> None:
    recorded, silent = counts
    times = times_drawn(Corpus(recorded, silent), share)  # type: ignore[arg-type]
    assert times is not None and min(times) >= 1 and max(times) <= 8 * 48
    assert len(set(times[:recorded])) == len(set(times[recorded:])) == 1
    assert times[recorded] * silent / sum(times) == pytest.approx(share, abs=0.02)


def test_no_share_to_choose() -> None:
    assert times_drawn(Corpus(3, 2), None) is None  # type: ignore[arg-type]
    for corpus in (Corpus(3, 0), Corpus(0, 3)):
        with pytest.raises(UserError, match=r"unrecorded_share=0.5: . of 3 utterances of training have no meshes"):
            times_drawn(corpus, 0.5)  # type: ignore[arg-type]
