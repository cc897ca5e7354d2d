"""Boundaries between known phones, moved to where a recogniser hears them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from s2f_rl.data.phone_classes import CLASSES, phone_class
from s2f_rl.data.synthetic.sentences import N_SHARED_POOL, SENTENCES
from s2f_rl.data.synthetic.speech import speak
from s2f_rl.data.synthetic.voices import VOICES
from s2f_rl.errors import UserError
from s2f_rl.models.recogniser import PhoneRecogniser
from s2f_rl.models.recogniser_files import save_recogniser
from s2f_rl.models.retiming import Retimer, most_probable
from s2f_rl.rewards.articulation.phones import with_mistakes

Phones = list[tuple[str, float, float]]


def every_path(n_frames: int, names: list[str]) -> list[tuple[int, ...]]:
    """All non-decreasing sequences of phones that leave out none but silences."""
    silent = {k for k, name in enumerate(names) if name == "sil"}
    found = []
    for path in itertools.combinations_with_replacement(range(len(names)), n_frames):
        left_out = set(range(len(names))) - set(path)
        apart = all(abs(a - b) > 1 for a, b in itertools.combinations(left_out, 2))
        if left_out <= silent and apart:
            found.append(path)
    return found


class TestMostProbable:
    @pytest.mark.parametrize("names", [["m", "ah"], ["sil", "b", "sil"], ["m", "sil", "ae", "p", "sil", "m"]])
    @pytest.mark.parametrize("seed", range(4))
    def test_is_the_best_of_all_paths(self, names: list[str], seed: int) -> None:
        scores = np.random.default_rng(seed).normal(size=(8, len(CLASSES)))
        phones = [(name, k * 0.02, (k + 1) * 0.02) for k, name in enumerate(names)]
        numbers = [phone_class(name) for name in names]
        sums = {path: sum(scores[t, numbers[k]] for t, k in enumerate(path)) for path in every_path(8, names)}
        assert most_probable(scores, phones) == list(max(sums, key=lambda path: sums[path]))

    def test_a_boundary_moves_half_a_second_at_most(self) -> None:
        scores = np.zeros((100, len(CLASSES)))
        scores[90:, phone_class("s")] = 9.0  # far behind where the aligner has it
        scores[:90, phone_class("m")] = 9.0
        path = most_probable(scores, [("m", 0.0, 1.0), ("s", 1.0, 2.0)])
        assert path is not None and path.index(1) * 0.02 == pytest.approx(1.5, abs=0.04)

    def test_no_path(self) -> None:
        scores = np.zeros((2, len(CLASSES)))
        assert most_probable(scores, [("m", 0.0, 0.01), ("ah", 0.01, 0.02), ("p", 0.02, 0.04)]) is None
        assert most_probable(scores, []) is None
        assert most_probable(scores[:0], [("m", 0.0, 0.01)]) is None


def wrong(found: Phones, truth: Phones) -> float:
    """Share of instants, 10 ms apart, at which another class is said."""

    def at(phones: Phones, second: float) -> int:
        return next((phone_class(name) for name, start, end in phones if start <= second < end), -1)

    instants = np.arange(0, truth[-1][2], 0.01)
    return float(np.mean([at(found, second) != at(truth, second) for second in instants]))


class TestRetimer:
    def test_boundaries_come_back(self) -> None:
        pytest.importorskip("espeakng_loader")
        retime, before, after = Retimer(), [], []
        for k, voice in enumerate(VOICES[-4:]):
            spoken = speak(SENTENCES[N_SHARED_POOL + 7 * k], voice)
            truth = list(spoken.phones)
            shifted = with_mistakes(truth, torch.Generator().manual_seed(k), boundary_noise_s=0.06)
            found = retime(spoken.samples / 32768, spoken.rate_hz, shifted)
            assert found is not None and found[0][1] == shifted[0][1] and found[-1][2] == shifted[-1][2]
            assert all(one[2] == two[1] for one, two in itertools.pairwise(found)), "without gaps"
            assert [n for n, *_ in found if n != "sil"] == [n for n, *_ in shifted if n != "sil"]
            before.append(wrong(shifted, truth))
            after.append(wrong(found, truth))
        assert np.mean(after) < 0.4 * np.mean(before), (before, after)

    def test_other_words_are_not_heard(self) -> None:
        pytest.importorskip("espeakng_loader")
        spoken = speak(SENTENCES[N_SHARED_POOL], VOICES[-1])
        n = spoken.duration_s
        names = ["zh", "oy"] * 20
        other = [(name, k * n / len(names), (k + 1) * n / len(names)) for k, name in enumerate(names)]
        assert Retimer()(spoken.samples / 32768, spoken.rate_hz, other) is None

    def test_a_recogniser_of_other_phones(self, tmp_path) -> None:
        save_recogniser(tmp_path, PhoneRecogniser(7, width=8, n_layers=1), {})
        with pytest.raises(UserError, match="tells 7 phones apart"):
            Retimer(tmp_path)
