"""Ten rounds of chaos; `scripts/chaos` runs as many as one likes."""

import shutil
from pathlib import Path

import pytest

from tests.chaos.rounds import Chaos, unavailable
from tests.postgres import server

SEED = 2026


@pytest.mark.lab
@pytest.mark.postgres
@pytest.mark.timeout(600)
async def test_ten_rounds_lose_nothing_double_nothing_and_overlap_nowhere(tmp_path: Path) -> None:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    with server() as postgres:
        async with Chaos(tmp_path / "lab", postgres, SEED, print) as lab:
            report = await lab.run(10)
    assert report.breaches == []
    assert report.rounds == 10
    assert report.documents > 50
    assert report.epochs > 1
    shutil.rmtree(tmp_path / "lab")
