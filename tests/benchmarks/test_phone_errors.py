"""What wrong phones cost: the aligner's errors counted by hand, and the scripts that look at an actor."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import phone_errors, slope
from s2f_rl.data import FaceCorpus
from s2f_rl.rewards.articulation.density_files import TrainedDensity
from tests.rewards.articulation.speaking import small_density, speaking_corpus


@pytest.fixture
def place(actor_place: Path, tmp_path: Path) -> Path:
    """The actors, reward and judge of the others with a corpus that speaks, a density and a second folder of phones."""
    corpus = FaceCorpus(speaking_corpus(tmp_path / "corpus", n_sentences=2), split="train")
    TrainedDensity(small_density(corpus), tuple(corpus.subjects), corpus.fps, corpus.mesh_identity).save(
        tmp_path / "density"
    )
    shutil.copytree(corpus.root / "phones", tmp_path / "phones")
    return tmp_path


def test_agreement() -> None:
    right = [("sil", 0.0, 0.1), ("b", 0.1, 0.2), ("ax", 0.2, 0.3), ("t", 0.3, 0.4), ("iy", 0.4, 0.5), ("sil", 0.5, 0.6)]
    same = {"phones": 4, "errors": 0, "matched": 4, "start_ms": 0, "instants": 60, "differ": 0}
    assert phone_errors.agreement(right, right) == same
    # /ah/ is what /ax/ is counted as; /t/ is missing, /iy/ became /ih/, an /s/ was added
    found = [("b", 0.13, 0.2), ("ah", 0.18, 0.3), ("ih", 0.4, 0.5), ("sil", 0.5, 0.52), ("s", 0.52, 0.6)]
    told = phone_errors.agreement(right, found)
    assert (told["phones"], told["errors"], told["matched"]) == (4, 2, 2), "t to ih, iy to s: two replaced"
    assert told["start_ms"] == pytest.approx(30 + 20)
    # b late (3), t missing (10), ih for iy (10), s in the silence (8); where two overlap the first counts
    assert told["differ"] == 3 + 10 + 10 + 8
    assert phone_errors.agreement(right, [])["errors"] == 4
    assert phone_errors.agreement(right[:2], right)["errors"] == 3


def test_the_script(place: Path, actor_place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [str(place / "corpus"), str(place / "out"), f"--checkpoint={actor_place / 'actor.pt'}"]
    rows = phone_errors.main([*options, f"--articulation={place / 'density'}", f"--phones={place / 'phones'}"])
    assert len(rows) == 2 * 3 * 2 * len(phone_errors.LEVELS)  # utterances, forms, sources
    by_source = [[{**row, "phones": ""} for row in rows if row["phones"] == source] for source in ("stored", "aligned")]
    assert by_source[0] == by_source[1], "the same phones"
    own = [
        row for row in rows if row["form"].endswith("error") and row["substituted"] == 0.4 and row["phones"] == "stored"
    ]
    assert len({row["cosine_lips"] for row in rows if row["utterance"] == own[0]["utterance"]}) > 10
    mean = np.mean([row["cosine_lips"] for row in own])
    assert f"| articulation, squared error | stored | 40% | 0 | {mean:.2f} ±" in capsys.readouterr().out
    with open(place / "out" / "phone_errors.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    assert "0.0% of" in (place / "out" / "phone_errors.md").read_text()


def test_slope_has_rows_of_the_density(place: Path, actor_place: Path) -> None:
    models = [f"--{name}={actor_place / name}" for name in ("reward", "judge")]
    rows = slope.main(
        [str(place / "corpus"), str(place / "out"), f"--checkpoint={actor_place / 'actor.pt'}", *models,
         "--directions=5", f"--articulation={place / 'density'}", f"--phones={place / 'phones'}"]
    )  # fmt: skip
    forms = ["articulation, squared error", "articulation, likelihood", "articulation, widened"]
    assert [row["model"] for row in rows] == ["reward", "judge", *forms] * 2
    assert all(row["climb_gain"] > 0 for row in rows if row["model"] in forms)


def test_the_cosine_at_the_lips() -> None:
    generator = torch.Generator().manual_seed(0)
    actor, truth = torch.randn(2, 5, 12, generator=generator)
    lips = torch.tensor([1, 3])
    found = phone_errors.slope_at_lips(
        lambda m: -(m[..., 3:9] - truth[:, 3:9]).square().sum((1, 2)), actor, truth, lips
    )
    way = (truth - actor).view(5, 4, 3)[:, lips].numpy()
    gradient = way * np.array([1.0, 0.0])[None, :, None]  # vertex 1 lies in what is scored, 3 does not
    expected = (way * gradient).sum() / np.linalg.norm(way) / np.linalg.norm(gradient)
    assert found == pytest.approx(float(expected), rel=1e-5)
