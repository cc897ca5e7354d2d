from __future__ import annotations

import pytest
import torch

from tests.envs.support import corpus_in


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return corpus_in(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
