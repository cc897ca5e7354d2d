"""Hashes name files and models that exist: they stay what they were."""

from __future__ import annotations

import torch

from s2f_rl.data.stored_features import hash_tensors

PARTS = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "half": torch.tensor([0.5, -1.25], dtype=torch.float16),
    "count": torch.tensor(7),
    "turned": torch.arange(4.0).reshape(2, 2).T,
}


class TestHash:
    def test_of_float32_contents_with_shapes(self) -> None:
        assert hash_tensors(PARTS.items(), "settings")[:16] == "69a0e6623f7889de"

    def test_as_stored(self) -> None:
        assert hash_tensors(PARTS.items(), as_stored=True)[:16] == "740b4f0d035032b2"

    def test_order_is_nothing_content_all(self) -> None:
        turned = dict(reversed(PARTS.items()))
        other = PARTS | {"weight": PARTS["weight"].index_fill(1, torch.tensor([2]), 9.0)}
        wider = PARTS | {"half": PARTS["half"].float()}
        assert hash_tensors(turned.items()) == hash_tensors(PARTS.items()) == hash_tensors(wider.items())
        assert hash_tensors(PARTS.items(), as_stored=True) != hash_tensors(wider.items(), as_stored=True)
        for as_stored in (False, True):
            assert hash_tensors(other.items(), as_stored=as_stored) != hash_tensors(PARTS.items(), as_stored=as_stored)
