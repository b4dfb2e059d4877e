"""Clocks of the model and the simulator are as far apart as the guarantee says, and the words name the numbers."""

from pathlib import Path

import pytest

from raftnode.foundation.clock_margins import CLOCK_DRIFT_PERCENT_MAX, FACTOR_TEXT, MARGIN_MS, with_clock_margin
from tests.properties.lease_model import RATES
from tests.simulation.loop import VirtualLoop
from tests.simulation.world import World

ROOT = Path(__file__).resolve().parents[3]
APART = 1 + CLOCK_DRIFT_PERCENT_MAX / 100


def test_a_judged_span_is_rounded_up() -> None:
    assert [with_clock_margin(span, 100) for span in (0, 1, 19, 20, 21, 1000)] == [100, 102, 120, 121, 123, 1150]


def test_the_model_runs_clocks_as_far_apart_as_the_guarantee_allows() -> None:
    assert max(RATES) / min(RATES) == pytest.approx(APART)


def test_the_simulator_runs_clocks_as_far_apart_as_the_guarantee_allows(tmp_path: Path) -> None:
    worlds = [World(seed, VirtualLoop(), tmp_path) for seed in range(1, 21)]
    rates = [[machine.rate for machine in world.machines.values()] for world in worlds]
    apart = [max(of_one) / min(of_one) for of_one in rates]
    assert max(apart) <= APART + 1e-9
    assert sum(ratio == pytest.approx(APART) for ratio in apart) > len(worlds) // 2


def test_the_documents_name_these_numbers() -> None:
    said = (ROOT / "docs" / "guarantees.md").read_text()
    assert f"differ by at most {CLOCK_DRIFT_PERCENT_MAX} % " in said
    assert f"R ≥ {FACTOR_TEXT}·(L + S) + {MARGIN_MS} ms" in said
    assert f"{FACTOR_TEXT}·(2·L + S) + {MARGIN_MS} ms" in said
