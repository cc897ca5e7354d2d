"""Hostile inputs of every kind: a right result or one line, in bounded time and memory, and nothing half written.

``make fuzz`` runs a thousand.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hostile.cases import KINDS
from hostile.harness import Server

SEEDS = range(6)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_ends_well(server: Server, kind: str, seed: int) -> None:
    result = server.run(kind, seed)
    assert result["ok"], f"{result['outcome']}; input: {result['done']}\n{result['message']}"


class TestTheHarness:
    """It can tell: each of these cases is a fault."""

    @pytest.mark.parametrize(
        ("kind", "outcome"),
        [
            ("hangs", "did not end by itself"),
            ("eats memory", "MemoryError"),
            ("raises", "ZeroDivisionError"),
            ("two lines", "refused"),
            ("leaves a file", "left a temporary file"),
            ("asks the network", "asked the network"),
            ("crashes", "did not end by itself (signal 11)"),
        ],
    )
    def test_faults_are_seen(self, server: Server, kind: str, outcome: str) -> None:
        result = server.run(f"fault: {kind}", 0)
        assert not result["ok"] and result["outcome"].startswith(outcome), result
