"""The sequence of utterances and styles."""

from __future__ import annotations

import pytest
import torch

from s2f_rl.envs import UtteranceDraws
from s2f_rl.errors import UserError

OWN = [0, 1, None, 0, None, 1, 0]  # seven utterances, two training subjects, two utterances by others


def make(style="own", seed=0):
    return UtteranceDraws(OWN, n_styles=2, style=style, seed=seed)


class TestOrder:
    def test_every_epoch_is_a_permutation_of_its_own(self):
        drawn = [u for u, _ in make().draw(21)]
        epochs = [drawn[i : i + 7] for i in (0, 7, 14)]
        assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == 3

    def test_an_utterance_several_times_an_epoch(self):
        draws = UtteranceDraws([0, None, 1], 2, seed=3, times=[1, 3, 2])
        epochs = [[u for u, _ in draws.draw(6)] for _ in range(20)]
        assert all(sorted(epoch) == [0, 1, 1, 1, 2, 2] for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 10
        assert draws.state()["n_utterances"] == 6

    def test_depends_on_the_seed_alone(self):
        pieces, whole = make(), make()
        assert [*pieces.draw(3), *pieces.draw(1), *pieces.draw(16)] == whole.draw(20)
        assert make(seed=1).draw(20) != make(seed=0).draw(20)
        assert make(seed=-1).draw(3)  # any integer is a seed

    def test_the_order_itself_depends_on_the_seed(self):
        """Not only the random styles: ten seeds give ten orders, in every epoch."""
        draws = [[u for u, _ in make(style=0, seed=seed).draw(14)] for seed in range(10)]
        assert len({tuple(order[:7]) for order in draws}) == len({tuple(order[7:]) for order in draws}) == 10

    def test_continues_from_a_state(self):
        draws = make("random")
        draws.draw(9)
        state = draws.state()
        expected = draws.draw(15)
        other = make("random", seed=5)
        other.load_state(state)
        assert other.draw(15) == expected

    def test_refuses_the_state_of_another_corpus(self):
        with pytest.raises(UserError, match="9 utterances, the corpus has 7"):
            make().load_state({"seed": 0, "n_drawn": 3, "n_utterances": 9})
        with pytest.raises(UserError, match="draw_state"):
            make().load_state({"seed": 0})


class TestStyle:
    def test_own_where_there_is_one_else_random(self):
        pairs = make().draw(7 * 40)
        assert all(style == OWN[u] for u, style in pairs if OWN[u] is not None)
        others = [style for u, style in pairs if OWN[u] is None]
        assert 20 < sum(others) < 60  # of 80 fair coins

    def test_index(self):
        assert {style for _, style in make(1).draw(20)} == {1}

    def test_random(self):
        assert 90 < sum(style for _, style in make("random").draw(210)) < 120

    def test_all_shows_every_pair_once_in_two_epochs(self):
        pairs = make("all").draw(14)
        assert sorted(pairs) == [(u, s) for u in range(7) for s in range(2)]
        assert len({style for _, style in pairs[:7]}) == 2

    def test_chosen_utterances_use_up_nothing(self):
        draws = make("all")
        assert draws.choose([3, 3, 3, 3], group_size=1) == [(3, 0), (3, 1), (3, 0), (3, 1)]
        assert draws.choose([3, 3, 3, 3], group_size=2) == [(3, 0), (3, 0), (3, 1), (3, 1)]
        assert draws.n_drawn == 0
        assert make().choose([2, 2]) == make().choose([2, 2])

    @pytest.mark.parametrize("style", ["theirs", 2, -1, True, None, 0.5])
    def test_unknown(self, style):
        with pytest.raises(UserError, match="style="):
            make(style)

    def test_empty(self):
        with pytest.raises(UserError, match="no utterance"):
            UtteranceDraws([], 2)
        with pytest.raises(UserError, match="training subject"):
            UtteranceDraws([None], 0)


class TestParts:
    """Several environments that share an epoch."""

    def test_together_they_draw_what_one_draws(self):
        own = [0, 1, None, 0, 1, None, 0]
        whole = UtteranceDraws(own, 2, "random", seed=3).draw(24)
        parts = []
        for k in range(3):
            draws = UtteranceDraws(own, 2, "random", seed=3)
            draws.take_part(k, 3)
            parts.append(draws.draw(3) + draws.draw(5))  # however they are asked
        assert [parts[n % 3][n // 3] for n in range(24)] == whole
        first = [utterance for part in parts for utterance, _ in part[:2]] + [parts[0][2][0]]
        assert sorted(first) == list(range(7))  # the first epoch, without overlap

    def test_state(self):
        """A part goes on where it was; with another number of parts nothing is drawn twice."""
        draws = UtteranceDraws([0] * 12, 1)
        draws.take_part(1, 3)
        draws.draw(2)
        state = draws.state()
        assert state["n_drawn"] == 6
        expected = draws.draw(2)
        again = UtteranceDraws([0] * 12, 1, seed=9)
        again.take_part(1, 3)
        again.load_state(state)
        assert again.draw(2) == expected
        alone = UtteranceDraws([0] * 12, 1, seed=9)
        alone.load_state(state)
        assert alone.draw(6) == UtteranceDraws([0] * 12, 1).draw(12)[6:]

    def test_the_noise_follows_from_the_draw(self):
        def noise(part, n_drawn):
            draws = UtteranceDraws([0] * 4, 1, seed=2)
            draws.take_part(part, 2)
            draws.load_state({"seed": 2, "n_drawn": 2 * n_drawn, "n_utterances": 4})
            torch.manual_seed(part + 5)
            draws.draw(1)
            return torch.rand(2).tolist()

        found = [noise(part, n) for part in (0, 1) for n in (0, 1)]
        assert found == [noise(part, n) for part in (0, 1) for n in (0, 1)]
        assert len({tuple(each) for each in found}) == 4

    def test_a_draw_that_uses_up_nothing(self):
        draws = UtteranceDraws([0] * 4, 1)
        draws.keep_next()
        assert draws.draw(3) == draws.draw(3) and draws.n_drawn == 3
