"""Rounds of chaos; `scripts/chaos` runs as many as one likes."""

import shutil
from pathlib import Path

import pytest

from tests.chaos.rounds import Chaos, unavailable
from tests.postgres import server

SEED = 231
"""Its first five rounds: a node is replaced; all are killed; slow and killed; frozen, with losses; a partition."""


@pytest.mark.lab
@pytest.mark.postgres
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=pytest.mark.long)])
async def test_rounds_lose_nothing_double_nothing_and_overlap_nowhere(tmp_path: Path, rounds: int) -> None:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    with server() as postgres:
        async with Chaos(tmp_path / "lab", postgres, SEED, print) as lab:
            report = await lab.run(rounds)
    assert report.breaches == []
    assert report.rounds == rounds
    assert report.documents > 50
    assert report.epochs > 1
    shutil.rmtree(tmp_path / "lab")
